"""The options of posexp bench."""

from dataclasses import dataclass
from typing import Any

from posexp.config.fields import check_least, check_lengths, check_name, knob
from posexp.config.sections import AttentionPath, Clock, Device, ModelConfig, Precision
from posexp.errors import Misuse


@dataclass
class BenchCommand:
    """posexp bench [scheme …] [--peers] [--against <folder>] [key=value …]"""

    schemes: list[str] = knob(
        ["none", "sinusoidal", "learned", "rope", "xpos", "alibi", "t5", "kerple_log"],
        "names of schemes; none is always added, as the base of the ratios",
    )
    window: Any = knob(None, "also measure each scheme with this window: window=<name>")
    temperature: Any = knob(None, "also measure each scheme with this temperature: temperature=<name>")
    mixer: Any = knob(None, "also measure this mixer, with each scheme if any block keeps attention: mixer=<name>")
    study: str | None = knob(None, "also measure the curves of a published study, or of a folder of runs")
    peers: bool = knob(False, "--peers: also measure transformers and x-transformers (posexp[peers])")
    peers_path: str | None = knob(None, "folder of a nanoGPT checkout, to measure its model.py too")
    against: str | None = knob(
        None, "--against: a folder of results/bench, or a file in one, to compare with; exit code 1 if worse"
    )
    model: ModelConfig = knob(ModelConfig, "the decoder")
    vocab_size: int = knob(8192, "vocabulary size", least=2)
    batch: int = knob(8, "sequences per training step", least=1)
    length: int = knob(512, "tokens per training sequence", least=1)
    lengths: list[int] = knob([512, 2048, 8192], "lengths of the evaluated inputs, in tokens; []: training alone")
    rounds: int = knob(7, "measured rounds, in which every model takes one turn", least=1)
    memory_limit_gib: float = knob(13.0, "largest address space per model on Linux without a GPU, in GiB", above=0)
    precision: Precision = knob(Precision.auto, "auto: bfloat16 autocast on a GPU, float32 on a CPU")
    attention: AttentionPath = knob(AttentionPath.auto, "auto: the fastest; blocks, flex, dense: for comparisons")
    device: Device = knob(Device.auto, "auto: the GPU if there is one")
    threads: int | None = knob(None, "threads per model; null: PyTorch's choice", least=1)
    clock: Clock = knob(Clock.wall, "wall, or cpu: the CPU time of one thread, on a machine that others use")
    folder: str = knob("results/bench", "folder of all benches")
    name: str | None = knob(None, "name of the bench's own folder; null: today's date and the schemes")

    def __post_init__(self) -> None:
        check_least(self, "")
        if self.lengths:
            check_lengths(self.lengths, "lengths")
        if self.clock is Clock.cpu and self.threads != 1:
            raise Misuse("clock=cpu would also count threads that wait for each other: set threads=1")
        if self.name is not None:
            check_name("name", self.name)
