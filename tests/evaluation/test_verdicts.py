"""Rows and losses with known differences get the verdicts they deserve, and failures are never averaged away."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from posexp.errors import Misuse
from posexp.evaluation.losses import Losses
from posexp.evaluation.pairing import differences
from posexp.evaluation.rows import Row
from posexp.evaluation.statistics import estimate
from posexp.evaluation.verdicts import MARGIN, Pairs, Place, Usable, Verdict, usable

TARGETS, DOCUMENTS = 40, 8
Kept = dict[int, Losses]


class World:
    """Rows, and the losses of each by the row's identity."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.kept: Kept = {}
        self.said: list[str] = []

    def add(self, length: int, loss: float | np.ndarray, seed: int = 0, control: str = "", **other: Any) -> Row:
        """A row at a training length of 128 whose targets all have `loss`, or one each."""
        nll_N = (np.zeros(TARGETS) + loss).astype(np.float32)
        made: dict[str, Any] = {"run": f"rope-s{seed}-aa", "seed": seed, "train_length": 128, "length": length}
        made |= {
            "protocol": "same_targets",
            "stride": 5,
            "targets_hash": "abc",
            "status": "ok",
            "nll": float(nll_N.mean()),
        }
        made |= {
            "window": "sliding 128" if control == "window" else "full",
            "trained_window": "full",
            "control": control,
        }
        made |= {"control_of": "full"} if control else {}
        row = Row.of(made | other)
        self.rows.append(row)
        document_N = np.repeat(np.arange(DOCUMENTS), TARGETS // DOCUMENTS)
        self.kept[id(row)] = losses(nll_N, document_N)
        return row

    def judged(self) -> list[Verdict]:
        self.said = []
        return self.pairs().verdicts(self.said.append)

    def pairs(self, label: dict[str, str] | None = None) -> Pairs:
        return Pairs(self.rows, label or {}, lambda row: self.kept.get(id(row)))

    def words(self) -> dict[tuple[str, int], str]:
        return {
            (verdict.place.curve.removeprefix("rope-s0-aa"), verdict.place.length): verdict.word
            for verdict in self.judged()
        }


def losses(nll_N: np.ndarray, document_N: np.ndarray) -> Losses:
    count = np.arange(len(nll_N))
    return Losses(nll_N, 1000 + 7 * count, np.full(len(nll_N), 100), document_N, np.zeros(len(nll_N), bool))


def noise(seed: int, size: float = 0.002) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, TARGETS)


@pytest.mark.parametrize(
    ("change", "spread", "word"),
    [
        (-0.5, 0.01, "uses"),
        (+0.5, 0.01, "breaks"),
        (0.0, 0.002, "ignores"),
        (0.005, 0.002, "ignores"),
        (-0.005, 0.002, "ignores"),
        (0.0, 0.5, "unclear"),
        (MARGIN, 0.002, "breaks"),
        (-MARGIN, 0.002, "uses"),
    ],
)
def test_the_word_is_what_the_interval_says(change: float, spread: float, word: str) -> None:
    world = World()
    for seed in range(3):
        base = 3 + noise(9)
        world.add(128, base, seed)
        world.add(256, base + change + noise(seed, spread), seed)
    label = {f"rope-s{seed}-aa": "rope" for seed in range(3)}
    (verdict,) = world.pairs(label).verdicts()
    assert (*verdict.place[:2], verdict.word, verdict.control) == ("rope", 256, word, "cropped")
    assert verdict.difference is not None and (verdict.difference.seeds, verdict.difference.documents) == (3, 8)


def test_the_difference_is_paired_by_target_and_seed() -> None:
    """Losses that differ between targets and seeds by far more than the change hide it unpaired."""
    world = World()
    for seed in range(2):
        hard = 3 + 2 * seed + noise(seed, 1.0)
        world.add(128, hard, seed)
        world.add(512, hard - 0.02 + noise(seed + 5, 0.003), seed)
    label = {f"rope-s{seed}-aa": "rope" for seed in range(2)}
    (verdict,) = world.pairs(label).verdicts()
    assert verdict.difference is not None
    assert verdict.difference.value == pytest.approx(-0.02, abs=0.002) and verdict.word == "uses"


def test_targets_in_another_order_are_paired_all_the_same() -> None:
    nll_N, document_N = noise(1, 1.0).astype(np.float32), np.repeat(np.arange(8), 5)
    one = losses(nll_N, document_N)
    back = Losses(**{name: values[::-1] for name, values in vars(losses(nll_N + 1, document_N)).items()})
    sum_SD, count_D = differences([(back, one)])
    assert sum_SD == pytest.approx(np.full((1, 8), 5.0), abs=1e-5) and list(count_D) == [5] * 8


def test_other_targets_are_refused() -> None:
    one, short = losses(np.zeros(8), np.arange(8)), losses(np.zeros(7), np.arange(7))
    with pytest.raises(Misuse, match="their targets differ"):
        differences([(one, short)])
    with pytest.raises(Misuse, match="their targets differ"):
        differences([(one, one), (short, short)])


def test_the_control_is_the_better_of_cropped_and_window() -> None:
    for cropped, window, control, word in ((3.0, 2.9, "window", "breaks"), (2.9, 3.0, "cropped", "breaks")):
        world = World()
        world.add(128, cropped + noise(0))
        world.add(256, window + noise(1), control="window")
        world.add(256, 2.95 + noise(2))
        (verdict,) = world.judged()
        assert (verdict.control, verdict.word) == (control, word)
        assert verdict.difference is not None and verdict.difference.value == pytest.approx(0.05, abs=0.002)


def test_with_one_control_it_is_that_one_and_with_none_there_is_no_verdict() -> None:
    world = World()
    world.add(256, 2.5 + noise(0))
    assert world.judged() == [] and world.said == []
    world.add(256, 3.0 + noise(1), control="window")
    (verdict,) = world.judged()
    assert (verdict.control, verdict.word) == ("window", "uses")
    other = World()
    other.add(256, 2.5 + noise(0))
    other.add(128, 3.0 + noise(1), targets_hash="another")
    assert other.judged() == []  # cropped, but on other targets


def test_a_control_that_one_seed_lacks_is_no_control() -> None:
    world = World()
    for seed in range(2):
        world.add(256, 2.5 + noise(seed), seed, run=f"rope-s{seed}-aa")
        world.add(128, 3.0 + noise(seed), seed)
    world.add(256, 2.0 + noise(0), 0, control="window")
    label = {f"rope-s{seed}-aa": "rope" for seed in range(2)}
    (verdict,) = world.pairs(label).verdicts()
    assert verdict.control == "cropped"
    world.rows[1] = replace(world.rows[1], status="non-finite", nll=None)
    assert world.pairs(label).verdicts() == []


def test_shuffled_text_is_measured_against_the_text_as_it_is() -> None:
    world = World()
    world.add(128, 3.0 + noise(0))
    world.add(256, 2.5 + noise(1))
    assert world.judged()[0].shuffled is None
    world.add(256, 2.8 + noise(2), control="shuffled")
    (verdict,) = world.judged()
    assert verdict.shuffled is not None and verdict.shuffled.value == pytest.approx(0.3, abs=0.002)
    assert verdict.control == "cropped"


@pytest.mark.parametrize("status", ["undefined", "non-finite", "out of memory"])
def test_a_seed_that_fails_makes_the_word_its_status(status: str) -> None:
    world = World()
    for seed in range(3):
        world.add(128, 3.0 + noise(seed), seed)
        world.add(256, 2.0 + noise(seed), seed)
    world.rows[3] = replace(world.rows[3], status=status, nll=None)
    label = {f"rope-s{seed}-aa": "rope" for seed in range(3)}
    (verdict,) = world.pairs(label).verdicts()
    assert verdict == Verdict(Place("rope", 256, "abc", 5), status, "", None, None)


def test_one_seed_and_one_document_are_unclear() -> None:
    world = World()
    for length, loss in ((128, 3.0), (256, 2.0)):
        row = world.add(length, loss)
        world.kept[id(row)] = losses(np.full(TARGETS, loss, np.float32), np.zeros(TARGETS, int))
    (verdict,) = world.judged()
    assert verdict.word == "unclear" and verdict.difference is not None and verdict.difference.low is None


def test_losses_that_are_not_kept_leave_the_verdict_out_and_say_so() -> None:
    world = World()
    world.add(128, 3.0)
    for length in (256, 512):
        del world.kept[id(world.add(length, 2.0))]
    world.add(1024, 2.0 + noise(0))
    assert list(world.words()) == [("", 1024)]
    (line,) = world.said
    assert line.startswith("rope-s0-aa at 256, 512: no verdict") and "repeat the eval command" in line


def test_variants_are_curves_of_their_own_with_their_own_controls() -> None:
    world = World()
    world.add(128, 3.0 + noise(0))
    world.add(256, 3.5 + noise(1))
    world.add(128, 3.0 + noise(2), transform="yarn")
    world.add(256, 2.5 + noise(3), transform="yarn")
    world.add(256, 3.2 + noise(4), window="bca 64")
    world.add(256, 3.2 + noise(5), window="sliding 128", control="window", control_of="bca 64")
    world.add(256, 3.1 + noise(6), control="window")
    assert world.words() == {
        ("", 256): "breaks",
        (" · yarn", 256): "uses",
        (" · window bca 64", 256): "ignores",
    }


def test_other_protocols_and_lengths_within_the_training_length_have_no_verdict() -> None:
    world = World()
    world.add(64, 3.5)
    world.add(128, 3.0)
    world.add(256, 2.0, protocol="nonoverlapping")
    assert world.judged() == []


def test_every_set_of_targets_is_judged_by_itself() -> None:
    """A row of one set is never paired with a control of another, whichever was measured last."""
    world = World()
    for name, loss, runs in (("a", 2.0, 2), ("b", 4.0, 1), ("c", 3.0, 1)):
        for seed in range(runs):
            world.add(128, 3.0 + noise(seed), seed, targets_hash=name)
            world.add(256, loss + noise(seed + 9), seed, targets_hash=name)
    world.add(512, 2.0 + noise(3), targets_hash="d")  # whose training length was not measured
    world.add(512, 2.0 + noise(3), targets_hash="a", stride=7)
    label = {f"rope-s{seed}-aa": "rope" for seed in range(3)}
    found = world.pairs(label).verdicts()
    assert [(v.place.targets_hash, v.place.length, v.word) for v in found] == [
        ("a", 256, "uses"),
        ("b", 256, "breaks"),
        ("c", 256, "ignores"),
    ]
    assert [verdict.difference.seeds for verdict in found if verdict.difference] == [2, 1, 1]
    changes = world.pairs(label).changes()
    assert {place.targets_hash: round(one.value) for place, one in changes.items()} == {"a": -1, "b": 1, "c": 0}


def test_a_change_is_against_the_own_training_length_on_both_sides_of_it() -> None:
    world = World()
    for length, loss in ((64, 3.3), (128, 3.0), (256, 3.1)):
        world.add(length, loss + noise(length))
    world.add(256, 2.9 + noise(1), control="window")
    changes = world.pairs().changes()
    assert {place.length: pytest.approx(one.value, abs=0.01) for place, one in changes.items()} == {64: 0.3, 256: 0.1}
    (verdict,) = world.judged()
    assert (
        verdict.control == "window" and verdict.difference and verdict.difference.value == pytest.approx(0.2, abs=0.01)
    )
    world.kept.clear()
    assert world.pairs().changes() == {}, "losses are not kept"


def test_a_verdict_says_how_many_documents_hold_its_targets() -> None:
    world = World()
    world.add(128, 3.0 + noise(0), documents=8)
    world.add(256, 2.0 + noise(1), documents=8)
    world.add(512, 0.0, documents=8, status="undefined", nll=None)
    assert [verdict.documents for verdict in world.judged()] == [8, 8]


def test_a_row_measured_again_counts_once() -> None:
    world = World()
    world.add(128, 3.0 + noise(0))
    world.add(256, 9.0)
    world.add(256, 2.0 + noise(1))
    (verdict,) = world.judged()
    assert verdict.difference == estimate(
        *differences([(world.kept[id(world.rows[2])], world.kept[id(world.rows[0])])])
    )


def test_the_usable_length_ends_before_the_first_that_breaks_or_fails() -> None:
    def found(*words: str) -> Usable:
        places = [Place("r", 256 << index, "abc", None) for index in range(len(words))]
        given = [Verdict(place, word, "", None, None) for place, word in zip(places, words, strict=True)]
        (answer,) = usable(given[::-1], {"r": 128})
        return answer

    assert found("ignores", "uses", "ignores") == Usable("r", 1024, True)
    assert found("ignores", "unclear", "uses") == Usable("r", 1024, True, doubtful=True)
    assert found("uses", "breaks", "uses") == Usable("r", 256, False)
    assert found("breaks") == Usable("r", 128, False)
    assert found("unclear", "undefined") == Usable("r", 256, False, doubtful=True)
    assert found("uses", "breaks", "unclear") == Usable("r", 256, False)
    assert usable([], {"r": 128}) == []
