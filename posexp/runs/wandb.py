"""The copy of a run's log in Weights & Biases."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, Literal

from posexp.config.sections import WandbConfig, WandbMode
from posexp.output.console import say
from posexp.runs.run import Run
from posexp.storage.network import reachable


class Wandb:
    """The copy in wandb. Errors of wandb are logged once, and the run goes on without the copy.

    wandb's group is the run's `label`, so that wandb plots the seeds of a scheme as one curve; posexp's `group` is a
    tag.
    """

    said: ClassVar[set[str]] = set()  # lines that are not logged again in this process

    def __init__(self, run: Run, config: WandbConfig, run_config: dict[str, Any], group: str, label: str):
        self.run: Any = None
        if config.mode is WandbMode.online:
            with self.errors_logged(" online; an offline copy is kept, for `wandb sync`"):
                self.start("online", run, config, run_config, group, label)
        if config.mode is not WandbMode.disabled and self.run is None:
            with self.errors_logged():
                self.start("offline", run, config, run_config, group, label)

    def start(
        self,
        mode: Literal["online", "offline"],
        run: Run,
        config: WandbConfig,
        run_config: dict[str, Any],
        group: str,
        label: str,
    ) -> None:
        # read when wandb is imported; otherwise wandb reports its own errors, even offline
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        if mode == "online":
            server = str(wandb.setup().settings.base_url)
            if not reachable(server):  # wandb itself tries for a minute
                raise ConnectionError(f"{server} cannot be reached")
            if not wandb.Api().api_key:
                raise ConnectionError("no API key: run `wandb login`, or set wandb.mode=offline")
        self.run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=mode,
            id=wandb_id(run),
            resume="allow",
            reinit="finish_previous",  # a failure may have left a run of this process open
            name=run.name,
            group=label,
            job_type="posexp",
            tags=[group[:64]],  # the longest tag of wandb
            dir=str(run.folder),
            config=run_config | {"group": group, "label": label},
            # the run has its own log, and a login or a dead network must not delay it
            settings=wandb.Settings(console="off", silent=True, init_timeout=20, x_disable_stats=True),
        )
        # lengths and steps are x axes, so that curves of several runs overlap
        self.run.define_metric("train/step")
        self.run.define_metric("train/*", step_metric="train/step")
        self.run.define_metric("eval/length")
        self.run.define_metric("eval/*", step_metric="eval/length")

    def log(self, values: dict[str, Any]) -> None:
        if self.run is not None:
            with self.errors_logged():
                self.run.log(values)

    def finish(self) -> None:
        if self.run is not None:
            with self.errors_logged():
                self.run.finish()
            self.run = None

    @contextmanager
    def errors_logged(self, instead: str = "; metrics.jsonl has everything") -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.run is not None and isinstance(error, ConnectionError):
                disconnect()
            self.run = None
            text = " ".join(str(error).split())[:160]
            line = f"wandb is skipped{instead} ({type(error).__name__}: {text})"
            if line not in self.said:
                say(line)
            self.said.add(line)


def disconnect() -> None:
    """Detach wandb's dead process, so that the next copy starts another and Python's exit does not look for it."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()


def wandb_id(run: Run) -> str:
    """Return an id that every process of the run computes alike, so that wandb resumes its copy."""
    return hashlib.sha256(f"{run.folder.parent.name}/{run.name}".encode()).hexdigest()[:16]
