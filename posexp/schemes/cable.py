"""Context-aware biases (CABLE). Veisi et al. 2025, arXiv 2503.08067, section 3.

Shape suffixes: B batch, T tokens, D width of the residual stream, H heads.
"""

import torch.nn.functional as F
from torch import Tensor

from posexp.dims import Dims
from posexp.schemes.fox import ForgetGate
from posexp.schemes.per_layer import PerLayer


class Steps(ForgetGate):
    """One block's steps: a key is lowered by softplus(w.x_t + b) for every token t after it up to the query."""

    def log_kept(self, x_BTD: Tensor) -> Tensor:
        return -F.softplus(self.gate(x_BTD))


class Cable(PerLayer):
    """A step for every token, head and block, read from the content and summed along the way.

    -softplus(u) is log sigmoid(-u): with its weights negated this is FoX with a gate bias of 0, and it starts from the
    same distribution. Both are here because both are published. The authors' code (axiomlab/Cable) leaves
    logits unscaled; here they are scaled by C^-0.5, as in every scheme.
    """

    def __init__(self, dims: Dims):
        super().__init__(dims, lambda: Steps(dims, gate_bias=0.0))
