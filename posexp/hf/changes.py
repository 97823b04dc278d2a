"""The changes to a checkpoint that a config of transformers can express: windows and rotary frequencies."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from posexp.data.readers import cause_line
from posexp.dims import Dims
from posexp.evaluation.scoring import is_out_of_memory
from posexp.hf.model import PROBED, Pretrained, probe, text_config, whole_logits
from posexp.hf.quiet import quiet
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable, Transform
from posexp.windows import Window

FULL, SLIDING = "full_attention", "sliding_attention"  # layer types in configs
# Layer types with a local window: the kind of window, and the attribute with its size in tokens.
LOCAL = {
    SLIDING: ("sliding", "sliding_window"),
    "local": ("sliding", "window_size"),
    "chunked_attention": ("chunked", "attention_chunk_size"),
}
SMALL = 4  # tokens: window and training length of a trial
STRETCH = 64  # input length over training length in the trial of a transform

T = TypeVar("T")


class OwnWindow(Window):
    """The window that a checkpoint's own code applies in `blocks` of its blocks; posexp only names it."""

    def __init__(self, dims: Dims, kind: str, size: int, blocks: int):
        super().__init__(dims)
        self.kind, self.tokens, self.blocks_with = kind, size, blocks

    def fingerprint(self) -> str:
        part = "" if self.blocks_with == self.dims.n_layer else f" in {self.blocks_with} of {self.dims.n_layer} blocks"
        return f"{self.kind} {self.tokens}{part}"


def own_window(config: Any, dims: Dims, counts: bool) -> Window:
    """Return the window of a checkpoint in training. `counts` is the result of `windows_count`."""
    text = text_config(config)
    kinds = getattr(text, "layer_types", None) or getattr(text, "attention_layers", None)
    if not kinds:
        kinds = [SLIDING] * dims.n_layer if counts else []
    for block, (kind, attribute) in LOCAL.items():
        size = getattr(text, attribute, None)
        if size is not None and block in kinds and getattr(text, "use_sliding_window", True):
            return OwnWindow(dims, kind, size, kinds.count(block))
    return Window(dims)


def with_window(config: Any, size: int | None) -> Any:
    """Return a copy in which every block has a sliding window of `size` tokens, the query included; None: full."""
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
    """Return whether the sliding window in the config is the window of the architecture.

    The trial uses a small window. Outputs up to its size must equal those without a window, later outputs must differ.
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
    except Exception:  # the architecture rejects the config
        return False
    difference_T = (full_BTV - cut_BTV).abs().amax(dim=(0, 2)) / full_BTV.abs().max()
    within, past = float(difference_T[:SMALL].max()), float(difference_T[SMALL:].min())
    return within < 1e-4 and past > max(1e-6, 10 * within)


def with_frequencies(config: Any, transform: Transform, length: int, dims: Dims) -> Any:
    """Return a copy with the rotary frequencies of the transform for inputs of at most `length` tokens."""
    twin = copy.deepcopy(config)
    text = text_config(twin)
    given = rope_parameters_of(config)
    if getattr(text, "head_dim", 0) is None:  # Mixtral needs it for rescaled frequencies
        text.head_dim = text.hidden_size // text.num_attention_heads
    # some architectures read these attributes instead of rope_parameters
    text.max_position_embeddings = dims.train_length
    if hasattr(text, "original_max_position_embeddings"):
        text.original_max_position_embeddings = dims.train_length
    text.rope_parameters = transform.rope_parameters(dict(given), rotary_channels(text), length)
    return twin


def rope_parameters_of(config: Any) -> dict[str, Any]:
    """Return the rotary parameters of a config. Raises NotApplicable if there are none, or if blocks differ."""
    given: dict[str, Any] | None = getattr(text_config(config), "rope_parameters", None)
    if not given and getattr(text_config(config), "rotary_dim", None):  # GPT-J and CodeGen
        raise NotApplicable(f"the rotary frequencies of {type(config).__name__} are set in code, not in its config")
    if not given:
        raise NotApplicable(f"{type(config).__name__} has no rotary frequencies")
    if "rope_theta" not in given:
        raise NotApplicable(f"{type(config).__name__} has other rotary frequencies in some blocks")
    return given


def rotary_channels(text: Any) -> int:
    """Return the number of rotated channels of a head."""
    channels = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(channels * text.rope_parameters.get("partial_rotary_factor", 1.0))


def check_counts(model: Pretrained, transform: Transform, dims: Dims) -> None:
    """Raise NotApplicable if the architecture does not read the rotary frequencies of its config.

    The trial uses a training length of SMALL tokens and inputs STRETCH times as long. A transform that does not change
    frequencies, such as a factor of 1, passes untested.
    """
    tried = copy.copy(transform)
    tried.dims = replace(dims, train_length=SMALL)
    text = text_config(model.config)
    if leaves_frequencies(tried, rope_parameters_of(model.config)["rope_theta"], rotary_channels(text)):
        return
    config = with_frequencies(model.config, tried, STRETCH * SMALL, tried.dims)
    tokens_BT = probe(model)
    changed_BTV = trying(model, lambda: whole_logits(rebuilt(model, config), tokens_BT))
    if torch.equal(changed_BTV, whole_logits(model, tokens_BT)):
        kind = type(model).__name__
        raise NotApplicable(f"{kind} gives the same logits with other rotary frequencies: there is nothing to change")


def leaves_frequencies(transform: Transform, base: float, channels: int) -> bool:
    """Return whether RoPE over `channels` channels rotates queries equally with and without the transform."""
    plain = Rope(Dims(channels, 1, 1, transform.dims.train_length), base, 1.0)
    changed, _ = transform.apply(plain, Window(plain.dims), STRETCH * SMALL)
    q_BHTC, pos_BT = torch.ones(1, 1, PROBED, channels), torch.arange(PROBED)[None]
    return torch.equal(changed.rotate(q_BHTC, q_BHTC, pos_BT)[0], plain.rotate(q_BHTC, q_BHTC, pos_BT)[0])


def trying(model: Pretrained, work: Callable[[], T]) -> T:
    """Return the result of `work`. Raises NotApplicable for a change that transformers rejects."""
    try:
        return work()
    except Exception as error:  # architectures reject configs in many ways
        if is_out_of_memory(error):
            raise
        raise NotApplicable(f"transformers rejects it for {type(model).__name__}: {cause_line(error)}") from error


def rebuilt(model: Pretrained, config: Any) -> Pretrained:
    """Return a model of another config that shares the weights, without a copy."""
    weights = model.state_dict()
    with quiet():
        twin = type(model).from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32)
        twin.load_state_dict(weights, assign=True)
    return twin.to(model.device).eval()
