"""What each command takes: its own knobs, and the sections of posexp/config/sections.py."""

from dataclasses import dataclass, replace
from typing import Any

from posexp.config.fields import check_least, check_lengths, check_name, knob
from posexp.config.sections import (
    AttentionPath,
    Bos,
    DataConfig,
    Device,
    EvalConfig,
    Measure,
    ModelConfig,
    Precision,
    Split,
    TrainConfig,
    TrainerConfig,
    WandbConfig,
)
from posexp.config.values import plain_value
from posexp.errors import Misuse

FULL_WINDOW = {"_target_": "posexp.windows.Window"}


@dataclass
class TrainCommand:
    """posexp train"""

    scheme: Any = knob("???", "how the model is told where its tokens are: +scheme=<name>", part=True)
    window: Any = knob(None, "what a token sees of those before it: window=<name>; null: everything", part=True)
    label: str = knob("???", "what folders and tables call the run; left out: its scheme and window", identity=False)
    seed: int = knob(0, "seed of the initial weights and of the data order", least=0, identity=False)
    model: ModelConfig = knob(ModelConfig, "the decoder")
    data: DataConfig = knob(DataConfig, "the corpus and its tokenizer")
    train: TrainConfig = knob(TrainConfig, "the training run")
    trainer: TrainerConfig = knob(TrainerConfig, "the processes that it is trained by", identity=False)
    eval: EvalConfig = knob(EvalConfig, "the evaluation after training", identity=False)
    wandb: WandbConfig = knob(WandbConfig, "the copy of the metrics in wandb", identity=False)
    results: str = knob("results", "folder of all groups", identity=False)
    group: str = knob("default", "folder of the runs that belong together", identity=False)
    device: Device = knob(Device.auto, "auto: the GPU if there is one", identity=False)

    def __post_init__(self) -> None:
        check_least(self, "")
        check_name("label", self.label)
        if self.window == FULL_WINDOW:
            self.window = None  # two ways to say the same, and one run
        check_name("group", self.group)


@dataclass
class EvalCommand:
    """posexp eval"""

    runs: str = knob("*", "which run folders of the group: a glob, or several with commas between")
    transform: dict[str, Any] = knob(dict, "changes to a trained model, a set of rows each: +transform=<name>,<name>")
    window: Any = knob(None, "what a token sees, instead of what it saw in training: window=<name>")
    hf: str | None = knob(None, "instead of runs, a checkpoint that transformers loads: a folder or a hub id")
    train_length: int | None = knob(None, "hf: the training length, where its config does not say it", least=1)
    bos: Any = knob("auto", "hf: begin each window with the beginning token; auto: as the tokenizer does; true, false")
    data: DataConfig | None = knob(None, "other text than the run's own, in the run's tokens: data=files data.paths=…")
    eval: Any = knob(dict, "what is chosen; a run goes on as its own eval.* say", choices_of=EvalConfig)
    wandb: WandbConfig = knob(WandbConfig, "the copy of the rows in wandb")
    results: str = knob("results", "folder of all groups")
    group: str = knob("default", "folder of the runs that belong together")
    device: Device = knob(Device.auto, "auto: the GPU if there is one")
    cache: str | None = knob(None, "folder of the token stores; left out: the one of the run")
    trust: bool = knob(False, "run code from outside posexp that a run folder or a checkpoint names")

    def __post_init__(self) -> None:
        check_least(self, "")
        check_name("group", self.group)
        self.eval_config(EvalConfig())  # checks what was chosen
        try:
            self.bos = Bos(str(plain_value(self.bos)).lower())  # YAML and Hydra read `true` as a boolean
        except ValueError:
            raise Misuse(f"hf.bos={self.bos} must be auto, true or false") from None
        if self.hf is None and self.train_length is not None:
            raise Misuse(f"train_length={self.train_length} is for hf=…: runs of posexp know theirs")
        if self.hf is None and self.bos is not Bos.auto:
            raise Misuse(f"hf.bos={self.bos.value} is for hf=…: runs of posexp never see a beginning token")
        if self.hf is not None and self.runs != "*":
            raise Misuse("--runs chooses among runs of posexp, and hf=… is a checkpoint: say one of the two")

    def eval_config(self, otherwise: EvalConfig) -> EvalConfig:
        """How to evaluate a model that was told to be evaluated as `otherwise` says. Raises Misuse for a bad choice."""
        return replace(otherwise, **self.eval)


@dataclass
class ReportCommand:
    """posexp report"""

    runs: str = knob("*", "which run folders of the group: a glob, or several with commas between")
    results: str = knob("results", "folder of all groups")
    group: str = knob("default", "folder of the runs that belong together")
    all: bool = knob(False, "--all: print every set of targets and protocol, not the headline alone")
    variants: bool = knob(True, "also rows of other windows and transforms than a run was trained with")
    measure: Measure | None = knob(None, "ppl, nll, bits_per_byte or exact_match; left out: ppl, of tasks exact_match")
    html: bool = knob(False, "--html: also page.html, the whole report as one file for a browser")
    folder: str = knob("report", "name of the report's folder in the group")

    def __post_init__(self) -> None:
        check_name("group", self.group)
        check_name("folder", self.folder)


@dataclass
class CompareCommand:
    """posexp compare"""

    curves: list[str] = knob([], "what posexp report calls them: the base, then curves or globs to compare with it")
    protocol: str | None = knob(None, "compare under this protocol alone; left out: under all that were measured")
    results: str = knob("results", "folder of all groups")
    group: str = knob("default", "folder of the runs that belong together")

    def __post_init__(self) -> None:
        check_name("group", self.group)


@dataclass
class PowerCommand:
    """posexp power"""

    curves: list[str] = knob([], "two curves, as posexp report calls them")
    difference: float = knob(0.01, "the difference to find, nats per token; 0.01 is 1 % in perplexity")
    power: float = knob(0.8, "the probability to find it")
    protocol: str = knob("same_targets", "the protocol it is measured under")
    results: str = knob("results", "folder of all groups")
    group: str = knob("default", "folder of the runs that belong together")

    def __post_init__(self) -> None:
        check_name("group", self.group)
        if not self.difference > 0:
            raise Misuse(f"difference={self.difference} must be above 0")
        if not 0.1 <= self.power <= 0.999:
            raise Misuse(f"power={self.power} is a probability, from 0.1 to 0.999")


@dataclass
class RunsCommand:
    """posexp runs"""

    results: str = knob("results", "folder of all groups")
    group: str = knob("*", "which groups: a glob")


@dataclass
class SchemesCommand:
    """posexp schemes"""

    names: list[str] = knob([], "show all of these schemes, windows, transforms and models; left out: a line for each")


@dataclass
class CheckCommand:
    """posexp check"""

    schemes: list[str] = knob([], "names of schemes; left out: all")
    lengths: list[int] = knob([128, 1024, 8192, 65536], "positions to check, counted from 0")

    def __post_init__(self) -> None:
        check_lengths(self.lengths, "lengths")


@dataclass
class BenchCommand:
    """posexp bench"""

    schemes: list[str] = knob(
        ["none", "sinusoidal", "learned", "rope", "xpos", "alibi", "t5", "kerple_log"],
        "names of schemes; none is always among them: ratios are to it",
    )
    window: Any = knob(None, "each scheme through this window, too: window=<name>")
    peers: bool = knob(False, "--peers: also transformers and x-transformers (posexp[peers])")
    peers_path: str | None = knob(None, "folder of a nanoGPT checkout, whose model.py is measured too")
    model: ModelConfig = knob(ModelConfig, "the decoder")
    vocab_size: int = knob(8192, "entries of the vocabulary", least=2)
    batch: int = knob(8, "sequences of a training step", least=1)
    length: int = knob(512, "tokens of a training sequence", least=1)
    lengths: list[int] = knob([512, 2048, 8192], "tokens of the windows that are evaluated")
    rounds: int = knob(7, "rounds that count, in each of which all take turns", least=1)
    memory_limit_gib: float = knob(13.0, "address space that a contender may take on Linux without a GPU, in GiB")
    precision: Precision = knob(Precision.auto, "auto: bfloat16 autocast on a GPU, float32 on a CPU")
    attention: AttentionPath = knob(
        AttentionPath.auto,
        "how posexp computes attention; auto: the fastest way; blocks, flex or dense to compare them",
    )
    device: Device = knob(Device.auto, "auto: the GPU if there is one")
    threads: int | None = knob(None, "threads of each contender; left out: what PyTorch takes by itself", least=1)
    folder: str = knob("results/bench", "where the bench gets a folder of its own")
    name: str | None = knob(None, "what that is called; left out: today's date and what ran")

    def __post_init__(self) -> None:
        check_least(self, "")
        check_lengths(self.lengths, "lengths")
        if not self.memory_limit_gib > 0:
            raise Misuse(f"memory_limit_gib={self.memory_limit_gib} must be above 0")
        if self.name is not None:
            check_name("name", self.name)


@dataclass
class InspectCommand:
    """posexp inspect"""

    runs: str = knob("*", "which run folders of the group: a glob, or several with commas between")
    length: int | None = knob(None, "tokens of the inspected inputs; left out: twice the training length", least=2)
    split: Split = knob(Split.valid, "train, valid or test")
    results: str = knob("results", "folder of all groups")
    group: str = knob("default", "folder of the runs that belong together")
    device: Device = knob(Device.auto, "auto: the GPU if there is one")
    cache: str | None = knob(None, "folder of the token stores; left out: the one of the run")
    trust: bool = knob(False, "run a scheme's code from outside posexp that a run folder names")

    def __post_init__(self) -> None:
        check_least(self, "")
        check_name("group", self.group)


@dataclass
class ExportCommand:
    """posexp export"""

    runs: str = knob("*", "which run folders of the group: a glob, or several with commas between")
    folder: str | None = knob(None, "where the files go, for one run; left out: export/ in the run's folder")
    results: str = knob("results", "folder of all groups")
    group: str = knob("default", "folder of the runs that belong together")
    cache: str | None = knob(None, "folder of the token stores; left out: the one of the run")
    trust: bool = knob(False, "run a scheme's code from outside posexp that a run folder names")

    def __post_init__(self) -> None:
        check_name("group", self.group)


COMMANDS: dict[str, type] = {
    "train": TrainCommand,
    "eval": EvalCommand,
    "report": ReportCommand,
    "compare": CompareCommand,
    "power": PowerCommand,
    "runs": RunsCommand,
    "schemes": SchemesCommand,
    "check": CheckCommand,
    "bench": BenchCommand,
    "inspect": InspectCommand,
    "export": ExportCommand,
}
