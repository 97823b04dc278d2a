"""The sections of the typed configuration, with the name, type, default and meaning of each option.

posexp/config/commands.py combines sections into commands. The YAML files under configs/ are named choices of values.
"""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from posexp.config.fields import check_least, check_lengths, knob
from posexp.config.values import typed_value
from posexp.errors import Misuse

# Options with named values: each value is stored as its name.
Mlp = Enum("Mlp", {"swiglu": "swiglu", "gelu": "gelu"})
AttentionGate = Enum("AttentionGate", {"none": "none", "head": "head", "element": "element"})
Source = Enum(
    "Source",
    {"stdlib": "stdlib", "files": "files", "hub": "hub", "task": "task", "tokens": "tokens", "track": "track"},
)
Split = Enum("Split", {"train": "train", "valid": "valid", "test": "test"})
Device = Enum("Device", {"auto": "auto", "cpu": "cpu", "cuda": "cuda"})
Precision = Enum("Precision", {"auto": "auto", "float32": "float32", "bfloat16": "bfloat16"})
Clock = Enum("Clock", {"wall": "wall", "cpu": "cpu"})
AttentionPath = Enum("AttentionPath", {"auto": "auto", "blocks": "blocks", "flex": "flex", "dense": "dense"})
Bos = Enum("Bos", {"auto": "auto", "true": "true", "false": "false"})
Strategy = Enum("Strategy", {"ddp": "ddp", "fsdp": "fsdp"})
Optimizer = Enum("Optimizer", {"adamw": "adamw", "muon": "muon"})
Measure = Enum(
    "Measure",
    {
        "ppl": "ppl",
        "nll": "nll",
        "bits_per_byte": "bits_per_byte",
        "exact_match": "exact_match",
        "token_accuracy": "token_accuracy",
    },
)
LoggerName = Enum("LoggerName", {"wandb": "wandb", "tensorboard": "tensorboard", "csv": "csv"})
WandbMode = Enum("WandbMode", {"offline": "offline", "online": "online", "disabled": "disabled"})


@dataclass
class ModelConfig:
    target: str = knob("", "class of a model of your own, such as mine.Decoder; empty: that of posexp")
    d_model: int = knob(128, "width of the residual stream", least=1, most=1 << 20)
    n_layer: int = knob(5, "number of blocks", least=1, most=1 << 16)
    n_head: int = knob(4, "attention heads; must divide d_model", least=1)
    n_kv_head: int | None = knob(
        None, "heads of keys and values, each for n_head / n_kv_head heads of queries; null: n_head", least=1
    )
    mlp: Mlp = knob(Mlp.swiglu, "swiglu or gelu, at equal parameter count")
    qk_norm: bool = knob(False, "RMS-normalise queries and keys of each head")
    dropout: float = knob(0.0, "dropout probability in training", least=0)
    attention_gate: AttentionGate = knob(
        AttentionGate.none, "sigmoid gate after attention, from its input: none, head (one per head) or element"
    )
    short_conv: int = knob(
        0,
        "0, or 4: add to each key and value a learned sum of its last 4, channel by channel; where a text is cropped, "
        "its first 3 tokens change",
    )

    def __post_init__(self) -> None:
        check_least(self, "model")
        if self.short_conv not in (0, 4):
            raise Misuse(f"model.short_conv={self.short_conv} must be 0 or 4")
        if self.d_model % self.n_head:
            raise Misuse(f"model.d_model={self.d_model} must be divisible by model.n_head={self.n_head}")
        if self.n_head % (self.n_kv_head or 1):
            raise Misuse(f"model.n_head={self.n_head} must be divisible by model.n_kv_head={self.n_kv_head}")
        if self.n_kv_head == self.n_head:
            self.n_kv_head = None  # both mean the same run
        if self.dropout >= 1:
            raise Misuse(f"model.dropout={self.dropout} must be below 1")

    @property
    def component(self) -> dict[str, str] | None:
        """The class of the model as a component, None for that of posexp."""
        return {"_target_": self.target} if self.target else None


@dataclass
class DataConfig:
    source: Source = knob(Source.stdlib, "stdlib, files, hub, task, tokens or track")
    paths: Any = knob(
        None, "files: path, glob, folder or list of the training documents, or of all to split", text=True
    )
    valid: Any = knob(None, "files: the same for the validation split; null: split documents by hash", text=True)
    test: Any = knob(None, "files: the same for the test split", text=True)
    field: str = knob("text", "name of the text field in rows of jsonl, json, csv, tsv, parquet, arrow and hub")
    document_start: str = knob("", "regular expression of the lines that begin a new document")
    names: int = knob(
        0,
        "files: most frequent names of a document to replace by random ones in every segment; 0: none",
        least=0,
        most=26,
    )
    document_end: int | None = knob(
        None, "tokens: id that ends each document of a .bin without .idx; null: one document per file", least=0
    )
    dataset: str = knob("", "hub: repository id of the dataset; tokens: the same, whose files data.paths names")
    subset: str = knob("", "hub: name of the dataset's configuration")
    revision: str = knob("main", "hub: branch, tag or commit")
    task: str = knob(
        "",
        "task: copy, copy_unique, selective_copy, reverse, sort, mode, parity, flipflop, addition, induction, passkey, "
        "needle, needle_multi, variables",
    )
    task_size: int = knob(8, "task: largest size of an example in training", least=1, most=1 << 20)
    task_examples: int = knob(50_000, "task: number of training examples", least=1, most=1 << 30)
    track: str = knob("", "track: markov or recall")
    track_documents: int = knob(
        8192, "track: number of training documents, of 2,049 tokens each", least=1, most=1 << 20
    )
    tokenizer: str = knob(
        "bpe",
        "bpe (learned on the training split), bytes, or a tokenizer.json or its folder; tokens: none, or their own; "
        "track: none",
    )
    vocab_size: int = knob(
        2048, "vocabulary size of the learned bpe, or of tokens or a track without tokenizer", most=1 << 24
    )
    hold_out: bool = knob(True, "hold out validation and test documents from training if the corpus has none")
    cross_documents: bool = knob(False, "let training sequences cross document boundaries")
    cache: str = knob("~/.cache/posexp", "folder of the token stores", identity=False)
    store: str | None = knob(
        None, "folder name of the token store to load, even if its text is not on this machine", identity=False
    )

    def __post_init__(self) -> None:
        check_least(self, "data")
        least = 257 if self.tokenizer == "bpe" else 1
        if self.vocab_size < least:
            raise Misuse(f"data.vocab_size={self.vocab_size} must be at least {least}")
        if self.store is not None and not re.fullmatch("[0-9a-f]{16}", self.store):
            raise Misuse(f"data.store must be 16 hex digits, got {self.store!r}")


@dataclass
class TrainConfig:
    length: int = knob(128, "training length, in tokens", least=1)
    tokens: int = knob(1_000_000, "training budget, in tokens; with from=, by default a tenth of the parent's", least=1)
    batch_tokens: int = knob(1024, "tokens per optimizer step; a multiple of length", least=1)
    accumulate: int = knob(1, "micro-batches per optimizer step", least=1)
    optimizer: Optimizer = knob(
        Optimizer.adamw, "adamw, or muon for the linear layers of the blocks, with AdamW for all other weights"
    )
    lr: float = knob(3e-3, "peak learning rate", least=0)
    warmup: float = knob(0.1, "share of the steps with linear warm-up", least=0, most=1)
    weight_decay: float = knob(0.1, "weight decay of matrices", least=0)
    scheme_lr: float = knob(1.0, "learning rate of the scheme's parameters, in multiples of lr", least=0)
    scheme_weight_decay: bool = knob(True, "decay the scheme's matrices too; false: none of its parameters")
    clip: float = knob(1.0, "largest gradient norm; 0: no clipping", least=0)
    precision: Precision = knob(Precision.auto, "auto: bfloat16 autocast on a GPU, float32 on a CPU")
    compile: bool = knob(True, "torch.compile the model on a GPU")
    attention: AttentionPath = knob(AttentionPath.auto, "auto: the fastest; blocks, flex, dense: for comparisons")
    checkpoint_every: int = knob(200, "steps between checkpoints", least=1, identity=False)
    validate_every: int | None = knob(
        None, "steps between losses on validation text; null: ten in a run; 0: none", least=0, identity=False
    )

    def __post_init__(self) -> None:
        check_least(self, "train")
        if self.batch_tokens % self.length:
            raise Misuse(f"train.batch_tokens={self.batch_tokens} must be a multiple of train.length={self.length}")
        if (sequences := self.batch_tokens // self.length) % self.accumulate:
            raise Misuse(f"train.accumulate={self.accumulate} must divide the {sequences} sequences of a step")

    @property
    def steps(self) -> int:
        return -(-self.tokens // self.batch_tokens)


@dataclass
class EvalConfig:
    lengths: list[int] | None = knob(
        None,
        "tokens of context, or sizes of a task; null: 1, 2, 4, 8 and 16 times train.length, if documents allow, and "
        "for same_targets parts of it down to a 16th",
    )
    protocols: list[str] | None = knob(
        None,
        "names of protocols; null: same_targets, level and nonoverlapping, or exact_match for a task",
    )
    stride: int | None = knob(None, "sliding protocols: tokens scored per step; null: 32", least=1)
    targets: int | None = knob(
        8192,
        "bound on the tokens scored per length, approximate for protocols that score whole spans; null: no bound",
        least=1,
    )
    controls: bool = knob(
        True, "same_targets: add controls that cut attention, or shuffle the text, beyond the training length"
    )
    judged_from: int | None = knob(
        None,
        "judge as if the training length were this shorter one: a check that verdicts find context that is used",
        least=1,
    )
    primary: int | None = knob(
        None, "length at which posexp compare compares pairs of curves first; null: the longest", least=1
    )
    key_tokens: str | None = knob(
        None, "key_tokens: the folder of the run that chooses the tokens, or the list that it has written"
    )
    key_gain: float = knob(2.0, "key_tokens: a chosen token's loss falls by more than this many nats", least=0)
    key_loss: float = knob(2.0, "key_tokens: a chosen token's loss behind long context is below this, in nats", least=0)
    split: Split = knob(Split.valid, "train, valid or test")
    batch_tokens: int = knob(16384, "tokens per evaluation batch", least=1, most=1 << 26)
    precision: Precision = knob(Precision.auto, "auto: bfloat16 autocast on a GPU, float32 on a CPU")
    attention: AttentionPath = knob(
        AttentionPath.auto, "attention path; auto: the fastest; blocks, flex, dense: for comparisons"
    )

    def __post_init__(self) -> None:
        check_least(self, "eval")
        if self.lengths is not None:
            check_lengths(self.lengths)
        if self.protocols == []:
            raise Misuse("eval.protocols must name at least one protocol")


@dataclass
class TrainerConfig:
    devices: int = knob(1, "training processes, one per GPU (or all on the CPU), which share each batch", least=1)
    strategy: Strategy = knob(
        Strategy.ddp, "ddp: replicate the model in every process; fsdp: shard it, from model=base on"
    )

    def __post_init__(self) -> None:
        check_least(self, "trainer")


@dataclass
class Parent:
    """The run whose training another run continues, as it was. Its weights alone count for the name of the other run.

    length: its training length. base_length: the length at which its scheme was trained before any transform. tokens:
    its own budget. `store` and `tokenizer` are the hashes of its text and of its tokenizer, `parent` is its own parent.
    """

    run: str = knob("", "its name", identity=False)
    weights: str = knob("", "twelve hex digits of the sha256 of its final checkpoint")
    digest: str = knob("", "the digest of its configuration, equal for all seeds", identity=False)
    length: int = knob(1, "its training length", least=1, identity=False)
    base_length: int = knob(1, "the training length of its scheme before any transform", least=1, identity=False)
    tokens: int = knob(1, "its training budget", least=1, identity=False)
    store: str = knob("", "the token store it was trained on, empty for a child on other text", identity=False)
    tokenizer: str = knob("", "the sha256 of its tokenizer", identity=False)
    folder: str = knob("", "its folder when it was read", identity=False)
    parent: "Parent | None" = knob(None, "the run that it continues itself", identity=False)

    def __post_init__(self) -> None:
        check_least(self, "parent")

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Parent":
        """Return the parent that a stored configuration describes. Raises Misuse if it describes none."""
        try:
            return cast(Parent, typed_value(cls, stored))
        except (TypeError, ValueError):
            raise Misuse("parent has other options than those of a parent") from None


@dataclass
class WandbConfig:
    mode: WandbMode = knob(WandbMode.offline, "offline, online or disabled")
    project: str = knob("posexp", "wandb project")
    entity: str | None = knob(None, "wandb user or team")
    name: str | None = knob(None, "name of the run in wandb; null: that of its folder")
    tags: list[str] = knob([], "tags of the run, beside its group")
    notes: str | None = knob(None, "notes of the run")


def config_dir() -> Path:
    """Return the folder configs/, inside the installed package or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "scheme").is_dir():
            return folder
    raise Misuse("the folder configs/ is missing: reinstall posexp")
