"""The commands posexp compare (which of two curves is better) and posexp power (how many seeds a verdict needs)."""

import re
from fnmatch import fnmatchcase
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from posexp.config.commands import CompareCommand, PowerCommand
from posexp.errors import Misuse, RunFailed, did_you_mean
from posexp.output.console import say
from posexp.storage import atomic, untrusted

if TYPE_CHECKING:
    from posexp.compare.pairs import Comparison, Curve

LONGEST_NAME = 120  # bytes of a file name without its ending; file systems allow 255


def compare(command: CompareCommand) -> None:
    """Print the comparisons and write <results>/<group>/compare/<base>-vs-<others>.{md,csv}.

    Raises Misuse for an unknown curve, or if nothing can be compared.
    """
    from rich.text import Text

    from posexp.compare import table
    from posexp.compare.pairs import compared, pairs_of
    from posexp.output.console import console

    of_curve = load_curves(command)
    base, *others = chosen_curves(command.curves, list(of_curve), command)
    protocols = protocols_of(command, of_curve)
    found: list[Comparison] = []
    notes: list[str] = []
    refusals: list[Misuse] = []
    for other in others:
        try:
            pairs, of_pair = pairs_of(base, other, of_curve, protocols)
        except Misuse as error:
            refusals.append(error)
            continue
        found += compared(pairs)
        notes += of_pair
    if not found:
        raise refusals[0]
    notes += [str(refusal) for refusal in refusals]
    folder = Path(command.results).expanduser() / command.group / "compare"
    name = file_name(base, command.curves[1:])
    paths = {
        folder / f"{name}.md": table.comparison_markdown(found, notes),
        folder / f"{name}.csv": table.comparisons_to_csv(found),
    }
    write_comparison(folder, paths)
    table.print_comparisons(found, notes, console())
    for path in paths:
        console().print(Text(str(path)), soft_wrap=True)


def power(command: PowerCommand) -> None:
    """Print the detectable difference at each length, and the number of seeds for a given difference.

    Raises Misuse for an unknown curve, for fewer than two seeds in common, or if nothing can be compared.
    """
    from posexp.compare import table
    from posexp.compare.pairs import pairs_of
    from posexp.compare.seeds import power_of
    from posexp.output.console import console

    of_curve = load_curves(command)
    base, *others = chosen_curves(command.curves, list(of_curve), command)
    if len(others) > 1:
        raise Misuse(f"posexp power takes two curves, not {len(others) + 1}: {listed([base, *others])}")
    pairs, notes = pairs_of(base, others[0], of_curve, protocols_of(command, of_curve))
    found = [power_of(pair, command.difference, command.power) for pair in pairs]
    table.print_power(base, others[0], found, command.difference, command.power, notes, console())


def load_curves(command: CompareCommand | PowerCommand) -> dict[str, "Curve"]:
    """Return the curves of the group by name. Raises Misuse if there are no rows."""
    from posexp.compare.pairs import curves
    from posexp.evaluation.contrasts import curve_name
    from posexp.evaluation.group import load_group, read_group

    group = read_group(command.rows, say) if command.rows else load_group(command.results, command.group, "*", say)
    return curves(group.rows, partial(curve_name, curve_of=group.curve_of))


def chosen_curves(words: list[str], names: list[str], command: CompareCommand | PowerCommand) -> list[str]:
    """Return the base and the others, which globs may name. Raises Misuse for a word that matches no curve."""
    there = f"the curves of {command.results}/{command.group} are {listed(sorted(names))}"
    if len(words) < 2:
        raise Misuse(f"name two curves, as in posexp report; {there}")
    found: list[str] = []
    for index, word in enumerate(words):
        matching = [word] if word in names else [name for name in sorted(names) if index and fnmatchcase(name, word)]
        if not matching:
            raise Misuse(f"no curve {word!r}{did_you_mean(word, names)}; {there}")
        found += matching
    names_once = list(dict.fromkeys(found))  # a glob may match the base too
    if len(names_once) < 2:
        raise Misuse(f"{found[0]} cannot be compared with itself alone; {there}")
    return names_once


def listed(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def protocols_of(command: CompareCommand | PowerCommand, of_curve: dict[str, "Curve"]) -> set[str]:
    """Return the protocols to compare. Raises Misuse for a protocol that was not measured."""
    from posexp.evaluation.plan import PROTOCOLS

    measured = {key.protocol for curve in of_curve.values() for key in curve}
    tabled = {name for name in measured if name not in PROTOCOLS or not PROTOCOLS[name].drawn_only}
    if command.protocol is None:
        return tabled
    if command.protocol in measured - tabled:
        raise Misuse(f"{command.protocol} is only drawn: its token losses are not kept, so nothing can be paired")
    if command.protocol not in tabled:
        hint = did_you_mean(command.protocol, sorted(tabled))
        raise Misuse(f"protocol {command.protocol!r} was not measured{hint}; there are {', '.join(sorted(tabled))}")
    return {command.protocol}


def file_name(base: str, others: list[str]) -> str:
    """Return a file name such as `alibi-vs-all`, of letters, digits, `.`, `_`, `+`, `=` and `-`, and never too long."""
    plain = [re.sub(r"[^\w.+=-]+", "_", word.replace("*", "all")).strip("._") or "curve" for word in (base, *others)]
    name = f"{plain[0]}-vs-{'+'.join(plain[1:])}"
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name[:40]}-{sha256(name.encode()).hexdigest()[:8]}"


def write_comparison(folder: Path, paths: dict[Path, str]) -> None:
    """Write the files of a comparison. Raises RunFailed if `folder` cannot be written."""
    try:
        untrusted.refuse_link(folder)
        atomic.write_all(folder, {path.name: content for path, content in paths.items()})
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or error
        raise RunFailed(f"cannot write the comparison into {folder}: {why}") from error
