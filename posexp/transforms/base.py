"""Another base (ABF). Xiong et al. 2023, arXiv 2309.16039, section 2.2."""

from typing import Any

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme
from posexp.schemes.rope import Rope
from posexp.transforms import Transform, parts_in_use
from posexp.windows import Window


class AdjustedBase(Transform):
    """The frequencies of another `base`. A larger base rotates all pairs but the first more slowly."""

    def __init__(self, dims: Dims, base: float):
        super().__init__(dims)
        if base <= 0:
            raise Misuse(f"transform.base={base} must be above 0")
        self.base = base

    def apply(self, scheme: Scheme, window: Window, length: int) -> tuple[Scheme, Window]:
        twin, ropes = parts_in_use(scheme, Rope, "rotary frequencies")
        for rope in ropes:
            rope.base = self.base
        return twin, window

    def rope_parameters(self, given: dict[str, Any], rotary_dim: int, length: int) -> dict[str, Any]:
        return given | {"rope_theta": self.base}

    def describe(self, length: int) -> str:
        return f"base({self.base:g})"
