"""No positions at all (NoPE): the causal mask alone tells order. Haviv et al. 2022, arXiv 2203.16634.

Formula: z(m, n) = q_m·k_n / √C
"""

from posexp.schemes import Scheme


class NoPositions(Scheme):
    relative = True
    reads_positions = False
