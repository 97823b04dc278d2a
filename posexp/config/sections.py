"""Typed configuration: the sections that commands (posexp/config/commands.py) are made of, with the names, types,
defaults and meaning of each knob.

YAML under configs/ only holds named choices of these.
"""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from posexp.config.fields import check_least, check_lengths, knob
from posexp.errors import Misuse


class Mlp(Enum):
    swiglu = "swiglu"
    gelu = "gelu"


class Source(Enum):
    stdlib = "stdlib"
    files = "files"
    hub = "hub"
    task = "task"


class Split(Enum):
    train = "train"
    valid = "valid"
    test = "test"


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class AttentionPath(Enum):
    auto = "auto"
    blocks = "blocks"
    flex = "flex"
    dense = "dense"


class Bos(Enum):
    auto = "auto"
    true = "true"
    false = "false"


class Strategy(Enum):
    ddp = "ddp"
    fsdp = "fsdp"


class Measure(Enum):
    ppl = "ppl"
    nll = "nll"
    bits_per_byte = "bits_per_byte"
    exact_match = "exact_match"


class WandbMode(Enum):
    offline = "offline"
    online = "online"
    disabled = "disabled"


@dataclass
class ModelConfig:
    d_model: int = knob(128, "width of the residual stream", least=1, most=1 << 20)
    n_layer: int = knob(5, "number of blocks", least=1, most=1 << 16)
    n_head: int = knob(4, "attention heads; must divide d_model", least=1)
    mlp: Mlp = knob(Mlp.swiglu, "swiglu or gelu, at equal parameter count")
    qk_norm: bool = knob(False, "RMS-normalise queries and keys of each head")
    dropout: float = knob(0.0, "share of activations dropped in training", least=0)

    def __post_init__(self) -> None:
        check_least(self, "model")
        if self.d_model % self.n_head:
            raise Misuse(f"model.d_model={self.d_model} is not divisible by model.n_head={self.n_head}")
        if self.dropout >= 1:
            raise Misuse(f"model.dropout={self.dropout} must be below 1")


@dataclass
class DataConfig:
    source: Source = knob(Source.stdlib, "stdlib, files, hub or task")
    paths: Any = knob(
        None, "files: a path, glob, folder, or list of these; the training documents, or all of them", text=True
    )
    valid: Any = knob(
        None, "files: the same for the validation split; left out, documents are split by hash", text=True
    )
    test: Any = knob(None, "files: the same for the test split", text=True)
    field: str = knob("text", "name of the text field of rows: jsonl, json, csv, tsv, parquet, arrow and hub")
    document_start: str = knob("", "regular expression; a line that matches begins a new document")
    dataset: str = knob("", "hub: repository id of the dataset")
    subset: str = knob("", "hub: name of the dataset's configuration")
    revision: str = knob("main", "hub: branch, tag or commit")
    task: str = knob("", "task: copy, reverse, addition, induction or passkey")
    task_size: int = knob(8, "task: largest size of an example in training", least=1, most=1 << 20)
    task_examples: int = knob(50_000, "task: number of training examples", least=1, most=1 << 30)
    tokenizer: str = knob("bpe", "bpe (learned on the training split), bytes, or the path of a tokenizer.json")
    vocab_size: int = knob(2048, "entries of the learned bpe", least=257, most=1 << 24)
    hold_out: bool = knob(True, "take validation and test documents from the training ones where the corpus has none")
    cross_documents: bool = knob(False, "let training windows run from one document into the next")
    cache: str = knob("~/.cache/posexp", "folder of the token stores", identity=False)
    store: str | None = knob(
        None, "the token store to take, by its folder's name; its text need not be on this machine", identity=False
    )

    def __post_init__(self) -> None:
        check_least(self, "data")
        if self.store is not None and not re.fullmatch("[0-9a-f]{16}", self.store):
            raise Misuse(f"data.store={self.store!r} is no name of a token store, which is 16 hex digits")


@dataclass
class TrainConfig:
    length: int = knob(128, "training length, in tokens", least=1)
    tokens: int = knob(1_000_000, "training budget, in tokens", least=1)
    batch_tokens: int = knob(1024, "tokens of one optimizer step; a multiple of length", least=1)
    accumulate: int = knob(1, "pieces that a step's batch is computed in", least=1)
    lr: float = knob(3e-3, "peak learning rate", least=0)
    warmup: float = knob(0.1, "share of the steps in which the learning rate rises", least=0)
    weight_decay: float = knob(0.1, "AdamW decay of matrices", least=0)
    clip: float = knob(1.0, "largest gradient norm; 0: gradients are left as they are", least=0)
    precision: Precision = knob(Precision.auto, "auto: bfloat16 autocast on a GPU, float32 on a CPU")
    compile: bool = knob(True, "torch.compile the model on a GPU")
    attention: AttentionPath = knob(
        AttentionPath.auto, "how attention is computed; auto: the fastest way; blocks, flex or dense to compare them"
    )
    checkpoint_every: int = knob(200, "steps between checkpoints", least=1, identity=False)

    def __post_init__(self) -> None:
        check_least(self, "train")
        if self.batch_tokens % self.length:
            raise Misuse(f"train.batch_tokens={self.batch_tokens} is not a multiple of train.length={self.length}")
        if (self.batch_tokens // self.length) % self.accumulate:
            windows = self.batch_tokens // self.length
            raise Misuse(f"train.accumulate={self.accumulate} does not divide the {windows} windows of a step")
        if self.warmup > 1:
            raise Misuse(f"train.warmup={self.warmup} is a share of the steps, at most 1")

    @property
    def steps(self) -> int:
        return -(-self.tokens // self.batch_tokens)


@dataclass
class EvalConfig:
    lengths: list[int] | None = knob(
        None,
        "tokens of context; default 1, 2, 4, 8, 16 times train.length, within the reach of the text; of a task, sizes",
    )
    protocols: list[str] | None = knob(
        None,
        "which targets are scored with which context; left out: same_targets, nonoverlapping; of a task exact_match",
    )
    stride: int | None = knob(None, "protocols of sliding windows: tokens scored at a time; default 32", least=1)
    targets: int | None = knob(
        8192,
        "bound on the tokens scored per length, loose where whole windows are scored; null: all there are",
        least=1,
    )
    controls: bool = knob(True, "same_targets: also with attention cut, and far text shuffled, at the training length")
    split: Split = knob(Split.valid, "train, valid or test")
    batch_tokens: int = knob(16384, "tokens evaluated at a time", least=1, most=1 << 26)
    precision: Precision = knob(Precision.auto, "auto: bfloat16 autocast on a GPU, float32 on a CPU")
    attention: AttentionPath = knob(
        AttentionPath.auto, "how attention is computed; auto: the fastest way; blocks, flex or dense to compare them"
    )

    def __post_init__(self) -> None:
        check_least(self, "eval")
        if self.lengths is not None:
            check_lengths(self.lengths)
        if self.protocols == []:
            raise Misuse("eval.protocols is empty: name at least one")


@dataclass
class TrainerConfig:
    devices: int = knob(
        1, "processes that train the run together, one on each GPU (or all on the CPU); a step stays the same", least=1
    )
    strategy: Strategy = knob(
        Strategy.ddp, "ddp: each process holds the whole model; fsdp: they share it out, for model=base and larger"
    )

    def __post_init__(self) -> None:
        check_least(self, "trainer")


@dataclass
class WandbConfig:
    mode: WandbMode = knob(WandbMode.offline, "offline, online or disabled; metrics.jsonl is the truth in every case")
    project: str = knob("posexp", "wandb project")
    entity: str | None = knob(None, "wandb user or team")


def config_dir() -> Path:
    """The folder of named choices: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise Misuse("the folder configs/ is missing: reinstall posexp")
