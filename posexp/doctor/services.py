"""What lies outside the machine: the hub, wandb and SLURM, and the optional packages."""

import netrc
import os
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from shutil import which
from urllib.parse import urlsplit

from posexp.config.sections import WandbConfig
from posexp.doctor.findings import Finding, finding
from posexp.jobs.programs import ask
from posexp.jobs.slurm import slurm_job
from posexp.storage.network import reachable

PATIENCE = 2.0  # seconds for an answer of SLURM
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
HUB, WANDB = "https://huggingface.co", "https://api.wandb.ai"


def hub() -> list[Finding]:
    """Return whether data and checkpoints of the Hugging Face hub can be fetched, and what its cache has."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    counts = [f"{len(list(cache.glob(f'{kind}--*')))} {kind}" for kind in ("models", "datasets")]
    server = os.environ.get("HF_ENDPOINT") or HUB
    forbidden = [name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    if forbidden:
        how, remedy = f"not used, because of {' and '.join(forbidden)}", f"unset {' '.join(forbidden)} to fetch more"
    elif reachable(server):
        how, remedy = f"{server} can be reached", ""
    else:
        how = f"{server} cannot be reached"
        remedy = "use data=stdlib or data=files, or bring a token store by scripts/bundle"
    return [finding("hub", f"{how}; {' and '.join(counts)} in {cache}", remedy)]


def wandb() -> list[Finding]:
    """Return the version of wandb, whether it knows a key, and whether its server can be reached."""
    mode = WandbConfig().mode.value
    try:
        fact = f"{metadata.version('wandb')}, wandb.mode={mode} by default"
    except metadata.PackageNotFoundError:
        return [finding("wandb", "not installed", "wandb.mode=disabled, or pip install wandb")]
    server = os.environ.get("WANDB_BASE_URL") or WANDB
    found = "" if has_key(server) else "no API key"
    found = found or ("" if reachable(server) else f"{server} cannot be reached")
    remedy = "metrics.jsonl and an offline copy have everything; wandb.mode=online needs "
    remedy += "wandb login" if found == "no API key" else "the network"
    return [finding("wandb", f"{fact}, {found or 'a key is set and the server can be reached'}", found and remedy)]


def has_key(server: str) -> bool:
    """Return whether wandb has an API key, without reading it."""
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        hosts = {}
    return bool(os.environ.get("WANDB_API_KEY")) or (urlsplit(server).hostname or "") in hosts


def slurm() -> list[Finding]:
    """Return SLURM's version and partitions, or that sweeps run on this machine."""
    if which("sbatch") is None:
        return [finding("slurm", "no sbatch here: sweeps run on this machine")]
    try:
        version = ask("sbatch", "--version", seconds=PATIENCE).stdout.strip() or "sbatch without a version"
        listed = ask("sinfo", "--noheader", "--format=%P %a %l", seconds=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "no answer in time" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        return [finding("slurm", f"sbatch is installed, but SLURM cannot be read: {why}", "sinfo must list partitions")]
    parts = [" ".join(line.split()) for line in listed.stdout.splitlines()]
    job = f", this is job {slurm_job()}" if slurm_job() else ""
    remedy = "" if installed("hydra-submitit-launcher") else "pip install 'posexp[slurm]' to sweep with SLURM"
    if not parts:
        why = (listed.stderr.strip().splitlines() or ["no partition"])[0]
        return [finding("slurm", f"{version}, but sinfo lists nothing: {why}", "ask your administrator")]
    return [finding("slurm", f"{version}{job}, partitions (state, time limit): {', '.join(parts)}", remedy)]


def extras() -> list[Finding]:
    """Return which extras of posexp are installed."""
    there: list[str] = []
    missing: list[str] = []
    for extra in metadata.metadata("posexp").get_all("Provides-Extra") or []:
        if extra != "dev":
            (there if all(map(installed, packages_of(extra))) else missing).append(extra)
    remedy = f"if you need them: pip install 'posexp[{','.join(missing)}]'" if missing else ""
    return [finding("extras", f"{', '.join(there) or 'none'} installed", remedy)]


def packages_of(extra: str) -> Iterator[str]:
    """Yield the packages of an extra, and of the extras that it includes."""
    from packaging.requirements import Requirement

    for each in map(Requirement, metadata.requires("posexp") or []):
        if each.marker and each.marker.evaluate({"extra": extra}) and not each.marker.evaluate({"extra": ""}):
            if each.name == "posexp":
                yield from (name for inner in each.extras for name in packages_of(inner))
            else:
                yield each.name


def installed(package: str) -> bool:
    try:
        metadata.version(package)
        return True
    except metadata.PackageNotFoundError:
        return False
