"""A bias that a small network makes of distance: dynamic position bias (DPB), or continuous (CPB).

Wang et al. 2021 (CrossFormer), arXiv 2108.00154, section 3.3; Liu et al. 2021 (Swin V2), arXiv 2111.09883, section 3.3.
Shape suffixes: H heads, N distances.
"""

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme


class ContinuousBias(Scheme):
    """Adds mlp(x)[head] to a logit; one network for all blocks, of two hidden layers a quarter of the model wide.

    x is the distance, or with `log_distance` log(1 + distance) as in Swin V2. (Keys come before queries here, so
    there is no sign to keep.) Depth, width and SiLU are those of lucidrains/x-transformers' DynamicPositionBias.
    Raises Misuse for a model less than 4 wide.
    """

    relative = True

    def __init__(self, dims: Dims, log_distance: bool):
        super().__init__(dims)
        W, H = dims.d_model // 4, dims.n_head
        if W == 0:
            raise Misuse(f"the network of cpb is a quarter of the model wide: model.d_model={dims.d_model} is below 4")
        self.log_distance = log_distance
        first = nn.Linear(1, W)
        if not log_distance:
            # Start as if distances were counted in training lengths. PyTorch's draw alone gives heads a slope of about
            # 0.1 a token, as often up as down: ALiBi's steepest, or its reverse.
            with torch.no_grad():
                first.weight /= dims.train_length
        self.mlp = nn.Sequential(first, nn.SiLU(), nn.Linear(W, W), nn.SiLU(), nn.Linear(W, H))

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        x_N = gap_N.to(next(self.mlp.parameters()).dtype)
        return self.mlp((x_N.log1p() if self.log_distance else x_N)[:, None]).T

    def extra_repr(self) -> str:
        return f"log_distance={self.log_distance}, width={self.dims.d_model // 4}"
