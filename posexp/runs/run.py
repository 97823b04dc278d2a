"""The run, a folder named by its content: find, describe, lock and read run folders.

<results>/<group>/<label>-s<seed>-<digest>/
    config.yaml       the whole configuration, written once
    provenance.json   code, packages, device, data and tokenizer hashes, the scheme that was built
    metrics.jsonl     training metrics and the run's status, which loggers copy
    checkpoint/       the last two checkpoints (posexp/runs/checkpoint.py)
    rows.jsonl        one evaluation row per protocol and length; losses/ holds the token losses
    train.log         what the run printed

An external checkpoint that was evaluated has a run folder too, with only rows.jsonl, losses/ and checkpoint.json,
which describes the checkpoint (posexp/hf/subject.py).
"""

import errno
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from posexp.config import stored_yaml
from posexp.config.commands import TrainCommand
from posexp.config.components import targets
from posexp.config.digest import digest, identity
from posexp.config.sections import Split
from posexp.config.values import flat, plain_value, typed_value
from posexp.errors import Misuse, PosexpError, RunFailed
from posexp.storage import atomic, jsonl, locks, untrusted
from posexp.storage.names import is_name

if TYPE_CHECKING:
    from posexp.data import Store

MAX_CONFIG_BYTES = 1 << 20  # bytes
OWN_FOLDERS = ("losses", "checkpoint", "inspect", "export", "tensorboard")  # of a run
METRICS = {
    **dict.fromkeys(("step", "tokens", "tokens_per_second"), untrusted.is_count),
    **dict.fromkeys(("loss", "valid_loss", "training_loss", "evaluation_loss"), untrusted.is_loss),
    **dict.fromkeys(("lr", "grad_norm", "time"), untrusted.is_amount),
    **dict.fromkeys(("status", "reason"), untrusted.is_text),
}


@dataclass(frozen=True)
class Run:
    folder: Path

    @staticmethod
    def of(config: TrainCommand) -> "Run":
        name = f"{config.label}-s{config.seed}-{digest(config)}"
        return Run(Path(config.results).expanduser() / config.group / name)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The file that describes an external checkpoint."""
        return self.folder / "checkpoint.json"

    @property
    def foreign(self) -> bool:
        """Whether the model is external, so that nothing is known of its training."""
        return self.checkpoint.is_file()

    def about(self) -> dict[str, Any]:
        """Load checkpoint.json. Raises RunFailed if it cannot be read."""
        return read_object(self.checkpoint, "remove it and repeat the posexp eval hf=… that made it")

    def config(self) -> TrainCommand:
        """Load the stored configuration. Raises RunFailed if it cannot be read."""
        with self.reading_config() as text:
            values = values_of(text)
            try:
                config: Any = typed_value(TrainCommand, values)
            except (TypeError, ValueError, Misuse):  # OmegaConf converts what it can, and explains the rest
                config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainCommand), values))
        assert isinstance(config, TrainCommand)
        return config

    def section(self, name: str) -> dict[str, Any]:
        """Load one section of the stored configuration without its types, in a hundredth of the time of `config`."""
        with self.reading_config() as text:
            match = re.search(rf"^{name}:\n(?: .*\n)+(?=(?:.*\n)*device:)", text, re.MULTILINE)
            found = stored_yaml.yaml_of(match[0].encode())[name] if match else values_of(text).get(name)
            if not isinstance(found, dict):
                raise ValueError(f"{name} must hold keys and values")
        return found

    @contextmanager
    def reading_config(self) -> Iterator[str]:
        """Read config.yaml for the block. Raises RunFailed with the remedy for an error there or here."""
        path = self.folder / "config.yaml"
        try:
            text = untrusted.read_bytes(path, MAX_CONFIG_BYTES).decode()
            yield text
        except (OSError, ValueError, OmegaConfBaseException, PosexpError) as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            remedy = "remove it and repeat the run's train command to have it written again"
            raise RunFailed(f"{path} cannot be read: {said}: {remedy}") from error

    def create(self, config: TrainCommand) -> None:
        """Create the folder and write config.yaml; Misuse if the folder holds another configuration."""
        path = self.folder / "config.yaml"
        self.refuse_links()
        if path.is_file():
            stored = self.config()
            # checked first, because `identity` imports components, and only those of this command may be imported
            if targets(stored.components) != targets(config.components):
                raise Misuse(f"{self.folder} holds a run of other components: choose another group or label")
            if identity(stored) != identity(config) or stored.seed != config.seed:
                raise Misuse(
                    f"{self.folder} holds a run of another configuration ({', '.join(differing(stored, config))}): "
                    "choose another group or label"
                )
            return
        text = OmegaConf.to_yaml(OmegaConf.create(plain_value(config)))
        try:
            stored_yaml.yaml_of(text.encode())
        except ValueError as error:
            raise Misuse(f"config.yaml could not be read again, since {error}: name many files by a glob") from error
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.write_file(path, text)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def refuse_links(self) -> None:
        """Raise RunFailed for a symbolic link, pipe or device where posexp writes.

        An attacker may have chosen the target of a link, and writing to a pipe could block.
        """
        for folder in (self.folder, *(self.folder / name for name in OWN_FOLDERS)):
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if path.is_symlink():
                    raise RunFailed(
                        f"{path} is a symbolic link, and posexp does not write through links: replace it with a copy "
                        "of its target, or remove it"
                    )
                if path.exists() and not (path.is_file() or path.is_dir()):
                    raise RunFailed(f"{path} is neither a file nor a folder: remove it")

    def history(self, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Load the rows of metrics.jsonl, oldest first. Raises RunFailed as jsonl.read_lines does."""
        return jsonl.read_lines(self.metrics, say, known=METRICS)

    def record(self, step: int, **values: Any) -> None:
        """Append a row to metrics.jsonl: values at a step, with the time in seconds since 1970. Raises OSError."""
        jsonl.append(self.metrics, {"step": step, **values, "time": round(time.time(), 3)})

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's training lock in the block; RunFailed with the name of its holder if it is taken."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locks.hold(self.folder / ".lock", self.folder / "holder.json"))
                atomic.remove_leftovers(self.folder)
            except locks.LockHeld as other:
                raise RunFailed(f"{self.folder} is being worked on by {other}; wait for it or stop it") from None
            except OSError as error:
                raise cannot_write(self.folder, error) from error
            yield

    def locked(self) -> bool:
        """Return whether a process is training the run now."""
        return locks.taken(self.folder / ".lock")

    @contextmanager
    def measuring(self, wait: Callable[[str], None] | None) -> Iterator[None]:
        """Hold the lock of the run's rows and losses in the block.

        Rows have a separate lock because a finished run can be evaluated while its train command is repeated, and an
        external checkpoint is never trained. If another process has the lock, `wait` is called with its description and
        the lock is awaited. Raises locks.LockHeld if `wait` is None.
        """
        patience = locks.TIMEOUT if wait else 0
        with locks.hold(self.folder / ".measuring", self.folder / "measuring.json", wait, patience):
            for left in self.folder.glob("losses/.*"):  # temporary files of a killed process
                with suppress(OSError):
                    left.unlink()
            yield

    def provenance(self) -> dict[str, Any]:
        """Load provenance.json. Raises RunFailed if the file is damaged or missing."""
        remedy = "remove it and repeat the run's train command to have it written again"
        return read_object(self.folder / "provenance.json", remedy)

    def check_store(self, store: "Store") -> None:
        """Raise RunFailed unless `store` is the token store that the run was trained on."""
        about = self.provenance()
        trained_on = about.get("store")
        if trained_on != store.key:
            raise RunFailed(
                f"{self.name} was trained on token store {trained_on}, but its data config now gives {store.key}: "
                "the corpus, the Python of data=stdlib or posexp's way of splitting it has changed"
            )
        tokens = store.split(Split.train).sha256
        if about.get("train_sha256", tokens) != tokens:
            raise RunFailed(f"{self.name} was trained on other tokens than those in {store.folder}")

    def status(self) -> dict[str, Any]:
        """Return the latest status: {"status": done | running | stopped | failed | interrupted, "step", "reason"}.

        The status is "waiting" before training, and "checkpoint" for an external checkpoint.
        """
        return self.latest(lambda line: None)["status"]

    def latest(self, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
        """Return the latest rows of metrics.jsonl, read from its end: {"status", "loss", "evaluation"}, if any."""
        if self.foreign:
            return {"status": {"status": "checkpoint"}}
        rows = jsonl.last_rows(self.metrics, ("step", "status", "loss", "evaluation"), say, METRICS)
        latest = rows["status"] = dict(rows.get("status") or {"status": "waiting"})
        if latest["status"] == "running":
            latest["step"] = rows["step"]["step"] if "step" in rows else 0
            if not self.locked():
                latest["status"] = "interrupted"  # killed before it could write a status
        return rows


MARKS = ("config.yaml", "checkpoint.json")  # what makes a folder a run


def find_runs(results: str, group: str, pattern: str = "*") -> list[Run]:
    """Return the runs, external checkpoints too, that match any of the comma-separated globs, sorted by name."""
    folders = {path for part in pattern.split(",") for path in run_folders(Path(results) / group, part)}
    return [Run(path) for path in sorted(folders)]


def groups(results: str, pattern: str) -> list[str]:
    return sorted({path.parent.name for path in run_folders(Path(results), f"{pattern}/*")})


def run_folders(folder: Path, pattern: str) -> list[Path]:
    """Return the matching run folders, sorted by name, without folders whose names posexp would not create."""
    try:
        found = {path.parent for mark in MARKS for path in folder.expanduser().glob(f"{pattern}/{mark}")}
    except (ValueError, NotImplementedError, RuntimeError) as error:
        raise Misuse(f"{pattern!r} in {folder} is not a glob of folders: {error}") from error
    return sorted(path for path in found if is_name(path.name, most=255))


def cannot_write(folder: Path, error: OSError) -> PosexpError:
    text = f"cannot write to {folder}: {error.strerror}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return RunFailed(f"{text}; make room and repeat the command")
    return Misuse(f"{text}; set results=<a folder you own>")


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Load the JSON object of a file. Raises RunFailed with the remedy if the file is damaged or missing."""
    try:
        about = untrusted.object_of(untrusted.read_bytes(path))
    except (OSError, ValueError) as error:
        raise RunFailed(f"{path} cannot be read ({error}): {remedy}") from error
    return about


def values_of(text: str) -> dict[str, Any]:
    """Return the values of a config.yaml. Raises ValueError if they cannot be parsed or are cut off."""
    values = stored_yaml.yaml_of(text.encode())
    if "device" not in values:  # the last key of the file
        raise ValueError("it is cut off")
    return values


def differing(one: TrainCommand, other: TrainCommand) -> list[str]:
    """Return the keys that determine the result and whose values differ."""
    a, b = flat(identity(one)), flat(identity(other))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key)) or ["seed"]
