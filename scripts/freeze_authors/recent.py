"""Schemes of 2024 to 2026. Without a package, the numbers are those of the formula in float64.

Those of GRAPE, Resonance, Wall and Selective RoPE agree to 1e-6 with the authors' code at the commits that the sources
name; that of Selective RoPE without `conv` was run with a convolution that changes nothing. CARoPE and the wavelets
have no authors' code behind them.
Shape suffixes: H heads, T tokens, C channels of a head, D width of the residual stream, I pairs of channels, R curves,
E distances with a bias, P positions, X everything in a row.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.freeze_authors.common import POSITIONS, Makers, case, drawn, logits, of, query_and_key
from scripts.freeze_authors.content import FUTURE_TT, K_HTC, Q_HTC, V_HTC, X_TD, C, D, H, T, attend_case, gap, with_bias

I = C // 2
X_THC = X_TD.double().view(T, H, C)


def from_logits(logits_HTT: Tensor) -> Tensor:
    """Return causal softmax attention over scaled logits, [H, T, C]."""
    return logits_HTT.masked_fill(FUTURE_TT, -torch.inf).softmax(-1) @ V_HTC.double()


def inkling(extent: int) -> dict[str, Any]:
    from transformers.models.inkling.modeling_inkling import InklingRelativeLogits

    R, index_T = 3, torch.arange(T)
    mix_XD, curve_RE = drawn(H * R, D, seed=60, scale=0.5), drawn(R, extent, seed=61)
    module = InklingRelativeLogits(R, extent)
    with torch.no_grad():
        module.proj.copy_(curve_RE)
        bias_1HTT = module((X_TD @ mix_XD.T).view(1, T, H, R), index_T, index_T)
    return attend_case(
        of("transformers", "models/inkling, InklingRelativeLogits; logits scaled by C^-0.5"),
        with_bias(bias_1HTT[0]),
        options={"curves": R, "extent": extent},
        weights={"layers.0.mix.weight": mix_XD, "layers.0.curve_RE": curve_RE},
    )


def grape() -> dict[str, Any]:
    direction_HC, rate_H = drawn(H, C, seed=62), drawn(H, seed=63)
    unit_HC = direction_HC.double() / direction_HC.double().norm(dim=-1, keepdim=True)
    gate_HT = torch.log1p(torch.exp(torch.einsum("hc,htc->ht", unit_HC, K_HTC.double()) / math.sqrt(C)))
    slope_H = torch.log1p(torch.exp(rate_H.double())) * torch.tensor([2.0 ** (-8 * h / H) for h in range(1, H + 1)])
    return attend_case(
        "formula of model-architectures/GRAPE f5b539f, model/llama-mha-grape-a-keygated.py, KeyGatedAdditiveBias",
        with_bias(-gap() * slope_H[:, None, None] * gate_HT[:, None]),
        weights={"layers.0.direction_HC": direction_HC, "layers.0.rate_H": rate_H},
    )


def wall() -> dict[str, Any]:
    weight_DD, bias_D = drawn(D, D, seed=64, scale=0.5), drawn(D, seed=65)
    log_kept_TD = -torch.log1p(torch.exp(-(X_TD.double() @ weight_DD.double().T + bias_D)))
    sum_HTC = log_kept_TD.cumsum(0).view(T, H, C).transpose(0, 1)
    kept_HTTC = (sum_HTC[:, :, None] - sum_HTC[:, None]).exp()
    logits_HTT = torch.einsum("hic,hjc,hijc->hij", Q_HTC.double(), K_HTC.double(), kept_HTTC) / math.sqrt(C)
    return attend_case(
        "formula of fla-org/flash-linear-attention bc3b101, ops/wall_attn/naive.py, gates as in layers/wall_attn.py",
        from_logits(logits_HTT),
        weights={"layers.0.gate.weight": weight_DD, "layers.0.gate.bias": bias_D},
    )


def rotated(angle_THI: Tensor) -> Tensor:
    """Return attention of queries and keys rotated by angles in radians, pairs in halves, [H, T, C]."""
    turn_HTI = torch.exp(1j * angle_THI.double()).transpose(0, 1)
    q_HTI, k_HTI = (torch.complex(*x_HTC.double().split(I, dim=-1)) * turn_HTI for x_HTC in (Q_HTC, K_HTC))
    return from_logits((q_HTI @ k_HTI.conj().mT).real / math.sqrt(C))


def carope() -> dict[str, Any]:
    weight_HD, bias_H = drawn(H, D, seed=66, scale=0.5), drawn(H, seed=67)
    first_TH1 = 1 / (1 + torch.log1p(torch.exp(X_TD.double() @ weight_HD.double().T + bias_H)))[..., None]
    return attend_case(
        "formula of arXiv 2507.23083 (CARoPE), section 2, with a bias",
        rotated((first_TH1 ** torch.arange(1, I + 1)).cumsum(0)),
        weights={"layers.0.first.weight": weight_HD, "layers.0.first.bias": bias_H},
    )


def selective_rope(conv: bool) -> dict[str, Any]:
    direction_HCI, size_H = drawn(H, C, I, seed=68), drawn(H, seed=69)
    conv_X14, gate_HD, gate_H = drawn(H * I, 1, 4, seed=70), drawn(H, D, seed=71), drawn(H, seed=72)
    unit_THC = X_THC / X_THC.norm(dim=-1, keepdim=True)
    axis_HCI = direction_HCI.double() / direction_HCI.double().norm(dim=1, keepdim=True) * size_H[:, None, None]
    phase_THI = torch.einsum("thc,hci->thi", unit_THC, axis_HCI)
    if conv:
        before_XT = F.pad(phase_THI.flatten(1).T, (3, 0))
        phase_THI = F.silu(F.conv1d(before_XT, conv_X14.double(), groups=H * I)).T.view(T, H, I)
    gate_TH1 = torch.sigmoid(unit_THC.flatten(1) @ gate_HD.double().T + gate_H)[..., None]
    theta_I = 500_000.0 ** (-torch.arange(I, dtype=torch.float64) / I)
    return attend_case(
        "formula of timurcarstensen/selective-rope d12e825, modules/rotary.py, full-rank with the standard gate",
        rotated((gate_TH1 * phase_THI * theta_I).cumsum(0)),
        options={"conv": conv},
        weights={
            "layers.0.direction_HCI": direction_HCI,
            "layers.0.size_H": size_H,
            **({"layers.0.conv.weight": conv_X14} if conv else {}),
            "layers.0.gate.weight": gate_HD,
            "layers.0.gate.bias": gate_H,
        },
    )


def grape_m(width: int) -> dict[str, Any]:
    """Return a case of changed frequencies, from the matrix exponential of the generator."""
    pairs = width // 2
    shift_I = drawn(pairs, seed=74, scale=2.0)
    theta_I = 10_000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs) * (shift_I.double() / 16).exp()
    basis_CC = torch.eye(width, dtype=torch.float64)
    generator_CC = torch.zeros(width, width, dtype=torch.float64)
    for i in range(pairs):
        a_C, b_C = basis_CC[i + pairs], basis_CC[i]
        generator_CC += theta_I[i] * (torch.outer(a_C, b_C) - torch.outer(b_C, a_C))
    turn_PCC = torch.linalg.matrix_exp(torch.tensor(POSITIONS)[:, None, None] * generator_CC)
    q_C, k_C = query_and_key(width)
    return case(
        "rotate",
        "formula of arXiv 2512.07805 (GRAPE-M), equation 3.1, frequencies as in model-architectures/GRAPE f5b539f, "
        "model/llama-mha-grape-m-nonctx.py, MSGRAPECommuting",
        {"q": q_C, "k": k_C, "positions": POSITIONS},
        logits(turn_PCC @ q_C.double(), turn_PCC @ k_C.double()),
        d_model=width,
        weights={"layers.0.shift_I": shift_I},
        tolerance=2e-4,
    )


def resonance(width: int, base: float) -> dict[str, Any]:
    pairs = width // 2
    wave_I = (2 * math.pi * base ** (torch.arange(pairs, dtype=torch.float64) / pairs)).round()
    turn_PI = torch.exp(2j * math.pi * torch.tensor(POSITIONS)[:, None] / wave_I)
    q_C, k_C = query_and_key(width)
    q_PI, k_PI = (torch.complex(*x_C.double().split(pairs)) * turn_PI for x_C in (q_C, k_C))
    return case(
        "rotate",
        "formula of sheryc/resonance_rope 4a7f5a7, src/models/components/positional_embedding/rotary_resonance.py",
        {"q": q_C, "k": k_C, "positions": POSITIONS},
        logits(torch.cat((q_PI.real, q_PI.imag), dim=-1), torch.cat((k_PI.real, k_PI.imag), dim=-1)),
        d_model=width,
        options={"base": base},
        tolerance=1e-4,
    )


def wavelet(scales: int) -> dict[str, Any]:
    """Return a case whose wavelets are numbered as in equation 5 of the paper: all scales of a shift, then the next."""
    pairs = [(2.0**s, float(b)) for b in range(C) for s in range(scales)][:C]
    curve_CTT = torch.stack([(gap() - b) / a for a, b in pairs])
    curve_CTT = (1 - curve_CTT**2) * torch.exp(-(curve_CTT**2) / 2)
    return attend_case(
        "formula of arXiv 2502.02004 (wavelets), equations 10 to 14",
        with_bias(torch.einsum("hic,cij->hij", Q_HTC.double(), curve_CTT) / math.sqrt(C)),
        options={"scales": scales},
    )


def of_text(source: str, place: Callable[[str], list[int]]) -> dict[str, Any]:
    """Return a case of the positions of two lines of text, each a sequence."""
    lines = ["1234+56789=08129\n71+22", "=9+000+12>>345 67 + 1\n"]
    inputs = {"tokens": [list(line.encode()) for line in lines]}
    return case("positions_of", source, inputs, [[float(p) for p in place(line)] for line in lines], d_model=4)


def abacus() -> dict[str, Any]:
    def place(line: str) -> list[int]:
        return [len(re.search(r"\d*\Z", line[: t + 1])[0]) for t in range(len(line))]  # type: ignore[index]

    return of_text("formula of mcleish7/arithmetic 86022a5, abacus.py, Abacus.helper", place)


def coupling() -> dict[str, Any]:
    def place(line: str) -> list[int]:
        parts = [re.search(r"[+=>]?[^+=>\n]*\Z", line[: t + 1])[0] for t in range(len(line))]  # type: ignore[index]
        return [0 if line[t] == "\n" else len(part) + (part[0] not in "+=>") for t, part in enumerate(parts)]

    return of_text(
        "formula of HanseulJo/position-coupling b9cad94, src/data/addition.py, AdditionDatasetWithCoupledPositions",
        place,
    )


def fope(width: int, train_length: int) -> dict[str, Any]:
    pairs = width // 2
    theta_I = 10_000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    theta_I[theta_I < 2 * math.pi / train_length] = 0
    kept = int((theta_I > 0).sum())
    noise_2II = F.pad(drawn(2, kept, kept, seed=73, scale=0.3), (0, pairs - kept, 0, pairs - kept))
    angle_PI = torch.tensor(POSITIONS)[:, None] * theta_I
    cos_PI, sin_PI = (
        waves_PI @ (torch.eye(pairs) + noise_II).double()
        for waves_PI, noise_II in zip((angle_PI.cos(), angle_PI.sin()), noise_2II, strict=True)
    )
    turned = []
    q_C, k_C = query_and_key(width)
    for x_C in (q_C, k_C):
        a_I, b_I = x_C.double().split(pairs)
        turned.append(torch.cat((a_I * cos_PI - b_I * sin_PI, b_I * cos_PI + a_I * sin_PI), dim=-1))
    return case(
        "rotate",
        "formula of TsinghuaC3I/Fourier-Position-Embedding bd94b20, olmo/model.py, FourierEmbedding; "
        "pairs without a frequency pass through",
        {"q": q_C, "k": k_C, "positions": POSITIONS},
        logits(*turned),
        d_model=width,
        train_length=train_length,
        weights={"layers.0.coefficients": (torch.eye(pairs) + noise_2II)[:, None]},
        tolerance=2e-4,
    )


MAKERS: Makers = {
    "inkling": lambda: [inkling(5), inkling(64)],
    "grape": lambda: [grape()],
    "grape_m": lambda: [grape_m(16)],
    "resonance": lambda: [resonance(16, 10_000.0), resonance(32, 500_000.0)],
    "wavelet": lambda: [wavelet(2), wavelet(3)],
    "wall": lambda: [wall()],
    "abacus": lambda: [abacus()],
    "coupling": lambda: [coupling()],
    "carope": lambda: [carope()],
    "selective_rope": lambda: [selective_rope(False), selective_rope(True)],
    "fope": lambda: [fope(16, 64)],
}
