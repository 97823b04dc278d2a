"""Pictures of a trained run's positional scheme: its bias, its rotations and its attention.

<results>/<group>/<run>/inspect/
    bias.png         bias against distance, for schemes with a bias
    frequencies.png  wavelength of every rotated pair, for rotary schemes
    attention.png    mean distance and entropy of attention by position, on held-out text
    *.svg, *.csv     each picture as a vector graphic, and its numbers
"""

from pathlib import Path

import torch

from posexp.config.commands import InspectCommand
from posexp.inspect import attention, bias, frequencies
from posexp.model.decoder import Decoder
from posexp.model.device import choose_device
from posexp.output.console import say
from posexp.output.figure import Picture
from posexp.output.style import looks_of
from posexp.output.text import csv_text
from posexp.runs.experiment import Experiment
from posexp.runs.load import finished_runs, for_each
from posexp.runs.run import Run
from posexp.storage import atomic


def inspect(command: InspectCommand) -> list[Path]:
    """Inspect every finished run that `command` selects. Print and return the paths of the files.

    Raises Misuse if no run is selected or none can be inspected, and RunFailed if some runs fail.
    """
    device = choose_device(command.device)
    paths: list[Path] = []
    finished = finished_runs(command.results, command.group, command.runs)
    for_each(finished, lambda run: paths.extend(inspect_run(run, command, device)), "inspected")
    return paths


def inspect_run(run: Run, command: InspectCommand, device: torch.device) -> list[Path]:
    """Write the run's inspect/ folder and return its paths. Log and skip each picture that the scheme does not have."""
    experiment = Experiment(run, device, command.cache, command.trust)
    tokens = experiment.store.split(command.split)
    model, scheme = experiment.model, experiment.model.scheme
    length = 2 * experiment.config.train.length if command.length is None else command.length
    if scheme.max_length is not None and length > scheme.max_length:
        say(
            f"{run.name}: {scheme.fingerprint()} is undefined past {scheme.max_length} tokens: "
            f"attention is drawn at {scheme.max_length} tokens instead of {length}"
        )
        length = scheme.max_length
    about = f"{run.name} · {scheme.fingerprint()}"
    colour = looks_of([run.name])[run.name].colour
    if model.mixer is not None:
        about += f" · {model.mixer.fingerprint()}; layers are the blocks with attention"
    drawn = None
    if model.attends and isinstance(model, Decoder):  # attention is read where that of posexp computes it
        reading = attention.read_attention(model, tokens, length, experiment.config.data.cross_documents)
        drawn = attention.picture(reading, about, scheme.dims.train_length, command.split.value, colour)
    found: dict[str, Picture | None] = {
        "bias": bias.picture(scheme, about),
        "frequencies": frequencies.picture(scheme, about, colour),
        "attention": drawn,
    }
    lacks = {"bias": "no bias by position", "frequencies": "no rotations", "attention": "no attention"}
    if missing := [lacks[name] for name in found if found[name] is None]:
        of = scheme.fingerprint() if model.attends else str(model.mixer and model.mixer.fingerprint())
        say(f"{run.name}: {of} has {' and '.join(missing)} to draw")
    paths = []
    folder = run.folder / "inspect"
    for name, picture in found.items():
        if picture is not None:
            table = csv_text(list(picture.rows[0]), picture.rows)
            contents: dict[str, str | bytes] = {"png": picture.png, "svg": picture.svg, "csv": table}
            atomic.write_all(folder, {f"{name}.{kind}": content for kind, content in contents.items()})
            paths += [folder / f"{name}.{kind}" for kind in contents]
    print(*paths, sep="\n")
    return paths
