"""Position coupling: equal positions for digits of equal value. Cho et al. 2024, arXiv 2405.20671, section 3.

Formula: x_t + e_p, with a trained vector e_p for every position p
    p = s + 1 for a separator (+, = or >), s + 2 for the next token, s + 3, .. up to the next separator or line end
    s is drawn from 0 .. max_start for each sequence of training, and 0 at evaluation; p = 0 for a line end
Shape suffixes: B batch, T tokens.
"""

import torch
from torch import Tensor

from posexp.schemes.abacus import Abacus, count_since

LINE_END = ord("\n")


class Coupling(Abacus):
    """A trained vector for every position, counted anew in each part of a task, for text of single bytes.

    In data=addition, whose numbers begin with their lowest digit, the digits of one value in both numbers and the sum
    have one position, as in HanseulJo/position-coupling, src/data/addition.py (AdditionDatasetWithCoupledPositions with
    reversed numbers). In data=copy a letter and its copy do. Text without separators is counted in lines.
    """

    def places(self, tokens_BT: Tensor) -> Tensor:
        ends_BT = tokens_BT == LINE_END
        separates_BT = sum((tokens_BT == ord(mark) for mark in "+=>"), ends_BT)
        return torch.where(ends_BT, 0, 1 + count_since(separates_BT))
