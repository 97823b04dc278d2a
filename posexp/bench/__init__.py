"""The posexp bench command, which compares speed and memory of schemes and other libraries."""

import json
import platform
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posexp.config.bench import BenchCommand
from posexp.config.commands import FULL_WINDOW, NO_TEMPERATURE
from posexp.config.sections import Clock, Precision
from posexp.errors import Misuse, RunFailed

if TYPE_CHECKING:
    from posexp.bench.models import Contender
    from posexp.bench.rows import Row


def bench(command: BenchCommand) -> None:
    """Measure all contenders, print the tables and write <folder>/<name>/.

    Raises Misuse for an unknown scheme, unavailable device, missing peers or a baseline that is another measurement,
    and RunFailed if no contender can be measured, the folder cannot be written, or a contender is worse than in the
    baseline.
    """
    contenders = contenders_of(command)
    from posexp.bench.against import RULE, baseline_of, compare
    from posexp.bench.interleave import measure
    from posexp.bench.models import BASE
    from posexp.bench.peaks import vendor_peak
    from posexp.bench.rows import LEGEND, bench_tables, rows_of
    from posexp.model.device import choose_device, choose_precision, describe
    from posexp.output.console import console
    from posexp.report.bench_records import sizes_of

    device = choose_device(command.device)
    if device.type == "cuda" and command.clock is Clock.cpu:
        raise Misuse("clock=cpu does not measure a GPU: omit it, or set device=cpu")
    command = replace(command, precision=choose_precision(command.precision, device))
    few = command.schemes if len(command.schemes) <= 4 else [f"{len(command.schemes)}-schemes"]
    peers = ["peers"] if command.peers or command.peers_path else []
    name = command.name or "-".join([time.strftime("%Y-%m-%d"), *few, *peers])
    folder = Path(command.folder).expanduser() / name
    settings = sizes_of(command.model, command.vocab_size, command.batch, command.length)
    settings |= {key: getattr(command, key).value for key in ("precision", "attention", "clock")}
    settings["device"] = device.type
    parts = {one.name: None if one.peer else one.components for one in contenders}
    baseline = baseline_of(command.against, parts, settings) if command.against else {}
    vendor = vendor_peak(describe(device)) if command.precision is Precision.bfloat16 else None
    code = about(command)  # before its own folder changes the checkout
    for found in measure(contenders, command):  # results are written after each stage
        rows = rows_of(found, BASE, vendor)
        peaks = [row["matmul_flops"] for row in rows if row["matmul_flops"]]
        if not peaks:
            raise RunFailed(f"no contender could be measured; status of the first: {rows[0]['status']}")
        note = dict(code)
        for one in reversed(found):  # the details of posexp's own contenders take precedence
            note |= one.facts.get("details", {})
        note["device"] = describe(device) if device.type == "cuda" else note["cpu"]
        note |= {"vendor_flops": vendor, "matmul_gflops": round(max(peaks) / 1e9, 1), "settings": settings}
        write_bench(folder, command, rows, note)
    screen = console()
    for table in bench_tables(rows):
        table.show(screen)
    screen.print(LEGEND)
    screen.print(str(folder), soft_wrap=True, markup=False)
    if baseline:
        table, worse = compare(rows, baseline, note)
        table.show(screen)
        screen.print(RULE, soft_wrap=True)
        if worse:
            raise RunFailed(f"{len(worse)} worse than {command.against}: {'; '.join(worse[:3])}")


def contenders_of(command: BenchCommand) -> "list[Contender]":
    """Return the contenders: the baseline of all ratios, posexp's other schemes, then curves of a study, then peers."""
    from posexp.bench.models import BASE, Contender
    from posexp.config.components import chosen, folders_of, read_options

    paths = chosen(list(dict.fromkeys([BASE, *command.schemes])), folders_of("scheme"))
    checkout = Path(command.peers_path).expanduser().resolve() if command.peers_path else None
    if checkout and not (checkout / "model.py").is_file():
        raise Misuse(f"peers_path={command.peers_path} has no model.py; it must be the folder of a nanoGPT checkout")
    from posexp.dims import Dims
    from posexp.mixers import attention_blocks
    from posexp.windows import from_config

    nodes = {name: read_options(path) for name, path in paths.items()}
    found = [Contender(name, scheme=node) for name, node in nodes.items()]
    m = command.model
    if command.window not in (None, FULL_WINDOW):
        window = from_config(command.window, Dims(m.d_model, m.n_head, m.n_layer, command.length)).fingerprint()
        found += [Contender(f"{name} · window {window}", node, command.window) for name, node in nodes.items()]
    if command.temperature not in (None, NO_TEMPERATURE):
        kind = class_name(command.temperature)
        found += [Contender(f"{name} · {kind}", node, temperature=command.temperature) for name, node in nodes.items()]
    if command.mixer is not None:
        if not (hybrid := attention_blocks(command.mixer, m.n_layer)) and (every := command.mixer["attention_every"]):
            raise Misuse(f"mixer.attention_every={every} must be at most model.n_layer={m.n_layer}")
        served = nodes if hybrid else {BASE: nodes[BASE]}  # without attention a scheme does nothing
        kind = class_name(command.mixer)
        found += [Contender(f"{name} · {kind}", node, mixer=command.mixer) for name, node in served.items()]
    if command.study:
        add_curves(found, command.study)
    if (command.peers or checkout) and command.model.n_kv_head:
        raise Misuse("peers are built with as many heads of keys as of queries: omit model.n_kv_head, or omit peers")
    if command.peers:
        from posexp.bench import peers

        peers.check_peers()
        found += map(Contender, peers.LIBRARIES)
    if checkout:
        found.append(Contender("nanoGPT", checkout=str(checkout)))
    return found


def class_name(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def add_curves(found: "list[Contender]", study: str) -> None:
    """Append the curves of a study that are not in `found`, with the sizes of the bench in place of their own.

    Raises Misuse if it cannot be read or names code from outside posexp.
    """
    from posexp.bench.models import Contender
    from posexp.evaluation.published import load_entries, readable
    from posexp.output.console import say
    from posexp.runs.parent import outside

    group = load_entries(Path(study).expanduser(), say)
    for run in readable(group):
        config = run.config()
        if code := outside(config, trust=False):
            raise Misuse(f"study={study}: {run.name} names code from outside posexp, {code!r}, which is not run")
        if config.transform is not None:
            say(f"{run.name} was trained under a transform, so it is not measured")
            continue
        parts = (config.scheme, config.window, config.temperature, config.mixer)
        name, names = group.curve_of[run.name], [one.name for one in found]
        curve = Contender(f"{name} · {Path(study).name}" if name in names else name, *parts)
        if curve.components not in [one.components for one in found]:
            found.append(curve)


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
    }


def write_bench(folder: Path, command: BenchCommand, rows: "list[Row]", note: dict[str, Any]) -> None:
    """Write a record of each contender, and the page with tables and pictures that are made of the same rows.

    Raises RunFailed if the folder cannot be written.
    """
    from posexp.bench.picture import bench_pictures
    from posexp.bench.rows import FORMULAS, LEGEND, bench_tables
    from posexp.storage import atomic

    clock = ", CPU time" if command.clock is Clock.cpu else ""
    where = f"{note['device']}, threads: {note['threads']}{clock}, {command.precision.value}, "
    where += f"torch {note['torch']}, {note['matmul_gflops']} GFLOP/s in a matrix product"
    m = command.model
    sizes = f"d_model {m.d_model}, n_layer {m.n_layer}, n_head {m.n_head}, vocabulary {command.vocab_size:,}"
    png, svg = bench_pictures(rows, f"{note['date'][:10]} · {where}")
    tables = "\n\n".join([*(f"{table.title}\n\n{table.markdown()}" for table in bench_tables(rows)), LEGEND]) + "\n"
    readme = (
        f"# posexp bench, {note['date'][:10]}\n\n    {note['command']}\n\n"
        f"{where}. {sizes}; training steps of {command.batch} x {command.length} tokens, evaluation of one sequence; "
        f"medians of {command.rounds} rounds in which the contenders took turns. Commit {note['commit']}"
        f"{', with changes' if note['dirty'] else ''}. All figures: a JSON file of each contender in this folder.\n\n"
        f"![Training and evaluation speed](bench.png)\n\n{tables}"
    )
    contents: dict[str, str | bytes] = {"bench.png": png, "bench.svg": svg, "README.md": readme}
    shared = ("contender", "kind", "components")
    place = "cpu" if note["settings"]["device"] == "cpu" else note["device"]
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name]
        values = [{key: value for key, value in row.items() if key not in shared} for row in own]
        record = {key: own[0][key] for key in shared} | note | {"formulas": FORMULAS, "measurements": values}
        path = f"{file_name(name)}.{file_name(place)}.json"
        contents[path] = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    try:
        atomic.write_all(folder, contents)
    except OSError as error:
        raise RunFailed(f"cannot write the bench into {folder}: {error.strerror or error}") from error


def file_name(text: str) -> str:
    """Return "x-transformers-xpos" for "x-transformers xpos"."""
    return re.sub(r"[^\w=.-]+", "-", text.lower()).strip("-")
