"""No positions at all (NoPE): the causal mask alone tells order. Haviv et al. 2022, arXiv 2203.16634."""

from posexp.schemes import Scheme


class NoPositions(Scheme):
    relative = True
    reads_positions = False
