"""What ratings say, by hand, on published worked examples, and in simulations whose truth is known."""

import json

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culturellm_utils import agreement
from culturellm_utils.human_study import PairKey
from culturellm_utils.ratings import Rating

# Krippendorff (2011), four observers and twelve units: nominal .743, ordinal .815, interval .849, ratio .797.
N = float("nan")
PUBLISHED = np.array([[1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
                      [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
                      [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
                      [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N]])
KEY = {"p0": PairKey(question_id="Q1", candidate_id="c0", check=""),
       "p1": PairKey(question_id="Q2", candidate_id="c1", check=""),
       "same": PairKey(question_id="Q1", candidate_id="", check="same"),
       "other": PairKey(question_id="Q1", candidate_id="c9", check="different")}


def ratings(rater: str, **values: int) -> list[Rating]:
    return [Rating(rater_id=rater, pair_id=name, rating=value) for name, value in values.items()]


# alpha

def test_alpha_of_the_published_example():
    assert agreement.alpha(PUBLISHED) == pytest.approx(0.815, abs=5e-4)
    for level, value in {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849, "ratio": 0.797}.items():
        assert krippendorff.alpha(PUBLISHED, level_of_measurement=level) == pytest.approx(value, abs=5e-4)


def test_alpha_by_hand():
    # Two raters, four pairs: (1,1) (1,2) (2,2) (2,2). With two values ordinal alpha is nominal alpha:
    # 1 - (n - 1) sum of coincidences apart / product of the values' numbers = 1 - 7 · 1 / (3 · 5)
    assert agreement.alpha(np.array([[1, 1, 2, 2], [1, 2, 2, 2.0]])) == pytest.approx(1 - 7 / 15)


@pytest.mark.parametrize("table", [[[1, 2, 3]], [[1, N], [N, 2]], [[3, 3], [3, 3]], [[3, 1], [3, N]]])
def test_alpha_is_none_where_it_is_not_defined(table):
    none = {"value": None, "low": None, "high": None}
    assert agreement.alpha(np.array(table, dtype=float)) is None
    assert agreement.alpha_figure(np.array(table, dtype=float), 100, 0) == none


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from([1, 2, 3, 4, 5, N]), min_size=6, max_size=6), min_size=2, max_size=5),
       st.randoms())
def test_alpha_does_not_depend_on_the_order_of_raters_and_is_one_for_copies(rows, chance):
    table = np.array(rows, dtype=float)
    value = agreement.alpha(table)
    shuffled = chance.sample(rows, len(rows))
    assert value is None or agreement.alpha(np.array(shuffled, dtype=float)) == pytest.approx(value)
    assert value is None or value == pytest.approx(krippendorff.alpha(table, level_of_measurement="ordinal"))
    if len(np.unique(table[0][~np.isnan(table[0])])) > 1:
        assert agreement.alpha(np.array([rows[0], rows[0]], dtype=float)) == pytest.approx(1.0)


def test_the_interval_of_alpha_holds_the_value_and_narrows_with_pairs():
    few = agreement.alpha_figure(PUBLISHED, 400, 0)
    many = agreement.alpha_figure(np.tile(PUBLISHED, 9), 400, 0)
    assert few["low"] < few["value"] < few["high"] <= 1
    assert many["high"] - many["low"] < 0.6 * (few["high"] - few["low"])


def test_simulated_alpha_intervals_hold_the_true_alpha():
    # Simulation. Raters copy the pair's true value (1 or 5, equally often) with a chance of 0.8 and else toss a coin:
    # two raters agree with a chance of 0.64 + 0.36 / 2 = 0.82, by chance 0.5, so that alpha is 0.64.
    chance, held = np.random.default_rng(5), 0
    for trial in range(150):
        truth = chance.choice([1, 5], 120)
        table = np.where(chance.random((3, 120)) < 0.8, truth, chance.choice([1, 5], (3, 120))).astype(float)
        figure = agreement.alpha_figure(table, 100, trial)
        held += figure["low"] <= 0.64 <= figure["high"]
    assert held / 150 >= 0.88


# figures

def test_means_by_hand():
    found = agreement.analysis([*ratings("a", p0=5, p1=2, same=5, other=1), *ratings("b", p0=4, same=4, other=2),
                                *ratings("automatic: x", p0=1, p1=1, same=1, other=5)], KEY)
    human = found["human"]
    assert (human["raters"], human["pairs"], human["ratings"]) == (2, 2, 3)
    assert human["mean"]["value"] == pytest.approx(11 / 3)                 # 5, 2, 4; checks do not count
    assert human["pass_rate"]["value"] == pytest.approx(2 / 3)
    hardest = [(pair["pair_id"], pair["mean"], pair["ratings"]) for pair in human["hardest"]]
    assert hardest == [("p1", 2, 1), ("p0", 4.5, 2)]
    (disputed,) = human["disputed"]                                        # p1 has one rating alone
    assert (disputed["pair_id"], disputed["min"], disputed["max"]) == ("p0", 4, 5)
    assert disputed["sd"] == pytest.approx(0.5**0.5)
    automatic = found["automatic"]
    assert automatic["mean"] == {"value": 1, "low": None, "high": None, "method": "none"}
    assert automatic["alpha"]["value"] is None
    assert found["raters"][1]["rater_id"] == "automatic: x"
    assert (found["raters"][1]["checks_failed"], found["raters"][1]["excluded"]) == (2, False)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_most_disputed_pair_comes_first():
    people = [*ratings("a", p0=5, p1=5), *ratings("b", p0=4, p1=1)]
    found = agreement.analysis(people, KEY)["human"]
    assert [(pair["pair_id"], pair["ratings"]) for pair in found["disputed"]] == [("p1", 2), ("p0", 2)]


def test_an_automatic_rater_is_no_sample_of_raters():
    found = agreement.analysis([*ratings("automatic: x", p0=1, p1=5), *ratings("automatic: y", p0=3, p1=5)], KEY)
    figure = found["automatic"]["mean"]
    # with two pairs a replicate is p0 twice (2), p1 twice (5) or both (3.5)
    assert figure == {"value": 3.5, "low": 2.0, "high": 5.0, "method": "bootstrap over pairs"}
    assert [pair["pair_id"] for pair in found["automatic"]["disputed"]] == ["p0"]


@pytest.mark.parametrize(("same", "other", "left_out"), [(4, 2, False), (3, 2, True), (4, 3, True), (5, 1, False)])
def test_people_who_fail_a_check_are_left_out(same, other, left_out):
    found = agreement.analysis([*ratings("a", p0=5, p1=5, same=5, other=1),
                                *ratings("b", p0=1, p1=1, same=same, other=other)], KEY)
    assert [rater["excluded"] for rater in found["raters"]] == [False, left_out]
    assert bool(found["raters"][1]["reason"]) == left_out
    assert found["human"]["mean"]["value"] == (5 if left_out else 3)


def test_no_human_rating_is_made_up():
    found = agreement.analysis(ratings("automatic: x", p0=4, p1=5), KEY)
    assert found["human"] is None
    assert found["human_note"] == agreement.NO_HUMANS
    assert found["against_people"] is None
    assert agreement.analysis([], KEY)["automatic"] is None
    found = agreement.analysis(ratings("a", p0=5, same=1), KEY)
    assert found["human"] is None
    assert "leave out 1 of 1 people" in found["human_note"]


def test_agreement_is_the_same_twice():
    made = [*ratings("a", p0=5, p1=2), *ratings("b", p0=4, p1=1)]
    assert agreement.analysis(made, KEY, seed=4) == agreement.analysis(made, KEY, seed=4)


# in words

def test_sentences_say_what_was_found():
    made = ratings("automatic: x", p0=4, p1=1, other=3)
    assert agreement.sentences(agreement.analysis(made, KEY)) == [
        agreement.NO_HUMANS,
        "'automatic: x' rates 50% of 2 pairs 4 or more and fails 1 of 1 checks.",
        "Among automatic raters, alpha is not defined: it needs two raters of the same pairs, and ratings that differ.",
    ]
    people = [*ratings("a", p0=5, p1=2), *ratings("b", p0=5, p1=2), *ratings("c", p0=1, other=5),
              *ratings("automatic: x", p0=4, p1=1)]
    said = agreement.sentences(agreement.analysis(people, KEY))
    assert said[0].startswith("2 people rated 2 pairs: the mean is 3.50 (")
    assert said[1].startswith("Among people, ordinal alpha is 1.00 (")
    assert said[1].endswith(": high enough to rely on.")
    assert said[2].startswith("Drift cannot be told")
    assert said[3] == "The cleaning rules left out 1 of 3 people."
    assert said[-1] == ("'automatic: x' rates 1.00 points below people on 2 pairs; its rank correlation with people is "
                        "1.00; a person reaches 1.00 with the others.")


@pytest.mark.parametrize(("value", "words"), [(-0.1, "contradict"), (0.66, "too low"), (0.7, "tentative"),
                                              (0.8, "rely on")])
def test_alpha_in_words(value, words):
    assert words in agreement._meaning({"value": value, "low": value, "high": value})


def test_figures_as_they_are_shown():
    assert agreement.shown({"value": 4.516, "low": 4.4, "high": 4.625}) == "4.52 (4.40 to 4.62)"
    assert agreement.shown({"value": 1.0, "low": None, "high": None}).startswith("1.00 (no interval")
    assert agreement.shown({"value": None, "low": None, "high": None}) == agreement.shown(None) == "–"


# simulated raters whose truth is known

def simulated(chance: np.random.Generator, people: int, pairs: int, drift: float = 0.0) -> list[Rating]:
    """Ratings in an order of each rater's own, 4.2 on average, ``drift`` points a pair; simulation, for tests alone."""
    severity, ease = chance.normal(0, 0.2, people), chance.normal(0, 0.4, pairs)
    rows = []
    for person in range(people):
        for place, pair in enumerate(chance.permutation(pairs), start=1):
            exact = 3.5 + severity[person] + ease[pair] + drift * place + chance.normal(0, 0.4)
            rows.append(Rating(rater_id=f"r{person:02}", pair_id=f"s{pair}", rating=int(np.clip(round(exact), 1, 5)),
                               seconds=float(np.exp(2 - 0.01 * place)), position=place))
    return rows


def test_simulated_careless_raters_are_removed_and_the_truth_is_found_again():
    chance = np.random.default_rng(1)
    key = {f"s{pair}": PairKey(question_id="Q1", candidate_id=f"c{pair}", check="") for pair in range(60)}
    key |= {name: KEY[name] for name in ("same", "other")}
    honest = simulated(chance, 8, 60)
    careless = [Rating(rater_id=f"x{n}", pair_id=name, rating=int(chance.integers(1, 6)), seconds=0.4)
                for n in range(4) for name in key]
    clicking = [Rating(rater_id="z", pair_id=name, rating=1, seconds=9) for name in key]
    found = agreement.analysis([*honest, *careless, *clicking], key)
    assert {row["rater_id"] for row in found["raters"] if row["excluded"]} == {"x0", "x1", "x2", "x3", "z"}
    assert found["human"] == agreement.analysis(honest, key)["human"]
    assert found["human"]["mean"]["low"] < 3.5 < found["human"]["mean"]["high"]


def test_simulated_drift_is_recovered():
    key = {f"s{pair}": PairKey(question_id="Q1", candidate_id=f"c{pair}", check="") for pair in range(60)}
    found = agreement.analysis(simulated(np.random.default_rng(2), 8, 60, drift=-0.015), key)
    drift = found["human"]["drift"]["rating"]
    assert drift["low"] < -0.15 < drift["high"] < 0                        # points per 10 pairs
    assert found["human"]["drift"]["log_seconds"]["value"] == pytest.approx(-0.1)
    said = agreement.sentences(found)
    assert any("raters drift" in sentence for sentence in said)
    assert any("changes by -10% (-10% to -10%)" in sentence for sentence in said)   # 1 - exp(-0.1)
