"""posexp compare and posexp power, typed, on run folders whose losses are known."""

import csv
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.command import Answer, here, run_of, world
from support.rows import row_of

from posexp.compare import file_name
from posexp.compare.pairs import curves, pairs_of
from posexp.compare.table import by_family
from posexp.config.commands import TrainCommand
from posexp.evaluation.group import load_group
from posexp.evaluation.multiplicity import holm
from posexp.evaluation.rows import Row, read_rows, rows_to_csv, sums_of
from posexp.runs.run import Run
from posexp.storage import jsonl

ROPE = {"_target_": "posexp.schemes.rope.Rope"}
ALIBI = {"_target_": "posexp.schemes.alibi.Alibi"}
DOCUMENTS, EACH = 8, 5


def add_run(folder: Path, label: str, seed: int, scheme: dict | None = None) -> Run:
    config = TrainCommand(
        scheme=scheme or (ALIBI if label == "alibi" else ROPE), label=label, seed=seed, results=str(folder / "results")
    )
    run = Run.of(config)
    run.create(config)
    return run


def measure(run: Run, length: int, loss_D: Any, keep: bool = True, **other: Any) -> None:
    """A row whose targets have the loss of their document, one of DOCUMENTS with EACH targets; with their sums if
    `keep`."""
    nll_N = np.repeat(np.zeros(DOCUMENTS) + loss_D, EACH).astype(np.float32)
    label, seed, _ = run.name.rsplit("-", 2)
    row: dict[str, Any] = {"run": run.name, "scheme": label, "seed": int(seed[1:]), "train_length": 128}
    row |= {"length": length, "protocol": "same_targets", "stride": 5, "window": "full", "trained_window": "full"}
    row |= {"targets": len(nll_N), "targets_hash": "abc", "nll": float(nll_N.mean()), "status": "ok"} | other
    if keep:
        row["document_sums"] = sums_of(nll_N, np.repeat(np.arange(DOCUMENTS), EACH))
    jsonl.append(run.rows, row)


def hard(seed: int) -> np.ndarray:
    """Losses of documents, which differ by far more than schemes do."""
    return np.random.default_rng(seed).normal(4, 1, DOCUMENTS)


def fill(folder: Path, changes: dict[int, list[float]], seeds: int = 3, scatter: float = 0.001) -> None:
    """alibi and rope; at each length rope's loss differs from alibi's by one number a seed, and by noise."""
    for seed in range(seeds):
        alibi, rope = add_run(folder, "alibi", seed), add_run(folder, "rope", seed)
        for length, change_S in changes.items():
            measure(alibi, length, hard(seed))
            noise_D = np.random.default_rng(length + seed).normal(0, scatter, DOCUMENTS)
            measure(rope, length, hard(seed) + change_S[seed] + noise_D - noise_D.mean())


def lines_of(folder: Path, name: str = "alibi-vs-rope") -> list[dict[str, str]]:
    with open(folder / "results" / "default" / "compare" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def squeezed(answer: Answer) -> str:
    assert answer.code == 0, answer.err
    return " ".join(answer.out.split())


def test_the_better_curve_is_named_with_numbers_that_can_be_checked_by_hand(tmp_path: Path) -> None:
    changes = {128: [-0.020, -0.021, -0.022], 256: [0.101, 0.102, 0.103], 512: [0.03, -0.03, 0.001]}
    fill(tmp_path, changes)
    shown = squeezed(here("compare", "alibi", "rope", cwd=tmp_path))
    found = lines_of(tmp_path)
    assert [line["length"] for line in found] == ["128", "256", "512"]
    assert [line["verdict"] for line in found] == ["rope is better", "alibi is better", "cannot tell"]
    for line, change_S in zip(found, changes.values(), strict=True):
        assert float(line["difference"]) == pytest.approx(np.mean(change_S), abs=1e-6)
        assert float(line["other_nll"]) - float(line["base_nll"]) == pytest.approx(np.mean(change_S), abs=1e-6)
        assert (line["seeds"], line["documents"], line["targets"]) == ("3", "8", "40")
        # Documents differ by nothing but a little noise here, so the spread of the seeds is all there is.
        assert float(line["error"]) == pytest.approx(stats.sem(change_S), rel=0.1)
    assert [line["primary"] for line in found] == ["0", "0", "1"], "the longest, since no run declares one"
    for line in found:
        assert float(line["p_floor"]) == 0.05 and 1 >= float(line["p_adjusted"]) >= float(line["p"])
    p_values = [float(line["p"]) for line in found]
    assert float(found[2]["p_adjusted"]) == p_values[2], "one curve is compared, so there is nothing to correct"
    assert float(found[0]["p_adjusted"]) <= 2 * p_values[0] < 0.01 and "<0.05 <0.05 3 rope is better" in shown
    middle = [float(found[1][name]) for name in ("low", "high")]
    assert sum(middle) / 2 == pytest.approx(0.102, abs=1e-6)
    percents = [f"{100 * math.expm1(nats):+.2f}" for nats in (0.102, *middle)]
    assert f"{percents[0]} [{percents[1]}, {percents[2]}]" in shown
    assert "rope is better" in shown and "alibi is better" in shown and "cannot tell" in shown
    assert "95 % interval over 3 seeds and 8 documents" in shown
    assert "alibi-vs-rope.md" in shown and "alibi-vs-rope.csv" in shown


def test_the_page_says_what_the_terminal_says(tmp_path: Path) -> None:
    fill(tmp_path, {128: [0.1, 0.1, 0.1]})
    here("compare", "alibi", "rope", cwd=tmp_path)
    page = (tmp_path / "results/default/compare/alibi-vs-rope.md").read_text()
    assert page.startswith("# alibi, compared") and "| alibi is better |" in page
    assert "| rope | 128 | " in page and "+10.52 " in page and "3 seeds and 8 documents" in page


def test_swapping_the_two_changes_the_sign_alone(tmp_path: Path) -> None:
    fill(tmp_path, {128: [0.1, 0.11, 0.12]})
    for words in (("alibi", "rope"), ("rope", "alibi")):
        assert here("compare", *words, cwd=tmp_path).code == 0
    (one,), (two,) = lines_of(tmp_path), lines_of(tmp_path, "rope-vs-alibi")
    assert float(one["difference"]) == pytest.approx(-float(two["difference"]))
    assert one["p"][:8] == two["p"][:8] and one["verdict"] == two["verdict"] == "alibi is better"


def test_other_lengths_are_corrected_jointly_which_costs_most_where_they_differ(tmp_path: Path) -> None:
    """p is near 0.03 at every length: enough where all say the same, too little where each speaks for itself."""
    same = {length: [0.01, 0.02, 0.0165] for length in (128, 256, 512, 1024)}
    fill(tmp_path / "same", same, scatter=0.0001)
    apart = [[0.01, 0.02, 0.0165], [0.02, 0.0165, 0.01], [0.0165, 0.01, 0.02], [0.02, 0.01, 0.0165]]
    fill(tmp_path / "apart", dict(zip(same, apart, strict=True)), scatter=0.0001)
    for name, words in (("same", {"alibi is better"}), ("apart", {"cannot tell"})):
        here("compare", "alibi", "rope", cwd=tmp_path / name)
        *others, primary = lines_of(tmp_path / name)
        assert all(float(line["p"]) < 0.05 and float(line["low"]) > 0 for line in others)
        assert {line["verdict"] for line in others} == words and primary["verdict"] == "alibi is better"
        adjusted = [float(line["p_adjusted"]) / float(line["p"]) for line in others]
        assert max(adjusted) < 1.2 if name == "same" else min(adjusted) > 1.5


def contrasts(folder: Path, words: list[str], **columns: Any) -> tuple[list[str], str]:
    """The primary lengths of a group whose rows have `columns`, and what is shown."""
    if not (folder / "results").exists():
        for label in ("alibi", "rope"):
            for length in (128, 256, 512):
                measure(add_run(folder, label, 0), length, hard(length) + (label == "rope"), **columns)
    shown = squeezed(here("compare", "alibi", "rope", *words, cwd=folder))
    return [line["length"] for line in lines_of(folder) if line["primary"] == "1"], shown


def test_the_primary_comparison_is_declared_asked_for_or_the_longest(tmp_path: Path) -> None:
    lengths, shown = contrasts(tmp_path, [], primary=256)
    assert lengths == ["256"] and "Primary length: 256, as the runs declare" in shown
    assert shown.index("primary · same_targets") < shown.index("other lengths · same_targets")
    lengths, shown = contrasts(tmp_path, ["length=128"])
    assert lengths == ["128"] and "Primary length: 128, as length=128 asks." in shown
    line = here("compare", "alibi", "rope", "length=77", cwd=tmp_path).refusal()
    assert "length=77 was not measured; there are 128, 256, 512" in line
    measure(add_run(tmp_path, "rope", 0), 256, hard(256), primary=512)
    lengths, shown = contrasts(tmp_path, [])
    assert lengths == ["512"] and "Primary length: the longest, since the runs declare 256, 512." in shown
    lengths, shown = contrasts(tmp_path / "none", [])
    assert lengths == ["512"] and "Primary length: the longest, since the runs declare none." in shown


def test_primary_comparisons_are_corrected_over_curves_and_pooled(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for label in ("alibi", "rope", "b", "c", "d"):
        for seed in range(3):
            loss_D = hard(seed) + draw.normal(0, 0.01) + 0.05 * (label == "b") + draw.normal(0, 0.001, DOCUMENTS)
            measure(add_run(tmp_path, label, seed), 128, loss_D)
    here("compare", "alibi", "*", cwd=tmp_path)
    found = lines_of(tmp_path, "alibi-vs-all")
    p_values = [float(line["p"]) for line in found]
    assert [line["other"] for line in found if line["verdict"] == "b is better" or "alibi" in line["verdict"]] == ["b"]
    assert [float(line["p_adjusted"]) for line in found] == pytest.approx(holm(p_values))
    assert {line["p_floor"] for line in found} == {"0.01"}, "four curves lend each other seeds"
    here("compare", "alibi", "b", cwd=tmp_path)
    (alone,) = lines_of(tmp_path, "alibi-vs-b")
    (among,) = [line for line in found if line["other"] == "b"]
    assert (
        alone["difference"] == among["difference"] and alone["error"] != among["error"] and alone["p_floor"] == "0.05"
    )


def test_a_table_of_rows_is_compared_as_its_runs_are(tmp_path: Path) -> None:
    fill(tmp_path, {128: [0.1, 0.11, 0.12], 256: [0.1, 0.12, 0.1]})
    rows = load_group(str(tmp_path / "results"), "default", "*", print).labelled()
    (tmp_path / "rows.csv").write_text(rows_to_csv([row_of(**row.values() | {"primary": 128}) for row in rows]))
    shown = squeezed(here("compare", "alibi", "rope", "rows=rows.csv", "results=elsewhere", cwd=tmp_path))
    table = (tmp_path / "elsewhere/default/compare/alibi-vs-rope.csv").read_text()
    here("compare", "alibi", "rope", "length=128", cwd=tmp_path)
    assert table == (tmp_path / "results/default/compare/alibi-vs-rope.csv").read_text()
    assert "Primary length: 128, as the runs declare" in shown
    of_runs, of_table = (
        here("power", "alibi", "rope", *words, cwd=tmp_path)
        for words in ([], ["rows=rows.csv", "results=elsewhere", "group=none"])
    )
    assert of_table.code == 0 and of_table.out == of_runs.out
    assert "cannot be read" in here("compare", "alibi", "rope", "rows=none.csv", cwd=tmp_path).refusal()


def test_a_failed_seed_is_carried_through_and_named(tmp_path: Path) -> None:
    fill(tmp_path, {128: [0.1, 0.1, 0.1], 256: [0.1, 0.1, 0.1]})
    measure(add_run(tmp_path, "rope", 1), 256, 0.0, keep=False, status="non-finite", nll=None)
    measure(add_run(tmp_path, "alibi", 2), 256, 0.0, keep=False, status="out of memory", nll=None)
    shown = squeezed(here("compare", "alibi", "rope", cwd=tmp_path))
    found = lines_of(tmp_path)
    assert found[0]["verdict"] == "alibi is better"
    assert found[1]["verdict"] == "alibi out of memory (seed 2); rope non-finite (seed 1)"
    assert found[1]["difference"] == found[1]["p"] == found[1]["other_nll"] == ""
    assert found[0]["p"] == found[0]["p_adjusted"]
    assert "non-finite" in shown


def test_seeds_in_common_are_paired_and_the_others_told(tmp_path: Path) -> None:
    fill(tmp_path, {128: [0.1, 0.1, 0.1]})
    measure(add_run(tmp_path, "rope", 7), 128, 99.0)
    measure(add_run(tmp_path, "rope", 8), 128, 99.0)
    shown = squeezed(here("compare", "alibi", "rope", cwd=tmp_path))
    (line,) = lines_of(tmp_path)
    assert line["seeds"] == "3" and float(line["difference"]) == pytest.approx(0.1, abs=1e-6)
    assert "rope seeds 7, 8: not compared, since alibi lacks them" in shown


def test_no_seed_in_common_is_one_line(tmp_path: Path) -> None:
    measure(add_run(tmp_path, "rope", 0), 128, 4.0)
    measure(add_run(tmp_path, "alibi", 1), 128, 4.0)
    line = here("compare", "alibi", "rope", cwd=tmp_path).refusal()
    assert "alibi (seed 1) and rope (seed 0) have no seed in common" in line
    assert not (tmp_path / "results/default/compare").exists()


def test_one_seed_says_nothing_about_other_trainings(tmp_path: Path) -> None:
    fill(tmp_path, {128: [0.1]}, seeds=1, scatter=0.01)
    shown = squeezed(here("compare", "alibi", "rope", cwd=tmp_path))
    assert "One seed: says nothing about other trainings." in shown and "interval over 8 documents" in shown
    (line,) = lines_of(tmp_path)
    assert float(line["low"]) > 0 and line["verdict"] == "too few seeds"


def test_different_targets_are_refused_or_left_out(tmp_path: Path) -> None:
    rope, alibi = add_run(tmp_path, "rope", 0), add_run(tmp_path, "alibi", 0)
    measure(rope, 128, 4.0, targets_hash="one")
    measure(alibi, 128, 4.0, targets_hash="two")
    assert "measured on different targets" in here("compare", "alibi", "rope", cwd=tmp_path).refusal()
    measure(rope, 256, hard(0))
    measure(alibi, 256, hard(1))
    shown = squeezed(here("compare", "alibi", "rope", cwd=tmp_path))
    assert "same_targets at 128: not compared, since their targets or strides differ" in shown
    assert [line["length"] for line in lines_of(tmp_path)] == ["256"]


def test_a_hash_that_lies_is_found_out(tmp_path: Path) -> None:
    """Losses whose targets differ are never paired, whatever their rows say."""
    rope, alibi = add_run(tmp_path, "rope", 0), add_run(tmp_path, "alibi", 0)
    for run in (rope, alibi):
        measure(run, 128, hard(0))
    other = sums_of(np.zeros(40), np.repeat(np.arange(1, 9), 5))
    measure(rope, 128, hard(0), keep=False, document_sums=other)
    assert here("compare", "alibi", "rope", cwd=tmp_path).code == 0
    assert lines_of(tmp_path)[0]["verdict"] == "their targets differ, so they cannot be paired"


def test_rows_without_sums_by_document_ask_for_another_evaluation(tmp_path: Path) -> None:
    rope, alibi = add_run(tmp_path, "rope", 0), add_run(tmp_path, "alibi", 0)
    measure(rope, 128, 4.0, keep=False)
    measure(alibi, 128, 4.0)
    for run in (rope, alibi):
        measure(run, 256, hard(0))
    here("compare", "alibi", "rope", cwd=tmp_path)
    words = {line["length"]: line["verdict"] for line in lines_of(tmp_path)}
    assert words["128"] == f"the losses of {rope.name} by document are missing: repeat the eval command, which " + (
        "measures them"
    )
    assert words["256"] == "equal"


def test_every_protocol_is_compared_apart_and_controls_not_at_all(tmp_path: Path) -> None:
    for label in ("rope", "alibi"):
        run = add_run(tmp_path, label, 0)
        measure(run, 128, hard(0), protocol="nonoverlapping", stride=None)
        measure(run, 128, hard(0))
        measure(run, 256, hard(0))
        measure(run, 256, 9.0, control="window", control_of="full", window="sliding 128")
        measure(run, 16, 4.0, keep=False, protocol="per_position", stride=None)
    here("compare", "alibi", "rope", cwd=tmp_path)
    found = [(line["protocol"], line["length"]) for line in lines_of(tmp_path)]
    assert found == [("same_targets", "128"), ("same_targets", "256"), ("nonoverlapping", "128")]
    here("compare", "alibi", "rope", "protocol=nonoverlapping", cwd=tmp_path)
    assert [line["protocol"] for line in lines_of(tmp_path)] == ["nonoverlapping"]
    line = here("compare", "alibi", "rope", "protocol=slidding", cwd=tmp_path).refusal()
    assert "'slidding' was not measured; there are nonoverlapping, same_targets" in line
    line = here("compare", "alibi", "rope", "protocol=per_position", cwd=tmp_path).refusal()
    assert "per_position has no losses by document" in line


def test_another_text_is_compared_apart(tmp_path: Path) -> None:
    for label, change in (("alibi", 0.0), ("rope", 0.1)):
        run = add_run(tmp_path, label, 0)
        measure(run, 128, hard(0) + change)
        measure(run, 128, hard(0) - change, corpus="news", targets_hash="def")
    shown = squeezed(here("compare", "alibi", "rope", cwd=tmp_path))
    found = {line["corpus"]: float(line["difference"]) for line in lines_of(tmp_path)}
    assert found == pytest.approx({"": 0.1, "news": -0.1}, abs=1e-6) and "of news" in shown


def test_a_difference_of_rounding_is_none_however_regular(tmp_path: Path) -> None:
    fill(tmp_path, {128: [2e-6] * 3, 256: [2e-4] * 3}, scatter=0)
    here("compare", "alibi", "rope", cwd=tmp_path)
    words = {line["length"]: line["verdict"] for line in lines_of(tmp_path)}
    assert words == {"128": "equal", "256": "alibi is better"}


def test_the_text_of_one_may_be_other_text_for_another(tmp_path: Path) -> None:
    alibi, rope = add_run(tmp_path, "alibi", 0), add_run(tmp_path, "rope", 0)
    measure(alibi, 128, hard(0))
    measure(rope, 128, hard(0) + 0.5, corpus="news")  # the same targets, as their hash says
    assert here("compare", "alibi", "rope", cwd=tmp_path).code == 0
    (line,) = lines_of(tmp_path)
    assert float(line["difference"]) == pytest.approx(0.5, abs=1e-6) and line["corpus"] == ""


def test_a_glob_compares_all_with_the_base_and_variants_are_curves(tmp_path: Path) -> None:
    fill(tmp_path, {128: [0.1, 0.1, 0.1]})
    for seed in range(3):
        measure(add_run(tmp_path, "rope", seed), 128, hard(seed) - 0.1, transform="yarn")
    here("compare", "alibi", "*", cwd=tmp_path)
    found = {line["other"]: line["verdict"] for line in lines_of(tmp_path, "alibi-vs-all")}
    assert found == {"rope": "alibi is better", "rope · yarn": "rope · yarn is better"}
    here("compare", "rope", "rope · yarn", cwd=tmp_path)
    assert lines_of(tmp_path, "rope-vs-rope_yarn")[0]["verdict"] == "rope · yarn is better"


def test_labels_that_hold_signs_can_be_typed_as_they_are_shown(tmp_path: Path) -> None:
    for base, seed in product((500.0, 10.0), range(3)):
        measure(add_run(tmp_path, "rope", seed, ROPE | {"base": base}), 128, hard(seed) + 1 / base)
    answer = here("compare", "rope (base=10.0)", "rope (base=500.0)", cwd=tmp_path)
    assert answer.code == 0, answer.err
    (line,) = lines_of(tmp_path, "rope_base=10.0-vs-rope_base=500.0")
    assert line["verdict"] == "rope (base=500.0) is better"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed of alibi and of rope."""
    folder = tmp_path_factory.mktemp("single")
    fill(folder, {128: [0.1]}, seeds=1)
    return folder


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["alibi", "rop"], "no curve 'rop', did you mean 'rope'?"),
        (["al*", "rope"], "no curve 'al*'"),
        (["alibi", "x*"], "the curves of results/default are alibi, rope"),
        (["alibi"], "name two curves"),
        ([], "name two curves"),
        (["alibi", "alibi"], "alibi cannot be compared with itself"),
        (["alibi", "rope", "group=none"], "no measured run in results/none"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(words: list[str], says: str, single: Path) -> None:
    assert says in here("compare", *words, cwd=single).refusal()
    assert not (single / "results/default/compare").exists()


def test_power_refuses_what_compare_refuses_and_a_third_curve(single: Path) -> None:
    assert "no curve 'rop', did you mean 'rope'?" in here("power", "alibi", "rop", cwd=single).refusal()
    measure(add_run(single, "alibi", 0), 128, 4.0, transform="yarn")
    assert "takes two curves, not 3: alibi, alibi · yarn, rope" in here("power", "alibi", "*", cwd=single).refusal()
    assert "the spread between seeds needs two seeds of both" in here("power", "alibi", "rope", cwd=single).refusal()


def test_runs_that_were_trained_and_evaluated_are_compared(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = world(tmp_path_factory, tmp_path)
    shown = squeezed(here("compare", "rope", "learned", cwd=folder))
    found = {(line["protocol"], line["length"]): line for line in lines_of(folder, "rope-vs-learned")}
    assert {protocol for protocol, _ in found} == {"same_targets", "level", "nonoverlapping"}
    runs = [Run(run_of(folder, label)) for label in ("rope", "learned")]
    rows = [row for run in runs for row in read_rows(run, print)]
    for row in rows:
        line = found[row.protocol, str(row.length)]
        column = "base_nll" if row.scheme == "rope" else "other_nll"
        if not row.control and line["difference"]:
            assert float(line[column]) == pytest.approx(row.nll)
    assert found["same_targets", "64"]["verdict"] == "learned undefined (seed 0)"
    assert float(found["same_targets", "16"]["p"]) <= 1 and "One seed: says nothing" in shown


def test_file_names_are_plain_and_short() -> None:
    assert file_name("rope · yarn(factor=8)", ["*"]) == "rope_yarn_factor=8-vs-all"
    assert file_name("../../etc", ["."]) == "etc-vs-curve"
    long = file_name("a" * 200, ["b"])
    assert len(long) < 120 and long != file_name("a" * 200, ["c"])


def test_every_set_of_targets_is_compared_by_itself() -> None:
    def row(curve: str, length: int, name: str, seed: int = 0) -> Row:
        return row_of(scheme=curve, length=length, targets_hash=name, seed=seed)

    rows = [row(curve, length, "near", seed) for curve in "ab" for length in (1, 2) for seed in (0, 1)]
    rows += [row(curve, length, "far") for curve in "ab" for length in (2, 4)] + [row("a", 3, "late")]
    found, notes = pairs_of("a", "b", curves(rows, lambda row: row.scheme or ""), {"same_targets"})
    assert [(pair.key.targets_hash, pair.key.length, pair.seeds) for pair in found] == [
        ("far", 2, (0,)),
        ("far", 4, (0,)),
        ("near", 1, (0, 1)),
        ("near", 2, (0, 1)),
    ]
    assert notes == []
    first, second = by_family(found)
    assert [pair.key.length for pair in first] == [1, 2], "what is within the reach of the text comes first"
    assert {pair.key.targets_hash for pair in second} == {"far"}


def test_where_each_length_has_targets_of_its_own_those_that_most_have_in_common_count() -> None:
    def row(curve: str, length: int, name: str, seed: int = 0) -> Row:
        columns = {"stride": 1, "length": length, "targets_hash": f"{name}{length}"}
        return row_of(scheme=curve, protocol="last_k", seed=seed, **columns)

    rows = [row(curve, length, "wide", seed) for curve in "ab" for length in (1, 2) for seed in (0, 1)]
    rows += [row(curve, 2, "late") for curve in "ab"]
    found, notes = pairs_of("a", "b", curves(rows, lambda row: row.scheme or ""), {"last_k"})
    assert [(pair.key.targets_hash, pair.seeds) for pair in found] == [("wide1", (0, 1)), ("wide2", (0, 1))]
    assert notes == [] and len(by_family(found)) == 1


def numbers_of(answer: Answer, length: int) -> list[str]:
    """The cells of a length in the table of posexp power."""
    assert answer.code == 0, answer.err
    (cells,) = [line.split() for line in answer.out.splitlines() if line.split()[:1] == [str(length)]]
    return cells


def test_power_is_that_of_the_t_test_over_seeds_where_documents_agree(tmp_path: Path) -> None:
    change_S = [0.01, 0.02, 0.06]
    fill(tmp_path, {128: change_S}, scatter=0)
    cells = numbers_of(here("power", "alibi", "rope", cwd=tmp_path), 128)
    sd = np.std(change_S, ddof=1)

    def power(seeds: int, nats: float) -> float:
        return float(stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, nats / sd * math.sqrt(seeds)))

    assert cells[:4] == ["128", "+0.0300", f"{sd:.4f}", "0.0000"]
    assert power(3, float(cells[4])) == pytest.approx(0.8, abs=0.002)
    for_it, for_observed = int(cells[6]), int(cells[7])
    assert power(for_it, 0.01) >= 0.8 > power(for_it - 1, 0.01)
    assert power(for_observed, 0.03) >= 0.8 > power(for_observed - 1, 0.03)
    more = numbers_of(here("power", "alibi", "rope", "difference=0.02", "power=0.9", cwd=tmp_path), 128)
    assert power(int(more[6]), 0.02) >= 0.9 > power(int(more[6]) - 1, 0.02)


def test_power_says_where_documents_hide_what_is_looked_for(tmp_path: Path) -> None:
    """Documents differ by 0.1 in how they take to rope, the same for every seed: the mean of eight errs by 0.04."""
    of_documents = np.random.default_rng(3).normal(0, 0.1, DOCUMENTS)
    for seed in range(3):
        measure(add_run(tmp_path, "alibi", seed), 128, hard(seed))
        measure(add_run(tmp_path, "rope", seed), 128, hard(seed) + of_documents + 0.001 * seed)
    answer = here("power", "alibi", "rope", cwd=tmp_path)
    cells = numbers_of(answer, 128)
    assert float(cells[3]) == pytest.approx(stats.sem(of_documents), abs=1e-4)
    assert cells[6] == "–" and answer.out.count("more documents needed") == 1
    enough = numbers_of(here("power", "alibi", "rope", "difference=0.5", cwd=tmp_path), 128)
    assert enough[6] == "2"


def test_power_carries_failures_through(tmp_path: Path) -> None:
    fill(tmp_path, {128: [0.1, 0.2]}, seeds=2)
    for seed in range(2):
        measure(add_run(tmp_path, "alibi", seed), 256, 4.0)
        measure(add_run(tmp_path, "rope", seed), 256, 0, keep=False, status="undefined", nll=None)
    assert "rope undefined (seeds 0, 1)" in squeezed(here("power", "alibi", "rope", cwd=tmp_path))


@pytest.mark.parametrize(
    ("word", "says"), [("power=1", "power=1 must be at most 0.999"), ("difference=0", "difference=0.0 must be above")]
)
def test_power_that_cannot_be_had_is_refused(word: str, says: str, tmp_path: Path) -> None:
    assert says in here("power", "alibi", "rope", word, cwd=tmp_path).refusal()
