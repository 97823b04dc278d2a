"""The loader of finished runs: configuration, text and trained model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from posexp.config.commands import TrainCommand
from posexp.config.components import is_own, targets
from posexp.config.sections import DataConfig
from posexp.data import Store
from posexp.data.load import load_store
from posexp.errors import Inapplicable, Misuse, PosexpError, RunFailed
from posexp.model.decoder import Decoder, build_model
from posexp.output.console import say
from posexp.runs import checkpoint
from posexp.runs.run import Run, find_runs
from posexp.storage.locks import Taken


@dataclass(frozen=True)
class Restored:
    """A loaded run. `weights` identifies the checkpoint by twelve hex digits of its sha256."""

    config: TrainCommand
    store: Store
    model: Decoder
    weights: str


def restore(run: Run, cache: str | None, trust: bool, device: torch.device) -> Restored:
    """Load the run as it was when training ended, with its model in evaluation mode on `device`.

    Raises Misuse for an external component without `trust`, RunFailed if the run's files are damaged, and the errors
    of `own_store`.
    """
    trained = run.config()
    check_targets(trained, trust)
    store = own_store(run, trained, cache)
    _, model, weights = restore_model(run)
    return Restored(trained, store, model.to(device), weights)


def own_store(run: Run, trained: TrainCommand, cache: str | None) -> Store:
    """Load the token store that the run was trained on by its key, since the text may have changed or moved.

    The store is looked up in `cache`, else in the run's cache folder if that exists, else in the default cache, so that
    a run from another machine creates no folder. Raises Misuse if the store is missing and the local text does not have
    its hash, RunFailed if its tokens are not those of the run.
    """
    theirs = (Path(trained.data.cache).expanduser() / "tokens").is_dir()
    place = cache or (trained.data.cache if theirs else DataConfig().cache)
    name = run.provenance().get("store")
    store = load_store(replace(trained.data, cache=place, store=str(name)), say)
    run.check_store(store)
    return store


def restore_model(run: Run) -> tuple[TrainCommand, Decoder, str]:
    """Load the run's configuration, trained model and identifier of the weights, without its text.

    Raises RunFailed if the run's files are damaged.
    """
    trained = run.config()
    run.refuse_links()
    saved = checkpoint.restore(run.folder / "checkpoint", say)
    if saved is None or saved["step"] != trained.train.steps:
        raise RunFailed("its final checkpoint is damaged or missing; repeat its train command")
    tensors = saved["tensors"]
    model = build_sized(trained, tensors)
    checkpoint.apply(tensors, model)
    model.scheme.progress(1.0)
    return trained, model.eval(), saved["sha256"][:12]


def build_sized(trained: TrainCommand, tensors: dict[str, torch.Tensor]) -> Decoder:
    """Build the model of a configuration, whose sizes must be those of the checkpoint's tensors.

    The model is first built on the meta device, because an untrusted configuration may request any amount of memory.
    Raises RunFailed if the sizes differ or the model cannot be built.
    """
    embedding_VD = tensors.get("model.embedding.weight", torch.empty(0, 0))
    sizes = embedding_VD.shape[1:] == (trained.model.d_model,) and trained.model.n_layer <= len(tensors)
    if not sizes or not len(embedding_VD):
        raise RunFailed("the checkpoint does not fit the model: its config.yaml describes another model")
    try:
        with torch.device("meta"):
            shapes = checkpoint.shapes(build_model(trained, len(embedding_VD)))
        checkpoint.check_shapes(tensors, shapes)
        return build_model(trained, len(embedding_VD))
    except PosexpError:
        raise
    except Exception as error:  # constructors raise any error for invalid options
        raise RunFailed(f"its config.yaml describes no model: {checkpoint.damage_reason(error)}") from error


def check_targets(trained: TrainCommand, trust: bool) -> None:
    """Raise Misuse if the run names an external component without `trust`, since a run folder is untrusted data."""
    for target in targets([trained.scheme, trained.window]):
        if not is_own(target) and not trust:
            raise Misuse(f"its scheme is code from outside posexp, {target!r}: set trust=true to run it")


def finished_runs(results: str, group: str, pattern: str) -> list[Run]:
    """Return the matching runs that are done. Unfinished runs are logged and skipped, external checkpoints skipped.

    Raises Misuse if no run is done.
    """
    matching = find_runs(results, group, pattern)
    found = [run for run in matching if not run.foreign]
    if matching and not found:
        raise Misuse(
            f"{matching[0].name} is a checkpoint from elsewhere, not a run that posexp trained: it can "
            "only be used with posexp eval hf=<folder or hub id>, report and compare"
        )
    finished = [run for run in found if run.status()["status"] == "done"]
    if not finished:
        unfinished = f"; {len(found)} unfinished: repeat their train command" if found else ""
        place = f"{results}/{group}/{pattern}"
        raise Misuse(f"no finished run in {place}{unfinished}. Train one first: posexp train +scheme=<name>")
    for run in found:
        if run not in finished:
            say(f"{run.name}: not finished ({run.status()['status']}), skipped")
    return finished


def for_each(runs: list[Run], work: Callable[[Run], object], done: str) -> None:
    """Call `work` for every run. Errors are logged, and the other runs go on.

    A run whose lock is taken (locks.Taken) is requeued behind the others. Raises the first error if every run failed;
    RunFailed with the number of runs that could not be `done` if some failed, not counting Inapplicable ones.
    """
    errors: list[PosexpError] = []
    queue = list(runs)
    for run in queue:
        try:
            work(run)
            continue
        except Taken:
            queue.append(run)
            continue
        except BrokenPipeError:  # the reader of the output has ended
            raise
        except PosexpError as error:
            errors.append(type(error)(f"{run.name}: {error}"))
        except OSError as error:
            errors.append(RunFailed(f"{run.name}: cannot write or read {error.filename}: {error.strerror}"))
        if len(runs) > 1:
            say(str(errors[-1]))
    failed = [error for error in errors if not isinstance(error, Inapplicable)]
    if errors and len(errors) == len(runs):
        raise (failed or errors)[0]
    if failed:
        raise RunFailed(f"{len(failed)} of {len(runs)} runs could not be {done} (see above)")
