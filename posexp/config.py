"""Typed configuration of every command: names, types, defaults and the meaning of each knob.

YAML under configs/ only holds named choices of these.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from posexp.errors import Misuse


def knob(default: Any, meaning: str, *, least: float | None = None, identity: bool = True) -> Any:
    """A dataclass field with its one-line `meaning` and its smallest allowed value.

    `identity=False` marks what does not change a run's result, only where or how it is kept.
    """
    metadata = {"meaning": meaning, "least": least, "identity": identity}
    if isinstance(default, (list, type)):
        factory = default if isinstance(default, type) else lambda: list(default)
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


class Mlp(Enum):
    swiglu = "swiglu"
    gelu = "gelu"


class Source(Enum):
    stdlib = "stdlib"
    files = "files"
    hub = "hub"


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


class WandbMode(Enum):
    offline = "offline"
    online = "online"
    disabled = "disabled"


@dataclass
class ModelConfig:
    d_model: int = knob(128, "width of the residual stream", least=1)
    n_layer: int = knob(5, "number of blocks", least=1)
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
    source: Source = knob(Source.stdlib, "stdlib, files or hub")
    paths: Any = knob(None, "files: a path, glob, folder, or list of these; the training documents, or all of them")
    valid: Any = knob(None, "files: the same for the validation split; left out, documents are split by hash")
    test: Any = knob(None, "files: the same for the test split")
    field: str = knob("text", "name of the text field or column of jsonl, parquet and hub rows")
    document_start: str = knob("", "regular expression; a line that matches begins a new document")
    dataset: str = knob("", "hub: repository id of the dataset")
    subset: str = knob("", "hub: name of the dataset's configuration")
    revision: str = knob("main", "hub: branch, tag or commit")
    tokenizer: str = knob("bpe", "bpe (learned on the training split), bytes, or the path of a tokenizer.json")
    vocab_size: int = knob(2048, "entries of the learned bpe", least=257)
    cross_documents: bool = knob(False, "let training windows run from one document into the next")
    cache: str = knob("~/.cache/posexp", "folder of the token stores", identity=False)

    def __post_init__(self) -> None:
        check_least(self, "data")


@dataclass
class TrainConfig:
    length: int = knob(128, "training length, in tokens", least=1)
    tokens: int = knob(1_000_000, "training budget, in tokens", least=1)
    batch_tokens: int = knob(1024, "tokens of one optimizer step; a multiple of length", least=1)
    accumulate: int = knob(1, "pieces that a step's batch is computed in", least=1)
    lr: float = knob(3e-3, "peak learning rate", least=0)
    warmup: float = knob(0.1, "share of the steps in which the learning rate rises", least=0)
    weight_decay: float = knob(0.1, "AdamW decay of matrices", least=0)
    clip: float = knob(1.0, "largest gradient norm", least=0)
    precision: Precision = knob(Precision.auto, "auto: bfloat16 autocast on a GPU, float32 on a CPU")
    compile: bool = knob(True, "torch.compile the model on a GPU")
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
        None, "tokens of context; left out: 1, 2, 4, 8 and 16 times train.length, as far as documents reach"
    )
    protocols: list[str] = knob(["same_targets", "nonoverlapping"], "which targets are scored with which context")
    stride: int | None = knob(None, "tokens scored at a time; left out: a quarter of the shortest length", least=1)
    targets: int | None = knob(2048, "bound on the tokens scored per length; null: all there are", least=1)
    split: Split = knob(Split.valid, "train, valid or test")
    batch_tokens: int = knob(16384, "tokens evaluated at a time", least=1)
    precision: Precision = knob(Precision.auto, "auto: bfloat16 autocast on a GPU, float32 on a CPU")

    def __post_init__(self) -> None:
        check_least(self, "eval")
        if self.lengths is not None:
            check_lengths(self.lengths)
        if not self.protocols:
            raise Misuse("eval.protocols is empty: name at least one")


@dataclass
class WandbConfig:
    mode: WandbMode = knob(WandbMode.offline, "offline, online or disabled; metrics.jsonl is the truth in every case")
    project: str = knob("posexp", "wandb project")
    entity: str | None = knob(None, "wandb user or team")


@dataclass
class TrainCommand:
    """posexp train"""

    scheme: Any = knob("???", "how the model is told where its tokens are: +scheme=<name>")
    label: str = knob("???", "what folders and tables call the run; left out: the scheme's name", identity=False)
    seed: int = knob(0, "seed of the initial weights and of the data order", least=0, identity=False)
    model: ModelConfig = knob(ModelConfig, "the decoder")
    data: DataConfig = knob(DataConfig, "the corpus and its tokenizer")
    train: TrainConfig = knob(TrainConfig, "the training run")
    eval: EvalConfig = knob(EvalConfig, "the evaluation after training", identity=False)
    wandb: WandbConfig = knob(WandbConfig, "the copy of the metrics in wandb", identity=False)
    results: str = knob("results", "folder of all groups", identity=False)
    group: str = knob("default", "folder of the runs that belong together", identity=False)
    device: Device = knob(Device.auto, "auto: the GPU if there is one", identity=False)

    def __post_init__(self) -> None:
        check_least(self, "")
        check_name("label", self.label)
        check_name("group", self.group)


@dataclass
class EvalCommand:
    """posexp eval"""

    runs: str = knob("*", "which run folders of the group: a glob")
    eval: EvalConfig = knob(EvalConfig, "lengths, protocols and targets")
    wandb: WandbConfig = knob(WandbConfig, "the copy of the rows in wandb")
    results: str = knob("results", "folder of all groups")
    group: str = knob("default", "folder of the runs that belong together")
    device: Device = knob(Device.auto, "auto: the GPU if there is one")
    cache: str | None = knob(None, "folder of the token stores; left out: the one of the run")
    trust: bool = knob(False, "run a scheme's code from outside posexp that a run folder names")

    def __post_init__(self) -> None:
        check_name("group", self.group)


@dataclass
class ReportCommand:
    """posexp report"""

    runs: str = knob("*", "which run folders of the group: a glob")
    results: str = knob("results", "folder of all groups")
    group: str = knob("default", "folder of the runs that belong together")
    mixed_targets: bool = knob(False, "put rows with different targets into one table")

    def __post_init__(self) -> None:
        check_name("group", self.group)


@dataclass
class RunsCommand:
    """posexp runs"""

    results: str = knob("results", "folder of all groups")
    group: str = knob("*", "which groups: a glob")


@dataclass
class SchemesCommand:
    """posexp schemes"""


COMMANDS: dict[str, type] = {
    "train": TrainCommand,
    "eval": EvalCommand,
    "report": ReportCommand,
    "runs": RunsCommand,
    "schemes": SchemesCommand,
}


def check_least(section: Any, prefix: str) -> None:
    """Raises Misuse for a number below its knob's smallest allowed value."""
    for knob_ in fields(section):
        value, least = getattr(section, knob_.name), knob_.metadata["least"]
        if least is not None and value is not None and not value >= least:
            name = f"{prefix}.{knob_.name}" if prefix else knob_.name
            raise Misuse(f"{name}={value} must be at least {least}")


def check_lengths(lengths: list[int]) -> None:
    """Raises Misuse unless `lengths` are positive and all different."""
    if not lengths:
        raise Misuse("eval.lengths is empty: name at least one, as in --lengths 512,2048")
    if bad := [n for n in lengths if n < 1]:
        raise Misuse(f"evaluation length {bad[0]} must be at least 1")
    if repeated := [n for n in set(lengths) if lengths.count(n) > 1]:
        raise Misuse(f"evaluation length {repeated[0]} is given more than once")


def check_name(key: str, name: str) -> None:
    """Raises Misuse unless `name` is one plain folder name."""
    if name in {"", ".", ".."} or "/" in name or "\\" in name or name.startswith("."):
        raise Misuse(f"{key}={name!r} must be a plain folder name")


def config_dir() -> Path:
    """The folder of named choices: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise Misuse("the folder configs/ is missing: reinstall posexp")


def meanings(section: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, meaning) of every knob of a config dataclass, for --help."""
    for knob_ in fields(section):
        nested = knob_.default_factory
        if is_dataclass(nested):
            yield from meanings(nested, f"{prefix}{knob_.name}.")
        else:
            yield prefix + knob_.name, knob_.metadata["meaning"]
