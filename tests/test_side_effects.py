"""What fine-tuning did besides, on a handful of hand-made predictions."""

import numpy as np
import pytest
from opinions import labelled, prediction

from culturellm_utils import alignment, classification, side_effects
from culturellm_utils.summary import Results

NOTHING = {"figures": [], "stability": [], "tasks": [], "released": [], "win_rates": []}
GOLD = ["yes"] * 6 + ["no"] * 6
RIGHT, ALWAYS_YES, HALF = GOLD, ["yes"] * 12, ["yes"] * 3 + ["no"] * 9
LABELS = ("yes", "no")


def answers(found, system, culture="korean", task="spam", gold=GOLD):
    return [labelled(f"{task}-{n}", right, label, system, culture, task)
            for n, (right, label) in enumerate(zip(gold, found, strict=True))]


def results(predictions, unsound=()):
    """Results of models; the sets of ``unsound`` (culture, task) cannot carry a claim."""
    scores = {model: NOTHING | {"tasks": [{"culture": culture, "task": task, "carries a claim": False}
                                          for culture, task in unsound if model == culture]
                                + [{"culture": model, "task": "sound", "carries a claim": True}]}
              for model in predictions}
    return Results({name: [] for name in predictions if name != "one"}, predictions, scores)


# Classification sets

@pytest.fixture
def several():
    """The Korean adapter is always right, the base always says yes, One is half right, and so is the German adapter
    about Koreans; the German set is answered by the German base and adapter alone."""
    return results({
        "korean": [*answers(ALWAYS_YES, "base"), *answers(RIGHT, "adapter"),
                   *answers(RIGHT, "persona"), *answers(HALF, "base", task="hate"),
                   prediction(system="adapter"), prediction(part="ability", system="adapter")],
        "german": [*answers(HALF, "adapter"), *answers(ALWAYS_YES, "base", "german"),
                   *answers(RIGHT, "adapter", "german")],
        "one": answers(HALF, "adapter"),
    }, unsound={("korean", "hate")})


def test_sets_by_hand(several):
    table = side_effects.sets(several, 500, 0)
    assert list(table.columns[:5]) == ["culture", "task", "system", "value", "low"]
    value = table.set_index(["culture", "task", "system"])["value"].to_dict()
    # always yes: yes has 6 right of 6 asked and 12 said, no nothing; half: yes 3 of 6 and 3, no 6 of 6 and 9
    yes, half = (12 / 18 + 0) / 2, (6 / 9 + 12 / 15) / 2
    assert value == {
        ("korean", "spam", "base"): pytest.approx(yes), ("korean", "spam", "persona"): 1,
        ("korean", "spam", "adapter"): 1, ("korean", "spam", "one"): pytest.approx(half),
        ("korean", "spam", "wrong culture"): pytest.approx(half), ("korean", "hate", "base"): pytest.approx(half),
        ("german", "spam", "base"): pytest.approx(yes), ("german", "spam", "adapter"): 1}
    assert (table["n"] == 12).all()
    assert table["low"].le(table["value"]).all()
    assert table["value"].le(table["high"]).all()
    claims = table.set_index(["culture", "task", "system"])["carries_claim"]
    assert not claims["korean", "hate", "base"]
    assert claims.drop(("korean", "hate", "base")).all()


def test_tests_of_sets_are_paired_with_the_own_adapter_and_corrected_over_the_table(several):
    table = side_effects.sets(several, 100, 0).set_index(["culture", "task", "system"])["p"]
    assert table[[("korean", "spam", "adapter"), ("german", "spam", "adapter")]].isna().all()
    assert np.isnan(table["korean", "hate", "base"])  # no own adapter to be held against
    alone = {found: classification.paired_test(GOLD, RIGHT, answers, LABELS, alignment.PERMUTATIONS, 0)
             for found, answers in (("yes", ALWAYS_YES), ("half", HALF), ("right", RIGHT))}
    assert alone["right"] == 1
    assert alone["yes"] < alone["half"]
    # five tests, of which the two of "always yes" come first; none may be smaller than the one before it
    assert table["korean", "spam", "base"] == table["german", "spam", "base"] == pytest.approx(5 * alone["yes"])
    half = pytest.approx(max(3 * alone["half"], 5 * alone["yes"]))
    assert table["korean", "spam", "one"] == table["korean", "spam", "wrong culture"] == half
    assert table["korean", "spam", "persona"] == 1


def test_answers_to_other_rows_are_not_tested():
    table = side_effects.sets(results({"korean": [*answers(RIGHT, "adapter"), *answers(HALF, "base")[:9]]}), 100, 0)
    assert table["p"].isna().all()
    assert table["n"].tolist() == [12, 9]


def test_replies_that_are_no_label_are_wrong():
    invalid = [label if n else "" for n, label in enumerate(RIGHT)]
    (row,) = side_effects.sets(results({"korean": answers(invalid, "adapter")}), 100, 0).to_dict("records")
    assert row["value"] == pytest.approx((10 / 11 + 1) / 2)


def test_means_by_hand(several):
    table = side_effects.means(side_effects.sets(several, 100, 0)).set_index("system")
    yes, half = (12 / 18 + 0) / 2, (6 / 9 + 12 / 15) / 2
    assert table.loc["base"].to_dict() == pytest.approx(
        {"sound": yes, "sound_sets": 2, "all": (2 * yes + half) / 3, "sets": 3})
    assert table.loc["adapter"].to_dict() == {"sound": 1, "sound_sets": 2, "all": 1, "sets": 2}
    assert table.loc["wrong culture", "sound"] == pytest.approx(half)
    assert table.index[0] == "base"


def test_a_mean_over_no_sound_set_is_none():
    found = results({"korean": answers(RIGHT, "adapter")}, unsound={("korean", "spam")})
    (row,) = side_effects.means(side_effects.sets(found, 100, 0)).to_dict("records")
    assert np.isnan(row["sound"])
    assert (row["sound_sets"], row["all"], row["sets"]) == (0, 1, 1)


def test_without_sets_the_tables_are_empty():
    table = side_effects.sets(results({"korean": [prediction()]}), 100, 0)
    assert table.empty
    assert list(table.columns) == list(side_effects.SET_COLUMNS)
    assert side_effects.means(table).empty


# Abilities

def solved(right, system, ability="arithmetic", count=20, culture="korean"):
    """``right`` of ``count`` items solved, the first ones."""
    return [prediction(culture, system, "ability", ability, f"{ability}-{n}", label="2" if n < right else "1")
            for n in range(count)]


def test_abilities_by_hand():
    table = side_effects.abilities(results({
        "korean": [*solved(18, "base"), *solved(3, "adapter"), *solved(18, "persona"),
                   *solved(10, "base", "gsm8k"), *solved(11, "adapter", "gsm8k")],
        "german": [*solved(2, "base", culture="german"), *solved(20, "adapter", culture="german"),
                   prediction("german", "adapter")],
    }), 2000, 0)
    assert list(table.columns) == list(side_effects.ABILITY_COLUMNS)
    found = table.set_index(["model", "ability"])
    assert found.index.tolist() == [("korean", "arithmetic"), ("korean", "gsm8k"), ("german", "arithmetic")]
    figures = found[["before", "after", "difference", "n"]].to_dict("index")
    assert figures == {("korean", "arithmetic"): pytest.approx({"before": 0.9, "after": 0.15, "difference": -0.75,
                                                                "n": 20}),
                       ("korean", "gsm8k"): pytest.approx({"before": 0.5, "after": 0.55, "difference": 0.05, "n": 20}),
                       ("german", "arithmetic"): pytest.approx({"before": 0.1, "after": 1.0, "difference": 0.9,
                                                                "n": 20})}
    assert found["verdict"].tolist() == ["lost", "unclear", "gained"]
    assert (found["low"] <= found["difference"]).all()
    assert (found["difference"] <= found["high"]).all()
    assert found["high"]["korean", "arithmetic"] < 0 < found["low"]["german", "arithmetic"]
    # one item of twenty differs: whichever way its sign is flipped, the difference is as large
    assert found["p"]["korean", "gsm8k"] == 1


def test_p_values_of_abilities_are_corrected():
    """Six items lost and none gained: p is 2 / 2^6 in one test, and three times that in three."""
    lost = {name: [*solved(20, "base", culture=name), *solved(14, "adapter", culture=name)]
            for name in ("korean", "german", "turkish")}
    after, before = [1.0] * 14 + [0.0] * 6, [1.0] * 20
    alone = alignment.paired_test(after, before, range(20), alignment.PERMUTATIONS, 0)
    assert alone == pytest.approx(2 / 2**6, abs=0.005)
    one = side_effects.abilities(results({"korean": lost["korean"]}), 200, 0)
    assert one["p"].tolist() == [alone]
    assert one["verdict"].tolist() == ["lost"]
    three = side_effects.abilities(results(lost), 200, 0)
    assert three["p"].tolist() == pytest.approx([3 * alone] * 3)
    assert three["verdict"].tolist() == ["unclear"] * 3


def test_an_ability_is_compared_on_items_that_both_were_asked():
    more = prediction(system="adapter", part="ability", question="arithmetic", item="another", label="1")
    rows = [*solved(4, "base", count=8), *solved(4, "adapter", count=4), more]
    table = side_effects.abilities(results({"korean": rows}), 200, 0)
    assert table[["before", "after", "n"]].to_numpy().tolist() == [[1, 1, 4]]


@pytest.mark.parametrize("rows", [[], solved(3, "base"), [*solved(3, "adapter"), *solved(3, "persona")]])
def test_an_ability_without_before_or_after_has_no_row(rows):
    table = side_effects.abilities(results({"korean": [prediction(), *rows]}), 100, 0)
    assert table.empty
    assert list(table.columns) == list(side_effects.ABILITY_COLUMNS)
