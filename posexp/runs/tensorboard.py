"""The copy of a run in files of TensorBoard: tensorboard/train has steps on its x axis, tensorboard/eval lengths."""

import json
from pathlib import Path
from typing import Any

from posexp.runs.logger import Evaluation, Logged, Logger


class TensorBoard(Logger):
    """Files of events, which TensorBoard shows by folder. A folder is emptied when its first value is logged."""

    def __init__(self, about: Logged):
        self.about, self.writers = about, dict[str, Any]()

    def writer(self, axis: str) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        if axis not in self.writers:
            folder = self.about.folder / "tensorboard" / axis
            for earlier in folder.glob("events.out.tfevents.*"):
                earlier.unlink()
            self.writers[axis] = SummaryWriter(str(folder), flush_secs=10)
            text = json.dumps(self.about.config, indent=1, default=str)
            self.writers[axis].add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
        return self.writers[axis]

    def train(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer("train").add_scalar(name, value, step)

    def evaluation(self, found: Evaluation) -> None:
        for length, values in found.curves:
            for name, value in values.items():
                self.writer("eval").add_scalar(name, value, length)

    def figure(self, path: Path) -> None:
        from matplotlib.image import imread

        self.writer("report").add_image(path.stem, imread(path), dataformats="HWC")

    def finish(self) -> None:
        for writer in self.writers.values():
            writer.close()
