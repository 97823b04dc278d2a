"""Other windows and other rotary frequencies for a checkpoint, as far as the configs of transformers can say them."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from posexp.dims import Dims
from posexp.evaluation.scoring import is_out_of_memory
from posexp.hf.model import PROBED, Pretrained, probe, text_config, whole_logits
from posexp.hf.quiet import quiet
from posexp.hf.source import why
from posexp.schemes.rope import Rope
from posexp.transforms import NotApplicable, Transform
from posexp.windows import Window

FULL, SLIDING = "full_attention", "sliding_attention"  # the words of configs, for each block
# What configs call a block that sees less than all: the window, and the attribute with its size in tokens.
LOCAL = {
    SLIDING: ("sliding", "sliding_window"),
    "local": ("sliding", "window_size"),
    "chunked_attention": ("chunked", "attention_chunk_size"),
}
READS_LENGTH = {"dynamic", "longrope"}  # rotary frequencies that depend on how long an input is
SMALL = 4  # tokens of the window that is tried, and of the training length for which a transform is tried
STRETCH = 64  # times the training length: what a transform without a factor of its own is tried with

T = TypeVar("T")


class OwnWindow(Window):
    """The window that a checkpoint's own code computes in `blocks` of its blocks. posexp only names it."""

    def __init__(self, dims: Dims, kind: str, size: int, blocks: int):
        super().__init__(dims)
        self.kind, self.tokens, self.blocks_with = kind, size, blocks

    def hides(self, length: int) -> bool:
        """Whether an input of `length` tokens, or one of the training length, is longer than the window."""
        return self.tokens < max(length, self.dims.train_length)

    def fingerprint(self) -> str:
        part = "" if self.blocks_with == self.dims.n_layer else f" in {self.blocks_with} of {self.dims.n_layer} blocks"
        return f"{self.kind} {self.tokens}{part}"


def own_window(config: Any, dims: Dims, counts: bool) -> Window:
    """The window that a checkpoint was trained with. `counts` is what `windows_count` says of it."""
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
    given = rope_parameters_of(config)
    if getattr(text, "head_dim", 0) is None:  # Mixtral reads it where frequencies are rescaled, and nowhere else
        text.head_dim = head_channels(text)
    # in some configs these stand outside, and count instead
    text.max_position_embeddings = dims.train_length
    if hasattr(text, "original_max_position_embeddings"):
        text.original_max_position_embeddings = dims.train_length
    text.rope_parameters = transform.rope_parameters(dict(given), rotary_channels(text), length)
    return twin


def rope_parameters_of(config: Any) -> dict[str, Any]:
    """What a config says of its rotary frequencies. Raises NotApplicable if it says nothing, or not one thing."""
    given: dict[str, Any] | None = getattr(text_config(config), "rope_parameters", None)
    if not given and getattr(text_config(config), "rotary_dim", None):  # GPT-J and CodeGen
        raise NotApplicable(f"the rotary frequencies of {type(config).__name__} stand in code, not in its config")
    if not given:
        raise NotApplicable(f"{type(config).__name__} has no rotary frequencies")
    if "rope_theta" not in given:
        raise NotApplicable(f"{type(config).__name__} has other rotary frequencies in some blocks")
    return given


def head_channels(text: Any) -> int:
    """Channels of a head."""
    return getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads


def rotary_channels(text: Any) -> int:
    """Channels of a head that are rotated."""
    return int(head_channels(text) * text.rope_parameters.get("partial_rotary_factor", 1.0))


def check_counts(model: Pretrained, transform: Transform, dims: Dims) -> None:
    """Raises NotApplicable if the architecture does not read the rotary frequencies of its config.

    The transform is tried once, on inputs that are STRETCH times as long as a training length of SMALL tokens. One
    that leaves frequencies as they are, such as a factor of 1 or the base that is set already, shows nothing.
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
    """Whether the transform turns queries as RoPE over `channels` channels does without it."""
    plain = Rope(Dims(channels, 1, 1, transform.dims.train_length), base, 1.0)
    changed, _ = transform.apply(plain, Window(plain.dims), STRETCH * SMALL)
    q_BHTC, pos_BT = torch.ones(1, 1, PROBED, channels), torch.arange(PROBED)[None]
    return torch.equal(changed.rotate(q_BHTC, q_BHTC, pos_BT)[0], plain.rotate(q_BHTC, q_BHTC, pos_BT)[0])


def trying(model: Pretrained, work: Callable[[], T]) -> T:
    """What `work` gives. Raises NotApplicable for a change that transformers refuses."""
    try:
        return work()
    except Exception as error:  # whatever an architecture makes of a config that is not its own
        if is_out_of_memory(error):
            raise
        raise NotApplicable(f"transformers refuses it for {type(model).__name__}: {why(error)}") from error


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
