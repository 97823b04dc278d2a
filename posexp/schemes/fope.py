"""Fourier position embedding (FoPE). Hua et al. 2024, arXiv 2412.17739.

Formula: z(m, n) = (F_m q_m)·(F_n k_n) / √C
    F_m maps pair i (a, b) to (c a - s b, s a + c b), with c = Σ_j A_ji cos(m θ_j) and s = Σ_j B_ji sin(m θ_j)
    θ_j = base^(-2j/C), or 0 if that is below 2π / L; A and B are the identity plus noise; L is the training length
Shape suffixes: B batch, T tokens, H heads, C channels of a head, I pairs of channels.
"""

import math

import torch
from torch import Tensor

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import exact_type
from posexp.schemes.per_layer import PerLayer
from posexp.schemes.rope import Rope, turn_pairs
from posexp.windows import at_least


class FourierSeries(Rope):
    """The series of one block. Coefficients are drawn once and not trained; a sum of frequencies is not relative."""

    relative = False
    coefficients: Tensor  # [2, H, I, I], of cosines and of sines

    def __init__(self, dims: Dims, base: float, gain: float):
        super().__init__(dims, base, 1.0)
        kept = int((self.trained_frequencies(torch.device("cpu")) > 0).sum())
        if kept == 0:
            raise Misuse(f"train.length={dims.train_length} must be at least 7: it is below every period of FoPE")
        spread = gain * (2 / (kept * kept + dims.n_head * kept)) ** 0.5  # PyTorch's Xavier for [H, kept, kept]
        coefficient_2HII = torch.eye(self.rotary_dim // 2).repeat(2, dims.n_head, 1, 1)
        coefficient_2HII[..., :kept, :kept] += torch.randn(2, dims.n_head, kept, kept) * spread
        self.register_buffer("coefficients", coefficient_2HII)

    def trained_frequencies(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        theta_I = super().trained_frequencies(device, dtype)
        return theta_I * (theta_I >= 2 * math.pi / self.dims.train_length)

    def rotate(self, q_BHTC: Tensor, k_BHTC: Tensor, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(q_BHTC.device.type, enabled=False):
            angle_B1TI = self.angles(pos_BT, exact_type(q_BHTC))[:, None]
            of_cos_HII, of_sin_HII = self.coefficients.to(angle_B1TI.dtype) * self.magnitude
            cos_BHTI, sin_BHTI = angle_B1TI.cos() @ of_cos_HII, angle_B1TI.sin() @ of_sin_HII
            return turn_pairs(q_BHTC, cos_BHTI, sin_BHTI), turn_pairs(k_BHTC, cos_BHTI, sin_BHTI)


class Fope(PerLayer):
    """RoPE whose pairs turn by a fixed sum of frequencies, drawn for every head and block, without low frequencies.

    Frequencies with a period above the training length are 0, and their pairs pass through. In the authors' code
    (TsinghuaC3I/Fourier-Position-Embedding, olmo/model.py) those pairs have a sine of 1 instead of 0, and at most half
    of the pairs turn. `gain` scales the noise: 0.3 for their model of 60M parameters, 0.6 for that of 1.2B.
    """

    def __init__(self, dims: Dims, base: float, gain: float):
        at_least("scheme.gain", gain, 0)
        super().__init__(dims, lambda: FourierSeries(dims, base, gain))
        self.base, self.gain = base, gain
