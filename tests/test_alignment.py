"""Metrics, intervals and tests: worked by hand, by property, and on simulated data."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from culturellm_utils.alignment import bootstrap, emd, holm, js_similarity, paired_test

COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=10)


def shares(counts):
    assume(sum(counts))
    return [count / sum(counts) for count in counts]


# Distances

@pytest.mark.parametrize(("p", "q", "expected"), [
    ([1, 0, 0, 0], [0, 0, 0, 1], 1.0),
    ([1, 0, 0, 0], [0, 1, 0, 0], 1 / 3),
    ([0.5, 0.5], [1, 0], 0.5),
    ([0.2, 0.3, 0.5], [0.5, 0.3, 0.2], 0.3),  # three tenths go two steps of a scale two steps long
    ([0.5, 0, 0.5], [0, 1, 0], 0.5),
    ([0.25] * 4, [0.25] * 4, 0.0),
])
def test_emd_by_hand(p, q, expected):
    assert emd(p, q) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("p", "q", "expected"), [
    ([1, 0], [0, 1], 0.0),
    ([0.3, 0.7], [0.3, 0.7], 1.0),
    # middle (3/4, 1/4): (log2 4/3 + (log2 2/3 + log2 2) / 2) / 2 = 0.311278 bits
    ([1, 0], [0.5, 0.5], 1 - 0.311278**0.5),
])
def test_js_similarity_by_hand(p, q, expected):
    assert js_similarity(p, q) == pytest.approx(expected, abs=1e-5)


@given(st.data(), COUNTS)
def test_distances_are_symmetric_bounded_and_zero_for_equal(data, counts):
    p = shares(counts)
    q = shares(data.draw(st.lists(st.integers(0, 1000), min_size=len(p), max_size=len(p))))
    assert 0 <= emd(p, q) <= 1 + 1e-12
    assert 0 <= js_similarity(p, q) <= 1
    assert emd(p, q) == pytest.approx(emd(q, p), abs=1e-12)
    assert js_similarity(p, q) == pytest.approx(js_similarity(q, p), abs=1e-7)
    assert emd(p, p) == 0
    assert js_similarity(p, p) == pytest.approx(1, abs=1e-7)
    assert emd(p, q) == pytest.approx(emd(p[::-1], q[::-1]), abs=1e-12)  # a scale may be shown from either end


@given(st.data(), COUNTS)
def test_emd_obeys_the_triangle(data, counts):
    same_length = st.lists(st.integers(0, 1000), min_size=len(counts), max_size=len(counts))
    p, q, r = shares(counts), shares(data.draw(same_length)), shares(data.draw(same_length))
    assert emd(p, r) <= emd(p, q) + emd(q, r) + 1e-12


@pytest.mark.parametrize("p", [[0.0, 0.0], [float("nan"), 1.0]])
def test_what_is_no_distribution_is_not_called_alike(p):
    with np.errstate(invalid="ignore"):
        assert np.isnan(js_similarity(p, [0.5, 0.5]))


# Intervals

def test_bootstrap_by_hand():
    found = bootstrap([1, 0, 1, 1], ["a", "a", "b", "c"], samples=1000, seed=0)
    assert (found.value, found.n, found.clusters) == (0.75, 4, 3)
    assert (found.low, found.high) == (0.5, 1.0)  # all three draws cluster a, or none


def test_bootstrap_is_the_same_twice_and_ignores_the_order_of_clusters():
    chance = np.random.default_rng(1)
    values, clusters = chance.random(60), np.repeat(np.arange(20), 3)
    assert bootstrap(values, clusters, 500, seed=3) == bootstrap(values, clusters, 500, seed=3)
    assert bootstrap(values, clusters, 500, seed=3) != bootstrap(values, clusters, 500, seed=4)
    renamed = [f"Q{cluster}" for cluster in clusters]
    assert bootstrap(values, renamed, 500, seed=3) == bootstrap(values, clusters, 500, seed=3)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_an_interval_lies_around_the_mean_within_the_values(rows):
    values, clusters = zip(*rows, strict=True)
    found = bootstrap(values, clusters, samples=200, seed=0)
    assert found.value == pytest.approx(np.mean(values), abs=1e-12)
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12


def test_one_cluster_has_no_width():
    found = bootstrap([0.0, 1.0, 1.0], ["Q1"] * 3, samples=100, seed=0)
    assert found.low == found.value == found.high == pytest.approx(2 / 3)


def simulate(chance, clusters=40, each=5, between=1.0):
    """Values whose clusters differ (true mean 0), with their cluster numbers."""
    values = np.repeat(chance.normal(0, between, clusters), each) + chance.normal(0, 1, clusters * each)
    return values, np.repeat(np.arange(clusters), each)


def test_intervals_cover_the_truth_at_about_the_stated_rate():
    chance = np.random.default_rng(0)
    found = [bootstrap(*simulate(chance), samples=400, seed=i) for i in range(400)]
    covered = np.mean([row.low <= 0 <= row.high for row in found])
    assert 0.91 < covered < 0.975  # of 400 with 40 clusters: nominal 0.95, a little less for percentiles


def test_ignoring_clusters_would_claim_too_much():
    values, clusters = simulate(np.random.default_rng(0))
    grouped = bootstrap(values, clusters, 2000, seed=0)
    alone = bootstrap(values, range(len(values)), 2000, seed=0)
    # variance of the mean: (1 + 1/5) / 40 against 2 / 200, so about 1.7 times as wide
    assert 1.4 < (grouped.high - grouped.low) / (alone.high - alone.low) < 2.1
    assert grouped.value == pytest.approx(alone.value)


# Tests

def test_paired_test_by_hand():
    """Three clusters' differences 1, 1, 1: of the eight sign patterns only two are as extreme."""
    p = paired_test([1, 1, 1], [0, 0, 0], ["a", "b", "c"], samples=20000, seed=0)
    assert p == pytest.approx(2 / 8, abs=0.01)


def test_paired_test_flips_whole_clusters():
    """Six values in two clusters: all four patterns are (±3, ±3), half of them as extreme."""
    p = paired_test([1] * 6, [0] * 6, ["a"] * 3 + ["b"] * 3, samples=20000, seed=0)
    assert p == pytest.approx(0.5, abs=0.01)


def test_equal_values_show_no_difference_and_no_p_value_is_zero():
    assert paired_test([0.4, 0.2], [0.4, 0.2], ["a", "b"], samples=99, seed=0) == 1
    assert paired_test(np.ones(40), np.zeros(40), range(40), samples=99, seed=0) == pytest.approx(1 / 100)


def test_paired_test_is_two_sided_and_the_same_twice():
    chance = np.random.default_rng(2)
    first, second, clusters = chance.random(30), chance.random(30), np.repeat(np.arange(10), 3)
    p = paired_test(first, second, clusters, 500, seed=1)
    assert p == paired_test(second, first, clusters, 500, seed=1) == paired_test(first, second, clusters, 500, seed=1)


def test_p_values_are_uniform_when_there_is_no_difference():
    chance = np.random.default_rng(0)
    p = np.array([paired_test(simulate(chance, 20, 2)[0], np.zeros(40), np.repeat(np.arange(20), 2), 199, seed=i)
                  for i in range(600)])
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * (level * (1 - level) / 600) ** 0.5)


def test_holm_on_a_worked_example():
    """Four tests, 0.01 0.04 0.03 0.005: times 4, 3, 2, 1 from the smallest, never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=10)  # statsmodels takes a tenth of a second a call
def test_holm_lies_between_the_p_value_and_one_and_keeps_the_order(p_values):
    corrected = np.array(holm(p_values))
    assert (corrected >= np.array(p_values) - 1e-12).all()
    assert (corrected <= 1).all()
    assert corrected.min() == pytest.approx(min(1, min(p_values) * len(p_values)))
    assert (np.diff(corrected[np.argsort(p_values)]) >= 0).all()
