"""What it saves that one pass serves several rows: python scripts/sharing.py <run folder> <lengths> <targets>

Evaluates a copy of the run with passes shared and each row by itself, in turns, and prints input tokens, medians of
seconds and their ratio, for each protocol alone and for all together. One thread.
"""

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from posexp.commands import EvalCommand
from posexp.config import EvalConfig
from posexp.evaluation.evaluate import Evaluator
from posexp.evaluation.trained import Trained
from posexp.runs import Run

ROUNDS = 3
PROTOCOLS = [
    *("same_targets", "nonoverlapping", "sliding", "sliding_late", "window_means", "overlapping", "last_k"),
    *("fixed_windows", "truncated", "document_heads", "per_document"),
]


class Alone(Trained):
    """Says of the model that a pass may serve no other window: so none does."""

    def view(self, variant, length):
        return replace(super().view(variant, length), prefix_stable=False, settings=f"{time.monotonic_ns()}")


def evaluate(kind: type[Trained], run: Run, command: EvalCommand) -> tuple[int, float]:
    """(input tokens read, seconds)."""
    cpu = torch.device("cpu")
    subject = kind(run, command, cpu)
    evaluator = Evaluator(subject, command.eval, cpu)
    (variant,) = subject.variants(command)
    jobs = evaluator.jobs(variant)
    began = time.perf_counter()
    for _ in evaluator.rows(jobs):
        pass
    return evaluator.read, time.perf_counter() - began


def main(folder: Path, lengths: list[int], targets: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(shutil.copytree(folder, Path(place) / "group" / folder.name)))
        print("| protocol | tokens, each row alone | shared | of it | seconds, alone | shared | of it |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for name, protocols in [*((name, [name]) for name in PROTOCOLS), ("all together", PROTOCOLS)]:
            command = EvalCommand(eval=EvalConfig(lengths=lengths, protocols=protocols, targets=targets))
            turns = [(evaluate(Alone, run, command), evaluate(Trained, run, command)) for _ in range(ROUNDS)]
            (alone, _), (shared, _) = turns[0]
            slow, fast = (median(turn[i][1] for turn in turns) for i in (0, 1))
            ratio = median(turn[1][1] / turn[0][1] for turn in turns)
            print(
                f"| {name} | {alone:,} | {shared:,} | {shared / alone:.2f} | {slow:.1f} | {fast:.1f} | {ratio:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"{__doc__}\nusage: python scripts/sharing.py <run folder> <length,length,…> <targets>")
    main(Path(sys.argv[1]), [int(length) for length in sys.argv[2].split(",")], int(sys.argv[3]))
