"""The base class of transforms that shorten distances beyond a reach, by `Window.far`."""

import copy

from posexp.attention import kernel_path
from posexp.errors import Misuse
from posexp.schemes import Scheme
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable, Transform, check_counted, parts_in_use
from posexp.windows import Far, Window


class FarKeys(Transform):
    """A change of the window's `far` alone, for rotary schemes, as in the papers."""

    def far(self, length: int) -> Far | None:
        """Return the positions of far keys for inputs of at most `length` tokens, or None to keep them."""
        raise NotImplementedError

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        """Return the scheme and the changed window. Raises Misuse for a window that sets `far` or differs by block."""
        parts_in_use(scheme, Rope, "rotary positions")
        check_counted(scheme)
        name, shown = self.describe(length), repr(window.fingerprint())
        if type(window).layer is not Window.layer:
            raise Misuse(f"{name} needs the same window in all blocks, but {shown} has several windows")
        if window.far is not None:
            raise Misuse(f"{name} and window {shown} both change far distances: choose one of them")
        moved = copy.copy(window)
        moved.far = self.far(length)
        if moved.far is not None and window.begin(moved.far.reach + 1) > 0:
            raise NotApplicable(f"window {shown} hides all keys that {name} changes: there is nothing to change")
        try:
            kernel_path(scheme, self.dims, moved)
        except Misuse as error:
            raise NotApplicable(f"{scheme.fingerprint()} reads content, which has no distance to change") from error
        return scheme, moved
