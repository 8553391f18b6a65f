"""Augmenters on equal numbers of accepted texts, with toys in the place of the encoder and the guard."""

import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from test_paper import Bag

from culturellm_utils import comparison, parameters, studies, survey
from culturellm_utils.comparison import COLUMNS, REQUESTED, compare
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Augmentation
from culturellm_utils.records import Augmented, Candidate

QUESTIONS = survey.questions("")[:4]


class ToyGuard:
    """Calls short texts damaged and texts with a "not" changed."""

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        return ["damage: short" if len(text.split()) < 5 else "polarity: flipped" if "not" in text.split() else ""
                for _, text in pairs]


@pytest.fixture(autouse=True)
def toy_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison.encoder, "load", lambda name: Bag())


def knobs(**changed: object) -> Augmentation:
    return parameters.validate(Augmentation, studies.defaults("02_augmentation") | {"tau": 0.3} | changed)


@pytest.fixture(scope="module")
def compared() -> tuple[pd.DataFrame, dict[str, list[str]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison.encoder, "load", lambda name: Bag())
        return compare(knobs(price_input=2.5, price_output=10.0), QUESTIONS, ToyGuard(), per_question=2)


def test_a_row_for_each_augmenter_and_every_column(compared):
    table, drawn = compared
    assert tuple(table.columns) == COLUMNS
    assert list(table["augmenter"]) == list(REQUESTED) == list(drawn)
    assert not table.isna().any(axis=None)
    assert table[["similar", "damaged", "changed"]].stack().between(0, 1).all()
    assert (table["accepted"] <= table["texts"]).all()
    table = table.set_index("augmenter")
    # Samples where there are some: four of each of twelve templates; two of each of five.
    assert table["texts"].to_dict() == {"two_stage": 4 * 12 * 4, "paraphrase": 4 * 12, "free": 4 * 8,
                                        "round_trip": 4 * 4, "eda": 4 * 12, "paper": 4 * 5 * 2}
    assert table["requests"].drop(["eda", "paper"]).to_dict() == {
        "two_stage": 4 + 48, "paraphrase": 4, "free": 4, "round_trip": 4 * 4 * 2}
    assert table["money"].between(table["tokens"] * 2.5e-6, table["tokens"] * 10e-6).all()


def test_what_an_accepted_text_costs(compared):
    table, _ = compared
    for unit in ("requests", "tokens", "money"):
        assert table[f"{unit}_per_accepted"].tolist() == pytest.approx((table[unit] / table["accepted"]).tolist())


def test_equal_numbers_are_drawn_of_what_was_accepted(compared):
    table, drawn = compared
    assert table["drawn"].nunique() == 1
    assert 0 < table["drawn"][0] <= 2 * len(QUESTIONS)
    assert all(len(texts) == len(set(texts)) == table["drawn"][0] for texts in drawn.values())
    assert not [text for texts in drawn.values() for text in texts if len(text.split()) < 5 or "not" in text.split()]


def test_the_released_procedure_sends_five_times_as_many_requests_for_an_accepted_text(compared):
    cost = compared[0].set_index("augmenter")["requests_per_accepted"]
    assert cost["paper"] >= 5 * cost["two_stage"]


def test_it_is_the_same_each_time(compared):
    table, drawn = compare(knobs(price_input=2.5, price_output=10.0), QUESTIONS, ToyGuard(), per_question=2)
    pd.testing.assert_frame_equal(table, compared[0])
    assert drawn == compared[1]


def candidate(name: str, text: str, stage: int = 1) -> Candidate:
    return Candidate(candidate_id=name, question_id=QUESTIONS[0].question_id, stage=stage, template_id=name[:7],
                     text=text, substitutions=[], source="toy")


def test_figures_by_hand(monkeypatch):
    seed = QUESTIONS[0].question_id
    asked = QUESTIONS[0].model_copy(update={"question": "Hard work makes people happy."})
    template = candidate(f"{seed}-t01", "Hard work makes all people happy.")
    # Words shared with the seed's five: five of six, four of six, none of three, five of six (with a "not").
    samples = [candidate(f"{seed}-t01-s{n}", text, 2) for n, text in enumerate((
        "Hard work makes most people happy.", "Long work makes some people happy.", "We sing here.",
        "Hard work makes not people happy."), start=1)]
    made = {"two_stage": [template, *samples], "eda": []}
    monkeypatch.setattr(comparison.augmenters, "augment", lambda job: made.get(job.knobs.augmenter, [template]))
    table, drawn = compare(knobs(tau=0.5), [asked], ToyGuard(), per_question=1)
    table = table.set_index("augmenter")
    counted = ["texts", "similar", "damaged", "changed", "accepted"]
    assert table.loc["two_stage", counted].tolist() == [4, 0.75, 0.25, 0.25, 2]
    assert table.loc["free", counted].tolist() == [1, 1, 0, 0, 1]
    assert table.loc["eda", ["texts", "accepted", "drawn"]].tolist() == [0, 0, 0]
    assert table.loc["eda", ["similar", "requests_per_accepted", "diversity_gain"]].isna().all()
    assert set(table["drawn"]) == {0}  # equal numbers: as many as the poorest one has
    assert drawn == {name: [] for name in REQUESTED}

    made["eda"] = [template]
    table, drawn = compare(knobs(tau=0.5), [asked], ToyGuard(), per_question=1)
    table = table.set_index("augmenter")
    assert drawn["eda"] == drawn["free"] == [template.text]
    assert drawn["two_stage"][0] in {sample.text for sample in samples[:2]}
    # The distance of unit vectors whose cosine is 5 / sqrt(5 * 6).
    assert table.loc["eda", "diversity_gain"] == pytest.approx(np.sqrt(2 - 2 * 5 / np.sqrt(30)))


def test_templates_alone_are_no_samples(monkeypatch):
    """All samples are refused: none is accepted, though a template is."""
    seed = QUESTIONS[0].question_id
    template = candidate(f"{seed}-t01", QUESTIONS[0].question + " Yes.")
    made = [template, candidate(f"{seed}-t01-s1", "We sing here every day.", 2)]
    monkeypatch.setattr(comparison.augmenters, "augment", lambda job: made)
    table, _ = compare(knobs(), QUESTIONS[:1], ToyGuard(), per_question=1)
    assert set(table["texts"]) == {1}
    assert set(table["accepted"]) == {0}


def test_an_equal_draw_is_that_of_the_poorest_for_each_question():
    def rows(**counts: int) -> list[Augmented]:
        return [Augmented(candidate_id=f"{q}-t{n:02d}", question_id=q, stage=1, template_id="t", text=f"{q} {n}",
                          substitutions=[], source="toy", similarity=0.9) for q, count in counts.items()
                for n in range(count)]

    drawn = comparison._equal({"a": rows(Q1=5, Q2=1, Q3=2), "b": rows(Q1=3, Q2=4)}, per_question=2, seed=0)
    assert [sorted(text[:2] for text in texts) for texts in drawn.values()] == [["Q1", "Q1", "Q2"]] * 2
    assert drawn == comparison._equal({"a": rows(Q1=5, Q2=1, Q3=2), "b": rows(Q1=3, Q2=4)}, per_question=2, seed=0)


def test_it_is_in_english():
    with pytest.raises(UserError, match=r"^augmenters are compared in English: leave language at english$"):
        compare(knobs(language="local"), QUESTIONS, ToyGuard(), 1)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["comparison", *arguments])
    return comparison.main()


def test_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(comparison.survey, "questions", lambda path: QUESTIONS[:1])
    monkeypatch.setattr(comparison.filtering, "Guards", lambda trained: ToyGuard())
    path = tmp_path / "table.csv"
    assert run(monkeypatch, "-p", "tau", "0.3", "--per-question", "1", "--output", str(path)) == 0
    assert "two_stage" in capsys.readouterr().out
    assert list(pd.read_csv(path)["augmenter"]) == list(REQUESTED)


@pytest.mark.parametrize(("arguments", "problem"), [
    (("-p", "tau", "2"), "parameter 'tau' is 2"), (("-p", "taus", "0.3"), "no parameter 'taus'"),
    (("-p", "questions_path", "nowhere.jsonl"), "nowhere.jsonl does not exist"),
    (("-p", "tau", "{"), "-p tau '{' is no value")])
def test_a_mistake_on_it_is_one_sentence(monkeypatch, capsys, arguments, problem):
    assert run(monkeypatch, *arguments) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("Error: ")
    assert problem in errors
    assert errors.count("\n") == 1
