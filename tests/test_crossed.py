"""Intervals of crossed ratings: by hand, and whether they hold the truth in simulations."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culturellm_utils import crossed, power
from culturellm_utils.power import Components

SCALE = (1, 5)


def frame(table: np.ndarray) -> pd.DataFrame:
    """Ratings (raters, pairs) as rows; NaN where not rated."""
    raters, pairs = np.indices(np.shape(table))
    made = pd.DataFrame({"rater_id": [f"r{i}" for i in raters.ravel()], "pair_id": [f"p{i}" for i in pairs.ravel()],
                         "rating": np.ravel(table).astype(float)})
    return made.dropna().reset_index(drop=True)


def simulated(chance: np.random.Generator, raters: int, pairs: int, parts: Components, mean: float = 3.0) -> np.ndarray:
    """Ratings on a continuous scale, shape (raters, pairs); simulation, for tests alone."""
    return (mean + chance.normal(0, parts.rater**0.5, (raters, 1)) + chance.normal(0, parts.pair**0.5, (1, pairs))
            + chance.normal(0, parts.residual**0.5, (raters, pairs)))


def mean_squares(table: np.ndarray) -> Components:
    """Components of a complete table from the mean squares of a two-way analysis of variance."""
    raters, pairs = table.shape
    by_rater, by_pair = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    rest = ((table - by_rater - by_pair + table.mean()) ** 2).sum() / ((raters - 1) * (pairs - 1))
    return Components(by_pair.var(ddof=1) - rest / raters, by_rater.var(ddof=1) - rest / pairs, rest)


def test_components_of_a_complete_table_are_those_of_the_analysis_of_variance():
    table = simulated(np.random.default_rng(0), 8, 30, Components(0.3, 0.2, 0.4))
    found, expected = crossed.components(frame(table), "rating"), mean_squares(table)
    assert (found.pair, found.rater, found.residual) == pytest.approx(
        (expected.pair, expected.rater, expected.residual), rel=1e-3)


def test_a_variance_of_zero_is_found():
    found = crossed.components(frame(simulated(np.random.default_rng(3), 6, 40, Components(0.4, 0.0, 0.3))), "rating")
    assert found.rater < 0.02
    assert found.pair == pytest.approx(0.4, rel=0.5)


@pytest.mark.parametrize("table", [[[1, 2, 3]], [[1], [2]], [[3, 3], [3, 3]], [[1, np.nan], [np.nan, 2]]])
def test_components_that_cannot_be_told_apart(table):
    assert crossed.components(frame(np.array(table, dtype=float)), "rating") is None


def test_the_interval_of_few_raters_is_that_of_the_plan():
    table = simulated(np.random.default_rng(0), 5, 40, Components(0.3, 0.1, 0.4))
    found = crossed.mean(frame(table), "rating", (-1000, 1000), 200, 0)  # far ends: the logit is straight here
    assert found["method"] == "mixed model"
    assert found["value"] == pytest.approx(table.mean())
    half = power.half_width(mean_squares(table), 5, 40)
    assert (found["low"], found["high"]) == pytest.approx((table.mean() - half, table.mean() + half), rel=1e-3)


def test_a_rater_of_few_pairs_counts_for_little():
    made = frame(np.array([[1, 2, 3.0], [2, np.nan, np.nan]]))
    low, high = crossed._model_interval(made, 2.0, Components(0.0, 1.0, 0.0), (-1000, 1004))
    # raters alone vary: variance (3² + 1²) / 4², with one degree of freedom
    half = 12.7062 * (10 / 16) ** 0.5
    assert (low, high) == pytest.approx((2 - half, 2 + half), rel=1e-3)


def test_no_interval_leaves_the_scale():
    table = np.full((3, 12), 5.0)
    table[0, 0] = 1.0
    found = crossed.mean(frame(table), "rating", SCALE, 200, 0)
    assert found["method"] == "mixed model"
    assert 1 < found["low"] < found["value"] < found["high"] < 5


def test_many_raters_and_pairs_are_both_resampled():
    constant_by_rater = np.repeat(np.arange(1, 21)[:, None], 25, axis=1).astype(float)
    found = crossed.mean(frame(constant_by_rater), "rating", (1, 20), 4000, 0)
    assert found["method"] == "bootstrap over people and pairs"
    # raters alone vary: the standard error is their standard deviation (n) over the root of 20
    error = np.arange(1, 21).std() / 20**0.5
    assert found["low"] == pytest.approx(10.5 - 1.96 * error, abs=0.15)
    assert found["high"] == pytest.approx(10.5 + 1.96 * error, abs=0.15)
    fewer = simulated(np.random.default_rng(0), 20, 19, Components(0.3, 0.1, 0.4))
    assert crossed.mean(frame(fewer), "rating", SCALE, 200, 0)["method"] == "mixed model"


def test_raters_who_copy_each_other_are_resampled_where_the_model_has_no_rest_to_fit():
    copied = np.tile([5.0, 4, 1, 2, 5, 3], (3, 1))
    found = crossed.mean(frame(copied), "rating", SCALE, 500, 0)
    assert found["low"] < found["value"] < found["high"]


def test_one_rater_and_fixed_raters_are_resampled_by_pair():
    found = crossed.mean(frame(np.array([[2, 5.0]])), "rating", SCALE, 300, 0)
    assert found == {"value": 3.5, "low": 2.0, "high": 5.0, "method": "bootstrap over pairs"}
    table = frame(np.array([[2, 5.0], [2, 5.0]]))
    assert crossed.mean(table, "rating", SCALE, 300, 0, sampled=False) == found


@pytest.mark.parametrize("table", [[[4, 4, 4], [4, 4, 4]], [[4], [5]]])
def test_no_interval_where_nothing_varies_or_there_is_one_pair(table):
    found = crossed.mean(frame(np.array(table, dtype=float)), "rating", SCALE, 100, 0)
    assert (found["low"], found["high"], found["method"]) == (None, None, "none")


def test_a_rate_of_one_has_the_exact_interval_over_pairs():
    found = crossed.mean(frame(np.ones((3, 10))), "rating", (0, 1), 100, 0)
    assert (found["low"], found["high"]) == pytest.approx((0.025 ** (1 / 10), 1.0))
    found = crossed.mean(frame(np.zeros((1, 10))), "rating", (0, 1), 100, 0)
    assert (found["low"], found["high"]) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([1, 3, 5, 5, float("nan")]), min_size=4, max_size=4), min_size=1, max_size=5))
def test_any_ratings_get_a_mean_within_an_interval_on_the_scale(rows):
    table = np.array(rows, dtype=float)
    if np.isnan(table).all():
        return
    found = crossed.mean(frame(table), "rating", SCALE, 100, 0)
    assert found["value"] == pytest.approx(np.nanmean(table))
    assert found["low"] is None or 1 <= found["low"] <= found["value"] + 1e-9 <= found["high"] + 2e-9 <= 5 + 1e-8


@pytest.mark.parametrize(("raters", "pairs", "trials"), [(4, 25, 60), (24, 30, 120)])
def test_simulated_intervals_hold_the_truth(raters, pairs, trials):
    chance, held = np.random.default_rng(7), 0
    parts = Components(0.3, 0.15, 0.4)
    for trial in range(trials):
        found = crossed.mean(frame(simulated(chance, raters, pairs, parts)), "rating", SCALE, 300, trial)
        held += found["low"] <= 3.0 <= found["high"]
    assert held / trials >= 0.9


def test_an_interval_of_rows_taken_for_independent_would_be_too_narrow():
    table = simulated(np.random.default_rng(2), 6, 40, Components(0.3, 0.3, 0.3))
    found = crossed.mean(frame(table), "rating", SCALE, 200, 0)
    naive = 1.96 * table.std() / table.size**0.5
    assert found["high"] - found["low"] > 3 * 2 * naive


# drift

def test_drift_by_hand():
    rows = [("a", place, 3 + 0.02 * place) for place in range(1, 13)] + [("b", place, 3.0) for place in range(1, 13)]
    rows += [("c", place, 5 - place) for place in range(1, 4)]                        # too few pairs to count
    made = pd.DataFrame(rows, columns=["rater_id", "position", "rating"])
    found = crossed.drift(made, "rating")
    # slopes of 0.2 and 0 per 10 pairs: mean 0.1, standard error 0.1, t(1) = 12.706
    assert (found["value"], found["low"], found["high"]) == pytest.approx((0.1, 0.1 - 1.2706, 0.1 + 1.2706), abs=1e-4)


def test_no_drift_without_the_order_or_a_second_rater():
    one = pd.DataFrame({"rater_id": "a", "position": range(1, 13), "rating": 3})
    assert crossed.drift(one, "rating") is None
    assert crossed.drift(pd.concat([one, one.assign(rater_id="b", position=None)]), "rating") is None


def test_simulated_drift_intervals_hold_the_truth():
    chance, held, trials = np.random.default_rng(3), 0, 100
    for _ in range(trials):
        table = simulated(chance, 5, 30, Components(0.3, 0.1, 0.4))
        made = frame(table)
        made["position"] = np.concatenate([chance.permutation(30) + 1 for _ in range(5)])
        slopes = np.repeat(chance.normal(-0.02, 0.005, 5), 30)                        # each rater's own
        made["rating"] += slopes * made["position"]
        found = crossed.drift(made, "rating")
        held += found["low"] <= -0.2 <= found["high"]
    assert held / trials >= 0.9
