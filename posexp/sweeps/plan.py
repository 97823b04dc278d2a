"""The plan of a sweep of posexp train: every cell is checked before any starts, and only missing cells run.

Hydra expands the command into cells, and its launcher starts those that the plan selects.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from posexp.config.commands import TrainCommand
from posexp.config.explain import explain_error
from posexp.config.sections import Device
from posexp.config.values import plain_value
from posexp.data import Store
from posexp.errors import Misuse
from posexp.jobs.slurm import queue
from posexp.output.console import say
from posexp.runs.run import Run
from posexp.runs.status import evaluated, run_status
from posexp.sweeps.cells import swept

Words = list[str]  # the overrides of one cell


def missing(cells: list[Words], compose: Callable[[Words], TrainCommand], elsewhere: bool) -> list[tuple[Words, Run]]:
    """Return the cells that are neither done nor running nor queued, and create their folders with config.yaml.

    `elsewhere` is true if the cells will run on other machines. Raises Misuse that names a cell if its configuration
    cannot run, before any folder is created.
    """
    configs = checked(cells, compose, elsewhere)
    runs, found, skipped = [Run.of(config) for config in configs], {}, Counter[str]()
    jobs = queue([run.folder for run in runs], say)
    for words, config, run in zip(cells, configs, runs, strict=True):
        if run.folder in found:
            skipped["named twice"] += 1
            continue
        if (run.folder / "config.yaml").is_file():
            now = run_status(run, jobs, say)
            if now.busy:
                skipped["waiting in SLURM" if now.state in {"waiting", "requeued"} else "being worked on"] += 1
                continue
            if evaluated(run, config):
                skipped["done"] += 1
                continue
        found[run.folder] = (words, run, config)
    for _, run, config in found.values():
        run.create(config)
    swept[:] = {run.folder: run for run in runs}.values()
    parts = [f"{count} {what}" for what, count in skipped.items()]
    say(f"{len(cells)} cells: {', '.join([*parts, f'{len(found)} to do'])}")
    return [(words, run) for words, run, _ in found.values()]


def checked(cells: list[Words], compose: Callable[[Words], TrainCommand], elsewhere: bool) -> list[TrainCommand]:
    """Return the configuration of every cell. Raises Misuse for the first bad cell, and counts the others."""
    import torch
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from posexp.model.device import choose_device
    from posexp.training.prepare import Training, check_model, check_text

    configs, bad = [], []
    stores: dict[str, Store] = {}  # by data section
    texts: set[str] = set()  # what check_text has accepted
    common = set(cells[0]).intersection(*cells) if len(cells) > 1 else set()
    for words in cells:
        try:
            config = compose(words)
            # a login node has no GPU
            device = torch.device("cuda") if elsewhere and config.device is not Device.cpu else None
            training = Training(config, device or choose_device(config.device))
            check_model(config, training.device)
            data = json.dumps(plain_value(config.data))
            training.store = stores[data] = stores.get(data) or training.store
            text = json.dumps([data, config.train.length, plain_value(config.eval)])
            if text not in texts:
                check_text(training)
                texts.add(text)
        except (Misuse, HydraException, OmegaConfBaseException) as error:
            cell_ = " ".join(word for word in words if word not in common)
            bad.append(f"cell {cell_}: ".replace(" :", ":") + explain_error(error, "train"))
        else:
            configs.append(config)
    if bad:
        more = f"; {len(bad) - 1} more cannot be run either" if len(bad) > 1 else ""
        raise Misuse(f"{bad[0]}{more}; no cell was started")
    return configs


def detach(group: Path, words: Words) -> None:
    """Start the command `words` as a detached process that outlives the terminal and this process."""
    log = group / time.strftime("sweep-%Y%m%d-%H%M%S.log")
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "posexp", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, "POSEXP_LOG": str(log.resolve())},
        )
    say(f"process {process.pid} runs the sweep and writes to {log}")
    say(f"to watch it: posexp runs --group {shlex.quote(group.name)}")
