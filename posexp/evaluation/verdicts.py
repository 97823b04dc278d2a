"""What a run does with context beyond its training length: uses it, ignores it, or breaks."""

from collections.abc import Callable
from dataclasses import dataclass

from posexp.errors import Misuse
from posexp.evaluation.losses import Losses
from posexp.evaluation.pairing import differences
from posexp.evaluation.row import Row, status_of, variant_of
from posexp.evaluation.statistics import Estimate, estimate

MARGIN = 0.01  # nats per token, 1 % in perplexity: a smaller change is nothing that a user of the model would notice
PROTOCOL = "same_targets"
WORDS = ("uses", "ignores", "breaks", "unclear")  # any other is a status

LossesOf = Callable[[Row], Losses | None]
Rows = dict[str, Row]  # by run


@dataclass(frozen=True)
class Verdict:
    """Of one curve at one length beyond its training length, under same_targets.

    `word` is uses, ignores, breaks, unclear, or the status that keeps it from having one (undefined, non-finite,
    out of memory). `difference` is the loss less that of `control`, in nats per token, paired by target, over seeds
    and documents; `control` is "cropped" or "window", whichever has the lower loss. `shuffled` is the loss with what
    lies beyond the training length shuffled less the loss without, likewise; None where it was not measured.
    `targets_hash` and `stride` are those of the rows it is about: a length may be measured on several sets.
    """

    curve: str
    length: int
    word: str
    control: str
    difference: Estimate | None
    shuffled: Estimate | None
    targets_hash: str
    stride: int | None


@dataclass(frozen=True)
class Usable:
    """The largest evaluated length of one curve up to which it never breaks; `at_least` if that is the longest,
    `doubtful` if the verdict on it, or on a length before it, is unclear."""

    curve: str
    length: int
    at_least: bool
    doubtful: bool = False


def verdicts(
    rows: list[Row], curve_of: dict[str, str], losses_of: LossesOf, say: Callable[[str], None] = lambda line: None
) -> list[Verdict]:
    """By curve and length. `curve_of` maps run folder names to labels, as for tables; `losses_of` gives a row's losses.

    A length that was measured on several sets of targets is judged on the one with the most runs, of those the latest.
    A length without a control for each of its runs has no verdict. Where losses are not kept or targets
    differ it has none either, and `say` is told why in a line.
    """
    sets: dict[tuple[str, int], dict[tuple, Rows]] = {}  # the plain rows longer than the training length
    others: dict[tuple[str, tuple, int, str], Rows] = {}  # the plain rows at it, and controls
    for row in rows:
        if row["protocol"] != PROTOCOL:
            continue
        curve, targets = curve_name(row, curve_of), (row.get("corpus") or "", row.get("stride"), row["targets_hash"])
        control = row.get("control") or ("cropped" if row["length"] == row["train_length"] else "")
        if control:
            others.setdefault((curve, targets, row["length"], control), {})[row["run"]] = row
        elif row["length"] > row["train_length"]:
            of_length = sets.setdefault((curve, row["length"]), {})
            of_length[targets] = {**of_length.pop(targets, {}), row["run"]: row}  # the latest set last
    found: list[Verdict] = []
    refused: dict[tuple[str, str], list[int]] = {}
    for (curve, length), of_length in sorted(sets.items()):
        own = {targets: members for targets, members in of_length.items() if not targets[0]} or of_length
        targets, plain = max(reversed(own.items()), key=lambda item: len(item[1]))
        controls = {
            "cropped": others.get((curve, targets, next(iter(plain.values()))["train_length"], "cropped"), {}),
            "window": others.get((curve, targets, length, "window"), {}),
            "shuffled": others.get((curve, targets, length, "shuffled"), {}),
        }
        try:
            if verdict := judge(curve, length, plain, controls, losses_of):
                found.append(verdict)
        except Misuse as error:
            refused.setdefault((curve, str(error)), []).append(length)
    for (curve, reason), lengths in refused.items():
        say(f"{curve} at {', '.join(map(str, lengths))}: no verdict, because {reason}")
    return found


def judge(curve: str, length: int, plain: Rows, controls: dict[str, Rows], losses_of: LossesOf) -> Verdict | None:
    """The verdict on the runs of `plain`; None without a control for each. Raises Misuse if they cannot be paired."""
    first, *_ = plain.values()
    targets = (first["targets_hash"], first.get("stride"))
    failures = [status_of(row) for row in sorted(plain.values(), key=by_seed) if status_of(row) != "ok"]
    complete = {name: of_runs for name, of_runs in controls.items() if covers(of_runs, plain)}
    candidates = [name for name in ("cropped", "window") if name in complete]
    if failures:
        return Verdict(curve, length, failures[0].split(":")[0], "", None, None, *targets)
    if not candidates:
        return None
    control = min(candidates, key=lambda name: sum(complete[name][run]["nll"] for run in plain))
    difference = over_runs(plain, complete[control], losses_of)
    shuffled = None
    if "shuffled" in complete:
        shuffled = over_runs({run: complete["shuffled"][run] for run in plain}, plain, losses_of)
    return Verdict(curve, length, word_of(difference), control, difference, shuffled, *targets)


def word_of(difference: Estimate) -> str:
    """What the interval of a difference from the control says."""
    if difference.low is None or difference.high is None:
        return "unclear"
    if difference.low >= -MARGIN and difference.high <= MARGIN:
        return "ignores"
    return "uses" if difference.high < 0 else "breaks" if difference.low > 0 else "unclear"


def over_runs(ones: Rows, others: Rows, losses_of: LossesOf) -> Estimate:
    """The mean loss of `ones` less that of `others`, paired by run and target."""
    pairs = []
    for run, row in ones.items():
        pair = [losses_of(row), losses_of(others[run])]
        if pair[0] is None or pair[1] is None:
            raise Misuse(f"the losses of {run} are not all kept: repeat the eval command, which measures them anew")
        pairs.append((pair[0], pair[1]))
    return estimate(*differences(pairs))


def covers(of_runs: Rows, plain: Rows) -> bool:
    return all(run in of_runs and status_of(of_runs[run]) == "ok" for run in plain)


def by_seed(row: Row) -> tuple:
    return row["seed"], row["run"]


def curve_name(row: Row, curve_of: dict[str, str]) -> str:
    """The label of the row's run, and how it was evaluated other than as trained; of a control, what it controls."""
    run: str = row["run"]
    return curve_of.get(run, run) + variant_of(row)


def usable(verdicts: list[Verdict], rows: list[Row], curve_of: dict[str, str]) -> list[Usable]:
    """Of every curve that has verdicts, the training length or the largest length before the first that breaks or
    fails; lengths without a verdict do not count."""
    trained: dict[str, int] = {}
    for row in rows:
        curve = curve_name(row, curve_of)
        trained[curve] = min(row["train_length"], trained.get(curve, row["train_length"]))
    found = []
    for curve in dict.fromkeys(verdict.curve for verdict in verdicts):
        length, at_least, doubtful = trained[curve], True, False
        for verdict in sorted((v for v in verdicts if v.curve == curve), key=lambda v: v.length):
            if verdict.word == "breaks" or verdict.word not in WORDS:
                at_least = False
                break
            length, doubtful = verdict.length, doubtful or verdict.word == "unclear"
        found.append(Usable(curve, length, at_least, doubtful))
    return found
