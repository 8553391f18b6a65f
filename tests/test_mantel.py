"""Mantel's test on published examples, on permutations written out, and by what must hold for any distances."""

from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr

from culturellm_utils import mantel

#: The worked example of the package `mantel` (README): genetic and geographical distances of four species.
GENETIC = squareform([0.2, 0.4, 0.3, 0.6, 0.9, 0.4])
GEOGRAPHICAL = squareform([0.3, 0.3, 0.2, 0.7, 0.8, 0.3])


def found(first, second, method="pearson", samples=2000, seed=0):
    return mantel.test(np.asarray(first, float), np.asarray(second, float), method, samples, seed)


def distances(k):
    """Symmetric matrices of whole numbers."""
    count = k * (k - 1) // 2
    return st.lists(st.integers(0, 20), min_size=count, max_size=count).map(lambda row: squareform(np.array(row) * 1.0))


def test_scikit_bios_example():
    """skbio.stats.distance.mantel: r = 0.7559. Centred, (-1, 0, 1) times the six orders of (-3, 2, 1) is 4, 5, -1,
    -5, 1, -4: four are as far from 0 as the 4 observed."""
    test = found([[0, 1, 2], [1, 0, 3], [2, 3, 0]], [[0, 2, 7], [2, 0, 6], [7, 6, 0]])
    assert test.r == pytest.approx(0.7559, abs=5e-5)
    assert test.p == pytest.approx(4 / 6)
    assert (test.permutations, test.exact) == (6, True)


def test_the_example_of_the_package_mantel():
    """Its r is 0.9148936, and the identity alone of 24 orders reaches it; none is as far below 0."""
    test = found(GENETIC, GEOGRAPHICAL)
    assert test.r == pytest.approx(0.9148936170212766)
    assert test.p == pytest.approx(1 / 24)


@pytest.mark.parametrize("method", mantel.METHODS)
def test_orders_are_those_of_whole_cultures(method):
    """Against every order written out, five cultures."""
    chance = np.random.default_rng(3)
    first, second = (squareform(chance.integers(0, 9, 10).astype(float)) for _ in range(2))
    def correlate(moved):
        pairs = squareform(first), squareform(moved)
        return spearmanr(*pairs).statistic if method == "spearman" else np.corrcoef(*pairs)[0, 1]
    all_r = [correlate(second[np.ix_(order, order)]) for order in permutations(range(5))]
    test = found(first, second, method)
    assert test.r == pytest.approx(all_r[0])
    assert test.p == pytest.approx(np.mean(np.abs(all_r) >= abs(all_r[0]) - 1e-9))


def test_beyond_nine_cultures_a_sample_is_drawn():
    line = np.abs(np.subtract.outer(np.arange(10.0), np.arange(10.0)))
    test = found(line, line, samples=199)
    assert (test.permutations, test.exact) == (199, False)
    assert test.p == pytest.approx(1 / 200)
    assert found(line, np.sqrt(line), samples=50) == found(line, np.sqrt(line), samples=50)


def test_two_cultures_or_equal_distances_have_no_correlation():
    for first, second in (([[0, 1], [1, 0]], [[0, 2], [2, 0]]), (0.1 * (1 - np.eye(4)), GENETIC)):
        test = found(first, second)
        assert np.isnan(test.r)
        assert np.isnan(test.p)
        assert test.permutations == 0


def test_a_pair_without_distance_has_no_correlation():
    holed = GENETIC.copy()
    holed[0, 1] = holed[1, 0] = np.nan
    for method in mantel.METHODS:
        assert np.isnan(found(holed, GEOGRAPHICAL, method).r)


@given(distances(5), distances(5), st.permutations(range(5)), st.sampled_from(mantel.METHODS))
def test_names_and_units_do_not_matter(first, second, order, method):
    test = found(first, second, method)
    renamed = [square[np.ix_(order, order)] for square in (first, second)]
    for again in (found(second, first, method), found(*renamed, method), found(3 * first, second, method)):
        np.testing.assert_allclose([again.r, again.p], [test.r, test.p], atol=1e-12)  # r may be 0 but for rounding
    if not np.isnan(test.r):
        assert -1 - 1e-9 <= test.r <= 1 + 1e-9
        assert 1 / factorial(5) <= test.p <= 1


@given(distances(4))
def test_distances_go_with_themselves(square):
    test = found(square, square)
    assert np.isnan(test.r) == (np.ptp(squareform(square)) == 0)
    assert np.isnan(test.r) or test.r == pytest.approx(1)


def row(r, p, figure="loss", method="pearson"):
    return {"figure": figure, "against": "distance", "method": method, "r": r, "low": r - 0.1, "high": r + 0.1,
            "p": p, "p_holm": p}


def test_the_verdict_in_words():
    said = {name: mantel.verdict(pd.DataFrame([row(0.2, 0.9, method="spearman"), one]), "loss", "distance")
            for name, one in {"grows": row(0.8, 0.0004), "falls": row(-0.8, 0.02), "chance": row(0.5, 0.05),
                              "few": row(0.5, np.nan), "none": row(np.nan, np.nan)}.items()}
    assert said["grows"] == ("grows with", "Mantel r = 0.80 [0.70, 0.90], p < 0.001")
    assert said["falls"] == ("falls with", "Mantel r = -0.80 [-0.90, -0.70], p = 0.02")
    assert said["chance"] == ("has no relation beyond chance to", "Mantel r = 0.50 [0.40, 0.60], p = 0.05")
    assert said["few"] == ("cannot be tested against", "Mantel r = 0.50 [0.40, 0.60]; a test needs 5 cultures")
    assert said["none"][0] == "cannot be held against"
    assert mantel.verdict(pd.DataFrame([row(0.8, 0.01)]), "other", "distance")[0] == "cannot be held against"
