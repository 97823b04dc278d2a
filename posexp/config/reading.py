"""The options of commands that read what is published: components, and studies."""

from dataclasses import dataclass

from posexp.config.fields import knob


@dataclass
class LeaderboardCommand:
    """posexp leaderboard [--check <folder> track=<name>] [key=value …]"""

    check: str | None = knob(None, "--check: a folder of runs, or of their rows.csv and runs.jsonl, to check")
    track: str | None = knob(None, "track to check by; null: the only one of configs/leaderboard")
    results: str = knob("results", "folder with studies/, into which LEADERBOARD.md is written")


@dataclass
class SchemesCommand:
    """posexp schemes [name …]"""

    components: list[str] = knob(
        [], "schemes, windows, temperatures, transforms and models to show in full; empty: one line for each"
    )
