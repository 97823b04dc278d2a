"""posexp in Python: the functions behind the commands, for programs and notebooks.

A run is a `Run`, its folder, or its name, of which one run in results/ must have it. The functions raise posexp's
errors (posexp/errors.py) with one line, log to the logger `posexp`, and restore what they change in the process.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from posexp.errors import Misuse
from posexp.jobs.preserve import preserved
from posexp.runs.run import MARKS, Run, run_folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from tokenizers import Tokenizer

    from posexp.model.base import Model

RunLike = Run | str | Path
P = ParamSpec("P")
R = TypeVar("R")


def restoring(*, torch: bool) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that restores the process after the function, and PyTorch too if the function uses it."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with ExitStack() as held:
                held.enter_context(preserved())
                if torch:
                    from posexp.model import cpu

                    held.enter_context(cpu.preserved())
                return function(*args, **kwargs)

        return call

    return decorate


@restoring(torch=True)
def train(
    scheme: str | None = None,
    *,
    parent: RunLike | None = None,
    length: int | None = None,
    tokens: int | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Train a decoder with a positional scheme and evaluate it, as `posexp train` does, and return the run.

    With `parent`, training continues from the weights of that run, as `posexp train from=…` does, with all its options
    that are not given: its scheme too, unless `scheme` replaces it.

    `length` is the training length and `tokens` the budget. `overrides` are options as on the command line. The run has
    no copy in wandb unless `overrides` sets wandb.mode. A finished run is returned as it is, and a stopped one resumed:
    Ctrl-C saves and raises KeyboardInterrupt, and the same call continues. Raises Misuse for options that cannot work,
    RunFailed if the run cannot be finished.
    """
    from posexp.config.commands import TrainCommand
    from posexp.config.overrides import quoted
    from posexp.training import train as training

    sizes = {"train.length": length, "train.tokens": tokens}
    words = [f"{key}={value}" for key, value in sizes.items() if value is not None]
    if parent is not None:
        words.append(f"from={quoted(str(find_run(parent).folder.absolute()))}")
    if scheme is not None:
        words.append(f"+scheme={scheme}")
    config = composed("train", ["wandb.mode=disabled", *words, *overrides])
    return training.train(cast(TrainCommand, config))


@restoring(torch=True)
def evaluate(run: RunLike, *, lengths: Sequence[int] | None = None, overrides: Sequence[str] = ()) -> Run:
    """Evaluate a trained run at `lengths`, as `posexp eval` does, and return the run; stored rows are reused.

    Without `lengths`, they are those of the run's own evaluation. `overrides` are options as on the command line, such
    as "+transform=yarn". Raises Misuse for options that cannot work, RunFailed if the run's files are damaged.
    """
    from posexp.config.commands import EvalCommand
    from posexp.evaluation import evaluate as evaluation

    found = find_run(run)
    words = [] if lengths is None else ["--lengths", ",".join(map(str, lengths))]
    command = composed("eval", [*place_words(found), "wandb.mode=disabled", *words, *overrides])
    evaluation.evaluate(cast(EvalCommand, command))
    return found


@restoring(torch=False)
def rows(path: RunLike = "results/default") -> "DataFrame":
    """Return the measurements of a run, of a group of runs or of a rows.csv, one a line, with their verdicts.

    `path` is a run, the folder of a group, or a rows.csv or its folder, as in results/studies. The columns are listed
    in docs/recipes/python.md. Raises Misuse if there are no rows.
    """
    from posexp.evaluation.group import load_group, read_group
    from posexp.output.console import say
    from posexp.report.frame import frame_of

    place = Path(path).expanduser() if not isinstance(path, Run) else path.folder
    if place.is_file() or (place / "rows.csv").is_file():
        found = read_group(str(place if place.is_file() else place / "rows.csv"), say)
    elif place.is_dir() and not is_run(place):
        place = place.absolute()
        found = load_group(str(place.parent), place.name, "*", say)
    else:
        place = find_run(path).folder
        found = load_group(str(place.parent.parent), place.parent.name, place.name, say)
    return frame_of(found, say)


@restoring(torch=False)
def losses(run: RunLike, protocol: str, length: int, **columns: Any) -> "DataFrame":
    """Return the loss of every target of one measurement, in nats, in the order in which they were scored.

    Columns: target, the token's offset in the split; context, the tokens before it that the model read; document, its
    index in the split; loss; hit, whether the target was the likeliest token. The measurement is that of the model as
    trained. `columns` of posexp.rows choose another one: control="shuffled", transform="yarn", targets_hash=….
    Raises Misuse if no measurement or several match, RunFailed if the losses are missing or damaged.
    """
    from pandas import DataFrame

    from posexp.evaluation.losses import losses_of

    found = losses_of(find_run(run), protocol, length, columns)
    arrays = {"target": found.target, "context": found.context, "document": found.document}
    return DataFrame({**arrays, "loss": found.nll, "hit": found.hit})


@restoring(torch=False)
def plot(frame: "DataFrame") -> "Figure":
    """Return the picture of the rows of a frame, the curves.png of `posexp report`, which a notebook shows.

    It has the change of perplexity from the training length, one curve per scheme, with the seeds pooled. Choose the
    rows to draw in the frame. Raises Misuse if there is nothing to draw.
    """
    from posexp.report.frame import draw_frame

    return draw_frame(frame)


@restoring(torch=True)
def load(run: RunLike, *, device: str = "auto", trust: bool = False) -> "tuple[Model, Tokenizer]":
    """Return the trained model in evaluation mode and its tokenizer.

    `model.logits(model(ids_BT))` are the logits of the token after each of `ids_BT`, int64 [B, T]. For data=tokens
    without a tokenizer, the tokenizer has one entry for each id. `trust` lets the run name code from outside posexp.
    Raises Misuse if the run is not finished, RunFailed if its files are damaged.
    """
    from posexp.config.sections import Device
    from posexp.data.tokenizer import load_tokenizer
    from posexp.model.device import choose_device
    from posexp.runs.experiment import Experiment
    from posexp.runs.load import finished_runs

    folder = find_run(run).folder
    (found,) = finished_runs(str(folder.parent.parent), folder.parent.name, folder.name)
    if device not in Device.__members__:
        raise Misuse(f"device={device} must be one of {', '.join(Device.__members__)}")
    model = Experiment(found, choose_device(Device[device]), trust=trust).model
    return model, load_tokenizer(found.folder / "tokenizer.json")


def composed(command: str, words: list[str]) -> object:
    """Return the dataclass of a command from the words of its command line. Raises Misuse if they cannot work."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from posexp.cli.arguments import read_line
    from posexp.config.compose import compose
    from posexp.config.explain import explain_error
    from posexp.runs.parent import inherit

    line = read_line(command, words)
    if line.flags not in ([], ["--config-dir", line.config_dir]):
        raise Misuse(f"overrides cannot have {line.flags[0]}: call the function once for each run")
    try:
        return compose(command, line.overrides, line.config_dir, inherit)
    except (HydraException, OmegaConfBaseException) as error:
        said = explain_error(error, command).replace("add -m to run each", "call the function once for each")
        raise Misuse(said) from error


def find_run(run: RunLike) -> Run:
    """Return the run of a folder or a name. Raises Misuse unless there is one."""
    if isinstance(run, Run):
        return run
    folder = Path(run).expanduser().absolute()
    if is_run(folder):
        return Run(folder)
    found = run_folders(Path("results").absolute(), f"*/{run}") if folder.name == str(run) else []
    if len(found) != 1:
        several = f"; several runs are called so: {', '.join(map(str, found))}" if found else ""
        raise Misuse(f"{run} is neither the folder of a run nor the name of one in results/{several}")
    return Run(found[0])


def is_run(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in MARKS)


def place_words(run: Run) -> list[str]:
    """Return the overrides that name a run."""
    from posexp.config.overrides import quoted

    folder = run.folder.absolute()
    places = {"results": str(folder.parent.parent), "group": folder.parent.name, "runs": folder.name}
    return [f"{key}={quoted(value)}" for key, value in places.items()]
