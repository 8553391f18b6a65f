"""The comparison across cultures, on a handful of hand-made predictions."""

import json

import numpy as np
import pandas as pd
import pytest

from culturellm_utils import alignment, evaluation, parameters, summary
from culturellm_utils.records import Prediction, Seed, write_json, write_rows

OPTIONS = {"1": "Agree", "2": "Disagree"}
TRUTH = {"korean": "1", "german": "2"}


def prediction(about: str, system: str, question: str, wording: str, answer: str) -> Prediction:
    gold = TRUTH[about]
    return Prediction(
        item_id=wording, part="held_out_wording", culture=about, system=system, question_id=question, messages=[],
        probabilities={"1": float(answer == "1"), "2": float(answer == "2")}, reply=answer, label=answer, gold=gold,
        gold_distribution={"1": 0.9, "2": 0.1} if gold == "1" else {"1": 0.2, "2": 0.8},
    )


@pytest.fixture
def results() -> summary.Results:
    """Two cultures of opposite opinion; each adapter says its own people's answer whoever is asked about; the base
    says 1 always; One is right everywhere. Two questions, each worded as a template, one also as a sample."""
    wordings = [("Q1", "Q1-t08"), ("Q1", "Q1-t08-s1"), ("Q2", "Q2-t08")]
    predictions = {"one": [prediction(about, "adapter", q, w, TRUTH[about]) for about in TRUTH for q, w in wordings]}
    for model in TRUTH:
        predictions[model] = [prediction(model, system, q, w, "1")
                              for system in ("base", "persona") for q, w in wordings]
        predictions[model] += [prediction(model, "adapter", q, w, TRUTH[model]) for q, w in wordings]
        other, = set(TRUTH) - {model}
        predictions[model] += [prediction(other, "adapter", q, w, TRUTH[model]) for q, w in wordings if "-s" not in w]
    seeds = {name: [Seed(question_id=q, topic="t", question="?", options=OPTIONS, culture=name, countries=["KOR"],
                         respondents=10, distribution={"1": 0.5, "2": 0.5}, label="1", label_rule="mode")
                    for q in ("Q1", "Q2")] for name in TRUTH}
    scores = {name: evaluation.score(rows, 100, 0) for name, rows in predictions.items()}
    return summary.Results(seeds, predictions, scores)


def test_comparison_by_hand(results):
    table = summary.compare(results, samples=200, seed=0)
    view = table[(table["part"] == "held_out_wording") & (table["metric"] == "accuracy")]
    value = view.set_index(["culture", "system"])["value"].to_dict()
    assert value == {
        ("korean", "base"): 1, ("korean", "persona"): 1, ("korean", "wrong culture"): 0, ("korean", "one"): 1,
        ("korean", "adapter"): 1, ("german", "base"): 0, ("german", "persona"): 0, ("german", "wrong culture"): 0,
        ("german", "one"): 1, ("german", "adapter"): 1,
    }
    n = view.set_index(["culture", "system"])["n"].to_dict()
    assert n["german", "base"] == 3
    assert n["german", "wrong culture"] == 2  # the sample was not asked of the other adapter
    # emd of a certain right answer: 0.1 for the Koreans (0.9 say so), 0.2 for the Germans
    emd = table[(table["metric"] == "emd") & (table["system"] == "adapter")].set_index("culture")["value"]
    assert emd["korean"] == pytest.approx(0.1)
    assert emd["german"] == pytest.approx(0.2)


def test_p_values_are_corrected_and_paired_with_the_own_adapter(results):
    table = summary.compare(results, samples=200, seed=0)
    assert table.loc[table["system"] == "adapter", "p"].isna().all()
    same = table[(table["culture"] == "korean") & (table["system"] == "base") & (table["metric"] == "accuracy")]
    assert same["p"].iloc[0] == 1


def test_matrix_and_c_dist(results):
    found = summary.matrix(results)
    assert found.loc["korean"].to_dict() == {"korean": 1, "german": 0, "one": 1}
    assert found.loc["german"].to_dict() == {"korean": 0, "german": 1, "one": 1}
    assert summary.c_dist(found.drop(columns="one")) == 1
    # adapter a is as good away as at home (1/2 over 1/2), adapter b half as good at home as away (1/4 over 1/2)
    square = pd.DataFrame({"a": {"a": 0.5, "b": 0.5}, "b": {"a": 0.5, "b": 0.25}})
    assert summary.c_dist(square) == pytest.approx((1 + 0.5) / 2)


def test_verdicts(results):
    found = summary.verdicts(summary.compare(results, samples=200, seed=0)).set_index("culture")
    assert not found.loc["korean", "beats"]  # no better than the base, which is right already
    assert found.loc["german", "beats"]
    assert found.loc["german", "clear"]


def test_own_minus_one(results):
    comparison = summary.compare(results, samples=200, seed=0)
    assert summary.own_minus(comparison, results, "one", 200, 0)["value"].tolist() == [0, 0]
    assert summary.own_minus(comparison, results, "base", 200, 0).set_index("culture")["value"]["german"] == 1


def test_load_reads_what_05_wrote(results, outputs):
    knobs = parameters.Summary(study="toy", variant="main", random_seed=0, cultures=["korean", "german"],
                               language="english", questions_path="", wvs_path="", country_weighting="equal",
                               bootstrap_samples=100)
    for model, rows in results.predictions.items():
        write_rows(knobs.folder(model) / "predictions.jsonl", rows)
        write_json(knobs.folder(model) / "scores.json", {"figures": results.scores[model]})
        if model in results.seeds:
            write_rows(knobs.folder(model) / "seeds.jsonl", results.seeds[model])
    again = summary.load(knobs)
    pd.testing.assert_frame_equal(summary.compare(again, 200, 0), summary.compare(results, 200, 0))
    json.dumps(again.scores)


def test_wrong_culture_is_the_mean_over_the_others():
    rows = {name: [prediction("korean", "adapter", "Q1", "Q1-t08", answer)]
            for name, answer in {"korean": "1", "german": "1", "turkish": "2"}.items()}
    results = summary.Results({name: [] for name in rows}, rows, {name: [] for name in rows})
    table = summary.compare(results, 100, 0).query("metric == 'accuracy'").set_index("system")
    assert table.loc["wrong culture", "value"] == 0.5
    assert np.isnan(table.loc["adapter", "p"])
    assert alignment.holm([0.01, 0.04]) == pytest.approx([0.02, 0.04])
