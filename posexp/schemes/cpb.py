"""A bias computed from distance by a small network: dynamic (DPB) or continuous (CPB) position bias.

Wang et al. 2021 (CrossFormer), arXiv 2108.00154, section 3.3; Liu et al. 2021 (Swin V2), arXiv 2111.09883, section 3.3.
Formula: z(m, n) = q_m·k_n / √C + mlp(log(1 + d))[h]
Shape suffixes: H heads, N distances.
"""

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme


class ContinuousBias(Scheme):
    """A bias mlp(x)[head], with one network for all blocks.

    x is the distance, or log(1 + distance) with `log_distance`, as in Swin V2. The distance has no sign, since keys
    come before queries. The network has two hidden layers a quarter of d_model wide. Depth, width and SiLU are those of
    DynamicPositionBias in lucidrains/x-transformers. Raises Misuse for a d_model below 4.
    """

    relative = True

    def __init__(self, dims: Dims, log_distance: bool):
        super().__init__(dims)
        W, H = dims.d_model // 4, dims.n_head
        if W == 0:
            raise Misuse(f"scheme=cpb needs a model.d_model of at least 4, got model.d_model={dims.d_model}")
        self.log_distance = log_distance
        first = nn.Linear(1, W)
        if not log_distance:
            # Divided as if distances were in training lengths. PyTorch's own initialisation would give heads a slope
            # of about 0.1 per token of either sign, as steep as the steepest of ALiBi.
            with torch.no_grad():
                first.weight /= dims.train_length
        self.mlp = nn.Sequential(first, nn.SiLU(), nn.Linear(W, W), nn.SiLU(), nn.Linear(W, H))

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        x_N = gap_N.to(next(self.mlp.parameters()).dtype)
        return self.mlp((x_N.log1p() if self.log_distance else x_N)[:, None]).T

    def extra_repr(self) -> str:
        return f"log_distance={self.log_distance}, width={self.dims.d_model // 4}"
