"""The files of a checkpoint: in a folder, or fetched from the Hugging Face hub into its cache."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posexp.data.hub import can_reach_hub, offline
from posexp.data.quiet import datasets_reason, raise_disk_error
from posexp.errors import Misuse
from posexp.hf.quiet import quiet
from posexp.output.console import say
from posexp.storage import atomic
from posexp.storage.names import is_name, plain_name
from posexp.storage.untrusted import visible

FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.py"]
NOT_FETCHED = ["*/*", "consolidated*"]  # other formats of the same weights
UNSHAPING = {"_name_or_path", "transformers_version", "posexp_run"}  # keys of config.json


@dataclass(frozen=True)
class Source:
    """`given` is what the user named, `name` what tables call it; `commit` that of the hub, None for a folder.

    `sha256` is of all the weights, `config` what config.json holds: the same weights with another config are another
    model.
    """

    folder: Path
    given: str
    name: str
    commit: str | None
    sha256: str
    config: dict[str, Any]

    @property
    def config_sha256(self) -> str:
        """Of all that config.json says of the model; not of where it was saved, by which version."""
        about = {key: value for key, value in self.config.items() if key not in UNSHAPING}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def find_source(given: str) -> Source:
    """The checkpoint of a folder or a hub id, `id@revision` for one that is not the latest.

    Raises Misuse if there is none, it cannot be fetched, or its weights are not safetensors.
    """
    folder = Path(given).expanduser()
    if folder.is_dir():
        return read_source(folder, given, folder.resolve().name, None)
    if folder.suffix == ".gguf":
        raise Misuse(
            f"hf={given} is a GGUF file, and posexp loads folders of safetensors: load it in transformers by "
            f"from_pretrained(<its folder>, gguf_file={folder.name!r}), model and tokenizer, save_pretrained both into "
            "a folder, and name that"
        )
    if folder.is_file():
        raise Misuse(f"hf={given} is a file: name the folder of a checkpoint, with its config.json")
    if folder.exists() or given.startswith((".", "/", "~")) or given.count("/") > 1:
        raise Misuse(
            f"hf={given}: there is no such folder; name one, or a model of the hub as in hf=EleutherAI/pythia-160m"
        )
    repository, _, revision = given.partition("@")
    folder = fetch(repository, revision or None)
    return read_source(folder, given, given.rpartition("/")[2], folder.name)


def fetch(repository: str, revision: str | None) -> Path:
    """The folder of the hub's cache that holds the model at this revision."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    reachable = can_reach_hub()
    if reachable:
        say(f"fetching {repository} from the hub, or what of it is not in its cache yet")
    try:
        with quiet(), offline(not reachable):
            found = snapshot_download(
                repository, revision=revision, allow_patterns=FETCHED, ignore_patterns=NOT_FETCHED
            )
    except LocalEntryNotFoundError as error:
        raise Misuse(
            f"hf={repository}: there is no such folder, and the Hugging Face hub cannot be reached for a model of that "
            "name: name a folder, or fetch it once on a machine with internet"
        ) from error
    except Exception as error:  # an unknown, private or gated model, or a broken connection
        raise_disk_error(error)
        raise Misuse(f"hf={repository}: the hub does not give it: {why(error)}") from error
    return Path(found)


def read_source(folder: Path, given: str, name: str, commit: str | None) -> Source:
    try:
        # plain JSON: some have an Infinity
        config = json.loads((folder / "config.json").read_bytes()) if (folder / "config.json").is_file() else None
        if config is None:
            raise FileNotFoundError
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
    except FileNotFoundError as error:
        own = "; posexp's own runs are evaluated by --runs" if (folder / "config.yaml").is_file() else ""
        raise Misuse(f"hf={given} holds no config.json, so it is not a checkpoint of transformers{own}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise Misuse(f"hf={given}: its config.json cannot be read: {error}") from error
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        others = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise Misuse(
            f"hf={given} holds {others}: posexp loads safetensors alone, as other formats can run code; "
            "save_pretrained of a loaded model writes them"
        )
    digests = "".join(f"{path.name} {atomic.sha256(path)}\n" for path in weights)
    sha256 = hashlib.sha256(digests.encode()).hexdigest()
    return Source(folder, given, name_of(config, name), commit, sha256, config)


def name_of(config: dict[str, Any], name: str) -> str:
    """What a checkpoint is called: as the run that posexp exported, or as its folder or repository is."""
    called = config.get("posexp_run")
    if isinstance(called, str) and is_name(called):
        return called
    return name if is_name(name) else plain_name(visible(name)).strip("._")[:40] or "checkpoint"


def code_from_outside(value: Any) -> str | None:
    """The repository of compiled kernels that a config asks for, which transformers would fetch and run."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key).endswith("implementation") and isinstance(inner, str) and "/" in inner:
                return inner
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(code_from_outside, inside)), None)


def elements(source: Source) -> tuple[int, int]:
    """(tensors, numbers) in the weights of a checkpoint, by what their headers say. Raises Misuse if one cannot be
    read."""
    from safetensors import safe_open

    tensors = numbers = 0
    for path in sorted(source.folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as held:
                for name in held.keys():  # noqa: SIM118 - it is no dict
                    tensors += 1
                    numbers += math.prod(held.get_slice(name).get_shape())
        except Exception as error:  # safetensors raises its own kind
            raise Misuse(f"hf={source.given}: transformers cannot load it: {path.name}: {why(error)}") from error
    return tensors, numbers


def tokenizer_file(source: Source, cache: Path, trust: bool) -> Path:
    """The tokenizer.json of a checkpoint; made from its other files, and kept in `cache`, where it has none.

    Raises Misuse where that is not possible.
    """
    own = source.folder / "tokenizer.json"
    if own.is_file():
        return own
    from transformers import AutoTokenizer

    try:
        with quiet():
            made = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=trust, local_files_only=True)
            text = made.backend_tokenizer.to_str(pretty=True)
    except Exception as error:  # whatever a tokenizer's files, or their absence, make of it
        raise Misuse(
            f"hf={source.given} has no tokenizer.json, and none can be made of its files: {why(error)}"
        ) from error
    path = cache / "tokenizers" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_file(path, text)
        except OSError as error:
            raise Misuse(
                f"cannot write to {path.parent}: {error.strerror}; choose another folder with cache=…"
            ) from error
    return path


def why(error: Exception) -> str:
    """The beginning of what an error says: those of transformers go on to explain."""
    text = datasets_reason(error)
    return text if len(text) <= 160 else text[:157] + "..."
