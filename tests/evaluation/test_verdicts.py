"""Rows with known differences get the verdicts they deserve, and failures are never averaged away."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from posexp.errors import Misuse
from posexp.evaluation.contrasts import Pairs, differences
from posexp.evaluation.rows import Row, parse_sums, rows_of_csv, rows_to_csv, sums_of
from posexp.evaluation.statistics import estimate, ratio
from posexp.evaluation.verdicts import MARGIN, Estimate, Place, Usable, Verdict, usable

TARGETS, DOCUMENTS = 40, 8
LABEL = {f"rope-s{seed}-aa": "rope" for seed in range(5)}


class World:
    """The rows of a group whose runs are trained at 128 tokens."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.said: list[str] = []

    def add(self, length: int, loss: float | np.ndarray, seed: int = 0, control: str = "", **other: Any) -> Row:
        """A row whose targets all have `loss`, or one each."""
        nll_N = np.zeros(TARGETS) + loss
        document_N = other.pop("document_N", np.repeat(np.arange(DOCUMENTS), TARGETS // DOCUMENTS))
        made: dict[str, Any] = {"run": f"rope-s{seed}-aa", "seed": seed, "train_length": 128, "length": length}
        made |= {"protocol": "same_targets", "stride": 5, "targets_hash": "abc", "status": "ok"}
        made |= {"nll": float(nll_N.mean()), "document_sums": sums_of(nll_N, document_N), "trained_window": "full"}
        made |= {"window": "sliding 128" if control == "window" else "full", "control": control}
        made |= {"control_of": "full"} if control else {}
        self.rows.append(Row.of(made | other))
        return self.rows[-1]

    def seeds(self, length: int, loss: float, spread: float = 0.002, count: int = 3, **other: Any) -> None:
        """Rows of several seeds, whose documents differ by far more than `spread`."""
        for seed in range(count):
            self.add(length, loss + noise(9, 0.5) + noise(seed + length, spread), seed, **other)

    def judged(self, label: dict[str, str] | None = None) -> list[Verdict]:
        self.said = []
        return self.pairs(label).verdicts(self.said.append)

    def pairs(self, label: dict[str, str] | None = None, **other: Any) -> Pairs:
        return Pairs(self.rows, LABEL if label is None else label, **other)

    def words(self) -> dict[tuple[str, int], str]:
        return {
            (verdict.place.curve.removeprefix("rope"), verdict.place.length): verdict.word for verdict in self.judged()
        }


def noise(seed: int, size: float = 0.002) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, TARGETS)


@pytest.mark.parametrize(
    ("change", "spread", "word"),
    [
        (-0.5, 0.01, "uses"),
        (+0.5, 0.01, "degrades"),
        (0.0, 0.002, "unchanged"),
        (0.005, 0.002, "unchanged"),
        (-0.005, 0.002, "unchanged"),
        (0.0, 0.5, "unclear"),
        (MARGIN, 0.002, "degrades"),
        (-MARGIN, 0.002, "uses"),
    ],
)
def test_the_word_is_what_the_interval_says(change: float, spread: float, word: str) -> None:
    world = World()
    world.seeds(128, 3.0)
    world.seeds(256, 3.0 + change, spread)
    (verdict,) = world.judged()
    assert (*verdict.place[:2], verdict.word) == ("rope", 256, word)
    assert verdict.cropped is not None and (verdict.cropped.seeds, verdict.cropped.documents) == (3, 8)


def test_fewer_than_three_seeds_have_differences_but_no_verdict_unless_it_is_a_checkpoint() -> None:
    for count, other, word in (
        (2, {}, "too few seeds"),
        (1, {}, "too few seeds"),
        (1, {"origin": "checkpoint"}, "uses"),
    ):
        world = World()
        world.seeds(128, 3.0, count=count, **other)
        world.seeds(256, 2.0, count=count, **other)
        (verdict,) = world.judged()
        assert verdict.word == word and verdict.bounded
        assert len(usable(world.judged(), {"rope": 128}, [128, 256])) == (word == "uses")


def test_use_must_be_shown_against_both_controls() -> None:
    world = World()
    world.seeds(128, 3.0)
    world.seeds(256, 2.5)
    world.seeds(256, 2.4, control="window")  # reads further back through its layers, and is better
    (verdict,) = world.judged()
    assert verdict.word == "unclear" and verdict.window is not None and verdict.window.low is not None
    assert verdict.window.low > 0
    world.rows = [replace(row, document_sums=None) if row.control else row for row in world.rows]
    assert [verdict.word for verdict in world.judged()] == ["uses"] and "repeat the eval command" in world.said[0]


def test_a_model_that_is_worse_than_with_an_eighth_of_its_length_collapses() -> None:
    for eighth, word in ((4.5, "degrades"), (3.5, "collapses")):
        world = World()
        world.seeds(16, eighth)
        world.seeds(128, 3.0)
        world.seeds(256, 4.0)
        (verdict,) = world.judged()
        assert verdict.word == word and verdict.eighth is not None


@pytest.mark.parametrize(
    ("own", "best", "word", "margin"),
    [
        (3.0, 2.5, "ignores", 0.01),
        (3.0, 3.0, "no headroom", 0.01),
        (3.0, 3.5, "no headroom", 0.01),
        (2.75, 2.5, "uses", 0.01),
        (2.995, 2.98, "uses", 0.005),
        (3.2, 2.5, "degrades", 0.01),
    ],
)
def test_the_oracle_decides_what_no_change_means_and_how_small_a_change_matters(
    own: float, best: float, word: str, margin: float
) -> None:
    world = World()
    world.seeds(128, 3.0, 0.0005)
    world.seeds(256, own, 0.0005)
    for seed in range(3):
        trained = {"run": f"long-s{seed}-bb", "train_length": 256}
        world.add(256, best + noise(9, 0.5) + noise(seed, 0.0005), seed, **trained)
    recipe = {row.run: "one" for row in world.rows}
    verdicts = world.pairs(recipe_of=recipe).verdicts()
    (verdict,) = (verdict for verdict in verdicts if verdict.place.curve == "rope")
    assert verdict.word == word and verdict.margin == pytest.approx(margin, abs=0.0005)
    assert verdict.gain is not None and verdict.gain.value == pytest.approx(3.0 - best, abs=0.002)
    if best < 3:
        assert verdict.captured is not None and verdict.captured.low is not None and verdict.captured.high is not None
        assert verdict.captured.low < (3.0 - own) / (3.0 - best) < verdict.captured.high
    else:
        assert verdict.captured is None
    for known in ({}, {run: run for run in recipe}):  # other configurations
        assert all(verdict.gain is None for verdict in world.pairs(recipe_of=known).verdicts())
    named = world.pairs({**LABEL, **{f"long-s{seed}-bb": "long rope" for seed in range(3)}}, oracle="long*").verdicts()
    assert [verdict.word for verdict in named if verdict.place.curve == "rope"] == [word]


def test_an_oracle_of_two_seeds_decides_nothing() -> None:
    world = World()
    world.seeds(128, 3.0)
    world.seeds(256, 3.0)
    for seed in range(2):
        world.add(256, 2.5 + noise(9, 0.5), seed, run=f"long-s{seed}-bb", train_length=256)
    (verdict,) = (
        one
        for one in world.pairs(recipe_of={row.run: "a" for row in world.rows}).verdicts()
        if one.place.curve == "rope"
    )
    assert (verdict.word, verdict.gain, verdict.captured) == ("unchanged", None, None)


def test_a_captured_gain_is_a_ratio_of_means_with_an_interval() -> None:
    own_SD, best_SD, count_D = np.array([[5.0, 6.0], [4.0, 5.0]]), np.array([[10.0, 12.0], [8.0, 10.0]]), np.full(2, 10)
    assert vars(ratio(own_SD, best_SD, count_D)) == {"value": 0.5, "low": 0.5, "high": 0.5}
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        best_SD = (1 + rng.normal(0, 0.1, (5, 12)) + rng.normal(0, 0.2, 12)) * 10
        own_SD = 0.3 * best_SD + rng.normal(0, 1, (5, 12)) + rng.normal(0, 1, (5, 1))
        found = ratio(own_SD, best_SD, np.full(12, 10.0))
        assert found.low is not None and found.high is not None
        held += found.low < 0.3 < found.high
    assert 0.92 < held / 400 <= 1


def test_the_difference_is_paired_by_document_and_seed() -> None:
    """Losses that differ between documents and seeds by far more than the change hide it unpaired."""
    world = World()
    for seed in range(3):
        hard = 3 + 2 * seed + noise(seed, 1.0)
        world.add(128, hard, seed)
        world.add(512, hard - 0.02 + noise(seed + 5, 0.003), seed)
    (verdict,) = world.judged()
    assert verdict.cropped is not None
    assert verdict.cropped.value == pytest.approx(-0.02, abs=0.002) and verdict.word == "uses"


def test_sums_by_document_survive_the_file_and_damaged_ones_are_none() -> None:
    loss_N, document_N = noise(1, 1.0), np.repeat([3, 5, 11, 12], 10)
    text = sums_of(loss_N[::-1], document_N[::-1])
    found = parse_sums(text)
    assert found is not None and found.documents.tolist() == [3, 5, 11, 12] and found.counts.tolist() == [10] * 4
    assert found.sums == pytest.approx(loss_N.reshape(4, 10).sum(1), abs=1e-12)
    for damaged in ("", "3:10", "3:10:x", "5:1:1.0 3:1:1.0", "3:0:1.0", "3:1:nan", "3:1:1.0 3:1:1.0", "3:1:1.0:4"):
        assert parse_sums(damaged) is None


def test_other_targets_are_refused() -> None:
    world = World()
    one, short = world.add(128, 3.0), world.add(128, 3.0, document_N=np.arange(TARGETS) % 7)
    other = replace(one, targets_hash="def")
    for pairs in ([(one, short)], [(one, other)], [(one, one), (short, short)]):
        with pytest.raises(Misuse, match="their targets differ"):
            differences(pairs)
    with pytest.raises(Misuse, match=r"rope-s0-aa by document are missing: repeat the eval"):
        differences([(one, replace(one, document_sums=None))])


def test_without_the_cropped_control_there_is_no_verdict() -> None:
    world = World()
    world.seeds(256, 2.5)
    world.seeds(256, 3.0, control="window")
    assert world.judged() == [] and world.said == []
    world.seeds(128, 3.0, targets_hash="another")
    assert world.judged() == []  # cropped, but on other targets


def test_a_control_that_one_seed_lacks_is_no_control() -> None:
    world = World()
    world.seeds(128, 3.0)
    world.seeds(256, 2.5)
    world.seeds(256, 2.0, control="window", count=2)
    (verdict,) = world.judged()
    assert verdict.window is None and verdict.word == "uses"
    world.rows[0] = replace(world.rows[0], status="non-finite", nll=None)
    assert world.judged() == []


def test_shuffled_text_is_measured_against_the_text_as_it_is() -> None:
    world = World()
    world.seeds(128, 3.0)
    world.seeds(256, 2.5)
    assert world.judged()[0].shuffled is None
    world.seeds(256, 2.8, control="shuffled")
    (verdict,) = world.judged()
    assert verdict.shuffled is not None and verdict.shuffled.value == pytest.approx(0.3, abs=0.002)


@pytest.mark.parametrize("status", ["undefined", "non-finite", "out of memory"])
def test_a_seed_that_fails_makes_the_word_its_status(status: str) -> None:
    world = World()
    world.seeds(128, 3.0)
    world.seeds(256, 2.0)
    world.rows[4] = replace(world.rows[4], status=status, nll=None)
    (verdict,) = world.judged()
    assert verdict == Verdict(Place("rope", 256, "abc", 5), status) and verdict.failed


def test_one_seed_and_one_document_have_no_interval() -> None:
    world = World()
    for length, loss in ((128, 3.0), (256, 2.0)):
        world.add(length, loss, document_N=np.zeros(TARGETS, int), origin="checkpoint")
    (verdict,) = world.judged()
    assert verdict.word == "unclear" and verdict.cropped is not None and verdict.cropped.low is None


def test_rows_without_sums_leave_the_verdict_out_and_say_so() -> None:
    world = World()
    world.seeds(128, 3.0)
    for length in (256, 512):
        world.seeds(length, 2.0, document_sums=None)
    world.seeds(1024, 2.0)
    assert list(world.words()) == [("", 1024)]
    (line,) = world.said
    assert line.startswith("rope at 256, 512: no verdict") and "repeat the eval command" in line


def test_variants_are_curves_of_their_own_with_their_own_controls() -> None:
    world = World()
    for length, loss, other in (
        (128, 3.0, {}),
        (256, 3.5, {}),
        (128, 3.0, {"transform": "yarn"}),
        (256, 2.5, {"transform": "yarn"}),
        (128, 3.2, {"window": "bca 64"}),
        (256, 3.2, {"window": "bca 64"}),
        (256, 3.2, {"window": "sliding 128", "control": "window", "control_of": "bca 64"}),
        (256, 3.1, {"control": "window"}),
    ):
        world.seeds(length, loss, **other)
    assert world.words() == {
        ("", 256): "degrades",
        (" · yarn", 256): "uses",
        (" · window bca 64", 256): "unchanged",
    }


def test_other_protocols_and_lengths_within_the_training_length_have_no_verdict() -> None:
    world = World()
    world.seeds(64, 3.5)
    world.seeds(128, 3.0)
    world.seeds(256, 2.0, protocol="nonoverlapping")
    assert world.judged() == []


def test_every_set_of_targets_is_judged_by_itself() -> None:
    """A row of one set is never paired with a control of another, whichever was measured last."""
    world = World()
    for name, loss, count in (("a", 2.0, 4), ("b", 4.0, 3), ("c", 3.0, 3)):
        world.seeds(128, 3.0, count=count, targets_hash=name)
        world.seeds(256, loss, count=count, targets_hash=name)
    world.seeds(512, 2.0, targets_hash="d")  # whose training length was not measured
    world.seeds(512, 2.0, targets_hash="a", stride=7)
    found = world.judged()
    assert [(v.place.targets_hash, v.place.length, v.word) for v in found] == [
        ("a", 256, "uses"),
        ("b", 256, "degrades"),
        ("c", 256, "unchanged"),
    ]
    assert [verdict.cropped.seeds for verdict in found if verdict.cropped] == [4, 3, 3]
    changes = world.pairs().changes()
    assert {place.targets_hash: round(one.value) for place, one in changes.items()} == {"a": -1, "b": 1, "c": 0}


def test_a_change_is_against_the_own_training_length_on_both_sides_of_it() -> None:
    world = World()
    for length, loss in ((64, 3.3), (128, 3.0), (256, 3.1)):
        world.seeds(length, loss)
    world.seeds(256, 2.9, control="window")
    changes = world.pairs().changes()
    assert {place.length: pytest.approx(one.value, abs=0.01) for place, one in changes.items()} == {64: 0.3, 256: 0.1}
    world.rows = [replace(row, document_sums=None) for row in world.rows]
    assert world.pairs().changes() == {}


def test_a_verdict_says_how_many_documents_hold_its_targets() -> None:
    world = World()
    world.seeds(128, 3.0, documents=8)
    world.seeds(256, 2.0, documents=8)
    world.seeds(512, 0.0, documents=8, status="undefined", nll=None)
    assert [verdict.documents for verdict in world.judged()] == [8, 8]


def test_a_row_measured_again_counts_once() -> None:
    world = World()
    world.add(128, 3.0 + noise(0))
    world.add(256, 9.0)
    world.add(256, 2.0 + noise(1))
    (verdict,) = world.judged()
    assert verdict.cropped == estimate(*differences([(world.rows[2], world.rows[0])]))


def test_verdicts_are_the_same_from_the_rows_in_a_csv_file() -> None:
    world = World()
    world.seeds(16, 3.5)
    world.seeds(128, 3.0)
    world.seeds(256, 2.5)
    world.seeds(256, 2.8, control="window")
    world.seeds(512, 0.0, status="undefined", nll=None, document_sums=None)
    said: list[str] = []
    text = rows_to_csv([replace(row, curve="rope", recipe="12") for row in world.rows])
    back = rows_of_csv(text + "torn,line\n", said.append)
    assert said == [f"line {len(world.rows) + 2} of the CSV file is not a row, so it is skipped"]
    assert {row.recipe for row in back} == {"12"}, "text that looks like a number stays text"
    assert Pairs(back, {row.run: row.curve or "" for row in back}).verdicts() == world.judged()


def usable_of(*intervals: tuple[float, float] | str | None) -> Usable:
    """The usable lengths of a curve whose changes at 256, 512, … have these intervals, words or no verdict."""
    lengths = [256 << index for index in range(len(intervals))]
    given = []
    for length, one in zip(lengths, intervals, strict=True):
        place = Place("r", length, "abc", None)
        if isinstance(one, str):
            given.append(Verdict(place, one))
        elif one is not None:
            given.append(Verdict(place, "unclear", cropped=Estimate(sum(one) / 2, *one, 0.1, 0.5, 3, 8)))
    (answer,) = usable(given[::-1], {"r": 128}, [64, 128, *lengths])
    return answer


SAFE, WORSE, OPEN = (-0.002, 0.004), (0.05, 0.2), (-0.1, 0.2)


def test_the_usable_length_ends_where_no_loss_is_no_longer_shown() -> None:
    assert usable_of(SAFE, SAFE) == Usable("r", 512, None, True)
    assert usable_of((-0.3, -0.1), SAFE, WORSE) == Usable("r", 512, 1024, False)
    assert usable_of(WORSE, SAFE) == Usable("r", 128, 256, False)
    assert usable_of(SAFE, "undefined", SAFE) == Usable("r", 256, 512, False)
    assert usable_of((0.002, 0.011), (0.0101, 0.02)) == Usable("r", 128, 512, False), "the margin decides"


def test_noise_and_gaps_never_lengthen_it() -> None:
    assert usable_of(OPEN, SAFE, SAFE) == Usable("r", 128, None, False)
    assert usable_of(SAFE, None, SAFE) == Usable("r", 256, None, False)
    assert usable_of(SAFE, OPEN, WORSE) == Usable("r", 256, 1024, False)
    assert usable([], {"r": 128}, [128, 256]) == []
