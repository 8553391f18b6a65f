"""What needs no model, and every figure, by hand."""

import collections

import pytest
from opinions import AGREE, OFTEN, labelled, prediction, seed

from culturellm_utils import classification, evaluation, items, tasks
from culturellm_utils.evaluation import ALL_SETS, SOUND_SETS, bounds, ceilings, paper_scores, score, values, with_bounds
from culturellm_utils.items import Item
from culturellm_utils.released import Task

SEEDS = [seed("Q1", [0.2, 0.5, 0.3]), seed("Q2", [0.6, 0.1, 0.3])]


def by(rows, *names):
    """Rows of figures by the fields that tell them apart."""
    found = {tuple(row[name] for name in names): row for row in rows}
    assert len(found) == len(rows)
    return found


# Values and bounds

def test_values_by_hand():
    rows = [prediction(p=(0.1, 0.6, 0.3)), prediction(p=(0.5, 0.2, 0.3)), prediction(label="")]
    assert values(rows, "accuracy") == [1, 0, 0]
    # cumulated differences -0.1, 0 and 0.3, 0 over a scale two steps long
    assert values(rows[:2], "emd") == pytest.approx([0.05, 0.15])
    assert values([prediction(p=(0.2, 0.5, 0.3))], "js_similarity") == [1]


def test_values_take_options_in_the_order_of_the_scale():
    row = prediction(p=(0.0, 0.0, 1.0), gold=(1.0, 0.0, 0.0))
    shuffled = row.model_copy(update={"probabilities": dict(reversed(row.probabilities.items()))})
    assert values([row, shuffled], "emd") == [1, 1]


def test_bounds_by_hand():
    seeds = [seed("Q1", [0.2, 0.5, 0.3]), seed("Q2", [0.6, 0.1, 0.3]), seed("Q3", [0.4, 0.0, 0.6]),
             seed("Q4", [0.9, 0.1], OFTEN), seed("Q5", [0.0, 0.0, 1.0]), seed("Q6", [], rule="paper", label="4")]
    found = bounds(seeds, left_out=frozenset({"Q5"}))
    third = pytest.approx({"1": 1 / 3, "2": 1 / 3, "3": 1 / 3})
    assert all(found[name]["uniform"] == third for name in ("Q1", "Q2", "Q3", "Q5", "Q6"))
    assert found["Q1"]["majority"] == pytest.approx({"1": 0.5, "2": 0.05, "3": 0.45})  # Q2 and Q3, never itself
    assert found["Q2"]["majority"] == pytest.approx({"1": 0.3, "2": 0.25, "3": 0.45})
    every = pytest.approx({"1": 0.4, "2": 0.2, "3": 0.4})  # what is held out tells nothing, what nobody was asked too
    assert found["Q5"]["majority"] == found["Q6"]["majority"] == every
    assert found["Q4"] == {"uniform": {"1": 0.5, "2": 0.5}, "majority": {"1": 0.5, "2": 0.5}}  # no other has its scale


def test_bounds_are_systems_on_the_same_items():
    known = {"korean": bounds(SEEDS, frozenset())}
    rows = [prediction(system=system, item=item) for system in ("base", "adapter") for item in ("Q1-t03", "Q1-t04")]
    rows += [prediction(culture="german"), prediction(part="ability"), prediction(part="option_order"),
             prediction(part="held_out_country")]
    every = with_bounds(rows, known)
    made = every[len(rows) :]
    assert every[: len(rows)] == rows
    assert collections.Counter((p.item_id, p.system) for p in made) == {
        (item, system): 1 for item in ("Q1-t03", "Q1-t04") for system in ("uniform", "majority")}
    majority = next(p for p in made if p.system == "majority")
    assert majority.probabilities == SEEDS[1].distribution  # the only other question
    assert (majority.label, majority.gold) == ("1", "2")
    assert all(p.label is None and p.messages == [] for p in made if p.system == "uniform")


def item(part, question, item_id="x"):
    return Item(item_id, part, "korean", question, "?", tuple(AGREE), "2", {})


def test_ceilings_by_hand():
    """People of one mind agree with each other; four people of two minds are split into halves by chance."""
    seeds = [seed("Q1", [0.0, 1.0, 0.0]), seed("Q2", [0.5, 0.5, 0.0], respondents=4), seed("Q3", [1.0, 0.0, 0.0])]
    asked = [item("held_out_wording", "Q1"), item("held_out_wording", "Q1", "y"), item("held_out_question", "Q2"),
             item("task", "Q3"), item("held_out_country", "Q3")]
    found = by(ceilings(seeds, asked, 200, 0), "part", "metric")
    assert {row["system"] for row in found.values()} == {"split_half"}
    assert {row["culture"] for row in found.values()} == {"korean"}
    assert {part for part, _ in found} == {"held_out_wording", "held_out_question"}
    for metric, best in (("accuracy", 1.0), ("js_similarity", 1.0), ("emd", 0.0)):
        row = found["held_out_wording", metric]
        assert (row["value"], row["low"], row["high"], row["n"], row["clusters"]) == (best, best, best, 1, 1)
        assert (row["task"], row["baselines"]) == ("", {})
    # Of the six halves of {1, 1, 2, 2} two hold one kind alone: then all differs (accuracy 0, similarity 0, distance
    # 1/2 of the scale); in the other four the halves are the same.
    for metric, mean in (("accuracy", 2 / 3), ("js_similarity", 2 / 3), ("emd", 1 / 6)):
        assert found["held_out_question", metric]["value"] == pytest.approx(mean, abs=0.1)
    assert ceilings(seeds, [item("ability", "Q1")], 200, 0) == []


# Scores of survey answers

def test_score_by_hand():
    rows = [prediction(question="Q1", item="a", p=(0.1, 0.6, 0.3)),
            prediction(question="Q1", item="b", p=(0.8, 0, 0.2)),
            prediction(question="Q2", item="c", p=(0.1, 0.6, 0.3))]
    rows = with_bounds(rows, {"korean": bounds(SEEDS, frozenset())})
    found = by(score(rows, samples=200, seed=0), "system", "metric")
    assert len(found) == 9
    accuracy = found["base", "accuracy"]
    assert accuracy["value"] == pytest.approx(2 / 3)
    assert (accuracy["n"], accuracy["clusters"], accuracy["task"]) == (3, 2, "")
    assert (accuracy["low"], accuracy["high"]) == (0.5, 1.0)  # both draws Q1 (half right), or both Q2
    # a guess is right as often as the gold label has a third; the majority of the other question is right on Q2
    assert found["uniform", "accuracy"]["value"] == pytest.approx(1 / 3)
    assert found["majority", "accuracy"]["value"] == pytest.approx(1 / 3)
    assert accuracy["baselines"] == pytest.approx({"uniform": 1 / 3, "majority": 1 / 3})
    assert found["majority", "accuracy"]["baselines"] == pytest.approx({"uniform": 1 / 3, "base": 2 / 3})
    assert found["base", "emd"]["value"] == pytest.approx((0.05 + (0.6 + 0.1) / 2 + 0.05) / 3)


def test_score_keeps_parts_and_cultures_apart():
    rows = [prediction(), prediction(culture="german", label="3"), prediction(part="ability", label="1"),
            prediction(part="ability", item="x"), prediction(part="held_out_country", label="1"),
            prediction(part="option_order", label="1"), prediction(part="other_prompt")]
    found = {(row["part"], row["culture"], row["metric"]): row["value"] for row in score(rows, 100, 0)}
    assert found["held_out_wording", "korean", "accuracy"] == 1
    assert found["held_out_wording", "german", "accuracy"] == 0
    assert found["held_out_country", "korean", "accuracy"] == found["option_order", "korean", "accuracy"] == 0
    assert found["other_prompt", "korean", "accuracy"] == 1
    assert found["ability", "korean", "accuracy"] == 0.5
    assert ("ability", "korean", "emd") not in found
    assert all((part, "korean", "emd") in found for part in evaluation.OPINION_PARTS if part != "held_out_question")
    assert score(rows, 100, 0) == score(rows, 100, 0)


def test_every_ability_has_a_figure_of_its_own():
    """Replies of the harness come without probabilities."""
    rows = [prediction(part="ability", question="arithmetic", item="a")]
    rows += [prediction(part="ability", question="gsm8k", item=str(n), label="1").model_copy(
        update={"probabilities": {}, "gold_distribution": {}, "gold": gold}) for n, gold in enumerate("1222")]
    found = by(score(rows, 100, 0), "task", "metric")
    assert {name: row["value"] for (name, _), row in found.items()} == {"arithmetic": 1, "gsm8k": 0.25}
    assert (found["gsm8k", "accuracy"]["n"], found["gsm8k", "accuracy"]["clusters"]) == (4, 4)


# Scores of classification sets

#: Gold, the label found and the probability of "yes", of a set of four and a set of two.
SPAM = [("yes", "yes", 0.9), ("yes", "no", 0.4), ("no", "no", 0.1), ("no", "", 0.5)]
HATE = [("yes", "no", 0.2), ("no", "no", 0.1)]


def answered(rows, task, system="base"):
    return [labelled(f"{task}-{n}", gold, label, system, task=task, p=(p, 1 - p))
            for n, (gold, label, p) in enumerate(rows)]


def test_classification_sets_by_hand():
    found = by(score([*answered(SPAM, "spam"), *answered(HATE, "hate")], 500, 0), "task", "metric")
    # spam. yes: 1 right of 2 asked and 1 answered; no: 1 right of 2 asked and 2 answered
    spam = found["spam", "macro_f1"]
    assert spam["value"] == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert found["spam", "accuracy"]["value"] == 0.5
    assert found["spam", "invalid_rate"]["value"] == 0.25
    assert found["hate", "macro_f1"]["value"] == pytest.approx((0 + 2 / 3) / 2)
    assert found["hate", "accuracy"]["value"] == 0.5
    assert found["hate", "invalid_rate"]["value"] == 0
    assert (spam["n"], spam["clusters"]) == (4, 4)
    assert spam["low"] < spam["value"] < spam["high"] <= 1
    # calibrated: the mean of yes is 0.475 and 0.15, so that the second spam text stays a no and the first hate text
    # (0.2 against 0.15) becomes a yes; a reply that could not be parsed stays wrong
    assert found["spam", "macro_f1_calibrated"]["value"] == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert found["hate", "macro_f1_calibrated"]["value"] == 1
    assert not any(row["part"] != "task" for row in found.values())


def test_averages_over_all_sets_and_over_sound_ones():
    rows = [*answered(SPAM, "spam"), *answered(HATE, "hate")]
    found = by(score(rows, 500, 0, unsound={("korean", "hate"), ("german", "spam")}), "task", "metric")
    spam, hate = (found[name, "macro_f1"]["value"] for name in ("spam", "hate"))
    every, sound = found[ALL_SETS, "macro_f1"], found[SOUND_SETS, "macro_f1"]
    assert every["value"] == pytest.approx((spam + hate) / 2)  # each set counts alike, whatever its size
    assert (every["n"], every["clusters"]) == (6, 2)
    assert sound["value"] == pytest.approx(spam)  # another culture's doubts are not this one's
    assert (sound["n"], sound["clusters"]) == (4, 1)
    assert found[ALL_SETS, "macro_f1_calibrated"]["value"] == pytest.approx(((2 / 3 + 2 / 4) / 2 + 1) / 2)
    assert (ALL_SETS, "accuracy") not in found
    assert every["low"] < every["value"] < every["high"]
    none = by(score(rows, 100, 0, unsound={("korean", "hate"), ("korean", "spam")}), "task", "metric")
    assert (ALL_SETS, "macro_f1") in none
    assert (SOUND_SETS, "macro_f1") not in none


def test_the_sets_of_an_average_are_resampled_apart():
    """Two sets of the same answers: their mean varies less than either, by the root of two."""
    rows = [("yes", "yes", 1.0), ("yes", "no", 0.0), ("no", "no", 0.0), ("no", "yes", 1.0)] * 25
    found = by(score([*answered(rows, "spam"), *answered(rows, "hate")], 4000, 0), "task", "metric")
    one, mean = (found[name, "macro_f1"]["high"] - found[name, "macro_f1"]["low"] for name in ("spam", ALL_SETS))
    assert mean == pytest.approx(one / 2**0.5, rel=0.1)


def test_baselines_of_a_set_are_the_base_models_figures():
    rows = [*answered(SPAM, "spam"), *answered([("yes", "yes", 1.0)] * 2 + [("no", "no", 0.0)] * 2, "spam", "adapter")]
    found = by(score(rows, 100, 0), "system", "task", "metric")
    assert found["adapter", "spam", "macro_f1"]["value"] == 1
    for task in ("spam", ALL_SETS, SOUND_SETS):
        assert found["adapter", task, "macro_f1"]["baselines"] == pytest.approx({"base": (2 / 3 + 2 / 4) / 2})
        assert found["base", task, "macro_f1"]["baselines"] == {}


def test_a_figure_of_a_set_is_that_of_classification():
    rows = answered(SPAM, "spam")
    found = by(score(rows, 300, 5), "task", "metric")["spam", "macro_f1"]
    alone = classification.macro_f1([p.gold for p in rows], [p.label for p in rows], ("yes", "no"), 300, [5, 0])
    assert (found["value"], found["low"], found["high"]) == (alone.value, alone.low, alone.high)


# What the released evaluator makes of the replies

def released_set(tmp_path, culture="korean", parser=None):
    """A set whose parser takes a "no" anywhere in a reply for the label no."""
    rows = ['{"text": "a", "y": "no"}', '{"text": "b", "y": "yes"}', '{"text": "c", "y": "yes"}']
    (tmp_path / "s.jsonl").write_text("\n".join(rows))
    return tasks.load(Task(culture=culture, task="spam", path="s.jsonl", text_field="text", label_field="y", version=1,
                           labels={"no": "No", "yes": "Yes"}, prompt="{text}", metric="macro-F1",
                           paper_parser={"no": "no", "yes": "yes"} if parser is None else parser), tmp_path)


def replies(culture="korean", system="adapter"):
    """"I know" is no label, but holds a no."""
    return [labelled(f"spam-{n}", gold, "", system, culture, labels=("No", "Yes")).model_copy(update={"reply": reply})
            for n, (gold, reply) in enumerate([("No", "No"), ("Yes", "I know: Yes"), ("Yes", "Yes")], start=1)]


def test_paper_scores_by_hand(tmp_path):
    (row,) = paper_scores([*replies(), *replies(system="base")], [released_set(tmp_path)])
    # read as released: no, no, yes. No: 1 right of 1 asked and 2 said; yes: 1 of 2 asked and 1 said.
    # read strictly: no, nothing, yes. No: 1 of 1 and 1; yes: 1 of 2 and 1.
    assert row == {"culture": "korean", "task": "spam", "n": 3, "released": pytest.approx(2 / 3),
                   "substrings": pytest.approx((1 + 2 / 3) / 2), "mended": pytest.approx((1 + 2 / 3) / 2)}


def test_paper_scores_of_a_part_of_the_rows(tmp_path):
    (row,) = paper_scores(replies()[1:], [released_set(tmp_path)])
    assert row["n"] == 2
    assert row["released"] == pytest.approx((0 + 2 / 3) / 2)  # no: never asked, said once


def test_sets_that_were_not_asked_or_are_not_the_released_ones_have_no_paper_score(tmp_path):
    for culture, parser, rows in (("german", None, replies()), ("korean", {}, replies()), ("korean", None, [])):
        assert paper_scores(rows, [released_set(tmp_path, culture, parser)]) == []


def test_items_and_predictions_of_a_set_name_it_alike(tmp_path):
    """What ties a prediction to the row of its file is the item's id."""
    found = released_set(tmp_path)
    assert [row.item_id for row in items.set_items(found)] == [row.item_id for row in replies()]
