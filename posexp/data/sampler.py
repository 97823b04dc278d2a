"""The sampler of training batches: sequences of tokens as a pure function of (seed, step).

Shape suffixes: B sequences, T tokens, N positions in the split, D documents.
"""

import numpy as np
import torch
from torch import Tensor

from posexp.data.store import Tokens
from posexp.errors import Misuse


class SequenceSampler:
    """The sampler of sequences of `length` inputs, whose targets are the next tokens.

    used_documents: number of documents that are long enough. left_out: (documents, tokens) of those that are too short.
    Raises Misuse if no document is long enough.
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
            longest = f"the longest document, {sizes_D.max()} tokens, is"
            what = f"all {tokens.starts[-1]} tokens together are" if cross_documents else longest
            remedy = "longer text" if cross_documents else "longer documents, or data.cross_documents=true"
            raise Misuse(
                f"{what} shorter than one sequence of {length} tokens and the token after it: take {remedy}, or a "
                "smaller length"
            )
        first_D, places_D = first_D[places_D > 0], places_D[places_D > 0]
        # Start p lies in the first document whose cumulative end exceeds p, at token p + shift.
        self.ends_D = places_D.cumsum()
        self.shift_D = first_D - (self.ends_D - places_D)
        self.used_documents = int((~short_D).sum())
        self.left_out = (int(short_D.sum()), int(sizes_D[short_D].sum()))

    def starts(self, seed: int, step: int, count: int) -> np.ndarray:
        """Draw `count` start positions uniformly, int64 [B]. Equal arguments give equal positions."""
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, step])))
        place_B = random.integers(self.ends_D[-1], size=count)
        document_B = self.ends_D.searchsorted(place_B, side="right")
        return self.shift_D[document_B] + place_B

    def batch(self, seed: int, step: int, count: int) -> tuple[Tensor, Tensor]:
        """Return x_BT and y_BT, int64: the inputs and targets of the sequences at `starts`."""
        start_B = self.starts(seed, step, count)
        sequence_BT = np.stack([self.ids_N[start : start + self.length + 1] for start in start_B]).astype(np.int64)
        sequence = torch.from_numpy(sequence_BT)
        return sequence[:, :-1].contiguous(), sequence[:, 1:].contiguous()
