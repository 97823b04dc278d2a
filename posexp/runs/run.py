"""A run is a folder named by its content: find, describe, lock and read run folders.

<results>/<group>/<label>-s<seed>-<digest>/
    config.yaml       the whole configuration, written once
    provenance.json   code, packages, device, data and tokenizer hashes, the scheme really built
    metrics.jsonl     training metrics and the run's status, the truth that wandb copies
    checkpoint/       the last two checkpoints (posexp/runs/checkpoint.py)
    rows.jsonl        one evaluation row per protocol and length; losses/ holds the token losses
    train.log         what the run printed

A checkpoint of someone else's that was evaluated has such a folder too, with rows.jsonl, losses/ and checkpoint.json,
which says what it is, instead of the rest (posexp/hf/subject.py).
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from posexp.config import stored_yaml
from posexp.config.commands import TrainCommand
from posexp.config.components import targets
from posexp.config.digest import digest, identity
from posexp.config.sections import Split, TrainConfig
from posexp.config.values import flat, plain_value
from posexp.errors import Misuse, PosexpError, RunFailed
from posexp.storage import atomic, checksum, jsonl, locks, untrusted
from posexp.storage.names import is_name

if TYPE_CHECKING:
    from posexp.data import Store

Kind = TypeVar("Kind")
MOST_CONFIG = 1 << 20  # bytes
OWN_FOLDERS = ("losses", "checkpoint", "inspect", "export")  # in a run's
METRICS = {
    **dict.fromkeys(("step", "tokens", "tokens_per_second"), untrusted.is_count),
    **dict.fromkeys(("loss", "training_loss", "evaluation_loss"), untrusted.is_loss),
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
        """What it is, of a checkpoint of someone else's."""
        return self.folder / "checkpoint.json"

    @property
    def foreign(self) -> bool:
        """Whether the model is someone else's: nothing is known of its training."""
        return self.checkpoint.is_file()

    def about(self) -> dict[str, Any]:
        """checkpoint.json. Raises RunFailed if it cannot be read."""
        return read_object(self.checkpoint, "remove it and repeat the posexp eval hf=… that made it")

    def config(self) -> TrainCommand:
        """The stored configuration. Raises RunFailed if it cannot be read."""
        return self.stored(TrainCommand)

    def training(self) -> TrainConfig:
        """Of the stored configuration what `train` holds, for a table of many runs: to check the types of all the rest
        takes most of the time. Raises RunFailed as `config` does."""
        return self.stored(TrainConfig, "train")

    def stored(self, kind: type[Kind], key: str | None = None) -> Kind:
        """config.yaml, or what it holds under `key`, as a `kind`. Raises RunFailed if it cannot be read."""
        path = self.folder / "config.yaml"
        remedy = "remove it and repeat the run's train command to have it written again"
        try:
            content = untrusted.read_bytes(path, MOST_CONFIG)
            checksum.check_text(content.decode())
            stored = stored_yaml.yaml_of(content)
            if "device" not in stored:  # the last key that is written
                raise ValueError("it is cut off")
            values = stored if key is None else stored.get(key)
            if not isinstance(values, dict):
                raise ValueError(f"{key} holds no keys and values")
            config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
        except (OSError, ValueError, OmegaConfBaseException, PosexpError) as error:
            said = str(error).strip() or type(error).__name__
            raise RunFailed(f"{path} cannot be read: {said.splitlines()[0][:300]}: {remedy}") from error
        assert isinstance(config, kind)
        return config

    def create(self, config: TrainCommand) -> None:
        """Makes the folder and writes config.yaml, once.

        Raises Misuse if the folder holds another configuration or cannot be written, RunFailed for a full disk.
        """
        path = self.folder / "config.yaml"
        self.refuse_links()
        if path.is_file():
            stored = self.config()
            # before its parts are imported, to see what they leave out: only those that this command names may be
            if targets([stored.scheme, stored.window]) != targets([config.scheme, config.window]):
                raise Misuse(f"{self.folder} holds a run of another scheme or window: choose another group or label")
            if identity(stored) != identity(config) or stored.seed != config.seed:
                raise Misuse(
                    f"{self.folder} holds a run of another configuration ({', '.join(differing(stored, config))}): "
                    "choose another group or label"
                )
            return
        text = checksum.seal_text(OmegaConf.to_yaml(OmegaConf.create(plain_value(config))))
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
        """Raises RunFailed for a symbolic link where posexp writes, since whoever made the folder chose where it leads;
        and for a pipe or a device, which a writer would wait for."""
        for folder in (self.folder, *(self.folder / name for name in OWN_FOLDERS)):
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if path.is_symlink():
                    raise RunFailed(
                        f"{path} is a symbolic link, and posexp writes through none: put a copy of what it leads to in "
                        "its place, or remove it"
                    )
                if path.exists() and not (path.is_file() or path.is_dir()):
                    raise RunFailed(f"{path} is neither a file nor a folder: remove it")

    def history(self, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, in the order they were written. Raises RunFailed as jsonl.read does."""
        return jsonl.read_lines(self.metrics, say, known=METRICS)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run's training for this process.

        Raises RunFailed that names the holder if it is taken, Misuse if the folder cannot be written.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locks.hold(self.folder / ".lock", self.folder / "holder.json"))
                atomic.remove_leftovers(self.folder)
            except locks.Taken as other:
                raise RunFailed(f"{self.folder} is being worked on by {other}; wait for it or stop it") from None
            except OSError as error:
                raise cannot_write(self.folder, error) from error
            yield

    def locked(self) -> bool:
        """Whether some process trains the run right now."""
        return locks.taken(self.folder / ".lock")

    @contextmanager
    def measuring(self, wait: Callable[[str], None] | None) -> Iterator[None]:
        """Holds the run's rows and losses for this process: a lock of their own, because a run that is done can be
        measured while its train command is repeated, and a checkpoint of someone else's is never trained.

        If another process has them, `wait` is told which and it is waited for; locks.Taken if there is no `wait`.
        """
        patience = locks.TIMEOUT if wait else 0
        with locks.hold(self.folder / ".measuring", self.folder / "measuring.json", wait, patience):
            for left in self.folder.glob("losses/.*"):  # by a process that was killed while it wrote
                with suppress(OSError):
                    left.unlink()
            yield

    def provenance(self) -> dict[str, Any]:
        """Raises RunFailed if the file is damaged or missing."""
        remedy = "remove it and repeat the run's train command to have it written again"
        return read_object(self.folder / "provenance.json", remedy)

    def check_store(self, store: "Store") -> None:
        """Raises RunFailed unless `store` is the token store that the run was trained on."""
        about = self.provenance()
        trained_on = about.get("store")
        if trained_on != store.key:
            raise RunFailed(
                f"{self.name} was trained on token store {trained_on}, but its data config now gives {store.key}: "
                "the corpus (or the Python whose library it is, or how posexp splits that) has changed"
            )
        tokens = store.split(Split.train).sha256
        if about.get("train_sha256", tokens) != tokens:
            raise RunFailed(f"{self.name} was trained on other tokens than those in {store.folder}")

    def status(self) -> dict[str, Any]:
        """The latest status: {"status": done | running | stopped | failed | interrupted, "step": …, "reason": …};
        "checkpoint" of a foreign one."""
        if self.foreign:
            return {"status": "checkpoint"}
        rows = [row for row in self.history(lambda line: None) if row.get("step") is not None]
        events = [row for row in rows if row.get("status")]
        latest = dict(events[-1]) if events else {"status": "waiting"}
        if latest["status"] == "running":
            latest["step"] = rows[-1]["step"]
            if not self.locked():
                latest["status"] = "interrupted"  # killed without a word; the same command goes on
        return latest


MARKS = ("config.yaml", "checkpoint.json")  # what makes a folder a run


def find_runs(results: str, group: str, pattern: str = "*") -> list[Run]:
    """The run folders of a group that match the glob, or one of several with commas between, by name; those of foreign
    checkpoints among them.

    Raises Misuse for what is no glob.
    """
    folders = {path for part in pattern.split(",") for path in run_folders(Path(results) / group, part)}
    return [Run(path) for path in sorted(folders)]


def groups(results: str, pattern: str) -> list[str]:
    return sorted({path.parent.name for path in run_folders(Path(results), f"{pattern}/*")})


def run_folders(folder: Path, pattern: str) -> list[Path]:
    """By name. Folders of names that posexp gives none are no runs."""
    try:
        found = {path.parent for mark in MARKS for path in folder.expanduser().glob(f"{pattern}/{mark}")}
    except (ValueError, NotImplementedError, RuntimeError) as error:
        raise Misuse(f"{pattern!r} in {folder} is no glob of folders: {error}") from error
    return sorted(path for path in found if is_name(path.name, most=255))


def cannot_write(folder: Path, error: OSError) -> PosexpError:
    text = f"cannot write to {folder}: {error.strerror}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return RunFailed(f"{text}; make room and repeat the command")
    return Misuse(f"{text}; set results=<a folder you own>")


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file. Raises RunFailed, with the remedy, if it is damaged or missing."""
    try:
        about = checksum.read_sealed(untrusted.read_bytes(path))
    except (OSError, ValueError) as error:
        raise RunFailed(f"{path} cannot be read ({error}): {remedy}") from error
    return about


def differing(one: TrainCommand, other: TrainCommand) -> list[str]:
    """The keys whose values define the result and are not the same."""
    a, b = flat(identity(one)), flat(identity(other))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key)) or ["seed"]
