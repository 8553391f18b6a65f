"""What open-ended answers are: each measure on texts worked out by hand, and the figures of several."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import open_answers, parameters, sameness
from culturellm_utils.errors import UserError
from culturellm_utils.open_ended import OpenAnswer

O01 = "What do children owe their parents, and when is that debt paid?"
PROSE = "Most children help their parents when they are old."
KNOBS = {"study": "toy", "variant": "main", "random_seed": 0, "encoder": "none", "examples": 1,
         "bootstrap_samples": 200}


def answer(text: str, system: str = "adapter", culture: str = "german", question: str = "O01") -> OpenAnswer:
    return OpenAnswer(question_id=question, culture=culture, system=system, text=text)


def measured(text: str, culture: str = "german") -> pd.Series:
    return open_answers.measure([answer(text, culture=culture)]).iloc[0]


# --- one answer


@pytest.mark.parametrize(("text", "language", "expected"), [
    (PROSE, "English", "prose"),
    ("They should help them always.", "English", "prose"),
    ("They should help them.", "English", "fragment"),
    (". they owe........4", "Chinese", "fragment"),
    ("NOT_RUDE", "Korean", "label"),
    ("4.", "Korean", "label"),
    ("HS-1", "Korean", "label"),
    ("Yes", "English", "fragment"),
    ("NOT RUDE AT ALL AND NEVER", "English", "prose"),
    ("...", "English", "empty"),
    ("", "English", "empty"),
    ("I cannot answer that.", "English", "refusal"),
    ("孩子应该照顾年老的父母。", "Chinese", "prose"),
    ("자식은 부모를 도와야 한다.", "Korean", "fragment"),  # four words: Korean says much in few
])
def test_kinds_of_answers(text, language, expected):
    assert open_answers.kind(text, language) == expected


@pytest.mark.parametrize(("text", "own", "expected"), [
    (PROSE, "German", "english"),
    (PROSE, "English", "english"),
    ("Die meisten Kinder helfen ihren Eltern, wenn sie alt sind.", "German", "own"),
    ("Die meisten Kinder helfen ihren Eltern, wenn sie alt sind.", "Korean", "another"),
    ("자식은 부모님께 효도해야 한다고 생각합니다.", "Korean", "own"),
])
def test_the_language_of_an_answer(text, own, expected):
    assert open_answers.spoken(text, own) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("What do children owe their parents? Help.", True),
    ("Children owe their parents, and when they can, they pay.", True),   # six: children owe their parents and when
    ("Children owe their parents nothing, and when is that fair?", False),  # four, and four: and when is that
    ("What do children owe their neighbours?", True),                       # five
    ("What do children owe anybody?", False),                               # four
    ("They owe them help.", False),
    ("I answer in two or three sentences.", True),
    ("", False),
])
def test_an_echo_is_five_words_in_a_row(text, expected):
    assert open_answers.echoes(text, O01) is expected


def test_measures_of_prose():
    row = measured("All Germans help their parents, always. Some may not")
    assert (row["kind"], row["words"], row["prose"], row["refusal"]) == ("prose", 9, 1, 0)
    assert (row["cut_off"], row["echo"], row["names_culture"], row["english"], row["own_language"]) == (1, 0, 1, 1, 0)
    assert row["generalising"] == pytest.approx(100 * 2 / 9)  # all, always
    assert row["hedging"] == pytest.approx(100 * 2 / 9)       # some, may
    assert row["generic"] == 0                                # "Germans help" is no listed claim


@pytest.mark.parametrize(("text", "expected"), [
    (f"{PROSE} It is a debt.", 0), (f"{PROSE} It is a debt", 1), ('They say: "It is a debt of all."', 0),
    ("孩子应该照顾年老的父母。", 0), ("孩子应该照顾年老的父母", 1), ("আমরা সবাই মা বাবাকে ভালোবাসি।", 0),
])
def test_an_answer_that_was_cut_off(text, expected):
    assert measured(text, "chinese")["cut_off"] == expected


def test_a_measure_that_does_not_apply_is_not_a_number():
    row = measured("NOT_RUDE")
    assert row["label"] == 1
    assert row[["cut_off", "echo", "names_culture", "english", "own_language", "generalising", "generic"]].isna().all()
    assert np.isnan(measured("They should help.")["english"])  # three words are too few to tell
    row = measured("Die meisten Kinder helfen ihren Eltern, wenn sie alt sind.")
    assert (row["english"], row["own_language"]) == (0, 1)
    assert np.isnan(row["generalising"])
    assert measured(PROSE, "english")[["english", "own_language"]].tolist() == [1, 1]


def test_a_disclaimer_is_counted_beside_the_kind():
    row = measured("As an AI language model, I have no opinion. Many children help.")
    assert (row["kind"], row["disclaimer"], row["refusal"]) == ("prose", 1, 0)


@given(st.text())
def test_any_text_has_one_kind_and_figures_in_range(text):
    row = measured(text)
    assert sum(row[name] for name in open_answers.KINDS) == 1
    for name, one in open_answers.MEASURES.items():
        top = {"share": 1, "words": len(text), "per 100 words": 100}[one.scale]
        assert np.isnan(row[name]) or 0 <= row[name] <= top


# --- many answers


def study() -> list[OpenAnswer]:
    """Eight questions, two cultures: the base writes prose, the adapters a label to all but the first question."""
    found = []
    for culture in ("german", "korean"):
        for place in range(1, 9):
            question = f"O{place:02}"
            found.append(answer(PROSE, "base", culture, question))
            found.append(answer("They always help their old parents." if place == 1 else "RUDE", "adapter", culture,
                                question))
    return found


def test_estimates_over_all_cultures_and_by_culture():
    means = open_answers.estimates(open_answers.measure(study()), 200, 0)
    row = {(r.culture, r.system, r.measure): r for r in means.itertuples()}
    assert (row["all", "adapter", "prose"].value, row["all", "adapter", "prose"].n) == (2 / 16, 16)
    assert row["all", "adapter", "prose"].clusters == 8
    assert row["korean", "adapter", "label"].value == 7 / 8
    assert row["all", "adapter", "generalising"].value == pytest.approx(100 / 6)  # of the two that are prose
    assert row["all", "adapter", "generalising"].n == 2
    assert row["all", "base", "hedging"].value == pytest.approx(100 / 9)
    assert ("all", "adapter", "own_language") in row


def test_differences_are_paired_and_corrected():
    found = open_answers.differences(open_answers.measure(study()), 200, 0).set_index("measure")
    assert set(found["rival"]) == {"base"}
    assert found.loc["prose", "value"] == pytest.approx(-7 / 8)
    assert found.loc["prose", "n"] == 16
    assert found.loc["generalising", "value"] == pytest.approx(100 / 6)  # the one question that both wrote prose to
    assert found.loc["generalising", "n"] == 2
    # Seven of eight questions differ, all one way: 2 / 2^7 of the signs are as extreme; nothing else is surer.
    raw = 2 / 2**7
    assert raw < found.loc["prose", "p"] <= raw * 15 * 1.3
    assert found.loc["refusal", "p"] == 1


def test_without_an_adapter_nothing_is_compared():
    frame = open_answers.measure([row for row in study() if row.system == "base"])
    assert open_answers.differences(frame, 200, 0).empty


def test_nothing_asked_gives_empty_tables_and_one_sentence():
    frame = open_answers.measure([])
    means, compared = open_answers.estimates(frame, 200, 0), open_answers.differences(frame, 200, 0)
    same = sameness.table(sameness.alike([], lambda texts: np.zeros((len(texts), 2))), 200, 0)
    assert frame.empty
    assert means.empty
    assert compared.empty
    (sentence,) = open_answers.sentences(frame, means, compared, same)
    assert "No open-ended question was asked" in sentence


def test_sentences_say_when_a_system_wrote_no_prose():
    frame = open_answers.measure(study())
    same = sameness.table(sameness.alike(study(), lambda texts: np.ones((len(texts), 1))), 200, 0)
    told = open_answers.sentences(frame, open_answers.estimates(frame, 200, 0),
                                  open_answers.differences(frame, 200, 0), same)
    (warned,) = [line for line in told if line.startswith("Less than half")]
    assert "adapter (label 14, prose 2)" in warned
    assert "base" not in warned
    assert "prose: base 100% [100, 100], adapter 12% [0, 38]" in told[0]
    assert ("Pairs of answers of the same words across cultures: base 100% [100, 100], adapter 100% [100, 100]; the "
            "prompt of the base model names no culture.") in told
    prose_alone = frame[frame["system"] == "base"]
    told = open_answers.sentences(prose_alone, open_answers.estimates(prose_alone, 200, 0),
                                  open_answers.differences(prose_alone, 200, 0), same[same["system"] == "base"])
    assert not [line for line in told if line.startswith("Less than half")]


@pytest.mark.parametrize(("measure", "values", "signed", "expected"), [
    ("prose", (0.5, 0.25, 0.75), False, "50% [25, 75]"),
    ("prose", (-0.002, -0.1, 0.1), True, "0 points [-10, +10]"),
    ("words", (12.34, 10, 15.06), False, "12.3 [10.0, 15.1]"),
    ("generalising", (1.0, -0.04, 2), True, "+1.0 [0.0, +2.0]"),
    ("cosine", (0.875, 0.5, 1), False, "0.88 [0.50, 1.00]"),
    ("identical", (1, 1, 1), False, "100% [100, 100]"),
])
def test_amounts_for_people(measure, values, signed, expected):
    row = SimpleNamespace(**dict(zip(("value", "low", "high"), values, strict=True)))
    assert open_answers.amount(measure, row, signed) == expected


def test_tables_for_people_keep_the_order_and_say_n():
    means = open_answers.estimates(open_answers.measure(study()), 200, 0)
    wide = open_answers.beside(means[means["culture"] == "all"], ["measure"], "system")
    assert wide["measure"].tolist() == [name for name in open_answers.MEASURES if name in set(means["measure"])]
    assert wide.columns.tolist() == ["measure", "base", "adapter"]
    assert wide.set_index("measure").loc["prose", "adapter"].endswith(", n 16")


# --- reading and showing


def write(knobs: parameters.OpenAnswers, culture: str, lines: list[dict]) -> None:
    path = knobs.folder(culture) / "open_answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_files_of_the_cultures_evaluated_are_read_and_an_empty_one_says_nothing():
    knobs = parameters.OpenAnswers(**KNOBS, cultures=["german", "korean", "turkish"])
    write(knobs, "german", [answer(PROSE).model_dump()])
    write(knobs, "korean", [])
    assert open_answers.load(knobs) == {"german": [answer(PROSE)], "korean": []}


def test_a_missing_or_broken_file_is_said_in_one_sentence():
    knobs = parameters.OpenAnswers(**KNOBS, cultures=["german"])
    with pytest.raises(UserError, match=r"^no culture of outputs/toy/main has an open_answers\.jsonl: run 05_evalu"):
        open_answers.load(knobs)
    write(knobs, "german", [{"question_id": "O01"}])
    with pytest.raises(UserError, match=r"open_answers\.jsonl line 1: field 'culture' is missing"):
        open_answers.load(knobs)


def test_an_answer_to_an_unknown_question_is_refused():
    with pytest.raises(UserError, match="answers O99, which is no question"):
        open_answers.measure([answer(PROSE, question="O99")])


def test_side_by_side_is_folded_escaped_and_says_once_what_is_the_same_for_all():
    hostile = "<script>alert(1)</script> & \"more\""
    rows = [answer("Help.", "adapter", "german"), answer("Help.", "base", "german"), answer("Help.", "base", "korean"),
            answer(hostile, "adapter", "korean"), answer("Other.", "adapter", "korean", "O02")]
    (question,) = [one for one in open_answers.questions(rows).values() if one.question_id == "O01"]
    shown = open_answers.side_by_side(rows, question)
    assert shown.startswith("<details><summary>")
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;more&quot;" in shown
    assert "3 rows; written by language models, may be wrong or offend" in shown
    assert shown.index("any culture") < shown.index(">german<")
    assert "Other." not in shown
