"""Windows that differ by head (Hard-ALiBi). Jelassi et al. 2024, arXiv 2402.01032; Hou et al. 2024, 2407.03310."""

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.windows import Window

UNBOUNDED = 1 << 60  # tokens


class PerHead(Window):
    """A mask that shows head h the latest h tokens, for h = 1 .. `heads`, and all tokens to the other heads.

    `heads` null is half of the heads, as in the authors' code (sjelassi/transformers_ssm_copy: 8 of 16). With
    `+scheme=none` it is their Hard-ALiBi.
    """

    def __init__(self, dims: Dims, heads: int | None):
        super().__init__(dims)
        self.heads = max(1, dims.n_head // 2) if heads is None else heads
        if not 1 <= self.heads <= dims.n_head:
            raise Misuse(f"window.heads={heads} must be from 1 to {dims.n_head}, the heads of the model")
        self.head_sizes = (*range(1, self.heads + 1), *[UNBOUNDED] * (dims.n_head - self.heads))

    def fingerprint(self) -> str:
        return f"per head 1..{self.heads}"
