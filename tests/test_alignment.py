"""Metrics, intervals, tests, ceiling and collapse: worked by hand, by property, and on simulated data."""

from itertools import pairwise
from math import factorial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from culturellm_utils import alignment
from culturellm_utils.alignment import (
    bootstrap,
    ceiling,
    collapse,
    difference,
    emd,
    holm,
    js_similarity,
    paired_test,
    pooled,
    respondents,
    split_half,
)
from culturellm_utils.errors import UserError
from culturellm_utils.records import Seed

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


@pytest.mark.parametrize("block", [1, 7, 100])
def test_resampling_in_portions_changes_nothing(block, monkeypatch):
    values, clusters = simulate(np.random.default_rng(3), clusters=10)
    whole = bootstrap(values, clusters, 300, seed=5), paired_test(values, 0 * values, clusters, 300, seed=5)
    monkeypatch.setattr(alignment, "_BLOCK", block)
    assert whole == (bootstrap(values, clusters, 300, seed=5), paired_test(values, 0 * values, clusters, 300, seed=5))


def test_a_difference_by_hand():
    """Clusters' differences: a 1 + 0 of two, b -1 of one; their mean is 0, and b alone or a alone are the ends."""
    found = difference([1, 0.5, 0], [0, 0.5, 1], ["a", "a", "b"], samples=1000, seed=0)
    assert (found.value, found.low, found.high, found.n, found.clusters) == (0, -1, 0.5, 3, 2)


def test_the_interval_of_a_difference_is_narrower_than_its_parts_where_they_go_together():
    chance = np.random.default_rng(0)
    second, clusters = simulate(chance)
    first = second + 0.2 + chance.normal(0, 0.1, len(second))
    found = difference(first, second, clusters, 500, seed=0)
    assert found.low > 0.15
    assert found.high < 0.25
    assert bootstrap(first, clusters, 500, seed=0).low < bootstrap(second, clusters, 500, seed=0).high


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


# The ceiling

def row(shares, respondents, name="Q1"):
    return Seed(question_id=name, topic="Work", question="Is it so?", options={"1": "Yes", "2": "Perhaps", "3": "No"},
                culture="korean", countries=["KOR"], respondents=respondents, label="1", label_rule="paper",
                distribution=dict(zip("123", shares, strict=True)) if shares else {})


def test_respondents_by_hand():
    assert respondents([row([0.3, 0.6, 0.1], 10), row([], 0, "Q2")]) == {"Q1": {"1": 3, "2": 6, "3": 1}}
    # 10/3 each: the one left over goes to the first of the equally cut
    assert respondents([row([1 / 3, 1 / 3, 1 / 3], 10)]) == {"Q1": {"1": 4, "2": 3, "3": 3}}
    assert respondents([row([0.05, 0.05, 0.9], 9)]) == {"Q1": {"1": 1, "2": 0, "3": 8}}  # 0.45, 0.45, 8.1


@given(st.lists(st.integers(0, 3000), min_size=3, max_size=3))
def test_counts_come_back_from_their_shares(counts):
    assert list(respondents([row(shares(counts), sum(counts))])["Q1"].values()) == counts


@given(st.lists(st.integers(0, 500), min_size=2, max_size=10), st.integers(0, 2**32))
def test_halves_hold_everybody_once(counts, seed):
    assume(sum(counts) >= 2)
    first, second = split_half({str(code): people for code, people in enumerate(counts)}, 3, seed)
    half = sum(counts) // 2
    assert first.shape == second.shape == (3, len(counts))
    assert np.allclose(first * half + second * (sum(counts) - half), counts)
    assert np.allclose(first.sum(1), 1)
    assert (first >= 0).all()
    assert (second >= 0).all()


def test_halves_are_the_same_twice_and_other_by_another_seed():
    counts = {"1": 40, "2": 60}
    assert np.array_equal(split_half(counts, 20, 1), split_half(counts, 20, 1))
    assert not np.array_equal(split_half(counts, 20, 1), split_half(counts, 20, 2))


@pytest.mark.parametrize(("counts", "accuracy", "similarity", "distance"), [
    ({"1": 1, "2": 1}, 0, 0, 1),  # the halves are always the two who disagree
    ({"1": 7, "2": 0}, 1, 1, 0),
    # {1, 1} against {2, 2} in two of the six draws, else each half has one of each, first of equals is 1
    ({"1": 2, "2": 2}, 2 / 3, 2 / 3, 1 / 3),
    # one against two: (1) (2, 2) in a third of the draws, else (2) (1, 2); js of the latter as above, sqrt 0.311278
    ({"1": 1, "2": 2}, 0, 2 / 3 * (1 - 0.311278**0.5), 2 / 3),
])
def test_the_ceiling_by_hand(counts, accuracy, similarity, distance):
    found = [ceiling({"Q1": counts}, metric, 20000, 100, seed=0).value
             for metric in ("accuracy", "js_similarity", "emd")]
    assert found == pytest.approx([accuracy, similarity, distance], abs=0.01)


def test_the_ceiling_has_an_interval_over_questions():
    people = {"Q1": {"1": 1, "2": 1}, "Q2": {"1": 6, "2": 0, "3": 0}, "Q3": {"1": 6, "2": 0}}
    found = ceiling(people, "accuracy", 10, 1000, seed=0)
    assert (found.value, found.low, found.high, found.n, found.clusters) == (pytest.approx(2 / 3), 0, 1, 3, 3)
    assert found == ceiling(people, "accuracy", 10, 1000, seed=0)


def test_more_people_raise_the_ceiling():
    """Halves of a hundred times as many people are ten times as near."""
    few, many = ({"Q1": {"1": 3 * size, "2": 5 * size, "3": 2 * size}} for size in (10, 1000))
    far, near = (1 - ceiling(people, "js_similarity", 2000, 100, seed=0).value for people in (few, many))
    assert far / near == pytest.approx(10, rel=0.1)


def test_one_respondent_is_no_two_halves():
    with pytest.raises(UserError, match="has 1 respondents, too few to be split in halves"):
        ceiling({"Q1": {"1": 1, "2": 0}}, "accuracy", 10, 100, seed=0)


# Collapse

def people_of(*cultures):
    """Each culture's share of "1" of two options by question."""
    return {name: {f"Q{i}": {"1": share, "2": 1 - share} for i, share in enumerate(given)} for name, given in cultures}


OPPOSITES = people_of(("korean", [1, 1, 1]), ("german", [0, 0, 0]))


def test_wordings_are_pooled_by_question():
    said = [("Q1", {"1": 1.0, "2": 0.0}), ("Q2", {"1": 0.5, "2": 0.5}), ("Q1", {"2": 0.5, "1": 0.5})]
    assert pooled(said) == {"Q1": {"1": 0.75, "2": 0.25}, "Q2": {"1": 0.5, "2": 0.5}}


def test_adapters_that_are_their_people():
    found = collapse(OPPOSITES, OPPOSITES, 200, seed=0)
    assert (found.between_adapters, found.between_peoples) == (1, 1)
    assert (found.dispersion.value, found.dispersion.low, found.dispersion.high, found.dispersion.n) == (1, 1, 1, 3)
    assert found.advantage.value == 1
    assert (found.p, found.assignments, found.exact) == (1 / 2, 2, True)  # two cultures can be told in two ways


def test_adapters_that_all_say_the_same():
    found = collapse(dict.fromkeys(OPPOSITES, OPPOSITES["korean"]), OPPOSITES, 200, seed=0)
    assert (found.dispersion.value, found.dispersion.high, found.between_peoples) == (0, 0, 1)
    assert (found.advantage.value, found.p) == (0, 1)


def test_adapters_of_the_wrong_people():
    found = collapse({"korean": OPPOSITES["german"], "german": OPPOSITES["korean"]}, OPPOSITES, 200, seed=0)
    assert (found.dispersion.value, found.advantage.value, found.p) == (1, -1, 1)


def test_a_half_collapsed_pair_by_hand():
    """Distances between adapters 1, 0, 0 of peoples' 1, 1, 1. Closeness to own and other people: question 0: 1 and 0,
    questions 1 and 2: both adapters are the Koreans, so 1, 0 and 0, 1."""
    answers = people_of(("korean", [1, 1, 1]), ("german", [0, 1, 1]))
    found = collapse(answers, OPPOSITES, 2000, seed=0)
    assert found.dispersion.value == found.advantage.value == pytest.approx(1 / 3)
    assert (found.dispersion.low, found.dispersion.high) == (0, 1)  # question 0 never or always drawn
    assert found.advantage.n == found.dispersion.n == 3


def cultures(chance, count, questions=12):
    return {f"c{c}": {f"Q{q}": dict(zip("1234", chance.dirichlet(np.ones(4)), strict=True)) for q in range(questions)}
            for c in range(count)}


def blend(people, weight):
    """Adapters that answer ``weight`` like their own people, and for the rest like the mean of all."""
    mean = pooled((q, row) for by_question in people.values() for q, row in by_question.items())
    return {name: {q: {code: weight * share + (1 - weight) * mean[q][code] for code, share in row.items()}
                   for q, row in by_question.items()} for name, by_question in people.items()}


def test_the_nearer_to_a_common_mean_the_less_dispersion_and_advantage():
    people = cultures(np.random.default_rng(0), 5)
    found = [collapse(blend(people, weight), people, 300, seed=0) for weight in (0, 0.2, 0.6, 1)]
    for one, other in pairwise(found):
        assert one.dispersion.value < other.dispersion.value
        assert one.advantage.value < other.advantage.value
    assert found[0].dispersion.value == 0
    assert found[2].dispersion.high < 1
    assert found[3].dispersion.value == 1
    # A fifth of one's own is seen in the assignment: of 5! ways the right one is the best.
    assert [row.p for row in found] == [1, 1 / 120, 1 / 120, 1 / 120]


def test_the_assignment_test_claims_nothing_of_adapters_at_random():
    chance = np.random.default_rng(1)
    p = np.array([collapse(cultures(chance, 4, 3), cultures(chance, 4, 3), 20, seed=0).p for _ in range(300)])
    for level in (1 / 24, 0.25, 0.5, 0.75):
        assert np.mean(p <= level + 1e-9) == pytest.approx(level, abs=4 * (level * (1 - level) / 300) ** 0.5)


def test_beyond_nine_cultures_assignments_are_drawn():
    people = cultures(np.random.default_rng(2), 10, 3)
    found = collapse(people, people, 499, seed=0)
    assert (found.assignments, found.exact, found.p) == (499, False, 1 / 500)
    assert found == collapse(people, people, 499, seed=0)
    nine = {name: people[name] for name in list(people)[:9]}
    found = collapse(nine, nine, 100, seed=0)
    assert (found.assignments, found.exact, found.p) == (factorial(9), True, 1 / factorial(9))


def test_only_questions_that_all_have_are_compared():
    answers = people_of(("korean", [1, 0, 1]), ("german", [0, 0]))  # the last is missing
    found = collapse(answers, OPPOSITES, 100, seed=0)
    assert (found.dispersion.n, found.dispersion.value) == (2, 0.5)


def test_options_are_matched_by_code():
    turned = {name: {q: {"2": row["2"], "1": row["1"]} for q, row in rows.items()} for name, rows in OPPOSITES.items()}
    assert collapse(turned, OPPOSITES, 100, seed=0).advantage.value == 1


@pytest.mark.parametrize(("answers", "people", "complaint"), [
    (people_of(("korean", [1])), people_of(("korean", [1])), "where two cultures or more"),
    (people_of(("korean", [1])), OPPOSITES, "adapters of korean, and people of korean, german"),
    (people_of(("korean", []), ("german", [1])), OPPOSITES, "no question was answered by the adapters and people of"),
    (OPPOSITES, people_of(("korean", [1, 0]), ("german", [1, 0])), "answer all alike"),
])
def test_nothing_to_compare_is_said(answers, people, complaint):
    with pytest.raises(UserError, match=complaint):
        collapse(answers, people, 100, seed=0)
