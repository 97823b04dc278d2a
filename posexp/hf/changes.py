"""Other windows and other rotary frequencies for a checkpoint, as far as the configs of transformers can say them."""

import copy
from typing import Any

import torch

from posexp.hf.model import Pretrained, probe, text_config, whole_logits
from posexp.hf.quiet import quiet
from posexp.schemes import Dims
from posexp.transforms import NotApplicable, Transform
from posexp.windows import Window
from posexp.windows.sliding import Sliding

FULL, SLIDING = "full_attention", "sliding_attention"  # the words of configs, for each block
READS_LENGTH = {"dynamic", "longrope"}  # rotary frequencies that depend on how long an input is
SMALL = 4  # tokens of the window that is tried


class Mixed(Window):
    """Some blocks see everything, others a sliding window. Only says so: the checkpoint does it."""

    def __init__(self, dims: Dims, size: int, blocks: int):
        super().__init__(dims)
        self.between, self.blocks_with = size, blocks

    def fingerprint(self) -> str:
        return f"sliding {self.between} in {self.blocks_with} of {self.dims.n_layer} blocks"


def own_window(config: Any, dims: Dims, counts: bool) -> Window:
    """The window that a checkpoint was trained with. `counts` is what `windows_count` says of it."""
    text = text_config(config)
    size, kinds = getattr(text, "sliding_window", None), getattr(text, "layer_types", None)
    if size is None or not getattr(text, "use_sliding_window", True) or not (kinds or counts):
        return Window(dims)
    blocks = kinds.count(SLIDING) if kinds else dims.n_layer
    if 0 < blocks < dims.n_layer:
        return Mixed(dims, size, blocks)
    return Sliding(dims, size) if blocks else Window(dims)


def with_window(config: Any, size: int | None) -> Any:
    """A copy in which every block has a sliding window of `size` tokens, itself included; None: sees everything."""
    twin = copy.deepcopy(config)
    text = text_config(twin)
    kinds = getattr(text, "layer_types", None)
    if kinds:
        text.layer_types = [FULL if size is None else SLIDING] * len(kinds)
    if size is not None or not kinds:
        text.sliding_window = size
    if hasattr(text, "use_sliding_window"):
        text.use_sliding_window = size is not None
    return twin


def windows_count(model: Pretrained) -> bool:
    """Whether the architecture does what its config says of a sliding window, and nothing else.

    Tried with a small one: outputs must be those without a window up to its size, and others past it.
    """
    text = text_config(model.config)
    kinds = set(getattr(text, "layer_types", None) or ())
    if not hasattr(text, "sliding_window") or not kinds <= {FULL, SLIDING}:
        return False
    tokens_BT = probe(model)
    try:
        full_BTV, cut_BTV = (
            whole_logits(rebuilt(model, with_window(model.config, size)), tokens_BT) for size in (None, SMALL)
        )
    except Exception:  # a config that refuses such values
        return False
    difference_T = (full_BTV - cut_BTV).abs().amax(dim=(0, 2)) / full_BTV.abs().max()
    within, past = float(difference_T[:SMALL].max()), float(difference_T[SMALL:].min())
    return within < 1e-4 and past > max(1e-6, 10 * within)


def with_frequencies(config: Any, transform: Transform, length: int, dims: Dims) -> Any:
    """A copy with rotary frequencies as the transform makes them for inputs of at most `length` tokens.

    Raises NotApplicable without rotary frequencies, or if transformers cannot express the change.
    """
    twin = copy.deepcopy(config)
    text = text_config(twin)
    given = getattr(text, "rope_parameters", None)
    if not given:
        raise NotApplicable(f"{type(config).__name__} has no rotary frequencies")
    if "rope_theta" not in given:
        raise NotApplicable(f"{type(config).__name__} has other rotary frequencies in some blocks")
    # in some configs these stand outside, and count instead
    text.max_position_embeddings = dims.train_length
    if hasattr(text, "original_max_position_embeddings"):
        text.original_max_position_embeddings = dims.train_length
    text.rope_parameters = transform.rope_parameters(dict(given), rotary_channels(text), length)
    return twin


def rotary_channels(text: Any) -> int:
    """Channels of a head that are rotated."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(head * text.rope_parameters.get("partial_rotary_factor", 1.0))


def reads_length(config: Any) -> bool:
    """Whether what comes after a token changes its loss."""
    given = getattr(text_config(config), "rope_parameters", None) or {}
    return any(part.get("rope_type") in READS_LENGTH for part in (given, *given.values()) if isinstance(part, dict))


def rebuilt(model: Pretrained, config: Any) -> Pretrained:
    """The same weights, in the same memory, in a model of another config."""
    weights = model.state_dict()
    with quiet():
        twin = type(model).from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32)
        twin.load_state_dict(weights, assign=True)
    return twin.to(model.device).eval()
