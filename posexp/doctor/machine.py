"""Python, memory, disks and token stores."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from posexp import __version__
from posexp.doctor.findings import Finding, finding, problem, size

FULL, SCARCE = 100 << 20, 5 << 30  # bytes that are free: below the first no run fits, below the second few runs
SMALL_MEMORY = 2 << 30


def python() -> list[Finding]:
    fact = f"posexp {__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return [finding("python", f"{fact}, {sys.executable}")]


def memory() -> list[Finding]:
    """Return what is available of the machine's memory and of the limit that its container or job has."""
    known = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(known[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    fact, group = f"{size(free)} of {size(total)} available", Path("/sys/fs/cgroup")
    limit = (group / "memory.max").read_text().strip() if (group / "memory.max").is_file() else "max"
    if limit.isdecimal() and int(limit) < total:
        free = min(free, int(limit) - int((group / "memory.current").read_text()))
        fact += f", limited to {size(int(limit))}"
    return [finding("memory", fact, "" if free > SMALL_MEMORY else "close other programs, or lower eval.batch_tokens")]


def disks(places: dict[str, str]) -> list[Finding]:
    """Return a finding for each folder that posexp writes to, by the option that chooses it, and for TMPDIR."""
    try:
        places = {**places, "TMPDIR": tempfile.gettempdir()}
    except OSError:
        return [*disk_findings(places), problem("TMPDIR", "no temporary folder can be written", "set TMPDIR")]
    return list(disk_findings(places))


def disk_findings(places: dict[str, str]) -> Iterator[Finding]:
    for name, place in places.items():
        option = "data.cache" if name == "cache" else name
        folder = Path(place).expanduser().absolute()
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        disk = os.statvfs(there)
        free = disk.f_bavail * disk.f_frsize
        fact = f"{folder}, {size(free)} of {size(disk.f_blocks * disk.f_frsize)} free"
        elsewhere = f"choose another folder: {option}=<folder>"
        if not there.is_dir():
            yield problem(name, f"{there} is not a folder", elsewhere)
        elif not os.access(there, os.W_OK | os.X_OK):
            yield problem(name, f"{there} cannot be written", elsewhere)
        elif free < FULL or (disk.f_files and not disk.f_favail):
            why = "full" if free < FULL else "without free inodes"
            yield problem(name, f"{fact}: {why}", f"free some space, or {elsewhere}")
        else:
            yield finding(name, fact, "" if free > SCARCE else f"little: free some, or {elsewhere}")


def stores(cache: str) -> list[Finding]:
    """Return the number and size of the token stores, and a finding for each that is damaged or being built."""
    from posexp.data.store import DamageError, read_meta
    from posexp.storage import locks

    folder = Path(cache).expanduser() / "tokens"
    if not folder.is_dir():
        return [finding("stores", f"no token stores in {folder} yet; the first training run builds one")]
    every = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.endswith("-building")]
    total = sum(file.stat().st_size for path in every for file in path.iterdir())
    count = f"{len(every)} token store{'s' * (len(every) != 1)}"
    found = [finding("stores", f"{count}, {total / 1e6:,.0f} MB in {folder}")]
    for path in every:
        try:
            read_meta(path)
        except DamageError as error:
            remedy = "the next run that needs it builds it again from its text"
            found.append(finding("stores", f"{path.name} is damaged: {error}", remedy))
    building = {path.name.partition(".")[0] for path in folder.glob("*-building")}
    for key in sorted(building | {path.stem for path in folder.glob("*.lock")}):
        lock = folder / f"{key}.lock"
        if locks.taken(lock):
            fact = f"{key} is being built by {locks.who(lock, folder / f'{key}.holder.json')}"
            found.append(finding("stores", fact, "other runs on the same text wait for it"))
        elif key in building:
            left = f"rm -r {folder / key}.*-building"
            found.append(finding("stores", f"{key} was left half built by a killed process", left))
    return found
