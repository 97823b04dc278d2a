"""What a run says: metrics.jsonl first, then train.log, the terminal and wandb, which are copies."""

import errno
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, ClassVar, Literal

from posexp.storage import jsonl, atomic
from posexp.config.commands import TrainCommand
from posexp.config.sections import WandbConfig, WandbMode
from posexp.config.digest import plain
from posexp.storage.network import reachable
from posexp.runs.run import Run
from posexp.storage.untrusted import visible

GONE = {errno.EIO, errno.EPIPE}  # of a closed terminal, and of a pipe whose reader has ended
silent = False  # where one of several processes speaks for all
NUMBERS = ("ppl", "nll", "bits_per_byte", "accuracy", "exact_match")  # of a row, that wandb draws


def say(line: str) -> None:
    """One line to the person at the terminal, beside the command's output, whatever names and messages it repeats.

    Whoever listened may have left; that ends no work.
    """
    if not silent:
        try:
            print(visible(line), file=sys.stderr, flush=True)
        except OSError as error:
            if error.errno in GONE:
                deafen()


def deafen() -> None:
    """Sends what is said from now on nowhere: Python would try again at its end, and change the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@contextmanager
def silence() -> Iterator[None]:
    """Nothing is said in this block."""
    global silent
    before, silent = silent, True
    try:
        yield
    finally:
        silent = before


class Log:
    """The log of one training run.

    Training rows go to metrics.jsonl as they come. A terminal shows a progress bar; anything else, and
    train.log, gets a plain line every `seconds_between_lines`.
    """

    seconds_between_lines = 10.0

    def __init__(self, run: Run, config: TrainCommand, step: int):
        self.run, self.steps, self.batch_tokens = run, config.train.steps, config.train.batch_tokens
        rows = run.history(self.note)
        # What a killed process wrote past its last checkpoint is about to be computed again.
        jsonl.rewrite(run.metrics, [row for row in rows if (row.get("step") or 0) <= step])
        self.started, self.first_step = time.monotonic(), step
        self.last_line = self.last_row = self.started
        self.last_step = step
        self.wandb = Wandb(run, config.wandb, plain(config), config.group, config.label)
        self.bar = progress(run.name, self.steps, done=step, lines=False)

    def __enter__(self) -> "Log":
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__()
        self.wandb.finish()

    def note(self, line: str) -> None:
        """A line for the terminal and for train.log."""
        say(f"{self.run.name}: {line}")
        self.to_file(line)

    def to_file(self, line: str) -> None:
        path = self.run.folder / "train.log"
        with atomic.named(path), path.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def status(self, status: str, step: int, **details: Any) -> None:
        """A change of the run's state, e.g. running, done, stopped or failed with its reason."""
        jsonl.append(self.run.metrics, {"step": step, "status": status, "time": round(time.time(), 3), **details})

    def train(self, step: int, loss: float, learning_rate: float, grad_norm: float) -> None:
        """One training row: mean loss (nats per token) since the last row, after `step` steps."""
        now = time.monotonic()
        speed = (step - self.last_step) * self.batch_tokens / max(now - self.last_row, 1e-9)
        self.last_row, self.last_step = now, step
        row = {
            "step": step,
            "tokens": step * self.batch_tokens,
            "loss": loss,
            "lr": learning_rate,
            "grad_norm": grad_norm,
            "tokens_per_second": round(speed),
            "time": round(time.time(), 3),
        }
        jsonl.append(self.run.metrics, row)
        self.wandb.log({f"train/{key}": value for key, value in row.items() if key != "time"})
        left = (self.steps - step) * (now - self.started) / max(step - self.first_step, 1)
        self.bar.update(step, f"loss {loss:.3f}  {speed:,.0f} tokens/s  ETA {clock(left)}")
        if now - self.last_line > self.seconds_between_lines or step == self.steps:
            self.last_line = now
            line = f"step {step}/{self.steps}  loss {loss:.4f}  {speed:,.0f} tokens/s  ETA {clock(left)}"
            self.to_file(line)
            if not self.bar.visible:
                say(f"{self.run.name}: {line}")


class NoLog:
    """The log of a process that leaves it to another one."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, line: str) -> None:
        pass

    def status(self, status: str, step: int, **details: Any) -> None:
        pass

    def train(self, step: int, loss: float, learning_rate: float, grad_norm: float) -> None:
        pass


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class progress:  # noqa: N801 - used like a function
    """`with progress(…) as bar:` shows a rich progress bar on a terminal while the block lasts. Elsewhere, unless
    `lines` is false, a plain line is said at most every `seconds_between_lines`. The block may be entered again."""

    seconds_between_lines = 10.0

    def __init__(self, name: str, total: int, unit: str = "", done: int = 0, lines: bool = True):
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self.began = self.last_line = time.monotonic()
        self.visible, self.lines = sys.stderr.isatty() and not silent, lines
        self.bar: Any = None
        if self.visible:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}", markup=False))
            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                *columns,
                console=Console(stderr=True),
                transient=lines,
                redirect_stdout=sys.stdout.isatty(),
                refresh_per_second=2,
            )
            self.task = self.bar.add_task(visible(name), total=total, completed=done, state=unit)

    def __enter__(self) -> "progress":
        if self.bar:
            with suppress(OSError):  # as in `say`
                self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            with suppress(OSError):
                self.bar.stop()

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self.done += count
        now = time.monotonic()
        left = (self.total - self.done) * (now - self.began) / self.done
        self.update(self.done, f"{self.unit}  ETA {clock(left)}")
        if self.lines and not self.visible and now - self.last_line >= self.seconds_between_lines:
            self.last_line = now
            say(f"{self.name}: {self.done:,} of {self.total:,} {self.unit}, ETA {clock(left)}")

    def update(self, done: int, state: str) -> None:
        """The bar alone: how much is done, and what stands behind it."""
        if self.bar:
            self.bar.update(self.task, completed=done, state=state)


class Wandb:
    """The copy in wandb. Whatever goes wrong with it is said once, and the run goes on without it.

    wandb's group is the run's `label`, so that it draws the seeds of a scheme as one curve; posexp's `group` is a tag.
    """

    said: ClassVar[set[str]] = set()  # lines that training, evaluation and the next run of a sweep need not repeat

    def __init__(self, run: Run, config: WandbConfig, run_config: dict[str, Any], group: str, label: str):
        self.run: Any = None
        if config.mode is WandbMode.online:
            with self.harmless(" online; an offline copy is kept, for `wandb sync`"):
                self.start("online", run, config, run_config, group, label)
        if config.mode is not WandbMode.disabled and self.run is None:
            with self.harmless():
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
        # wandb reports its own use to its makers, even offline; it reads this when imported
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
            reinit="finish_previous",  # should a failure have left one of this process open
            name=run.name,
            group=label,
            job_type="posexp",
            tags=[group[:64]],  # no tag may be longer
            dir=str(run.folder),
            config=run_config | {"group": group, "label": label},
            # the run's own log tells what happens; a login or a dead network must not hold it up
            settings=wandb.Settings(console="off", silent=True, init_timeout=20, x_disable_stats=True),
        )
        # lengths and steps are columns with axes of their own, so that curves of several runs lie over each other
        self.run.define_metric("train/step")
        self.run.define_metric("train/*", step_metric="train/step")
        self.run.define_metric("eval/length")
        self.run.define_metric("eval/*", step_metric="eval/length")

    def log(self, values: dict[str, Any]) -> None:
        if self.run is not None:
            with self.harmless():
                self.run.log(values)

    def curve(self, rows: list[dict[str, Any]], targets_of: Callable[[dict[str, Any]], str]) -> None:
        """Each row's numbers at its length, under a name that the same measurement of any run has; `targets_of` names
        the set of targets of a row."""
        for row in sorted(rows, key=lambda row: row["length"]):
            curve = curve_name(row, targets_of(row))
            known = {f"{curve}/{name}": row[name] for name in NUMBERS if row.get(name) is not None}
            if known:
                self.log({"eval/length": row["length"], **known})

    def finish(self) -> None:
        if self.run is not None:
            with self.harmless():
                self.run.finish()
            self.run = None

    @contextmanager
    def harmless(self, instead: str = "; metrics.jsonl has everything") -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.run is not None and isinstance(error, ConnectionError):
                disconnect()
            self.run = None
            text = " ".join(str(error).split())[:160]
            line = f"wandb is left out{instead} ({type(error).__name__}: {text})"
            if line not in self.said:
                say(line)
            self.said.add(line)


def disconnect() -> None:
    """Forgets wandb's process, which has died: the next copy starts another, and Python's end does not look for it."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()


def curve_name(row: dict[str, Any], targets: str) -> str:
    """eval/same_targets 1a2b3c4d, and behind that /sliding 64/yarn or /control window. `targets` names the set of
    targets; a curve never has two."""
    seen = row.get("control_of") or row["window"]
    window = seen if seen != row["trained_window"] else ""
    control = f"control {row['control']}" if row.get("control") else ""
    parts = ("eval", f"{row['protocol']} {targets}", row.get("corpus"), window, row["transform"], control)
    return "/".join(part for part in parts if part)


def wandb_id(run: Run) -> str:
    """The same for every process that works on the run, so that wandb goes on where it stopped."""
    return hashlib.sha256(f"{run.folder.parent.name}/{run.name}".encode()).hexdigest()[:16]
