"""The posexp leaderboard command, which ranks published curves and checks submissions."""

from pathlib import Path

from posexp.config.reading import LeaderboardCommand
from posexp.errors import Misuse, RunFailed
from posexp.evaluation.published import load_entries, readable
from posexp.leaderboard.page import Board, page, picture
from posexp.leaderboard.ranking import Standard, entries_of, standard_of
from posexp.leaderboard.times import bench_speeds
from posexp.leaderboard.track import Track, entrants, read_tracks
from posexp.output.console import console, say
from posexp.storage import atomic


def leaderboard(command: LeaderboardCommand) -> None:
    """Write LEADERBOARD.md and leaderboard.png into the folder of results, or check a submission.

    Raises Misuse for an unknown track, RunFailed if the submission does not meet its rule.
    """
    results = Path(command.results).expanduser()
    if command.check is not None:
        check(Path(command.check).expanduser(), command.track, results)
        return
    if command.track is not None:
        raise Misuse("track=… needs --check <folder>: LEADERBOARD.md has every track")
    boards, skipped = boards_of(results)
    for line in skipped:
        say(line)
    files: dict[str, str | bytes] = {"LEADERBOARD.md": page(boards, skipped)}
    if (png := picture(boards)) is not None:
        files["leaderboard.png"] = png
    atomic.write_all(results, files)
    for name in files:
        console().print(str(results / name), soft_wrap=True)


def boards_of(results: Path) -> tuple[list[Board], list[str]]:
    """Return the tracks with their entries, and a line for each track without. `say` receives what has no times."""
    boards, skipped = [], []
    for track in read_tracks():
        try:
            standard = standard_of_first(track, results)
            group = entrants(track, [load_entries(results / "studies" / study, say) for study in track.studies], say)
        except Misuse as error:
            skipped.append(f"{track.name} has no entries yet: {error}")
        else:
            speeds = None
            if isinstance(track.timed, str):
                try:
                    speeds = bench_speeds(track, results / "bench")
                except Misuse as error:
                    speeds = []
                    say(f"{track.name} has no times: {error}")
            boards.append((track, standard, entries_of(track, standard, group, say, speeds)))
    return boards, skipped


def standard_of_first(track: Track, results: Path) -> Standard:
    """Return what the first study of a track fixes. Raises Misuse without one."""
    folder = results / "studies" / track.studies[0]
    if not (folder / "rows.csv").is_file():
        raise Misuse(f"there is no results/studies/{folder.name}/rows.csv")
    return standard_of(track, entrants(track, [load_entries(folder, say)], say))


def check(folder: Path, name: str | None, results: Path) -> None:
    """Print whether each curve of a submission meets the rule of a track. Raises RunFailed unless all do."""
    tracks = read_tracks(name)
    if len(tracks) > 1:
        raise Misuse(f"name the track, as in track={tracks[0].name}; there are {', '.join(t.name for t in tracks)}")
    (track,) = tracks
    standard, group = standard_of_first(track, results), load_entries(folder, say)
    entries = entries_of(track, standard, group, say)
    failed = [f"{run.name} is not a readable run of posexp" for run in group.runs if run not in readable(group)]
    failed += [line for entry in entries for line in entry.failed]
    met = [
        f"{entry.curve} meets the rule of {track.name}: {entry.seeds} seeds, {entry.excess:.4f} {track.gap}, "
        f"at most {entry.upper:.4f} ≤ {track.gate:g}"
        for entry in entries
        if not entry.failed
    ]
    for line in failed + met:
        console().print(line, markup=False, highlight=False, soft_wrap=True)
    if failed or not met:
        raise RunFailed(f"{folder} does not meet the rule of {track.name}: {max(1, len(failed))} conditions failed")
