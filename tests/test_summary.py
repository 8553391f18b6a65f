"""The comparison across cultures, on a handful of hand-made predictions."""

import json

import numpy as np
import pandas as pd
import pytest
from opinions import prediction, seed

from culturellm_utils import alignment, evaluation, parameters, studies, summary
from culturellm_utils.errors import UserError
from culturellm_utils.prompts import chat
from culturellm_utils.records import write_json, write_rows
from culturellm_utils.summary import Results
from culturellm_utils.systems import PROMPTED

OPTIONS = {"1": "Agree", "2": "Disagree"}
TRUTH = {"korean": "1", "german": "2"}
GOLD = {"korean": (0.9, 0.1), "german": (0.2, 0.8)}
#: Two questions, each worded as a template, one also as a sample.
WORDINGS = [("Q1", "Q1-t08"), ("Q1", "Q1-t08-s1"), ("Q2", "Q2-t08")]
NOTHING = {"figures": [], "stability": [], "tasks": [], "released": [], "win_rates": []}


def says(about, system, question, wording, answer, part="held_out_wording"):
    """An answer that is certain of itself."""
    return prediction(about, system, part, question, wording, [float(answer == code) for code in OPTIONS],
                      GOLD[about], options=OPTIONS)


@pytest.fixture
def results() -> Results:
    """Two cultures of opposite opinion; each adapter says its own people's answer whoever is asked about; untrained
    and in the first stage alone the model always says 1; One is right everywhere. The Germans' last country was held
    out, and answers 1."""
    predictions = {"one": [says(about, "adapter", q, w, TRUTH[about]) for about in TRUTH for q, w in WORDINGS]}
    for model in TRUTH:
        predictions[model] = [says(model, system, q, w, "1")
                              for system in ("base", "persona", "stage_1_only") for q, w in WORDINGS]
        predictions[model] += [says(model, "adapter", q, w, TRUTH[model]) for q, w in WORDINGS]
        other, = set(TRUTH) - {model}
        predictions[model] += [says(other, "adapter", q, w, TRUTH[model]) for q, w in WORDINGS if "-s" not in w]
    predictions["german"] += [
        says("german", system, "Q1", "Q1-t08", answer, "held_out_country").model_copy(update={"gold": "1"})
        for system, answer in (("base", "1"), ("one_country", "1"), ("adapter", "2"))]
    predictions["german"] += [says("german", "one_country", q, w, "2") for q, w in WORDINGS]
    # One's own base: asked about Koreans too, but a base is that of the culture's own model
    predictions["one"] += [says("korean", "base", q, w, "2") for q, w in WORDINGS]
    seeds = {name: [seed(q, shares, OPTIONS, culture=name) for q in ("Q1", "Q2")] for name, shares in GOLD.items()}
    known = {name: evaluation.bounds(rows, frozenset()) for name, rows in seeds.items()}
    scores = {name: NOTHING | {"figures": evaluation.score(evaluation.with_bounds(rows, known), 100, 0)}
              for name, rows in predictions.items()}
    return Results(seeds, predictions, scores)


@pytest.fixture
def comparison(results):
    return summary.compare(results, samples=200, seed=0)


def of(table, **wanted):
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


def test_comparison_by_hand(comparison):
    view = of(comparison, part="held_out_wording", metric="accuracy").set_index(["culture", "system"])
    assert view["value"].to_dict() == {
        ("korean", "uniform"): 0.5, ("korean", "majority"): 1, ("korean", "base"): 1, ("korean", "persona"): 1,
        ("korean", "stage_1_only"): 1, ("korean", "wrong culture"): 0, ("korean", "one"): 1, ("korean", "adapter"): 1,
        ("german", "uniform"): 0.5, ("german", "majority"): 1, ("german", "base"): 0, ("german", "persona"): 0,
        ("german", "stage_1_only"): 0, ("german", "one_country"): 1, ("german", "wrong culture"): 0,
        ("german", "one"): 1, ("german", "adapter"): 1,
    }
    assert view.loc[("german", "base"), ["n", "clusters"]].to_list() == [3, 2]
    assert view["n"]["german", "wrong culture"] == 2  # the sample was not asked of the other adapter
    # emd of a certain right answer: 0.1 for the Koreans (0.9 say so), 0.2 for the Germans
    emd = of(comparison, metric="emd", system="adapter", part="held_out_wording").set_index("culture")["value"]
    assert emd["korean"] == pytest.approx(0.1)
    assert emd["german"] == pytest.approx(0.2)


def test_bounds_are_the_figures_of_05(results, comparison):
    (figure,) = [row for row in results.scores["german"]["figures"] if (row["culture"], row["system"], row["metric"])
                 == ("german", "majority", "js_similarity")]
    row = of(comparison, culture="german", system="majority", metric="js_similarity").iloc[0]
    assert all(row[name] == figure[name] for name in ("value", "low", "high", "n", "clusters"))
    assert np.isnan(row["p"])


def test_the_held_out_country_is_compared_where_there_is_one(comparison):
    view = of(comparison, part="held_out_country", metric="accuracy").set_index(["culture", "system"])["value"]
    assert view.to_dict() == {("german", "base"): 1, ("german", "one_country"): 1, ("german", "adapter"): 0}


def test_every_rival_has_its_row():
    rows = [prediction(system=system) for system in (*PROMPTED, "seeds_only", "stage_1_only", "one_country", "adapter")]
    about = [prediction(system="adapter")]
    results = Results({"korean": [], "german": []}, {"korean": rows, "german": about, "one": about},
                      dict.fromkeys(("korean", "german", "one"), NOTHING))
    table = of(summary.compare(results, 100, 0), metric="accuracy")
    assert tuple(table["system"]) == summary.RIVALS == (
        "base", "persona", "context", "third_person", "seeds_only", "stage_1_only", "one_country", "wrong culture",
        "one", "adapter")


def test_p_values_are_paired_with_the_own_adapter(comparison):
    assert of(comparison, system="adapter")["p"].isna().all()
    assert of(comparison, culture="korean", system="base", metric="accuracy")["p"].tolist() == [1]


def test_p_values_are_corrected_within_part_and_metric():
    """Ten questions that the adapter alone answers rightly, of one of two rivals: 2 p of the smaller one."""
    wordings = [f"Q{n}" for n in range(10)]
    rows = [prediction(system=system, question=q, label=label) for q in wordings
            for system, label in (("base", "1"), ("persona", "2"), ("adapter", "2"))]
    rows += [prediction(part="held_out_question", system=system, question=q, label="2")
             for q in wordings for system in ("base", "adapter")]
    results = Results({"korean": []}, {"korean": rows}, {"korean": NOTHING})
    table = of(summary.compare(results, 100, 0), part="held_out_wording", metric="accuracy").set_index("system")["p"]
    alone = alignment.paired_test([1.0] * 10, [0.0] * 10, wordings, alignment.PERMUTATIONS, 0)
    assert table["base"] == pytest.approx(2 * alone)
    assert alone == pytest.approx(2 / 2**10, abs=0.001)
    assert table["persona"] == 1


def test_wrong_culture_is_the_mean_over_the_others():
    rows = {name: [says("korean", "adapter", "Q1", "Q1-t08", answer)]
            for name, answer in {"korean": "1", "german": "1", "turkish": "2"}.items()}
    results = Results({name: [] for name in rows}, rows, dict.fromkeys(rows, NOTHING))
    table = of(summary.compare(results, 100, 0), metric="accuracy").set_index("system")
    assert table.loc["wrong culture", "value"] == 0.5
    assert np.isnan(table.loc["adapter", "p"])


def test_matrix_and_c_dist(results):
    found = summary.matrix(results)
    assert found.loc["korean"].to_dict() == {"korean": 1, "german": 0, "one": 1}
    assert found.loc["german"].to_dict() == {"korean": 0, "german": 1, "one": 1}
    assert summary.c_dist(found.drop(columns="one")) == 1
    # adapter a is as good away as at home (1/2 over 1/2), adapter b half as good at home as away (1/4 over 1/2)
    square = pd.DataFrame({"a": {"a": 0.5, "b": 0.5}, "b": {"a": 0.5, "b": 0.25}})
    assert summary.c_dist(square) == pytest.approx((1 + 0.5) / 2)


def test_the_matrix_takes_only_items_that_all_were_asked(results):
    """The own adapter's answer to a sample, which no other was asked, does not count."""
    (at,) = [n for n, p in enumerate(results.predictions["korean"])
             if (p.item_id, p.system, p.culture) == ("Q1-t08-s1", "adapter", "korean")]
    results.predictions["korean"][at] = says("korean", "adapter", "Q1", "Q1-t08-s1", "2")
    assert summary.matrix(results).loc["korean", "korean"] == 1


def test_verdicts(comparison):
    found = summary.verdicts(comparison).set_index("culture")
    assert not found.loc["korean", "beats"]  # no better than the base, which is right already
    assert not found.loc["korean", "clear"]
    assert found.loc["german", "beats"]
    assert found.loc["german", "clear"]
    assert found.loc["german", ["base", "adapter"]].tolist() == [0, 1]


def test_own_minus_a_rival_by_hand(results):
    assert summary.own_minus(results, "one", 200, 0)["value"].tolist() == [0, 0]
    stage = summary.own_minus(results, "stage_1_only", 200, 0).set_index("culture")
    assert stage["value"].to_dict() == {"korean": 0, "german": 1}
    assert stage.loc["german", ["low", "high", "n", "clusters"]].tolist() == [1, 1, 3, 2]
    assert summary.own_minus(results, "one_country", 200, 0)["culture"].tolist() == ["german"]
    none = summary.own_minus(results, "context", 200, 0)
    assert none.empty
    assert {"culture", "value", "low", "high"} <= set(none.columns)


def test_adapters_that_speak_for_their_people_have_not_collapsed(results):
    found = summary.collapse(results, "adapter", 200, 0)
    assert found.between_adapters == 1  # certain opposites
    assert found.between_peoples == pytest.approx(1 - alignment.js_similarity(GOLD["korean"], GOLD["german"]))
    assert found.dispersion.value == pytest.approx(1 / found.between_peoples)
    # each is near its own people and far from the others, on both questions alike
    near = [alignment.js_similarity((1, 0), GOLD["korean"]), alignment.js_similarity((0, 1), GOLD["german"])]
    far = [alignment.js_similarity((1, 0), GOLD["german"]), alignment.js_similarity((0, 1), GOLD["korean"])]
    assert found.advantage.value == pytest.approx(sum(near) / 2 - sum(far) / 2)
    assert (found.p, found.assignments, found.exact) == (0.5, 2, True)


def test_a_persona_that_always_says_the_same_has_collapsed(results):
    found = summary.collapse(results, "persona", 200, 0)
    assert found.between_adapters == found.dispersion.value == found.advantage.value == 0
    assert found.p == 1


def test_collapse_pools_the_wordings_of_a_question_and_leaves_other_parts_out(results):
    """Two of the Koreans' three wordings are of Q1: their mean counts as one question."""
    rows = results.predictions["korean"]
    rows[:] = [row for row in rows if (row.culture, row.system) != ("korean", "adapter")]
    rows += [says("korean", "adapter", "Q1", "Q1-t08", "1"), says("korean", "adapter", "Q1", "Q1-t08-s1", "2"),
             says("korean", "adapter", "Q2", "Q2-t08", "1"),
             says("korean", "adapter", "Q1", "Q1-t08", "2", "held_out_country")]
    apart = 1 - alignment.js_similarity((0.5, 0.5), (0, 1))
    assert summary.collapse(results, "adapter", 200, 0).between_adapters == pytest.approx((apart + 1) / 2)


def test_load_reads_what_05_wrote(results, comparison, outputs):
    knobs = parameters.validate(parameters.Summary, studies.defaults("07_summary") | {
        "study": "toy", "cultures": ["korean", "german"]})
    stability = [{"part": "option_order", "format": "reversed", "system": "base", "metric": "same_code", "value": 0.5}]
    for model, rows in results.predictions.items():
        write_rows(knobs.folder(model) / "predictions.jsonl", rows)
        write_json(knobs.folder(model) / "scores.json", results.scores[model] | {"stability": stability})
        if model in results.seeds:
            write_rows(knobs.folder(model) / "seeds.jsonl", results.seeds[model])
    again = summary.load(knobs)
    assert (again.seeds, again.predictions) == (results.seeds, results.predictions)
    pd.testing.assert_frame_equal(summary.compare(again, 200, 0), comparison)
    assert again.table("stability").to_dict("records") == [
        stability[0] | {"model": model} for model in ("korean", "german", "one")]
    assert again.table("released").empty
    json.dumps(again.scores)


def test_predictions_are_read_without_their_prompts_and_people_once(results, tmp_path):
    asked = results.predictions["korean"]
    rows = [row.model_copy(update={"messages": chat("Be brief.", row.item_id)}) for row in asked]
    found = list(summary.predictions(write_rows(tmp_path / "predictions.jsonl", rows)))
    assert found == [row.model_copy(update={"messages": []}) for row in asked]
    assert len({id(row.gold_distribution) for row in found}) == len(GOLD)


def test_what_was_not_evaluated_yet_is_left_out(results, outputs):
    knobs = parameters.validate(parameters.Summary, studies.defaults("07_summary") | {
        "study": "toy", "cultures": ["korean", "german"]})
    with pytest.raises(UserError, match=r"no culture of .*toy/main has a scores.json: run 05_evaluation"):
        summary.load(knobs)
    for name in ("seeds", "predictions"):
        write_rows(outputs / "toy" / "main" / "korean" / f"{name}.jsonl", getattr(results, name)["korean"])
    write_json(outputs / "toy" / "main" / "korean" / "scores.json", results.scores["korean"])
    found = summary.load(knobs)
    assert (list(found.seeds), list(found.predictions), list(found.scores)) == (["korean"], ["korean"], ["korean"])
    assert list(summary.matrix(found).columns) == ["korean"]


def test_a_culture_of_which_nobody_was_asked_has_a_model_and_no_figures(results, outputs):
    knobs = parameters.validate(parameters.Summary, studies.defaults("07_summary") | {
        "study": "toy", "cultures": ["korean", "german"]})
    for name, answers in (("korean", results.seeds["korean"]), ("german", [])):
        asked = [row for row in results.predictions[name] if answers or row.culture == "korean"]
        write_rows(knobs.folder(name) / "predictions.jsonl", asked)
        write_rows(knobs.folder(name) / "seeds.jsonl", answers)
        write_json(knobs.folder(name) / "scores.json", results.scores[name])
    found = summary.load(knobs)
    assert list(found.seeds) == ["korean"]
    assert list(found.predictions) == ["korean", "german"]
    assert set(summary.compare(found, 100, 0)["culture"]) == {"korean"}
    assert summary.matrix(found).loc["korean", "german"] == 0     # its adapter still answers about others
    write_rows(knobs.folder("korean") / "seeds.jsonl", [])
    with pytest.raises(UserError, match="nobody of korean, german was asked anything, so"):
        summary.load(knobs)


def test_questions_that_all_cultures_were_asked(results):
    assert summary.shared_questions(results) == {"Q1", "Q2"}
    results.predictions["german"][:] = [row for row in results.predictions["german"] if row.question_id == "Q1"]
    assert summary.shared_questions(results) == {"Q1"}
    results.predictions["korean"][:] = [row for row in results.predictions["korean"] if row.question_id == "Q2"]
    assert summary.shared_questions(results) == set()
