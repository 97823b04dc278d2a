"""The sizes that a scheme or window is built for, and the spread of initial weights."""

from dataclasses import dataclass

INIT_STD = 0.02  # of every matrix inside the blocks, as in GPT-2


@dataclass(frozen=True)
class Dims:
    """Sizes of the decoder a scheme is built for; `train_length` in tokens."""

    d_model: int
    n_head: int
    n_layer: int
    train_length: int

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_head
