"""Figures of classification tasks: against scikit-learn, values worked out by hand, and all permutations."""

import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from culturellm_utils.classification import batch_calibrated, invalid_rate, macro_f1, macro_f1_draws, paired_test

LABELS = ("a", "b", "c")
#: Items of three classes, answered with one of them, with a word that is none, or not at all.
ROWS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, "other", None])), min_size=1, max_size=40)


def scikit_learn(gold, found):
    return f1_score(gold, [label or "none" for label in found], labels=LABELS, average="macro", zero_division=0)


@given(rows=ROWS)
@settings(max_examples=100)
def test_macro_f1_is_that_of_scikit_learn(rows):
    gold, found = zip(*rows, strict=True)
    estimate = macro_f1(gold, found, LABELS, 100, 0)
    assert estimate.value == pytest.approx(scikit_learn(gold, found))
    assert 0 <= estimate.low <= estimate.high <= 1
    assert (estimate.n, estimate.clusters) == (len(rows), len(rows))
    assert estimate == macro_f1(gold, found, LABELS, 100, 0)


def test_macro_f1_by_hand():
    # a: 1 right of 2 asked and 2 answered; b: 1 of 1 and 2; c: asked once, never answered
    found = macro_f1(["a", "a", "b", "c"] * 8, ["a", "b", "b", "a"] * 8, LABELS, 2000, 0)
    assert found.value == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)
    assert found.low < found.value < found.high


def test_one_item_has_no_spread():
    found = macro_f1(["a"], ["a"], LABELS, 100, 0)
    assert found.value == found.low == found.high == pytest.approx(1 / 3)


def test_resampled_counts_have_the_distribution_of_resampled_items():
    chance = np.random.default_rng(1)
    gold = chance.choice(LABELS, 60, p=[0.6, 0.3, 0.1])
    found = np.where(chance.random(60) < 0.6, gold, chance.choice(LABELS, 60))
    drawn = macro_f1_draws(gold, found, LABELS, 4000, 0)
    assert drawn.shape == (4001,)
    assert drawn[0] == pytest.approx(scikit_learn(gold, found))
    picks = chance.integers(0, 60, (1000, 60))
    one_by_one = [scikit_learn(gold[pick], found[pick]) for pick in picks]
    for share in (0.025, 0.5, 0.975):
        assert np.quantile(drawn[1:], share) == pytest.approx(np.quantile(one_by_one, share), abs=0.02)


def test_a_resample_counts_answers_that_are_none():
    drawn = macro_f1_draws(["a", "b"] * 20, ["a", None] * 20, ("a", "b"), 500, 0)
    # Whatever is drawn, b is never found; a is found whenever it is there.
    assert set(drawn.tolist()) == {0.5}


def test_tasks_with_seeds_of_their_own_move_apart():
    gold, found = ["a", "b"] * 30, ["a", "a"] * 20 + ["b", "b"] * 10
    together = [macro_f1_draws(gold, found, LABELS, 400, 7) for _ in range(2)]
    apart = [macro_f1_draws(gold, found, LABELS, 400, [7, number]) for number in range(2)]
    assert (together[0] == together[1]).all()
    assert abs(np.corrcoef(apart[0][1:], apart[1][1:])[0, 1]) < 0.2


def test_the_paired_test_is_that_over_all_swaps():
    gold = ["a", "a", "a", "b", "b", "b", "c", "a"]
    first = ["a", "a", "a", "b", "b", "a", "c", None]
    second = ["a", "b", None, "b", "c", "a", "a", "b"]
    observed = abs(scikit_learn(gold, first) - scikit_learn(gold, second))
    extreme = []
    for swaps in product([False, True], repeat=len(gold)):
        pairs = [(two, one) if swap else (one, two) for one, two, swap in zip(first, second, swaps, strict=True)]
        one, two = zip(*pairs, strict=True)
        extreme.append(abs(scikit_learn(gold, one) - scikit_learn(gold, two)) >= observed - 1e-9)
    assert paired_test(gold, first, second, LABELS, 20_000, 0) == pytest.approx(np.mean(extreme), abs=0.015)


def test_the_paired_test_tells_equal_from_different_systems():
    gold = ["a", "b"] * 50
    wrong = ["b", "a"] * 50
    half = gold[:50] + wrong[50:]
    assert paired_test(gold, half, half, LABELS, 200, 0) == 1
    assert paired_test(gold, gold, wrong, LABELS, 999, 0) == pytest.approx(0.001)
    assert paired_test(gold, half, wrong[:50] + gold[50:], LABELS, 999, 0) > 0.5  # as good, on other items


@given(rows=ROWS, other=st.sampled_from([*LABELS, None]))
@settings(max_examples=50)
def test_the_paired_test_does_not_mind_which_system_comes_first(rows, other):
    gold, found = zip(*rows, strict=True)
    constant = [other] * len(gold)
    p = paired_test(gold, found, constant, LABELS, 300, 0)
    assert 1 / 301 <= p <= 1
    assert paired_test(gold, constant, found, LABELS, 300, 0) == pytest.approx(p, abs=0.15)


def test_the_share_of_invalid_replies():
    assert invalid_rate(["a", None, "x", "b"], LABELS) == 0.5
    assert invalid_rate(["a"], LABELS) == 0


def test_batch_calibration_by_hand():
    # means 0.7 and 0.3: (0.8/0.7, 0.2/0.3) and (0.6/0.7, 0.4/0.3), normalised
    first, second = batch_calibrated([{"a": 0.8, "b": 0.2}, {"a": 0.6, "b": 0.4}])
    assert first == pytest.approx({"a": 0.24 / 0.38, "b": 0.14 / 0.38})
    assert second == pytest.approx({"a": 0.18 / 0.46, "b": 0.28 / 0.46})
    assert list(first) == ["a", "b"]


def test_batch_calibration_of_a_label_that_nothing_is_given_to():
    assert batch_calibrated([{"a": 1.0, "b": 0.0}] * 2) == [{"a": 1.0, "b": 0.0}] * 2
    assert batch_calibrated([]) == []


@given(rows=st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=20))
def test_batch_calibration_takes_a_bias_away(rows):
    """A model that says everything with a constant bias is calibrated as the model without."""
    fair = [dict(zip(LABELS, np.array(row) / sum(row), strict=True)) for row in rows]
    biased = [{label: p * weight for (label, p), weight in zip(row.items(), (5, 1, 0.2), strict=True)} for row in fair]
    for one, two in zip(batch_calibrated(fair), batch_calibrated(biased), strict=True):
        assert sum(one.values()) == pytest.approx(1)
        assert one == pytest.approx(two)


def test_a_large_task_takes_little_time():
    chance = np.random.default_rng(0)
    labels = [str(number) for number in range(7)]
    gold, first, second = (chance.choice(labels, 2500).tolist() for _ in range(3))
    started = time.process_time()
    macro_f1(gold, first, labels, 2000, 0)
    paired_test(gold, first, second, labels, 2000, 0)
    assert time.process_time() - started < 2
