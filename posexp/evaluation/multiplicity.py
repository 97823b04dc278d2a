"""Corrections of p for several tests.

Shape suffixes: L tests, R draws, F degrees of freedom.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from posexp.evaluation.statistics import Estimate, changes, estimate

DRAWS = 10_000
MOST_DF = 30  # with more degrees of freedom t is practically normal


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust each p but None so that 0.05 bounds the chance of any false finding among them (Holm 1979)."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for behind, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - behind)))
        adjusted[index] = largest
    return adjusted


def joint(found: Sequence[Estimate], samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Adjust the p of estimates of one contrast at several lengths so that 0.05 bounds the chance of any false finding.

    The estimates have p, and their samples (sums [S, D], counts [D]) the same seeds and documents. This is the
    step-down max-T of Westfall and Young (1993): each p becomes the probability that any |t| of the lengths not yet
    rejected is as large, if none has a difference. The distribution of the t values is drawn, with their correlation,
    from a fixed seed. Nearly equal lengths cost almost nothing. An adjusted p is never below p or above that of `holm`.
    """
    from scipy import special

    p_values = np.array([one.p for one in found], dtype=np.float64)
    bounds = np.array(holm([one.p for one in found]), dtype=np.float64)
    if len(found) < 2:
        return [float(p) for p in p_values]
    df = min(max(1, math.floor(min(one.df for one in found))), MOST_DF)
    normal_FRL = normals(df + 1, len(found)) @ square_root(correlation(samples)).T
    t_RL = np.abs(normal_FRL[0]) / np.sqrt((normal_FRL[1:] ** 2).mean(axis=0))
    least_L = special.stdtrit(df, 1 - p_values / 2)
    order = np.argsort(p_values, kind="stable")
    adjusted = p_values.copy()
    largest = 0.0
    for behind, index in enumerate(order):
        exceeds = float((t_RL[:, order[behind:]].max(axis=1) >= least_L[index]).mean())
        largest = max(largest, min(max(exceeds, p_values[index]), bounds[index]))
        adjusted[index] = largest
    return [float(p) for p in adjusted]


def correlation(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the correlation [L, L] of the estimates of samples with the same seeds and documents.

    It is that of the changes of the mean without each seed and each document. Few seeds correlate by chance, so the
    square of each correlation is reduced by what unrelated lengths would have (as adjusted R²), to 0 at the least.
    """
    vectors = []
    for sample in samples:
        _, change_S, change_D, _, _ = changes(*sample)
        weighted = [change * math.sqrt((len(change) - 1) / len(change)) for change in (change_S, change_D)]
        vectors.append(np.concatenate(weighted))
    vector_L = np.stack(vectors)
    norm_L = np.linalg.norm(vector_L, axis=1)
    cosine_LL = vector_L @ vector_L.T / np.outer(norm_L, norm_L).clip(min=np.finfo(float).tiny)
    chance = 1 / max(1.0, min(estimate(*sample).df for sample in samples))
    reduced_LL: np.ndarray = np.sign(cosine_LL) * ((cosine_LL**2 - chance) / max(1 - chance, 1e-9)).clip(0, 1) ** 0.5
    np.fill_diagonal(reduced_LL, 1)
    return reduced_LL


def square_root(correlation_LL: np.ndarray) -> np.ndarray:
    """Return F [L, L] with F F' the nearest correlation to one that may have negative eigenvalues."""
    values_L, vector_LL = np.linalg.eigh(correlation_LL)
    factor_LL = vector_LL * np.sqrt(values_L.clip(min=0))
    return np.asarray(factor_LL / np.linalg.norm(factor_LL, axis=1, keepdims=True))


@lru_cache
def normals(count: int, lengths: int) -> np.ndarray:
    """Return standard normal draws [count, DRAWS, lengths] from a fixed seed."""
    return np.random.default_rng(0).standard_normal((count, DRAWS, lengths))
