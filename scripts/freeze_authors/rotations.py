"""Schemes that rotate queries and keys, and sinusoids.

Shape suffixes: B batch, H heads, P positions, T tokens, C channels of a head, R rotated channels, D width, I pairs.
"""

from typing import Any

import torch
from torch import Tensor

from scripts.freeze_authors.common import POSITIONS, Makers, case, drawn, everywhere, halves, logits, of, query_and_key


def rotate_case(source: str, q_C: Tensor, k_C: Tensor, wanted: list[Tensor], **rest: Any) -> dict[str, Any]:
    inputs = {"q": q_C, "k": k_C, "positions": POSITIONS}
    return case("rotate", source, inputs, wanted, d_model=len(q_C), tolerance=rest.pop("tolerance", 1e-4), **rest)


def neox(C: int, fraction: float, base: float) -> dict[str, Any]:
    from transformers.models.gpt_neox.modeling_gpt_neox import (
        GPTNeoXConfig,
        GPTNeoXRotaryEmbedding,
        apply_rotary_pos_emb,
    )

    rope = {"rope_type": "default", "rope_theta": base, "partial_rotary_factor": fraction}
    config = GPTNeoXConfig(hidden_size=C, num_attention_heads=1, rope_parameters=rope)
    q_C, k_C = query_and_key(C)
    cos_1PR, sin_1PR = GPTNeoXRotaryEmbedding(config)(q_C, torch.tensor([POSITIONS]))
    q_11PC, k_11PC = (x_C.expand(1, 1, len(POSITIONS), C) for x_C in (q_C, k_C))
    q_11PC, k_11PC = apply_rotary_pos_emb(q_11PC, k_11PC, cos_1PR, sin_1PR)
    options = {"fraction": fraction, "base": base}
    return rotate_case(
        of("transformers", "models/gpt_neox"), q_C, k_C, logits(q_11PC[0, 0], k_11PC[0, 0]), options=options
    )


def interleaved_rope(C: int) -> dict[str, Any]:
    from rotary_embedding_torch import RotaryEmbedding

    rope = RotaryEmbedding(C, cache_if_possible=False)
    q_C, k_C = query_and_key(C)
    q_TC, k_TC = (rope.rotate_queries_or_keys(everywhere(x_C)[None, None]).detach()[0, 0] for x_C in (q_C, k_C))
    return rotate_case(
        of("rotary-embedding-torch", "RotaryEmbedding"),
        q_C,
        k_C,
        logits(q_TC[POSITIONS], k_TC[POSITIONS]),
        options={"layout": "interleaved"},
    )


def xpos(C: int, layout: str) -> dict[str, Any]:
    from torchscale.component.xpos_relative_position import XPOS

    xpos = XPOS(C)
    q_C, k_C = query_and_key(C)
    q_TC, k_TC = xpos(everywhere(q_C)[None])[0], xpos(everywhere(k_C)[None], downscale=True)[0]
    wanted = logits(q_TC[POSITIONS], k_TC[POSITIONS])
    source = of("torchscale", "component/xpos_relative_position.py")
    if layout == "half":
        q_C, k_C, source = halves(q_C), halves(k_C), f"{source}, its interleaved channels put in halves"
    return rotate_case(source, q_C, k_C, wanted, options={"layout": layout})


def p_rope(C: int, p: float) -> dict[str, Any]:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    rope = {"rope_type": "proportional", "rope_theta": 10000.0, "partial_rotary_factor": p}
    config = LlamaConfig(hidden_size=C, num_attention_heads=1, head_dim=C, rope_parameters=rope)
    frequency_I, _ = ROPE_INIT_FUNCTIONS["proportional"](config)
    angle_1PI = torch.tensor(POSITIONS, dtype=torch.float32)[None, :, None] * frequency_I
    angle_1PC = torch.cat((angle_1PI, angle_1PI), dim=-1)
    q_C, k_C = query_and_key(C)
    q_11PC, k_11PC = (x_C.expand(1, 1, len(POSITIONS), C) for x_C in (q_C, k_C))
    q_11PC, k_11PC = apply_rotary_pos_emb(q_11PC, k_11PC, angle_1PC.cos(), angle_1PC.sin())
    source = of("transformers", "modeling_rope_utils.py, rope_type proportional, and models/llama")
    return rotate_case(source, q_C, k_C, logits(q_11PC[0, 0], k_11PC[0, 0]), options={"p": p})


def phases(C: int) -> Tensor:
    """Return phases, some inside [-2 pi, 0] and some outside."""
    return -drawn(1, C, seed=3, scale=4.0).abs() + 0.5


def pope_package(C: int) -> dict[str, Any]:
    from PoPE_pytorch import PoPE

    phase_HC = phases(C)
    pope = PoPE(C, heads=1)
    with torch.no_grad():
        pope.bias.copy_(phase_HC)
        q_C, k_C = query_and_key(C)
        q_11TC, k_11TC = (everywhere(x_C)[None, None] for x_C in (q_C, k_C))
        q_11TC, k_11TC = pope.apply_pope_to_qk(pope(POSITIONS[-1] + 1), q_11TC, k_11TC)
    wanted = logits(q_11TC[0, 0, POSITIONS], k_11TC[0, 0, POSITIONS])
    return rotate_case(of("PoPE-pytorch", "pope.py"), q_C, k_C, wanted, weights={"phase_HC": phase_HC})


def pope_x_transformers(C: int) -> dict[str, Any]:
    from x_transformers.x_transformers import PolarEmbedding, apply_polar_pos_emb

    phase_HC = phases(C)
    polar = PolarEmbedding(C, heads=1)
    with torch.no_grad():
        polar.learned_bias.copy_(phase_HC[:, None])
        angle_1PC, phase_H1C = polar(torch.tensor(POSITIONS))
        q_C, k_C = query_and_key(C)
        q_1PC, k_1PC = (x_C.expand(1, len(POSITIONS), C) for x_C in (q_C, k_C))
        q_1PC, k_1PC = apply_polar_pos_emb(q_1PC, angle_1PC), apply_polar_pos_emb(k_1PC, angle_1PC + phase_H1C)
    source = of("x-transformers", "PolarEmbedding")
    return rotate_case(source, q_C, k_C, logits(q_1PC[0], k_1PC[0]), weights={"phase_HC": phase_HC})


def sinusoidal(D: int) -> dict[str, Any]:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    table_PD = MarianSinusoidalPositionalEmbedding(POSITIONS[-1] + 1, D).create_weight()[POSITIONS]
    wanted_PD = torch.stack((table_PD[:, : D // 2], table_PD[:, D // 2 :]), dim=-1).flatten(-2)
    source = of("transformers", "models/marian, its sines and cosines taken in turn")
    return case("embed", source, {"positions": POSITIONS}, wanted_PD, d_model=D, tolerance=1e-4)


MAKERS: Makers = {
    "rope": lambda: [neox(16, 1.0, 10000.0), neox(32, 0.25, 10000.0), neox(16, 1.0, 500_000.0), interleaved_rope(16)],
    "xpos": lambda: [xpos(8, "half"), xpos(8, "interleaved")],
    "p_rope": lambda: [p_rope(16, 0.75), p_rope(16, 0.25)],
    "pope": lambda: [pope_package(8), pope_x_transformers(8)],
    "sinusoidal": lambda: [sinusoidal(12)],
}
