"""How alike answers are, on tables worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import sameness
from culturellm_utils.open_ended import OpenAnswer

#: Directions in a plane: cosines of 1, 0.6 and 0.
VECTORS = {"yes": [1.0, 0.0], "Yes.": [1.0, 0.0], "no": [0.0, 1.0], "perhaps": [0.6, 0.8]}


def encode(texts):
    return np.array([VECTORS[text] for text in texts])


def answered(table: dict[tuple[str, str], list[str]]) -> list[OpenAnswer]:
    """Answers by (system, culture) to the questions O01, O02 ..."""
    return [OpenAnswer(question_id=f"O{place:02}", culture=culture, system=system, text=text)
            for (system, culture), texts in table.items() for place, text in enumerate(texts, start=1)]


TWO = answered({("base", "korean"): ["yes", "yes"], ("base", "german"): ["yes", "yes"],
                ("adapter", "korean"): ["yes", "no"], ("adapter", "german"): ["Yes.", "perhaps"]})


def rows(found):
    table = sameness.table(found, 200, 0)
    return {(row.where, row.system, row.measure): row for row in table.itertuples()}


def test_across_cultures_and_across_questions():
    found = sameness.alike(TWO, encode)
    got = rows(found)
    # O01: "yes" and "Yes." are the same words, cosine 1; O02: "no" and "perhaps", cosine 0.8.
    row = got["across cultures", "adapter", "identical"]
    assert (row.value, row.n, row.clusters) == (0.5, 2, 2)
    assert got["across cultures", "adapter", "cosine"].value == pytest.approx(0.9)
    # korean: "yes" and "no", 0; german: "Yes." and "perhaps", 0.6.
    row = got["across questions", "adapter", "cosine"]
    assert (row.value, row.n) == (pytest.approx(0.3), 2)
    assert got["across questions", "adapter", "identical"].value == 0
    # one word in each answer: O01 one word of two, O02 two of two
    assert got["across cultures", "adapter", "distinct_1"].value == pytest.approx(0.75)
    assert ("across cultures", "adapter", "distinct_2") not in got  # no answer has two words
    assert got["across cultures", "base", "identical"].value == 1
    between = found["adapter"].between_cultures("cosine")
    assert between == pytest.approx(np.array([[1, 0.9], [0.9, 1]]))


def test_the_adapter_minus_a_rival():
    table = sameness.changes(sameness.alike(TWO, encode), 200, 0).set_index(["where", "measure"])
    assert set(table["rival"]) == {"base"}
    assert table.loc[("across cultures", "cosine"), "value"] == pytest.approx(0.9 - 1)
    assert table.loc[("across questions", "cosine"), "value"] == pytest.approx(0.3 - 1)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_a_rival_that_answered_other_questions_is_not_compared():
    fewer = [row for row in TWO if row.system == "adapter" or row.question_id == "O01"]
    assert sameness.changes(sameness.alike(fewer, encode), 200, 0).empty


def test_one_culture_or_one_question_or_nothing():
    one = sameness.alike(answered({("adapter", "korean"): ["yes", "no"]}), encode)
    assert set(sameness.table(one, 200, 0)["where"]) == {"across questions"}
    one = sameness.alike(answered({("adapter", "korean"): ["yes"], ("adapter", "german"): ["no"]}), encode)
    assert set(sameness.table(one, 200, 0)["where"]) == {"across cultures"}
    assert sameness.alike([], encode) == {}
    assert sameness.table({}, 200, 0).empty
    assert sameness.changes({}, 200, 0).empty


def test_questions_that_a_culture_lacks_are_left_out():
    found = sameness.alike(answered({("adapter", "korean"): ["yes", "no"], ("adapter", "german"): ["yes"]}), encode)
    assert found["adapter"].questions == ["O01"]


def test_most_different_questions_come_first():
    found = sameness.alike(TWO, encode)["adapter"]
    assert sameness.most_different(found, 1) == ["O02"]
    assert sameness.most_different(found, 5) == ["O02", "O01"]
    assert sameness.most_different(found, 0) == []


def test_distinct_runs_of_words():
    texts = ["We care for them.", "we care for all"]
    assert sameness.distinct(texts, 1) == 5 / 8   # we care for them all, of 8
    assert sameness.distinct(texts, 2) == 4 / 6   # we-care care-for for-them for-all, of 6
    assert sameness.distinct(["4", ""], 1) is None
    long = " ".join(f"word{number}" for number in range(100))
    assert sameness.distinct([long, long], 1) == 0.5
    assert sameness.distinct([long, f"{' '.join(f'word{n}' for n in range(20))} other"], 1) == 0.5


def test_pairs_are_resampled_by_question():
    # Of three questions only the pair of the first two is alike: 1/3. Drawn thrice, a resample has one, two or three
    # different questions; those of one alone make no pair, so that a mean is 0, 1 or 1/3, and 1 from 1-1-2 and 1-2-2.
    square = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = sameness.over_pairs(square, 2000, 0)
    assert (found.value, found.low, found.high) == (pytest.approx(1 / 3), 0, 1)
    assert (found.n, found.clusters) == (3, 3)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    # A pair's value is the mean of its questions' own: the mean over pairs has the standard error of a mean.
    chance, hits = np.random.default_rng(1), 0
    for trial in range(200):
        own = chance.normal(size=25)
        found = sameness.over_pairs((own[:, None] + own) / 2, 300, trial)
        hits += found.low <= 0 <= found.high
    assert 0.87 <= hits / 200 <= 0.99


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(0, 5))
def test_the_interval_stays_among_the_values(values, seed):
    square = np.minimum.outer(values, values)
    found = sameness.over_pairs(square, 100, seed)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
