"""How many raters and pairs: formulas by hand, and against simulated studies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from culturellm_utils import power
from culturellm_utils.errors import UserError
from culturellm_utils.power import Components

PARTS = power.assumed(sd=0.9, pair_share=0.3, rater_share=0.1)
shares = st.floats(0, 0.45)


def simulated(chance: np.random.Generator, studies: int, parts: Components, raters: int, pairs: int) -> np.ndarray:
    """Ratings of many studies around 0, shape (studies, raters, pairs); simulation, for tests alone."""
    return sum(chance.normal(0, variance**0.5, (studies, *shape)) for variance, shape in (
        (parts.rater, (raters, 1)), (parts.pair, (1, pairs)), (parts.residual, (raters, pairs))))


def test_components_by_hand():
    assert (PARTS.pair, PARTS.rater, PARTS.residual) == pytest.approx((0.243, 0.081, 0.486))
    assert PARTS.total == pytest.approx(0.81)
    assert power.assumed_pass(0.9, 0.3, 0.1).total == pytest.approx(0.09)


@pytest.mark.parametrize(("pair", "rater"), [(0.5, 0.5), (0.9, 0.2)])
def test_shares_that_leave_nothing_to_chance_are_refused(pair, rater):
    with pytest.raises(UserError, match="sum to less than 1"):
        power.assumed(1.0, pair, rater)


def test_the_half_width_by_hand():
    parts = Components(pair=4, rater=1, residual=2)
    # 4/8 + 1/2 + 2/16 = 1.125; mean squares: pairs 2·4 + 2 = 10, raters 8·1 + 2 = 10, rest 2; (10 + 10 - 2)² over
    # 100/7 + 100/1 + 4/7 = 804/7
    assert power.standard_error(parts, 2, 8) == pytest.approx(1.125**0.5)
    assert power.degrees_of_freedom(parts, 2, 8) == pytest.approx(324 * 7 / 804)
    assert power.half_width(parts, 2, 8) == pytest.approx(stats.t.ppf(0.975, 324 * 7 / 804) * 1.125**0.5)


def test_without_raters_variance_it_is_the_t_interval_over_pairs():
    parts = Components(pair=1, rater=0, residual=1e-12)
    assert power.half_width(parts, 10, 25) == pytest.approx(stats.t.ppf(0.975, 24) / 5, rel=1e-6)


@pytest.mark.parametrize(("raters", "pairs"), [(4, 30), (10, 10)])
def test_simulated_intervals_of_the_planned_width_hold_the_truth(raters, pairs):
    means = simulated(np.random.default_rng(0), 4000, PARTS, raters, pairs).mean(axis=(1, 2))
    assert means.std() == pytest.approx(power.standard_error(PARTS, raters, pairs), rel=0.04)
    assert (abs(means) <= power.half_width(PARTS, raters, pairs)).mean() >= 0.945


@pytest.mark.parametrize("difference", [0.0, 0.2, 0.4])
def test_simulated_studies_find_a_difference_as_often_as_the_formula_says(difference):
    chance, studies = np.random.default_rng(1), 4000
    both = simulated(chance, studies, PARTS, 6, 60).mean(axis=1)           # the means of pairs, by the same raters
    found = stats.ttest_ind(both[:, :30] + difference, both[:, 30:], axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(power.power(PARTS, difference, 6, 30), abs=0.025)


@given(shares, shares, st.integers(2, 60), st.integers(2, 200))
def test_more_pairs_of_many_raters_never_make_the_error_larger(pair, rater, raters, pairs):
    parts = power.assumed(1.0, pair, rater)
    assert power.standard_error(parts, raters, pairs + 1) <= power.standard_error(parts, raters, pairs)
    assert power.standard_error(parts, raters + 1, pairs) <= power.standard_error(parts, raters, pairs)
    assert 1 <= power.degrees_of_freedom(parts, raters, pairs) <= raters + pairs - 2 + (raters - 1) * (pairs - 1)
    assert 0.05 - 1e-9 <= power.power(parts, 0.3, raters, pairs) <= 1


@pytest.mark.parametrize("pairs", [50, 100])
def test_the_fewest_raters_are_enough_and_one_fewer_is_not(pairs):
    raters = power.fewest_raters(PARTS, 0.2, pairs)
    assert power.half_width(PARTS, raters, pairs) <= 0.2 < power.half_width(PARTS, raters - 1, pairs)
    assert power.sentence(PARTS, 0.2, pairs) == f"{pairs} pairs need {raters} raters for a mean within ±0.2."


def test_too_few_pairs_cannot_be_made_up_for_by_raters():
    assert power.fewest_raters(PARTS, 0.05, 20) is None
    assert power.sentence(PARTS, 0.05, 20).startswith("20 pairs are too few for a mean within ±0.05: with 200 raters")


def test_a_row_a_design():
    table = power.table(PARTS, power.assumed_pass(0.9, 0.3, 0.1), 0.3, raters=(5, 10), pairs=(50, 100))
    assert table[["raters", "pairs", "ratings"]].values.tolist() == [[5, 50, 250], [10, 50, 500], [5, 100, 500],
                                                                     [10, 100, 1000]]
    assert table["half_width_mean"][3] == power.half_width(PARTS, 10, 100)
    assert table["half_width_pass_rate"][3] == pytest.approx(table["half_width_mean"][3] / 3)   # sd 0.3 against 0.9
    assert table["power"][0] == power.power(PARTS, 0.3, 5, 50)
