"""A learned bias for each bucket of distances (T5). Raffel et al. 2020, arXiv 1910.10683, section 2.1.

Formula: z(m, n) = q_m·k_n / √C + table_scale table[bucket(d), h], with E = buckets / 2
    bucket(d) = d for d < E; otherwise
    min(buckets - 1, E + floor(E log(d / E) / log(max_distance / E)))
Shape suffixes: U buckets, H heads, N distances.
"""

from bisect import bisect_left

import torch
from torch import Tensor, nn

from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme
from posexp.windows import at_least


def t5_edges(buckets: int, max_distance: int) -> list[int]:
    """Return the shortest distance, in tokens, of every bucket but the first.

    The first half of the buckets, E of them, hold one distance each. The other R share those up to `max_distance`:
    bucket E + j begins where log(distance / E) / log(max_distance / E) * R reaches j.
    """
    exact, rest = buckets // 2, buckets - buckets // 2
    # The same in whole numbers, distance^R >= E^(R - j) * max_distance^j: a logarithm's rounding would move some edges.
    logarithmic = [
        bisect_left(range(max_distance), exact ** (rest - j) * max_distance**j, key=lambda distance: distance**rest)
        for j in range(1, rest)
    ]
    return [*range(1, exact + 1), *logarithmic]


def bucketed(gap_N: Tensor, edges: list[int]) -> Tensor:
    """Return the bucket of each distance (0 and up, in tokens), int64, as in a causal T5."""
    return torch.bucketize(gap_N, torch.tensor(edges, device=gap_N.device), right=True)


class T5(Scheme):
    """A bias table_scale * table_UH[bucket of the distance, head], with one table for all blocks.

    With 32 buckets and a `max_distance` of 128, the last bucket holds all distances from 113 on. Here q.k is scaled by
    C^-0.5 as in every scheme, whereas T5 draws smaller projections instead. A `table_scale` of None is sqrt(C),
    the factor of lucidrains/x-transformers: AdamW moves an entry by about the learning rate per step, so a short
    training could not reach a bias of several nats without a factor. The initial biases do not depend on it. Raises
    Misuse for fewer than two buckets, a `table_scale` that is not positive, or unless `max_distance` is above all
    distances with a bucket of their own.
    """

    relative = True

    def __init__(self, dims: Dims, buckets: int, max_distance: int, table_scale: float | None = None):
        super().__init__(dims)
        self.buckets = at_least("scheme.buckets", buckets, 2)
        if max_distance <= buckets // 2:
            raise Misuse(
                f"scheme.max_distance={max_distance} must be above {buckets // 2}: half of the {buckets} buckets hold "
                "one distance each"
            )
        if table_scale is not None and not table_scale > 0:
            raise Misuse(f"scheme.table_scale={table_scale} must be above 0, or null for sqrt(C)")
        self.max_distance = max_distance
        self.edges = t5_edges(buckets, max_distance)
        self.table_scale = table_scale
        scale_squared = dims.head_dim if table_scale is None else table_scale**2
        self.factor = scale_squared**0.5
        # The initial biases are those of T5's own code, small beside logits of about 1.
        self.table_UH = nn.Parameter(torch.randn(buckets, dims.n_head) * (dims.d_model * scale_squared) ** -0.5)

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        return self.factor * self.table_UH[bucketed(gap_N, self.edges)].T

    def notes(self) -> list[str]:
        length, last = self.dims.train_length, self.edges[-1]
        if 4 * self.max_distance == length:
            return []
        share = max(0, length - last) / length
        return [
            f"T5's max_distance={self.max_distance} belongs to a training length of {4 * self.max_distance} (T5: 128 "
            f"at 512), and this one is {length}: the last bucket has {share:.0%} of its distances"
        ]
