"""The posexp bench command, which compares speed and memory of schemes and other libraries."""

import json
import platform
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posexp.config.commands import FULL_WINDOW, NO_TEMPERATURE, BenchCommand
from posexp.errors import Misuse, RunFailed

if TYPE_CHECKING:
    from posexp.bench.models import Contender
    from posexp.bench.rows import Row


def bench(command: BenchCommand) -> None:
    """Measure all contenders, print the tables and write <folder>/<name>/.

    Raises Misuse for an unknown scheme, unavailable device or missing peers, and RunFailed if no contender can be
    measured or the folder cannot be written.
    """
    contenders = contenders_of(command)
    from posexp.bench.interleave import measure
    from posexp.bench.models import BASE
    from posexp.bench.rows import LEGEND, bench_tables, rows_of
    from posexp.model.device import choose_device, choose_precision, describe
    from posexp.output.console import console

    device = choose_device(command.device)
    command = replace(command, precision=choose_precision(command.precision, device))
    few = command.schemes if len(command.schemes) <= 4 else [f"{len(command.schemes)}-schemes"]
    peers = ["peers"] if command.peers or command.peers_path else []
    name = command.name or "-".join([time.strftime("%Y-%m-%d"), *few, *peers])
    folder = Path(command.folder).expanduser() / name
    for found in measure(contenders, command):  # results are written after each stage
        rows = rows_of(found, BASE)
        peaks = [row["matmul_flops"] for row in rows if row["matmul_flops"]]
        if not peaks:
            raise RunFailed(f"no contender could be measured; status of the first: {rows[0]['status']}")
        note = about(command)
        for one in reversed(found):  # the details of posexp's own contenders take precedence
            note |= one.facts.get("details", {})
        note["precision"] = command.precision.value
        note["device"] = describe(device) if device.type == "cuda" else "cpu"
        note["matmul_gflops"] = round(max(peaks) / 1e9, 1)
        write_bench(folder, command, rows, note)
    screen = console()
    for table in bench_tables(rows):
        table.show(screen)
    screen.print(LEGEND)
    screen.print(str(folder), soft_wrap=True, markup=False)


def contenders_of(command: BenchCommand) -> "list[Contender]":
    """Return the contenders: the baseline of all ratios, posexp's other schemes, then peers."""
    from posexp.bench.models import BASE, Contender
    from posexp.config.components import chosen, folders_of, read_options

    paths = chosen(list(dict.fromkeys([BASE, *command.schemes])), folders_of("scheme"))
    checkout = Path(command.peers_path).expanduser().resolve() if command.peers_path else None
    if checkout and not (checkout / "model.py").is_file():
        raise Misuse(f"peers_path={command.peers_path} has no model.py; it must be the folder of a nanoGPT checkout")
    from posexp.dims import Dims
    from posexp.windows import from_config

    nodes = {name: read_options(path) for name, path in paths.items()}
    found = [Contender(name, scheme=node) for name, node in nodes.items()]
    if command.window not in (None, FULL_WINDOW):
        m = command.model
        window = from_config(command.window, Dims(m.d_model, m.n_head, m.n_layer, command.length)).fingerprint()
        found += [Contender(f"{name} · window {window}", node, command.window) for name, node in nodes.items()]
    if command.temperature not in (None, NO_TEMPERATURE):
        kind = str(command.temperature["_target_"]).rpartition(".")[2]
        found += [Contender(f"{name} · {kind}", node, temperature=command.temperature) for name, node in nodes.items()]
    if (command.peers or checkout) and command.model.n_kv_head:
        raise Misuse("peers are built with as many heads of keys as of queries: omit model.n_kv_head, or omit peers")
    if command.peers:
        from posexp.bench import peers

        peers.check_peers()
        found += map(Contender, peers.LIBRARIES)
    if checkout:
        found.append(Contender("nanoGPT", checkout=str(checkout)))
    return found


def about(command: BenchCommand) -> dict[str, Any]:
    """Return the provenance, with the command as it can be typed: without quotes that the shell would need quoted."""
    from hydra.core.hydra_config import HydraConfig

    from posexp.runs.provenance import environment

    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    plain = [word.replace("'", "") if re.fullmatch(r"[\w.=,'\[\]-]+", word) else word for word in typed]
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.*?)\s*$", cpuinfo.read_text() if cpuinfo.is_file() else "", re.MULTILINE)
    return {
        **environment(),
        "command": shlex.join(["posexp", "bench", *plain]),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "rounds": command.rounds,
        "batch": command.batch,
    }


def write_bench(folder: Path, command: BenchCommand, rows: "list[Row]", note: dict[str, Any]) -> None:
    """Write all files. Raises RunFailed if the folder cannot be written."""
    from posexp.bench.picture import bench_pictures
    from posexp.bench.rows import COLUMNS, LEGEND, bench_tables
    from posexp.output.text import csv_text
    from posexp.storage import atomic

    where = f"{note['cpu'] if note['device'] == 'cpu' else note['device']}, threads: {note['threads']}, "
    where += f"{note['precision']}, torch {note['torch']}, {note['matmul_gflops']} GFLOP/s in a matrix product"
    m = command.model
    sizes = f"d_model {m.d_model}, n_layer {m.n_layer}, n_head {m.n_head}, vocabulary {command.vocab_size:,}"
    png, svg = bench_pictures(rows, f"{note['date'][:10]} · {where}")
    tables = "\n\n".join([*(f"{table.title}\n\n{table.markdown()}" for table in bench_tables(rows)), LEGEND]) + "\n"
    readme = (
        f"# posexp bench, {note['date'][:10]}\n\n    {note['command']}\n\n"
        f"{where}. {sizes}; training steps of {command.batch} x {command.length} tokens, evaluation of one sequence; "
        f"medians of {command.rounds} rounds in which the contenders took turns. Commit {note['commit']}"
        f"{', with changes' if note['dirty'] else ''}. All figures: [bench.csv](bench.csv), "
        f"[note.json](note.json).\n\n![Training and evaluation speed](bench.png)\n\n{tables}"
    )
    contents: dict[str, str | bytes] = {
        "bench.csv": csv_text(COLUMNS, rows),
        "table.md": tables,
        "bench.png": png,
        "bench.svg": svg,
        "note.json": json.dumps(note, indent=1) + "\n",
        "README.md": readme,
    }
    try:
        atomic.write_all(folder, contents)
    except OSError as error:
        raise RunFailed(f"cannot write the bench into {folder}: {error.strerror or error}") from error
