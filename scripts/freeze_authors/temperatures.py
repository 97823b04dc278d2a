"""Factors of logits by position, for posexp/check/authors/temperatures.json.

Llama 4 and Inkling have no function for the factor: it is what their attention makes of a query, once with the
temperature and once without.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from scripts.freeze_authors.common import Makers, of, plain

FLOORS = (16, 100)  # tokens
TOKENS = [1, 2, 15, 16, 17, 31, 32, 33, 99, 100, 101, 200, 511, 512, 513, 2048]
RATE = 0.1


def queries(attention: nn.Module, config: Any, **inputs: Any) -> tuple[Tensor, Tensor | None]:
    """Return the queries and the bias that the attention hands to its kernel."""
    seen: list[tuple[Tensor, Tensor | None]] = []

    def listen(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *_: Any, **more: Any) -> tuple[Tensor, None]:
        seen.append((q, more.get("position_bias")))
        return v.transpose(1, 2), None

    ALL_ATTENTION_FUNCTIONS.register("listen", listen)
    config._attn_implementation = "listen"
    x_BTD = torch.randn(1, TOKENS[-1], config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attention(hidden_states=x_BTD, **inputs)
    return seen[0]


def llama4(floor: int) -> Tensor:
    from transformers.models.llama4.configuration_llama4 import Llama4TextConfig
    from transformers.models.llama4.modeling_llama4 import Llama4TextAttention

    found = []
    for tuned in (True, False):
        config = Llama4TextConfig(
            hidden_size=8, num_attention_heads=1, num_key_value_heads=1, head_dim=8, num_hidden_layers=4,
            attn_temperature_tuning=tuned, floor_scale=floor, attn_scale=RATE,
        )  # fmt: skip
        torch.manual_seed(0)
        attention = Llama4TextAttention(config, layer_idx=3)  # the fourth block has no positions
        found.append(queries(attention, config, position_embeddings=None, attention_mask=None)[0])
    return (found[0] / found[1]).mean((0, 1, 3))


def ministral(floor: int) -> Tensor:
    from transformers.models.ministral3.modeling_ministral3 import get_llama_4_attn_scale

    return get_llama_4_attn_scale(torch.arange(TOKENS[-1])[None], RATE, floor).flatten()


def inkling(floor: int) -> Tensor:
    from transformers.models.inkling.configuration_inkling import InklingTextConfig
    from transformers.models.inkling.modeling_inkling import InklingAttention

    found = []
    for n_floor in (floor, None):
        config = InklingTextConfig(
            hidden_size=8, num_attention_heads=1, num_key_value_heads=1, head_dim=8, num_hidden_layers=1,
            layer_types=["hybrid"], log_scaling_n_floor=n_floor, log_scaling_alpha=RATE, rel_extent=4096,
        )  # fmt: skip
        torch.manual_seed(0)
        attention = InklingAttention(config, layer_idx=0)
        for weight in attention.parameters():
            nn.init.normal_(weight)
        found.append(queries(attention, config, attention_mask=None))
    (q, bias), (plain_q, plain_bias) = found
    assert bias is not None and plain_bias is not None
    factor_T = (q / plain_q).mean((0, 1, 3))
    assert torch.allclose(bias, plain_bias * factor_T[:, None], atol=1e-4)  # the same factor on the bias
    return factor_T


def every_temperature() -> list[dict[str, Any]]:
    return [
        {
            "source": of("transformers", f"models/{package}"),
            "temperature": name,
            "rate": RATE,
            "train_length": floor,
            "tokens": TOKENS,
            "wanted": plain(made(floor)[torch.tensor(TOKENS) - 1]),
        }
        for name, package, made in (
            ("llama4", "llama4", llama4),
            ("ministral", "ministral3", ministral),
            ("inkling", "inkling", inkling),
        )
        for floor in FLOORS
    ]


MAKERS: Makers = {"temperatures": every_temperature}
