"""The posexp bench command, which compares speed and memory of schemes and other libraries."""

import json
import platform
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posexp.config.commands import FULL_WINDOW, BenchCommand
from posexp.errors import Misuse, RunFailed

if TYPE_CHECKING:
    from posexp.output.grid import Grid

GIB = 2**30


def bench(command: BenchCommand) -> None:
    """Measure all contenders, print the tables and write <folder>/<name>/.

    Raises Misuse for an unknown scheme, unavailable device or missing peers, and RunFailed if no contender can be
    measured or the folder cannot be written.
    """
    from posexp.bench.interleave import measure
    from posexp.bench.models import BASE, Settings
    from posexp.bench.rows import rows_of

    contenders = contenders_of(command)
    from posexp.model.device import choose_device, choose_precision

    device = choose_device(command.device)
    settings = Settings(
        model=command.model,
        vocab_size=command.vocab_size,
        batch=command.batch,
        length=command.length,
        longest=max(command.length, *command.lengths),
        precision=choose_precision(command.precision, device),
        attention=command.attention,
        device=command.device,
        threads=command.threads,
        memory_limit=int(command.memory_limit_gib * GIB),
    )
    for found in measure(contenders, settings, command.lengths, command.rounds):  # results are written after each stage
        rows = rows_of(found, BASE)
        details: dict[str, Any] = {}
        for one in found:  # the details of posexp's own contenders take precedence
            details = {**one.facts.get("details", {}), **details}
        note = {**about(command), **details, "precision": settings.precision.value, "device": describe_machine(command)}
        peaks = [row["matmul_flops"] for row in rows if row["matmul_flops"]]
        if not peaks:
            raise RunFailed(f"no contender could be measured; status of the first: {rows[0]['status']}")
        note["matmul_gflops"] = round(max(peaks) / 1e9, 1)
        folder, shown = write_bench(command, rows, note, any(contender.peer for contender in contenders))
    from posexp.bench.table import LEGEND
    from posexp.output.console import console

    screen = console()
    for table in shown:
        table.show(screen)
    screen.print(LEGEND)
    screen.print(str(folder), soft_wrap=True, markup=False)


def contenders_of(command: BenchCommand) -> "list[Any]":
    """Return the contenders: the baseline of all ratios, posexp's other schemes, then peers."""
    from posexp.bench.models import BASE, Contender
    from posexp.config.components import chosen, folders_of

    paths = chosen(list(dict.fromkeys([BASE, *command.schemes])), folders_of("scheme"))
    checkout = Path(command.peers_path).expanduser().resolve() if command.peers_path else None
    if checkout and not (checkout / "model.py").is_file():
        raise Misuse(f"peers_path={command.peers_path} has no model.py; it must be the folder of a nanoGPT checkout")
    from posexp.config.components import read_options
    from posexp.dims import Dims
    from posexp.windows import from_config

    nodes = {name: read_options(path) for name, path in paths.items()}
    found = [Contender(name, scheme=node) for name, node in nodes.items()]
    if command.window not in (None, FULL_WINDOW):
        m = command.model
        window = from_config(command.window, Dims(m.d_model, m.n_head, m.n_layer, command.length)).fingerprint()
        found += [
            Contender(f"{name} · window {window}", scheme=node, window=command.window) for name, node in nodes.items()
        ]
    if command.peers:
        from posexp.bench import peers

        peers.check_peer()
        found += [Contender(name) for name in peers.names()]
    if checkout:
        found.append(Contender("nanoGPT", checkout=str(checkout)))
    return found


def about(command: BenchCommand) -> dict[str, Any]:
    from hydra.core.hydra_config import HydraConfig

    from posexp.runs.provenance import environment

    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return {
        **environment(),
        "command": shlex.join(["posexp", "bench", *map(bare, typed)]),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": cpu_name(),
        "rounds": command.rounds,
        "batch": command.batch,
    }


def bare(override: str) -> str:
    """Return the override without quotes if it is valid without them."""
    return override.replace("'", "") if re.fullmatch(r"[\w.=,'\[\]-]+", override) else override


def describe_machine(command: BenchCommand) -> str:
    from posexp.model import device

    chosen = device.choose_device(command.device)
    return device.describe(chosen) if chosen.type == "cuda" else "cpu"


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_bench(
    command: BenchCommand, rows: list[dict[str, Any]], note: dict[str, Any], with_peers: bool
) -> "tuple[Path, list[Grid]]":
    """Write all files. Return the folder and the tables. Raises RunFailed if the folder cannot be written."""
    from posexp.bench.picture import bench_pictures
    from posexp.bench.rows import COLUMNS
    from posexp.bench.table import bench_markdown, bench_tables
    from posexp.output.text import csv_text
    from posexp.storage import atomic

    shown = bench_tables(rows, with_peers)
    where = f"{note['cpu'] if note['device'] == 'cpu' else note['device']}, threads: {note['threads']}, "
    where += f"{note['precision']}, torch {note['torch']}, {note['matmul_gflops']} GFLOP/s in a matrix product"
    m = command.model
    sizes = f"d_model {m.d_model}, n_layer {m.n_layer}, n_head {m.n_head}, vocabulary {command.vocab_size:,}"
    png, svg = bench_pictures(rows, f"{note['date'][:10]} · {where}")
    readme = (
        f"# posexp bench, {note['date'][:10]}\n\n    {note['command']}\n\n"
        f"{where}. {sizes}; training steps of {command.batch} x {command.length} tokens, evaluation of one sequence; "
        f"medians of {command.rounds} rounds in which the contenders took turns. Commit {note['commit']}"
        f"{', with changes' if note['dirty'] else ''}. All figures: [bench.csv](bench.csv), "
        "[note.json](note.json).\n\n"
        f"![Training and evaluation speed](bench.png)\n\n{bench_markdown(shown)}"
    )
    folder = Path(command.folder).expanduser() / (command.name or name_of(command))
    contents = {
        "bench.csv": csv_text(COLUMNS, rows).encode(),
        "table.md": bench_markdown(shown).encode(),
        "bench.png": png,
        "bench.svg": svg,
        "note.json": (json.dumps(note, indent=1) + "\n").encode(),
        "README.md": readme.encode(),
    }
    try:
        atomic.write_all(folder, contents)
    except OSError as error:
        raise RunFailed(f"cannot write the bench into {folder}: {error.strerror or error}") from error
    return folder, shown


def name_of(command: BenchCommand) -> str:
    """Return the date, up to four scheme names or their number, and "peers"."""
    few = command.schemes if len(command.schemes) <= 4 else [f"{len(command.schemes)}-schemes"]
    peers = ["peers"] if command.peers or command.peers_path else []
    return "-".join([time.strftime("%Y-%m-%d"), *few, *peers])
