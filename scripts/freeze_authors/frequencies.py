"""Transforms that change the frequencies of a trained rotary scheme.

Shape suffixes: I pairs of channels.
"""

import math
from typing import Any

from scripts.freeze_authors.common import Makers, of, plain

# (rotary_dim, train_length, evaluated length / train_length); the last is the size of model=tiny
SIZES = [(64, 512, 4.0), (64, 1024, 2.0), (32, 128, 16.0)]
LARGE = (128, 4096, 8.0)


def transformers_case(
    transform: str,
    rope_type: str,
    sizes: tuple[int, int, float],
    base: float = 10000.0,
    options: dict[str, Any] | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rotary_dim, train_length, factor = sizes
    length = int(train_length * factor)
    rope = {"rope_type": rope_type, "rope_theta": base, "factor": factor, **parameters}
    rope = {name: value for name, value in rope.items() if value is not None}
    config = LlamaConfig(
        hidden_size=rotary_dim,
        num_attention_heads=1,
        head_dim=rotary_dim,
        max_position_embeddings=train_length,
        rope_parameters=rope,
    )
    frequency_I, attention_factor = ROPE_INIT_FUNCTIONS[rope_type](config, seq_len=length)
    return {
        "source": of("transformers", f"modeling_rope_utils.py, rope_type {rope_type}"),
        "transform": transform,
        "options": options or {"factor": factor},
        "rotary_dim": rotary_dim,
        "base": base,
        "train_length": train_length,
        "length": length,
        "wanted": plain(frequency_I),
        "attention_factor": plain(float(attention_factor)),
    }


def ntk(sizes: tuple[int, int, float]) -> dict[str, Any]:
    from x_transformers.x_transformers import RotaryEmbedding

    rotary_dim, train_length, factor = sizes
    rope = RotaryEmbedding(rotary_dim, base_rescale_factor=factor)
    return {
        "source": of("x-transformers", "RotaryEmbedding, base_rescale_factor"),
        "transform": "ntk",
        "options": {"factor": factor},
        "rotary_dim": rotary_dim,
        "base": 10000.0,
        "train_length": train_length,
        "length": int(train_length * factor),
        "wanted": plain(rope.inv_freq),
        "attention_factor": 1.0,
    }


def longrope(sizes: tuple[int, int, float], long: bool) -> dict[str, Any]:
    rotary_dim, train_length, factor = sizes
    I = rotary_dim // 2
    short, far = [1 + 0.01 * i for i in range(I)], [1 + (factor - 1) * (i / (I - 1)) ** 2 for i in range(I)]
    options = {"factor": factor, "short": short, "long": far}
    made = transformers_case(
        "longrope",
        "longrope",
        sizes if long else (rotary_dim, train_length, 1.0),
        options=plain(options),
        short_factor=plain(short),
        long_factor=plain(far),
        factor=factor,
        original_max_position_embeddings=train_length,
    )
    return made


def llama3(sizes: tuple[int, int, float], base: float) -> dict[str, Any]:
    _, train_length, factor = sizes
    return transformers_case(
        "llama3",
        "llama3",
        sizes,
        base=base,
        options={"factor": factor, "low": 1.0, "high": 4.0},
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=train_length,
    )


def every_transform() -> list[dict[str, Any]]:
    made = [transformers_case("pi", "linear", sizes) for sizes in SIZES]
    made += [ntk(sizes) for sizes in SIZES]
    made += [transformers_case("dynamic_ntk", "dynamic", sizes) for sizes in [*SIZES, (64, 512, 1.0)]]
    for sizes in [*SIZES, LARGE]:
        yarn = transformers_case("yarn", "yarn", sizes, original_max_position_embeddings=sizes[1])
        assert math.isclose(yarn["attention_factor"], 0.1 * math.log(sizes[2]) + 1, rel_tol=1e-6)
        made.append(yarn)
    made += [longrope(SIZES[0], long=True), longrope(SIZES[0], long=False)]
    made += [llama3((128, 8192, 8.0), 500_000.0), llama3(SIZES[0], 10000.0)]
    made += [
        transformers_case("p_rope", "proportional", sizes, options={"p": p}, factor=None, partial_rotary_factor=p)
        for sizes in SIZES[:2]
        for p in (0.75, 0.25)
    ]
    return made


MAKERS: Makers = {"transforms": every_transform}
