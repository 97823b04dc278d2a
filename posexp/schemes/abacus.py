"""Abacus embeddings: the places of digits. McLeish et al. 2024, arXiv 2405.17399, section 3.

Formula: x_t + e_p, with a trained vector e_p for every place p
    p = s + 1 for the first digit of a number, s + 2 for the next, ..; 0 for all other tokens
    s is drawn from 0 .. max_start for each sequence of training, and 0 at evaluation
Shape suffixes: B batch, T tokens, D width of the residual stream, P places.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import EMBEDDING_STD, Scheme
from posexp.windows import at_least


def count_since(marked_BT: Tensor) -> Tensor:
    """Return the number of tokens since the last marked one, [B, T]: 0 at a mark, and 1, 2, .. before the first."""
    number_T = torch.arange(1, marked_BT.shape[1] + 1, device=marked_BT.device)
    return number_T - (number_T * marked_BT).cummax(dim=1).values


class Abacus(Scheme):
    """A trained vector for the place of every digit in its number, for text of single bytes (data.tokenizer=bytes).

    Numbers must begin with their lowest digit, as those of data=addition do, so that equal places have equal value. The
    random `max_start` trains places beyond the longest number of training, by that many digits. The authors draw one
    start for each batch; here every sequence has its own. A sequence of training may begin inside a number, whose
    digits are then counted from there.

    The table has `entries` places, and text is at most that long. Raises Misuse if places of training do not fit.
    """

    reads_text = True

    def __init__(self, dims: Dims, entries: int, max_start: int):
        super().__init__(dims)
        self.max_start = at_least("scheme.max_start", max_start, 0)
        if entries < dims.train_length + max_start + 2:  # a sequence may be a single number
            fewest = dims.train_length + max_start + 2
            raise Misuse(f"scheme.entries={entries} must be at least {fewest}: train.length + scheme.max_start + 2")
        self.max_length = entries - 2
        self.table_PD = nn.Parameter(torch.randn(entries, dims.d_model) * EMBEDDING_STD)

    def positions_of(self, tokens_BT: Tensor) -> Tensor:
        place_BT = self.places(tokens_BT)
        if not self.training:
            return place_BT
        start_B1 = torch.randint(self.max_start + 1, (len(tokens_BT), 1), device=tokens_BT.device)
        return torch.where(place_BT > 0, place_BT + start_B1, 0)

    def places(self, tokens_BT: Tensor) -> Tensor:
        """Return the places of bytes, int64 [B, T]: from 1 on for those that have one, and 0 for the others."""
        return count_since((tokens_BT < ord("0")) | (tokens_BT > ord("9")))

    def embed(self, x_BTD: Tensor, pos_BT: Tensor) -> Tensor:
        return x_BTD + F.embedding(pos_BT, self.table_PD).type_as(x_BTD) / EMBEDDING_STD

    def extra_repr(self) -> str:
        return f"entries={len(self.table_PD)}, max_start={self.max_start}"
