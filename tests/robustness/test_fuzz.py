"""Somebody else's files, altered at random: each is used, or refused in one line, soon and in little memory.

A few thousand inputs by default. `POSEXP_FUZZ=100000 pytest tests/robustness/test_fuzz.py` tries that many, and
prints how many of each kind were used and refused, and how long that took. An input is a function of its kind and
number.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from support import hostile

from posexp.cli.runs import cell_or_damaged, lines_of
from posexp.compare.pairs import compared, pairs_of
from posexp.compare.pairs import curves as curves_of
from posexp.compare.table import comparison_markdown as compared_markdown
from posexp.compare.table import comparisons_to_csv as compared_csv
from posexp.config.explain import explain_error
from posexp.config.sections import EvalConfig, Split, TrainConfig
from posexp.data import tokenizer
from posexp.data.sampler import SequenceSampler
from posexp.data.store import DamageError, Store
from posexp.errors import PosexpError
from posexp.evaluation.contrasts import Pairs, curve_name
from posexp.evaluation.plan import own_lengths, plan, stands
from posexp.evaluation.rows import KEY, read_rows, rows_of_csv
from posexp.output.console import say
from posexp.output.figure import rendered
from posexp.output.style import looks_of
from posexp.report import Table, change, curves, rows_to_csv, tables, verdict_table
from posexp.report.command import described
from posexp.report.metric import PPL
from posexp.report.page import RunCard, page
from posexp.report.table import print_tables, report_latex, report_markdown
from posexp.runs import checkpoint
from posexp.runs.experiment import Experiment
from posexp.runs.labels import curve_labels
from posexp.runs.run import Run
from posexp.training import optim

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("POSEXP_FUZZ", "3000"))
SECONDS = 5.0  # that one input may take
BYTES = 300 << 20  # that it may add to the memory held at most
WORDS = [
    *("model.d_model=16", "model.n_layer=1", "model.n_head=2", "data=files", "data.paths=text", "data.cache=cache"),
    *("data.vocab_size=260", "train.length=8", "train.tokens=512", "train.batch_tokens=64", "wandb.mode=disabled"),
    *("eval.protocols=[same_targets,per_position]", "eval.lengths=[4,8,16]", "eval.targets=32"),
]


class Hang(BaseException):
    """An input that took longer than SECONDS."""


@dataclass(frozen=True)
class Kind:
    """Files of one kind: which of the world's is altered, how, and what then works with it; `share` of all inputs."""

    share: float
    path: Callable[["World"], Path]
    alter: Callable[[bytes, random.Random], bytes]
    use: Callable[["World", random.Random], None]


@dataclass(frozen=True)
class World:
    """A group of trained runs."""

    folder: Path

    @functools.cached_property
    def runs(self) -> list[Run]:
        return [Run(path.parent) for path in sorted(self.folder.glob("results/default/*/config.yaml"))]

    @property
    def run(self) -> Run:
        return self.runs[0]

    @functools.cached_property
    def store(self) -> Path:
        (path,) = self.folder.glob("cache/tokens/*/store.json")
        return path.parent

    @functools.cached_property
    def weights(self) -> Path:
        return sorted((self.run.folder / "checkpoint").glob("*.safetensors"))[-1]

    @functools.cached_property
    def model(self) -> torch.nn.Module:
        return self.open_model()

    def open_model(self) -> torch.nn.Module:
        return Experiment(self.run, torch.device("cpu")).model

    @functools.cached_property
    def labels(self) -> dict[str, str]:
        return curve_labels(self.runs, say)

    @functools.cached_property
    def foreign(self) -> Run:
        run = Run(self.folder / "results" / "default" / "hf-some-model-0123abcd")
        run.folder.mkdir(exist_ok=True)
        about = {"name": "some-model", "source": "some/model", "commit": None, "sha256": "ab" * 32, "parameters": 1234}
        about |= {"tokenizer_sha256": "cd" * 32, "train_length": 8, "window": "full", "packages": {"torch": "2"}}
        run.checkpoint.write_text(json.dumps(about))
        return run


def use_config(world: World, draw: random.Random) -> None:
    if draw.random() < 0.2:
        lines_of([cell_or_damaged(world.run, None)], None)
    world.open_model()


def measured(world: World) -> list[Table]:
    return tables(read_rows(world.run, say), world.labels)


def use_rows(world: World, draw: random.Random) -> None:
    """All that posexp report and posexp compare write, without the picture, which takes as long as a hundred others."""
    of_run = read_rows(world.run, say)
    for row in of_run:
        stands(row)
        hash(row.key(KEY))
    rows = [*of_run, *read_rows(world.runs[-1], say)]
    rows_of_csv(rows_to_csv(rows), say)
    pairs = Pairs(rows, world.labels)
    verdicts = pairs.verdicts(say)
    verdict_table.verdicts_to_csv(verdicts)
    found = tables(rows, world.labels, PPL, verdicts, pairs.changes())
    shown = [table for table in found if not table.lacking]
    if shown:
        report_markdown(shown)
        report_latex(shown)
        page("group", shown, [RunCard(world.run.name, "a", 0, "", {})], {})
        if draw.random() < 0.05:
            from rich.console import Console

            print_tables(shown, Console(file=io.StringIO(), width=100), all_sets=draw.random() < 0.5)
        if draw.random() < 0.01:
            look_of = looks_of(curve for table in shown for curve in table.curves)
            rendered(lambda: change.draw_headline(shown[0], look_of), "a title")
            rendered(lambda: curves.draw_curves(shown[1:] or shown, look_of), "a title")
    rows_to_csv(rows)
    of_curve = curves_of(rows, functools.partial(curve_name, curve_of=world.labels))
    names = sorted(of_curve)
    if len(names) > 1:
        pairs, _ = pairs_of(
            names[0], names[-1], of_curve, {key.protocol for curve in of_curve.values() for key in curve}
        )
        if comparisons := compared(pairs):
            compared_markdown(comparisons, [])
            compared_csv(comparisons)


def use_metrics(world: World, draw: random.Random) -> None:
    if draw.random() < 0.1:
        lines_of([cell_or_damaged(world.run, None)], None)
    world.run.status()
    world.run.history(say)


def use_provenance(world: World, draw: random.Random) -> None:
    text, provenance = described(world.run)
    page("group", measured(world), [RunCard(world.run.name, "a", 0, text, provenance)], {})
    world.run.check_store(Store(world.store))


def use_about(world: World, draw: random.Random) -> None:
    labels = curve_labels([world.foreign], say)
    text, origin = described(world.foreign)
    cards = [RunCard(world.foreign.name, label, 0, text, origin) for label in labels.values()]
    page("group", measured(world), cards, {})


def use_weights(world: World, draw: random.Random) -> None:
    """The checkpoint's other file is made to fit, as whoever altered the weights would."""
    about = world.weights.with_suffix(".json")
    content = about.read_bytes()
    try:
        if draw.random() < 0.9:
            digest = hashlib.sha256(world.weights.read_bytes()).hexdigest()
            about.write_text(json.dumps(json.loads(content) | {"sha256": digest}))
        use_checkpoint(world, draw)
    finally:
        about.write_bytes(content)


def use_checkpoint(world: World, draw: random.Random) -> None:
    saved = checkpoint.restore(world.weights.parent, lambda line: None)
    if saved is not None:
        optimizer = optim.build_optimizer(world.model, TrainConfig())
        checkpoint.apply(saved["tensors"], world.model, optimizer)
        if draw.random() < 0.1:
            for weight in world.model.parameters():
                weight.grad = torch.zeros_like(weight)
            optimizer.step()
            world.open_model()


def use_store(world: World, draw: random.Random) -> None:
    """Signed anew in most cases; what is damaged is built again."""
    content = (world.store / "store.json").read_bytes()
    try:
        if draw.random() < 0.9:
            with contextlib.suppress(Exception):
                hostile.sign_store(world.store)
        store = Store(world.store)
        for split in Split:
            tokens = store.split(split)
            SequenceSampler(tokens, 8, False).batch(0, 0, 4)
            config = EvalConfig(lengths=[4, 8], targets=32)
            own_lengths(tokens, 8, EvalConfig(targets=32))
            plan(tokens, config, [4, 8], 8)
        store.token_bytes()
    except DamageError:
        pass
    finally:
        (world.store / "store.json").write_bytes(content)


def use_tokenizer(world: World, draw: random.Random) -> None:
    made = tokenizer.load_tokenizer(world.run.folder / "tokenizer.json")
    tokenizer.vocabulary_size(made)
    tokenizer.token_bytes(made)
    list(tokenizer.encode(made, ["some text, and more of it", "é\0\n x", ""], False, np.dtype(np.uint32)))


def use_line(world: World, draw: random.Random) -> None:
    """One that is typed: what it says is in a file only so that all kinds are alike."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from posexp.config.compose import compose

    words = (world.folder / "line").read_bytes().decode("utf-8", "replace").split("\n")
    try:
        compose("train", ["label=a", "scheme=rope", *filter(None, words)])
    except (HydraException, OmegaConfBaseException) as error:
        assert "\n" not in explain_error(error, "train")


def line(data: bytes, draw: random.Random) -> bytes:
    words = data.decode().split("\n")
    at = draw.randrange(len(words))
    key = draw.choice([words[at].partition("=")[0], "seed", "train.lr", "label", "group", "results", "data.field"])
    said = draw.choice([hostile.value(draw), hostile.junk(words[at].encode(), draw).decode("utf-8", "replace")])
    words[at] = draw.choice([f"{key}={said}", f"{key}='{said}'", str(said), f"+{key}={said}"])
    return "\n".join(words).encode("utf-8", "replace")


def line_of(world: World) -> Path:
    path = world.folder / "line"
    if not path.exists():
        path.write_text("\n".join(WORDS))
    return path


def store_file(name: str) -> Callable[[World], Path]:
    return lambda world: world.store / name


def of_run(name: str) -> Callable[[World], Path]:
    return lambda world: world.run.folder / name


def step_json(world: World) -> Path:
    return world.weights.with_suffix(".json")


KINDS = {
    "config.yaml": Kind(2, of_run("config.yaml"), hostile.yaml_file, use_config),
    "rows.jsonl": Kind(8, of_run("rows.jsonl"), hostile.json_lines, use_rows),
    "metrics.jsonl": Kind(22, of_run("metrics.jsonl"), hostile.json_lines, use_metrics),
    "provenance.json": Kind(14, of_run("provenance.json"), hostile.json_file, use_provenance),
    "checkpoint.json": Kind(10, lambda world: world.foreign.checkpoint, hostile.json_file, use_about),
    "step-….safetensors": Kind(20, lambda world: world.weights, hostile.safetensors, use_weights),
    "step-….json": Kind(10, step_json, hostile.json_file, use_checkpoint),
    "store.json": Kind(2, store_file("store.json"), hostile.store_json, use_store),
    "train.documents.npy": Kind(2, store_file("train.documents.npy"), hostile.npy, use_store),
    "train.bin": Kind(1.5, store_file("train.bin"), hostile.junk, use_store),
    "tokenizer.json": Kind(4, of_run("tokenizer.json"), hostile.json_file, use_tokenizer),
    "command line": Kind(0.1, line_of, line, use_line),
}


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    return World(hostile.world(tmp_path_factory.mktemp("world"), "+scheme=learned,rope", *WORDS))


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raises Hang after SECONDS; AssertionError for more than BYTES."""

    def late(signum: int, frame: object) -> None:
        raise Hang

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handler = signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGPROF, late)  # of its own time, as a machine may be busy
    signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGALRM, handler)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < BYTES, f"it took {grown >> 20} MiB"


def tried(world: World, name: str, number: int) -> str:
    """What becomes of one input: used, refused, or what went wrong."""
    kind, draw = KINDS[name], random.Random(f"{name} {number}")
    path = kind.path(world)
    content = path.read_bytes()
    try:
        path.write_bytes(kind.alter(content, draw))
        with bounded(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            kind.use(world, draw)
        return "used"
    except PosexpError as error:
        return "refused" if str(error) else "an empty line"
    except Hang:
        return f"hang of {SECONDS} seconds"
    except Exception as error:
        return failure_of(error)
    finally:
        path.write_bytes(content)


def failure_of(error: Exception) -> str:
    import traceback

    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "posexp" in frame.filename]
    place = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "?"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:120]}"


@pytest.mark.parametrize("name", KINDS)
def test_an_altered_file_is_used_or_refused_in_one_line(world, name, capsys):
    whole = sum(kind.share for kind in KINDS.values())
    count = max(1, round(COUNT * KINDS[name].share / whole))
    assert tried_as_it_is(world, name) == "used"
    outcomes: dict[str, list[int]] = {}
    began = time.monotonic()
    for number in range(count):
        outcomes.setdefault(tried(world, name, number), []).append(number)
    seconds = time.monotonic() - began
    used, refused = (len(outcomes.pop(word, [])) for word in ("used", "refused"))
    with capsys.disabled():
        if "POSEXP_FUZZ" in os.environ:
            print(f"\n{name}: {count:,} inputs, {used:,} used, {refused:,} refused, {seconds:.0f} seconds", flush=True)
    assert not outcomes, "\n".join(f"{name} {at[:5]} ({len(at)}): {what}" for what, at in outcomes.items())


def tried_as_it_is(world: World, name: str) -> str:
    """The file unaltered, so that refusing everything does not count."""
    draw = random.Random(0)
    with contextlib.redirect_stderr(io.StringIO()):
        KINDS[name].path(world)
        KINDS[name].use(world, draw)
    return "used"
