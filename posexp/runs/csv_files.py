"""The copy of a run as CSV: train.csv has a line per logged step, rows.csv one per evaluated length."""

import csv

from posexp.runs.logger import TRAINING, Evaluation, Logged, Logger
from posexp.storage import atomic

COLUMNS = ("step", *(f"train/{name}" for name in TRAINING), "valid/loss")


class CsvFiles(Logger):
    """Two files in the folder of the run. train.csv is begun anew by the first step that is logged."""

    def __init__(self, about: Logged):
        self.folder, self.begun = about.folder, False

    def train(self, step: int, values: dict[str, float]) -> None:
        path = self.folder / "train.csv"
        with atomic.naming(path), path.open("a" if self.begun else "w", newline="") as file:
            lines = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if not self.begun:
                lines.writeheader()
            lines.writerow({"step": step, **values})
        self.begun = True

    def evaluation(self, found: Evaluation) -> None:
        atomic.write_file(self.folder / "rows.csv", found.csv)
