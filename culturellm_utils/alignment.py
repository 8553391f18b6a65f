"""How close a model's answers are to people's: metrics, intervals, tests.

>>> emd([1, 0, 0, 0], [0, 0, 0, 1])          # opposite ends of an ordinal scale
1.0
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import jensenshannon
from statsmodels.stats.multitest import multipletests


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% bootstrap interval; ``n`` items in ``clusters`` independent groups."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


def js_similarity(p: Sequence[float], q: Sequence[float]) -> float:
    """1 - Jensen-Shannon distance (base 2): 1 for equal distributions, 0 for disjoint ones."""
    # Of equal distributions rounding may leave a root of a tiny negative number.
    return 1.0 if np.allclose(p, q) else float(1 - jensenshannon(p, q, base=2))


def emd(p: Sequence[float], q: Sequence[float]) -> float:
    """Earth mover's distance between two distributions over the same ordered options, divided by the scale's
    length (options - 1): 0 for equal, 1 for opposite ends."""
    difference = np.cumsum(np.asarray(p, float) - np.asarray(q, float))[:-1]
    return float(np.abs(difference).sum() / len(difference))


def bootstrap(values: Sequence[float], clusters: Sequence[Hashable], samples: int, seed: int) -> Estimate:
    """Mean of ``values`` with a 95% percentile interval that resamples whole ``clusters`` (the wordings of one
    question stand or fall together, so they are no independent evidence)."""
    totals, sizes = _by_cluster(values, clusters)
    chance = np.random.default_rng(seed)
    picks = chance.integers(0, len(totals), (samples, len(totals)))
    means = totals[picks].sum(1) / sizes[picks].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(totals.sum() / sizes.sum()), float(low), float(high), int(sizes.sum()), len(totals))


def paired_test(first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable], samples: int,
                seed: int) -> float:
    """Two-sided p-value of "no difference" between paired values: a permutation test that flips the sign of whole
    clusters' summed differences."""
    totals, _ = _by_cluster(np.asarray(first, float) - np.asarray(second, float), clusters)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (samples, len(totals)))
    extreme = np.abs(signs @ totals) >= abs(totals.sum()) - 1e-9
    return float((extreme.sum() + 1) / (samples + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several tests."""
    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def _by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and size of each cluster, in order of first appearance."""
    index = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    places = np.array([index[name] for name in clusters])
    return np.bincount(places, np.asarray(values, float)), np.bincount(places).astype(float)
