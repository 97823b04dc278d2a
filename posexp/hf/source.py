"""The files of a checkpoint: in a folder, or in the cache of the Hugging Face hub."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posexp.data.hub import can_reach_hub, explained
from posexp.data.tokenizer import refused
from posexp.errors import Misuse
from posexp.hf.quiet import quiet
from posexp.output.console import say
from posexp.storage import atomic
from posexp.storage.names import is_name, plain_name
from posexp.storage.untrusted import visible

FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.py"]
NOT_FETCHED = ["*/*", "consolidated*"]  # other formats of the weights
UNSHAPING = {"_name_or_path", "transformers_version", "posexp_run"}  # keys of config.json that do not change the model


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk.

    `given` is the value of hf=, `name` the name in tables, `commit` the commit on the hub, None for a folder. `sha256`
    is the checksum of all weights, `config` the content of config.json.
    """

    folder: Path
    given: str
    name: str
    commit: str | None
    sha256: str
    config: dict[str, Any]

    @property
    def config_sha256(self) -> str:
        """The checksum of config.json without the keys UNSHAPING."""
        about = {key: value for key, value in self.config.items() if key not in UNSHAPING}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def find_source(given: str) -> Source:
    """Return the checkpoint of a folder or of a hub id, where `id@revision` selects a revision."""
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
    folder = fetch_checkpoint(repository, revision or None)
    return read_source(folder, given, given.rpartition("/")[2], folder.name)


def fetch_checkpoint(repository: str, revision: str | None) -> Path:
    """Fetch a model and return its folder in the hub's cache. Raises Misuse if the model cannot be fetched."""
    from huggingface_hub import snapshot_download

    missing = (
        f"hf={repository}: there is no such folder, and the Hugging Face hub cannot be reached for a model of that "
        "name: name a folder, or fetch it once on a machine with internet"
    )
    how: dict[str, Any] = {"revision": revision, "allow_patterns": FETCHED, "ignore_patterns": NOT_FETCHED}
    if reachable := can_reach_hub():
        say(f"fetching {repository} from the hub (files in its cache are reused)")
    with quiet(), explained(f"hf={repository}: it cannot be fetched from the hub", missing):
        return Path(snapshot_download(repository, local_files_only=not reachable, **how))


def read_source(folder: Path, given: str, name: str, commit: str | None) -> Source:
    """Read the config and checksums of a folder. Raises Misuse without a readable config.json or safetensors."""
    if not (folder / "config.json").is_file():
        is_run = (folder / "config.yaml").is_file()
        own = "; a run of posexp is evaluated by --runs, and posexp export makes it a checkpoint" if is_run else ""
        raise Misuse(f"hf={given} holds no config.json, so it is not a checkpoint of transformers{own}")
    with refused(f"hf={given}: its config.json cannot be read"):
        config = json.loads((folder / "config.json").read_bytes())  # not json_of: some configs contain Infinity
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        others = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise Misuse(
            f"hf={given} holds {others}: posexp loads safetensors alone, as other formats can run code; "
            "save_pretrained of a loaded model writes safetensors"
        )
    digests = "".join(f"{path.name} {atomic.sha256(path)}\n" for path in weights)
    sha256 = hashlib.sha256(digests.encode()).hexdigest()
    return Source(folder, given, name_of(config, name), commit, sha256, config)


def name_of(config: dict[str, Any], name: str) -> str:
    """Return the name of a checkpoint: the run that posexp exported, or else the folder or repository."""
    called = config.get("posexp_run")
    if isinstance(called, str) and is_name(called):
        return called
    return name if is_name(name) else plain_name(visible(name)).strip("._")[:40] or "checkpoint"


def code_from_outside(value: Any) -> str | None:
    """Return the repository of compiled kernels in a config, which transformers would fetch and run, or None."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key).endswith("implementation") and isinstance(inner, str) and "/" in inner:
                return inner
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(code_from_outside, inside)), None)


def elements(source: Source) -> tuple[int, int]:
    """Return (tensors, numbers) in the weights from the headers of their files. Raises Misuse for a damaged header."""
    from safetensors import safe_open

    tensors = numbers = 0
    for path in sorted(source.folder.glob("*.safetensors")):
        with refused(f"hf={source.given}: transformers cannot load it: {path.name}"), safe_open(path, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a dict
                tensors += 1
                numbers += math.prod(weights.get_slice(name).get_shape())
    return tensors, numbers
