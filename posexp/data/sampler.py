"""Training batches: windows of tokens as a pure function of (seed, step).

Shape suffixes: B windows, T tokens, N positions in the split, D documents.
"""

import numpy as np
import torch
from torch import Tensor

from posexp.data.store import Tokens
from posexp.errors import Misuse


class Windows:
    """All places where a window of `length` inputs, each with the token after it as target, may start.

    used_documents: how many documents give windows; left_out: (documents, tokens) that are too short to.
    Raises Misuse if there is no such place.
    """

    def __init__(self, tokens: Tokens, length: int, cross_documents: bool):
        self.ids_N = tokens.ids
        self.length = length
        sizes_D = np.diff(tokens.starts)
        if cross_documents:
            first_D, places_D = tokens.starts[:1], np.maximum(tokens.starts[-1:] - length, 0)
            short_D = np.zeros(len(sizes_D), dtype=bool)
        else:
            first_D, places_D = tokens.starts[:-1], np.maximum(sizes_D - length, 0)
            short_D = places_D == 0
        if not places_D.sum():
            what = (
                f"all {tokens.starts[-1]} tokens together are"
                if cross_documents
                else (f"the longest document, {sizes_D.max()} tokens, is")
            )
            raise Misuse(f"{what} shorter than one window of {length} tokens and the one after it")
        first_D, places_D = first_D[places_D > 0], places_D[places_D > 0]
        # Place p of all lies in the first document whose end is past it, at token p + shift.
        self.ends_D = places_D.cumsum()
        self.shift_D = first_D - (self.ends_D - places_D)
        self.used_documents = int((~short_D).sum())
        self.left_out = (int(short_D.sum()), int(sizes_D[short_D].sum()))

    def starts(self, seed: int, step: int, count: int) -> np.ndarray:
        """Where `count` windows start, int64 [B], drawn evenly from all places; the same for the same arguments."""
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, step])))
        place_B = random.integers(self.ends_D[-1], size=count)
        document_B = self.ends_D.searchsorted(place_B, side="right")
        return self.shift_D[document_B] + place_B

    def batch(self, seed: int, step: int, count: int) -> tuple[Tensor, Tensor]:
        """x_BT and y_BT, int64: the inputs and targets of the windows at `starts`."""
        start_B = self.starts(seed, step, count)
        window_BT = np.stack([self.ids_N[start : start + self.length + 1] for start in start_B]).astype(np.int64)
        window = torch.from_numpy(window_BT)
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()
