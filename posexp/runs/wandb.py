"""The copy of a run in Weights & Biases."""

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from posexp.config.sections import WandbConfig, WandbMode
from posexp.output import closing
from posexp.runs.logger import Evaluation, Logged, Logger, say_once, shown
from posexp.storage.network import reachable

LONGEST_TAG = 64  # characters that wandb takes


class Wandb(Logger):
    """A run of wandb. Steps and lengths are x axes, so that the curves of several runs overlap.

    wandb's group is the run's label, so that wandb plots the seeds of a scheme as one curve; posexp's group is a tag.
    """

    def __init__(self, config: WandbConfig, about: Logged):
        """Start online or, if that is not possible or not wanted, offline. Raises errors of wandb."""
        self.run: Any = None
        if config.mode is WandbMode.online:
            try:
                self.run = start("online", config, about)
            except Exception as error:
                say_once(f"wandb is skipped online; an offline copy is kept, for `wandb sync` ({shown(error)})")
        if self.run is None:
            self.run = start("offline", config, about)
            closing.collect(sync_line, about.folder / "wandb" / Path(self.run.dir).parent.name)
        for section in ("train", "valid"):
            self.run.define_metric(f"{section}/*", step_metric="train/step")
        # of a curve over length, the summary has every length instead of the last
        self.run.define_metric("eval/length", summary="none")
        self.run.define_metric("eval/*", step_metric="eval/length", summary="none")
        # a resumed run, online, has its earlier rows
        self.known = self.run.summary.get("train/step", 0) if self.run.resumed else 0

    def train(self, step: int, values: dict[str, float]) -> None:
        if step > self.known:
            self.run.log({"train/step": step, **values})

    def evaluation(self, found: Evaluation) -> None:
        import wandb

        for length, values in found.curves:
            self.run.log({"eval/length": length, **values})
        columns: list[str | int] = list(found.rows[0])
        cells = [list(row.values()) for row in found.rows]
        self.run.log({"rows": wandb.Table(columns=columns, data=cells, allow_mixed_types=True)})
        self.run.summary.update(found.summary)

    def figure(self, path: Path) -> None:
        import wandb

        self.run.log({path.stem: wandb.Image(str(path))})

    def finish(self) -> None:
        self.run.finish()

    def abandon(self, error: Exception) -> None:
        """Detach wandb's dead process, so that the next copy starts another and Python's exit does not look for it."""
        if isinstance(error, ConnectionError):
            import wandb

            with suppress(Exception, SystemExit):
                wandb.teardown()


def start(mode: Literal["online", "offline"], config: WandbConfig, about: Logged) -> Any:
    # read when wandb is imported; otherwise wandb reports its own errors, even offline
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    if mode == "online":
        server = str(wandb.setup().settings.base_url)
        if not reachable(server):  # wandb itself tries for a minute
            raise ConnectionError(f"{server} cannot be reached")
        if not wandb.Api().api_key:
            raise ConnectionError("no API key: run `wandb login`, or set wandb.mode=offline")
    return wandb.init(
        project=config.project,
        entity=config.entity,
        mode=mode,
        id=about.id,
        resume="allow",
        reinit="finish_previous",  # a failure may have left a run of this process open
        name=config.name or about.name,
        notes=config.notes,
        group=about.label,
        job_type=about.job,
        tags=[tag[:LONGEST_TAG] for tag in dict.fromkeys([about.group, *config.tags])],
        dir=str(about.folder.absolute()),  # wandb's own process may have another working directory
        config=about.config | {"group": about.group, "label": about.label},
        # the run has its own log, and a login or a dead network must not delay it
        settings=wandb.Settings(console="off", silent=True, init_timeout=20, x_disable_stats=True),
    )


def sync_line(folders: list[Path]) -> str:
    """Return the line that says where the offline copies of a command are, and how to upload them."""
    if len(folders) == 1:
        return f"wandb is offline; to upload its copy: wandb sync {shlex.quote(str(folders[0]))}"
    groups = dict.fromkeys(shlex.quote(str(folder.parents[2])) for folder in folders)
    places = " ".join(f"{group}/*/wandb/offline-run-*" for group in groups)
    return f"wandb is offline; to upload its {len(folders)} copies: wandb sync --yes {places}"
