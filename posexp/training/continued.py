"""The start of continued training: the parent's weights, which become the child's own checkpoint of step 0."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posexp import transforms
from posexp.config.commands import TrainCommand
from posexp.config.values import plain_value
from posexp.data import Store
from posexp.dims import Dims
from posexp.errors import Misuse, RunFailed
from posexp.model.decoder import base_length, build_model
from posexp.output.console import say
from posexp.runs import checkpoint
from posexp.runs.experiment import Experiment
from posexp.runs.run import Run

Tensors = dict[str, Tensor]


def check_parent(config: TrainCommand, store: Store) -> None:
    """Raise Misuse unless a child's text is the parent's, or another one that was typed, in the parent's tokens."""
    parent = config.parent
    if parent is None:
        return
    if parent.store and store.key != parent.store:
        raise Misuse(f"the text of {parent.run} has changed: to continue on another one, name it by data=… and data.…=")
    if store.meta["files"]["tokenizer.json"]["sha256"] != parent.tokenizer:
        tokenizer = f"data.tokenizer={parent.folder}/tokenizer.json"
        raise Misuse(
            f"the text is in other tokens than that of {parent.run}, whose weights know no others: {tokenizer}"
        )


def start_of(config: TrainCommand, run: Run, vocab_size: int) -> Tensors | None:
    """Return the weights with which a child begins; None without a parent, and for a child that has a checkpoint.

    Raises Misuse if the parent's weights do not fit, RunFailed if the parent is gone or its files are damaged.
    """
    if config.parent is None or checkpoint.restore(run.folder / "checkpoint", lambda line: None) is not None:
        return None
    parent = Experiment(Run(Path(config.parent.folder)), torch.device("cpu"), trust=config.trust)
    if not (parent.run.folder / "config.yaml").is_file():
        raise RunFailed(f"{run.name} has no checkpoint to begin from, and {parent.run.folder} is gone")
    if parent.weights != config.parent.weights:
        raise RunFailed(f"{parent.run.folder} has been trained again since {run.name} began: choose another group")
    model = build_model(config, vocab_size)
    found = fitted(model.state_dict(), parent.model.state_dict(), config.parent.run)
    say(f"{run.name} continues {config.parent.run}")
    return found


def fitted(wanted: Tensors, given: Tensors, name: str) -> Tensors:
    """Return the tensors of a model, `wanted`, with those of its parent, `given`, in their place.

    A scheme may lack parameters of the parent's, or have others, which stay as drawn: both are logged. A scheme inside
    another one has its parameters. Raises Misuse for a parameter of another shape, and if the decoders differ.
    """
    left = {without_wrappers(key): tensor for key, tensor in given.items()}
    found, fresh = {}, []
    for key, tensor in wanted.items():
        known = left.pop(without_wrappers(key), None)
        if known is not None and known.shape != tensor.shape:
            sizes = f"{list(known.shape)} in {name} and {list(tensor.shape)} here"
            raise Misuse(f"{key} is {sizes}: choose a scheme, a transform or a length at which it keeps its size")
        found[key] = tensor if known is None else known
        fresh += [key] if known is None else []
    if other := [key for key in (*fresh, *left) if not key.startswith("scheme.")]:
        raise Misuse(f"{name} is another decoder: {other[0]} is not in both")
    for what, keys in (("drawn", fresh), ("dropped", list(left))):
        if keys:
            say(f"parameters that are {what}: {', '.join(keys)}")
    return found


def without_wrappers(key: str) -> str:
    """Return the name that a parameter of a scheme has outside wrappers: scheme.slopes for scheme.inner.slopes."""
    return key.replace(".inner.", ".")


def chain(config: TrainCommand) -> dict[str, Any]:
    """Return what provenance.json has of the parent, whose own parents it names, and of the transform."""
    if config.parent is None:
        return {}
    found = {"parent": plain_value(config.parent)}
    if config.transform is not None:
        sizes = config.model
        dims = Dims(sizes.d_model, sizes.n_head, sizes.n_layer, base_length(config))
        found["transform"] = transforms.from_config(config.transform, dims).describe(config.train.length)
    return found
