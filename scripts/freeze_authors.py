"""Writes tests/authors.json: numbers computed by other people's code, for posexp's schemes to be held against.

    pip install --no-deps --target /tmp/peers torchscale transformers rotary-embedding-torch einops regex typer
    PYTHONPATH=/tmp/peers python scripts/freeze_authors.py

Only needed to add a scheme or to move to newer versions of those packages; none of them is a dependency of posexp.
Shape suffixes: P positions, C channels of a head.
"""

import json
import math
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

FILE = Path(__file__).parent.parent / "tests" / "authors.json"
POSITIONS = [0, 1, 2, 3, 17, 64, 255, 513, 1024, 2047]
HEADS = [1, 2, 6, 8, 12, 16, 20]


def query_and_key(C: int) -> tuple[Tensor, Tensor]:
    """Two fixed vectors without symmetry."""
    channel_C = torch.arange(C, dtype=torch.float32)
    return torch.sin(1.7 * channel_C + 0.4), torch.cos(0.9 * channel_C * channel_C + 0.2)


def logits(q_PC: Tensor, k_PC: Tensor) -> list[list[float]]:
    """q . k of every query with the keys at and before it."""
    return [rounded(row_P[: index + 1]) for index, row_P in enumerate(q_PC.double() @ k_PC.double().T)]


def rounded(x: Tensor) -> list:
    return [float(f"{value:.7g}") for value in x.tolist()]


def everywhere(x_C: Tensor) -> Tensor:
    """The same vector at every position up to the last one wanted, [T, C]."""
    return x_C.expand(POSITIONS[-1] + 1, -1).contiguous()


def half_split_rope(C: int, fraction: float) -> dict:
    from transformers.models.gpt_neox.modeling_gpt_neox import (
        GPTNeoXConfig,
        GPTNeoXRotaryEmbedding,
        apply_rotary_pos_emb,
    )

    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": fraction}
    config = GPTNeoXConfig(hidden_size=C, num_attention_heads=1, rope_parameters=rope)
    q_C, k_C = query_and_key(C)
    cos_1PR, sin_1PR = GPTNeoXRotaryEmbedding(config)(q_C, torch.tensor([POSITIONS]))
    q_11PC, k_11PC = (x_C.expand(1, 1, len(POSITIONS), C) for x_C in (q_C, k_C))
    q_11PC, k_11PC = apply_rotary_pos_emb(q_11PC, k_11PC, cos_1PR, sin_1PR)
    return {
        "source": f"transformers {version('transformers')}, models/gpt_neox: {fraction:.0%} of {C} channels",
        "q": rounded(q_C),
        "k": rounded(k_C),
        "rotated_q": [rounded(row_C) for row_C in q_11PC[0, 0, :5]],
        "logits": logits(q_11PC[0, 0], k_11PC[0, 0]),
    }


def interleaved_rope(C: int) -> dict:
    from rotary_embedding_torch import RotaryEmbedding

    rope = RotaryEmbedding(C, cache_if_possible=False)
    q_C, k_C = query_and_key(C)
    q_TC, k_TC = (rope.rotate_queries_or_keys(everywhere(x_C)[None, None]).detach()[0, 0] for x_C in (q_C, k_C))
    return {
        "source": f"rotary-embedding-torch {version('rotary-embedding-torch')}: channels interleaved",
        "q": rounded(q_C),
        "k": rounded(k_C),
        "logits": logits(q_TC[POSITIONS], k_TC[POSITIONS]),
    }


def interleaved_xpos(C: int) -> dict:
    from torchscale.component.xpos_relative_position import XPOS

    xpos = XPOS(C)
    q_C, k_C = query_and_key(C)
    q_TC, k_TC = xpos(everywhere(q_C)[None])[0], xpos(everywhere(k_C)[None], downscale=True)[0]
    return {
        "source": f"torchscale {version('torchscale')}, component/xpos_relative_position.py: channels interleaved",
        "q": rounded(q_C),
        "k": rounded(k_C),
        "zeta": rounded(xpos.scale),
        "logits": logits(q_TC[POSITIONS], k_TC[POSITIONS]),
    }


def alibi() -> dict:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    def slopes(n_head: int) -> list[float]:
        return rounded(build_alibi_tensor(torch.ones(1, 2), n_head, torch.float32)[:, 0, 1])

    for n_head in HEADS:
        pairs = zip(slopes(n_head), published_slopes(n_head), strict=True)
        assert all(math.isclose(bloom, press, rel_tol=1e-6) for bloom, press in pairs)
    return {
        "source": f"transformers {version('transformers')}, models/bloom, build_alibi_tensor; the same as "
        "ofirpress/attention_with_linear_biases, fairseq/models/transformer.py at 3b7c2ec",
        "slopes": {str(n_head): slopes(n_head) for n_head in HEADS},
    }


def published_slopes(n_head: int) -> list[float]:
    """The authors' get_slopes: powers of 2^(-2^(3 - log2 n)), then every other one for twice as many heads."""
    power = 2 ** math.floor(math.log2(n_head))
    start, between = 2 ** -(2 ** (3 - math.log2(power))), 2 ** -(2 ** (2 - math.log2(power)))
    return [start**h for h in range(1, power + 1)] + [between**h for h in range(1, 2 * (n_head - power), 2)]


def sinusoidal(D: int) -> dict:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    table_PD = MarianSinusoidalPositionalEmbedding(POSITIONS[-1] + 1, D).create_weight()
    return {
        "source": f"transformers {version('transformers')}, models/marian: sines first, then cosines",
        "table": [rounded(row_D) for row_D in table_PD[POSITIONS]],
    }


if __name__ == "__main__":
    frozen = {
        "positions": POSITIONS,
        "rope": half_split_rope(16, 1.0),
        "rope_quarter": half_split_rope(32, 0.25),
        "rope_interleaved": interleaved_rope(16),
        "xpos": interleaved_xpos(8),
        "alibi": alibi(),
        "sinusoidal": sinusoidal(12),
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(part)}" for name, part in frozen.items())
    FILE.write_text(f"{{\n{lines}\n}}\n")
