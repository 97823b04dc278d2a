"""The sizes for which a scheme or window is built, and the spread of initial weights."""

from dataclasses import dataclass

INIT_STD = 0.02  # spread of every matrix inside the blocks, as in GPT-2


@dataclass(frozen=True)
class Dims:
    """The sizes of the decoder for which a scheme is built, with `train_length` in tokens."""

    d_model: int
    n_head: int
    n_layer: int
    train_length: int

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_head
