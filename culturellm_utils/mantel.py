"""Mantel's test: do two matrices of distances between the same cultures go together? (N. Mantel, The detection of
disease clustering and a generalized regression approach, Cancer Research 27, 1967, 209-220.)

Pairs of k cultures are no independent evidence, each culture being in k - 1 of them: so whole cultures are permuted.

>>> test(geography, opinions, "pearson", samples=20_000, seed=0)
Mantel(r=0.61, p=0.0042, permutations=362880, exact=True)
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from culturellm_utils import alignment

Method = Literal["pearson", "spearman"]
METHODS: tuple[Method, ...] = ("pearson", "spearman")
#: Four cultures can be put in 24 orders: a p-value of 1/24 is lost to the correction over several tests.
FEWEST = 5


@dataclass(frozen=True)
class Mantel:
    """Correlation of two distance matrices; two-sided ``p`` from ``permutations``, all that there are when
    ``exact``."""

    r: float
    p: float
    permutations: int
    exact: bool


def test(first: np.ndarray, second: np.ndarray, method: Method, samples: int, seed: int) -> Mantel:
    """Mantel's test: do two symmetric (k, k) matrices of distances between the same cultures go together?

    The p-value is the share of ways to reorder the cultures of ``second``, rows and columns together, whose correlation
    is as far from 0: of all for up to nine cultures, else of ``samples`` random ones. Both are NaN for fewer than three
    cultures, and where all distances of a matrix are equal.
    """
    rows, columns = np.triu_indices(len(first), 1)
    r = correlations(first[None], second[None], method)[0]
    if np.isnan(r):
        return Mantel(float("nan"), float("nan"), 0, False)
    orders, exact = alignment.assignments(len(first), samples, seed)
    x, y = (_centred(square[rows, columns][None], method)[0] for square in (first, second))
    moved = np.zeros((len(first), len(first)))
    moved[rows, columns] = moved[columns, rows] = y
    products = sum(x[n] * moved[orders[:, i], orders[:, j]] for n, (i, j) in enumerate(zip(rows, columns, strict=True)))
    extreme = np.abs(products) >= abs(x @ y) * (1 - 1e-9)  # ties that rounding parts are ties
    return Mantel(float(r), alignment.p_value(extreme, exact), len(orders), exact)


def correlations(first: np.ndarray, second: np.ndarray, method: Method) -> np.ndarray:
    """Correlation over the pairs of cultures of each of two stacks of symmetric matrices (samples, k, k)."""
    rows, columns = np.triu_indices(first.shape[-1], 1)
    x, y = (_centred(stack[:, rows, columns], method) for stack in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.where(np.isfinite(r), r, np.nan)


def _centred(pairs: np.ndarray, method: Method) -> np.ndarray:
    """Values, or their ranks, less their mean; exactly 0 where all are equal."""
    values = rankdata(pairs, axis=1, nan_policy="propagate") if method == "spearman" else pairs
    centred = values - values.mean(1, keepdims=True)
    return np.where(np.ptp(values, axis=1, keepdims=True) < 1e-12, 0, centred)


def verdict(table: pd.DataFrame, figure: str, against: str) -> tuple[str, str]:
    """What a table of tests (``transfer.relations``) says by Pearson's correlation: in words that stand between
    ``figure`` and ``against``, and in numbers."""
    rows = table[(table["figure"] == figure) & (table["against"] == against) & (table["method"] == "pearson")]
    if rows.empty or np.isnan(rows["r"].iloc[0]):
        return "cannot be held against", "too few cultures, or no differences"
    row = rows.iloc[0]
    numbers = f"Mantel r = {row['r']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    if np.isnan(row["p_holm"]):
        return "cannot be tested against", f"{numbers}; a test needs {FEWEST} cultures"
    words = "grows with" if row["r"] > 0 else "falls with"
    p = f"p = {row['p_holm']:.2g}" if row["p_holm"] >= 0.001 else "p < 0.001"
    return words if row["p_holm"] < 0.05 else "has no relation beyond chance to", f"{numbers}, {p}"
