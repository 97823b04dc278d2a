"""Context-aware biases (CABLE). Veisi et al. 2025, arXiv 2503.08067, section 3.

Formula: z(m, n) = q_m·k_n / √C - Σ_t softplus(w_h·x_t + b_h), for t = n + 1 .. m and every head h
Shape suffixes: B batch, T tokens, D width of the residual stream, H heads.
"""

import torch.nn.functional as F
from torch import Tensor

from posexp.dims import Dims
from posexp.schemes.fox import ForgetGate
from posexp.schemes.per_layer import PerLayer


class Steps(ForgetGate):
    """The steps of one block: softplus(w.x_t + b) lowers all keys before token t, for the query of t and later ones."""

    def log_kept(self, x_BTD: Tensor) -> Tensor:
        return -F.softplus(self.gate(x_BTD))


class Cable(PerLayer):
    """A step for every token, head and block, computed from the content and summed from key to query.

    -softplus(u) is log sigmoid(-u), so CABLE with negated weights is FoX with a gate bias of 0, and both start from the
    same distribution. Both are published. The authors' code (axiomlab/Cable) does not scale logits; here logits are
    scaled by C^-0.5, as in every scheme.
    """

    def __init__(self, dims: Dims):
        super().__init__(dims, lambda: Steps(dims, gate_bias=0.0))
