"""Far keys put where training has been: distances beyond a reach count as shorter ones, by `Window.far`."""

import copy

from posexp.attention import kernel_path
from posexp.errors import Misuse
from posexp.schemes import Scheme
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable, Transform
from posexp.transforms.applicable import check_counted, parts_in_use
from posexp.windows import Far, Window


class Elsewhere(Transform):
    """Leaves the scheme as it is, and gives the window a subclass's `far`; for rotary schemes, as in the papers."""

    def far(self, length: int) -> Far | None:
        """For inputs of at most `length` tokens; None if nothing moves."""
        raise NotImplementedError

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        """As for every transform. Raises Misuse for a window that moves far keys itself, or differs by block."""
        parts_in_use(scheme, Rope, "rotary positions")
        check_counted(scheme)
        name, seen = self.describe(length), repr(window.fingerprint())
        if type(window).layer is not Window.layer:
            raise Misuse(f"{name} needs one window for all blocks, and {seen} has several")
        if window.far is not None:
            raise Misuse(f"{name} moves far keys, and window {seen} does so already: choose one of them")
        moved = copy.copy(window)
        moved.far = self.far(length)
        if moved.far is not None and window.begin(moved.far.reach + 1) > 0:
            raise NotApplicable(f"{name} moves keys further away than window {seen} shows: there is nothing to change")
        try:
            kernel_path(scheme, self.dims, moved)
        except Misuse as error:
            raise NotApplicable(f"{scheme.fingerprint()} reads content, which stands nowhere else") from error
        return scheme, moved
