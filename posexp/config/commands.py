"""The options of each command, with the sections of posexp/config/sections.py. A docstring is the form of a command."""

from dataclasses import dataclass, replace
from typing import Any

from posexp.config.bench import BenchCommand
from posexp.config.fields import check_least, check_lengths, check_name, knob
from posexp.config.reading import LeaderboardCommand, SchemesCommand
from posexp.config.sections import (
    Bos,
    DataConfig,
    Device,
    EvalConfig,
    LoggerName,
    Measure,
    ModelConfig,
    Parent,
    Split,
    TrainConfig,
    TrainerConfig,
    WandbConfig,
)
from posexp.config.values import plain_value
from posexp.errors import Misuse

FULL_WINDOW = {"_target_": "posexp.windows.Window"}
NO_TEMPERATURE = {"_target_": "posexp.temperatures.Temperature"}


@dataclass
class TrainCommand:
    """posexp train +scheme=<name> | from=… [key=value …] [-m [--detach] [hydra/launcher=…]]"""

    scheme: Any = knob("???", "the positional scheme: +scheme=<name>", part=True)
    window: Any = knob(None, "the attention window: window=<name>; null: full causal attention", part=True)
    temperature: Any = knob(
        None, "a factor on the logits that grows with the input: temperature=<name>; null: none", part=True
    )
    parent: Any = knob(None, "from=<run>: continue its training, with all of its options that are not typed", text=True)
    transform: Any = knob(None, "from: a change of the scheme in training: +transform=<name>", part=True)
    mixer: Any = knob(
        None, "a recurrent or linear layer in the place of attention: mixer=<name>; null: attention", part=True
    )
    label: str = knob(
        "???", "name of the run in folders and tables; default: scheme, window, temperature, mixer", identity=False
    )
    seed: int = knob(0, "seed of the initial weights and the data order", least=0, identity=False)
    model: ModelConfig = knob(ModelConfig, "the decoder")
    data: DataConfig = knob(DataConfig, "the corpus and its tokenizer")
    train: TrainConfig = knob(TrainConfig, "the training run")
    trainer: TrainerConfig = knob(TrainerConfig, "the training processes", identity=False)
    eval: EvalConfig = knob(EvalConfig, "the evaluation after training", identity=False)
    loggers: list[LoggerName] = knob(
        [LoggerName.wandb], "copies of metrics.jsonl and rows.jsonl: wandb, tensorboard, csv", identity=False
    )
    wandb: WandbConfig = knob(WandbConfig, "the copy in wandb", identity=False)
    results: str = knob("results", "folder of all groups", identity=False)
    group: str = knob("default", "name of the group, a folder of runs", identity=False)
    trust: bool = knob(False, "from: run external code that the parent's configuration names", identity=False)
    device: Device = knob(Device.auto, "auto: the GPU if there is one", identity=False)

    def __post_init__(self) -> None:
        check_least(self, "")
        check_name("label", self.label)
        self.parent = Parent.of(self.parent) if isinstance(self.parent, dict) else self.parent
        if self.window == FULL_WINDOW:
            self.window = None  # both mean the same run
        if self.temperature and self.temperature | {"everywhere": True} == NO_TEMPERATURE | {"everywhere": True}:
            self.temperature = None  # also where a preset says in which blocks
        check_name("group", self.group)

    @property
    def components(self) -> list[Any]:
        """The nodes that name classes by `_target_`."""
        return [self.scheme, self.window, self.temperature, self.transform, self.mixer, self.model.component]


@dataclass
class OfGroup:
    """The group that a command reads."""

    results: str = knob("results", "folder of all groups")
    group: str = knob("default", "name of the group, a folder of runs")

    def __post_init__(self) -> None:
        check_least(self, "")
        check_name("group", self.group)


@dataclass
class OfRuns(OfGroup):
    """The runs of the group that a command reads."""

    runs: str = knob("*", "run folders of the group: a glob, or several separated by commas")


@dataclass
class OfModels(OfRuns):
    """The runs whose trained models a command loads."""

    cache: str | None = knob(None, "folder of the token stores; null: the run's own")
    trust: bool = knob(False, "run external code that a run folder or a checkpoint names")


@dataclass
class EvalCommand(OfModels):
    """posexp eval --lengths 512,2048,8192 [--runs 'glob'] [+transform=a,b] [window=<name>] [key=value …]"""

    transform: dict[str, Any] = knob(dict, "changes to the trained model, with rows for each: +transform=<name>,<name>")
    window: Any = knob(None, "attention window in place of the one used in training: window=<name>")
    hf: str | None = knob(None, "checkpoint that transformers loads, in place of runs: a folder or a hub id")
    train_length: int | None = knob(None, "hf: the training length, if the checkpoint's config lacks it", least=1)
    bos: Any = knob("auto", "hf: begin each input with the BOS token; auto: as the tokenizer does; true, false")
    data: DataConfig | None = knob(None, "text in place of the run's, in its tokens: data=files data.paths=…")
    eval: Any = knob(dict, "options that replace those of the run's own evaluation", choices_of=EvalConfig)
    loggers: list[LoggerName] = knob([LoggerName.wandb], "copies of rows.jsonl: wandb, tensorboard, csv")
    wandb: WandbConfig = knob(WandbConfig, "the copy in wandb")
    device: Device = knob(Device.auto, "auto: the GPU if there is one")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.eval_config(EvalConfig())  # raises for a bad value
        try:
            self.bos = Bos(str(plain_value(self.bos)).lower())  # YAML and Hydra read `true` as a boolean
        except ValueError:
            raise Misuse(f"hf.bos={self.bos} must be auto, true or false") from None
        if self.hf is None and self.train_length is not None:
            raise Misuse(f"train_length={self.train_length} needs hf=…: runs of posexp store their training length")
        if self.hf is None and self.bos is not Bos.auto:
            raise Misuse(f"hf.bos={self.bos.value} needs hf=…: runs of posexp have no BOS token")
        if self.hf is not None and self.runs != "*":
            raise Misuse("--runs and hf=… cannot be combined: choose runs of posexp or a checkpoint")

    def eval_config(self, otherwise: EvalConfig) -> EvalConfig:
        """Return `otherwise` with the chosen options replaced. Raises Misuse for a bad value."""
        return replace(otherwise, **self.eval)


@dataclass
class ReportCommand(OfRuns):
    """posexp report [--html] [--runs 'glob'] [key=value …]"""

    all: bool = knob(False, "--all: print the tables of all targets and protocols, not only the headline")
    variants: bool = knob(True, "include rows with other windows or transforms than in training")
    measure: Measure | None = knob(
        None, "ppl, nll, bits_per_byte, exact_match or token_accuracy; null: ppl, or exact_match for tasks"
    )
    html: bool = knob(False, "--html: also write page.html, the whole report in one file for a browser")
    folder: str = knob("report", "name of the report's folder in the group")
    rows: str | None = knob(
        None,
        "a rows.csv to report in place of run folders, such as results/studies/<study>/rows.csv, in the group "
        "<study>-rows unless group is set",
    )
    oracle: str | None = knob(
        None,
        "curves trained at the evaluated length, a glob over labels; null: runs that differ in train.length alone",
    )
    loggers: list[LoggerName] = knob([], "copies of pictures, rows and verdicts: wandb, tensorboard, csv")
    wandb: WandbConfig = knob(WandbConfig, "the copies in wandb")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("folder", self.folder)


@dataclass
class CompareCommand(OfGroup):
    """posexp compare <base> <curve, or a quoted glob> … [key=value …]"""

    curves: list[str] = knob([], "labels of posexp report: the base, then curves or globs to compare with it")
    protocol: str | None = knob(None, "compare under this protocol alone; null: under every measured protocol")
    length: int | None = knob(
        None, "length of the primary comparison of each pair; null: eval.primary of the runs, or the longest", least=1
    )
    rows: str | None = knob(None, "a rows.csv to compare in place of run folders, as in results/studies/<study>")


@dataclass
class PowerCommand(OfGroup):
    """posexp power <base> <curve> [difference=0.01] [power=0.8] [key=value …]"""

    curves: list[str] = knob([], "two labels of posexp report")
    difference: float = knob(0.01, "difference to detect, in nats per token; 0.01 is 1 % in perplexity", above=0)
    power: float = knob(0.8, "probability of detecting the difference", least=0.1, most=0.999)
    protocol: str = knob("same_targets", "protocol of the compared losses")
    rows: str | None = knob(None, "a rows.csv to read in place of run folders, as in results/studies/<study>")


@dataclass
class RunsCommand:
    """posexp runs [--group 'glob']"""

    results: str = knob("results", "folder of all groups")
    group: str = knob("*", "groups to list: a glob")
    verify: bool = knob(False, "compare token stores and checkpoints with their checksums")


@dataclass
class DoctorCommand:
    """posexp doctor [key=value …]"""

    results: str = knob("results", "folder of all groups")
    cache: str = knob("~/.cache/posexp", "folder of the token stores")


@dataclass
class CheckCommand:
    """posexp check [scheme …] [hf=<folder or hub id>] [key=value …]"""

    schemes: list[str] = knob([], "names of schemes; empty: all")
    lengths: list[int] = knob([128, 1024, 8192, 65536], "input lengths to check, in tokens")
    hf: str | None = knob(None, "checkpoint to check in place of schemes: do its declared scaling and windows act?")
    trust: bool = knob(False, "hf: run external code that the checkpoint names")

    def __post_init__(self) -> None:
        check_lengths(self.lengths, "lengths")


@dataclass
class InspectCommand(OfModels):
    """posexp inspect [run, or a glob …] [key=value …]"""

    length: int | None = knob(None, "tokens of the inspected inputs; null: twice the training length", least=2)
    split: Split = knob(Split.valid, "train, valid or test")
    device: Device = knob(Device.auto, "auto: the GPU if there is one")


@dataclass
class ExportCommand(OfModels):
    """posexp export [run, or a glob …] [folder=…] [key=value …]"""

    folder: str | None = knob(None, "output folder, for a single run; null: export/ in the run's folder")


COMMANDS: dict[str, type] = {
    each.__name__.removesuffix("Command").lower(): each
    for each in (
        *(TrainCommand, EvalCommand, ReportCommand, CompareCommand, PowerCommand, LeaderboardCommand),
        *(RunsCommand, SchemesCommand, DoctorCommand, CheckCommand, BenchCommand, InspectCommand, ExportCommand),
    )
}

# The config groups of each command, as they are typed, with the choice of its defaults list. `transform` is not in that
# list of eval, because several may be chosen.
GROUPS: dict[str, dict[str, str | None]] = {name: {} for name in COMMANDS} | {
    "train": {"model": "tiny", "data": "stdlib", "+scheme": "???", "window": None, "temperature": None}
    | {"mixer": None, "+transform": None, "+experiment": None},
    "eval": {"data": None, "window": None, "+transform": None},
    "bench": {"model": "bench", "window": None, "temperature": None, "mixer": None},
}
