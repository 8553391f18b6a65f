"""Items asked differently, by hand: scales turned round, other prompts, and what a model that learned digits shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import evaluation, prompts, robustness, survey
from culturellm_utils.errors import UserError
from culturellm_utils.items import Item
from culturellm_utils.prompts import Phrasebook
from culturellm_utils.records import Prediction
from culturellm_utils.robustness import mirrored, option_order, original, other_prompts, stability

AGREE = {"1": "Agree", "2": "Neither", "3": "Disagree"}
RIGHT = {"2": "Agree", "1": "Hard to say", "0": "Disagree"}
TEN = {str(code): "" for code in range(1, 11)} | {"1": "Completely disagree", "10": "Completely agree"}
OFTEN = {"1": "Often", "2": "Never"}
KOREAN = Phrasebook("local", {
    prompts.PHRASES["agree"]: "동의하십니까?", prompts.PHRASES["options"]: "보기:",
    prompts.PHRASES["answer"]: "{low}에서 {high} 사이의 숫자로 답하십시오.", "Agree": "그렇다", "Disagree": "아니다",
    prompts.culture_system("Korean"): "당신은 한국 문화를 잘 압니다."})


def item(options=AGREE, shares=(0.2, 0.5, 0.3), text="Work is a duty.", name="Q1-t03", book=prompts.ENGLISH):
    gold = dict(zip(options, shares, strict=True))
    return Item(item_id=name, part="held_out_wording", culture="korean", question_id=name.partition("-")[0],
                user=prompts.survey_prompt(text, options, book), labels=tuple(options), gold=survey.mode(gold),
                gold_distribution=gold, text=text, options=options)


TASK = Item("threat-1", "task", "korean", "threat", "Is it a threat?", ("YES", "NO"), "NO", {})


def answer(to, shares, system="base", label=""):
    found = dict(zip(to.labels, shares, strict=True))
    label = survey.mode(found) if label == "" else label
    return Prediction(item_id=to.item_id, part=to.part, culture=to.culture, system=system, question_id=to.question_id,
                      messages=[], probabilities=found, reply=label or "?", label=label, gold=to.gold,
                      gold_distribution=to.gold_distribution)


# Scales turned round

def test_a_scale_turned_round_by_hand():
    asked = item(shares=(0.2, 0.1, 0.7))
    [turned] = option_order([asked, TASK])
    assert turned.user == ("Do you agree with this statement? Work is a duty.\n"
                           "Options: 1. Disagree 2. Neither 3. Agree\nAnswer with one number from 1 to 3.")
    assert (turned.part, turned.item_id, turned.question_id) == ("option_order", "Q1-t03", "Q1")
    assert (turned.gold, turned.labels) == ("1", ("1", "2", "3"))
    assert turned.gold_distribution == {"1": 0.7, "2": 0.1, "3": 0.2}
    assert asked.gold_distribution == {"1": 0.2, "2": 0.1, "3": 0.7}


def test_codes_keep_their_places_on_a_scale_that_counts_down():
    [turned] = option_order([item(RIGHT, (0.6, 0.3, 0.1))])
    assert "Options: 2. Disagree 1. Hard to say 0. Agree\nAnswer with one number from 0 to 2." in turned.user
    assert (turned.gold, turned.gold_distribution) == ("0", {"2": 0.1, "1": 0.3, "0": 0.6})


def test_a_scale_with_two_names():
    [turned] = option_order([item(TEN, [0.5, 0.1, *[0.05] * 8])])
    assert "Options: 1. Completely agree 10. Completely disagree\n" in turned.user
    assert (turned.gold, turned.gold_distribution["10"], turned.gold_distribution["9"]) == ("10", 0.5, 0.1)


def test_a_scale_in_the_cultures_language():
    [turned] = option_order([item(text="일은 의무다.", book=KOREAN)], KOREAN)
    assert turned.user == (
        "동의하십니까? 일은 의무다.\n보기: 1. 아니다 2. Neither 3. 그렇다\n1에서 3 사이의 숫자로 답하십시오.")


@given(st.lists(st.integers(0, 100), min_size=2, max_size=10), st.booleans())
def test_turned_twice_is_the_item_itself(counts, down):
    codes = list(range(len(counts)))[:: -1 if down else 1]
    options = {str(code): f"option {code}" for code in codes}
    shares = [(count + 1) / (sum(counts) + len(counts)) for count in counts]
    asked = item(options, shares)
    [once] = option_order([asked])
    [twice] = option_order([once])
    assert (twice.user, twice.gold, twice.gold_distribution) == (asked.user, asked.gold, asked.gold_distribution)
    # The texts of the options carry their people with them.
    assert {options[code]: share for code, share in asked.gold_distribution.items()} == {
        once.options[code]: share for code, share in once.gold_distribution.items()}
    assert once.options[once.gold] == options[asked.gold]
    assert mirrored(mirrored(options)) == options


def test_a_digit_that_was_learned_is_wrong_on_the_turned_scale():
    asked = [item(shares=(0.2, 0.1, 0.7)), item(OFTEN, (0.9, 0.1), "How often?", "Q2-t03")]
    turned = option_order(asked)
    digits = [answer(b, list(a.gold_distribution.values())) for a, b in zip(asked, turned, strict=True)]
    meaning = [answer(b, list(reversed(a.gold_distribution.values()))) for a, b in zip(asked, turned, strict=True)]
    assert [evaluation.values(rows, "accuracy") for rows in (digits, meaning)] == [[0, 0], [1, 1]]
    assert evaluation.values(meaning, "emd") == pytest.approx([0, 0])
    # (0.7, 0.1, 0.2) to (0.2, 0.1, 0.7): half of the people two steps of two; (0.1, 0.9) to (0.9, 0.1)
    assert evaluation.values(digits, "emd") == pytest.approx([0.5, 0.8])


# Other prompts

def test_a_statement_in_other_prompts():
    found = other_prompts([item(), TASK])
    assert {row.item_id: row.user for row in found} == {
        "Q1-t03/answer_first": "Answer with one number from 1 to 3.\nDo you agree with this statement? Work is a duty."
                               "\n1. Agree 2. Neither 3. Disagree",
        "Q1-t03/list": "Work is a duty.\n\n1: Agree\n2: Neither\n3: Disagree\n\nAnswer with one number from 1 to 3.",
        "Q1-t03/paper": "Give me the answer from 1 to 3: Do you agree with Work is a duty? 1. Agree 2. Neither "
                        "3. Disagree. You can only choose one option.",
    }
    for row in found:
        assert (row.part, row.question_id, row.gold, original(row.item_id)) == ("other_prompt", "Q1", "2", "Q1-t03")
        assert row.gold_distribution == item().gold_distribution
    assert original("Q1-t03") == "Q1-t03"


def test_a_question_is_not_agreed_with():
    found = prompts.other_survey_prompts("How often is it so?", OFTEN)
    assert found["paper"] == ("Give me the answer from 1 to 2: How often is it so? 1. Often 2. Never. You can only "
                              "choose one option.")
    assert found["answer_first"] == "Answer with one number from 1 to 2.\nHow often is it so?\n1. Often 2. Never"
    assert "agree" not in prompts.other_survey_prompts("Is it right?", {"1": "Right", "2": "Wrong"})["paper"]


def test_unnamed_options_are_in_the_range_alone():
    found = prompts.other_survey_prompts("Science helps.", TEN)
    assert "from 1 to 10: Do you agree with Science helps? 1. Completely disagree 10. Completely agree. You" in (
        found["paper"])
    assert "\n\n1: Completely disagree\n10: Completely agree\n\nAnswer with one number from 1 to 10." in found["list"]


def test_other_prompts_in_the_cultures_language():
    """The paper's prompt is English, so it is left out; two others remain."""
    asked = item({"1": "Agree", "2": "Disagree"}, (0.4, 0.6), "일은 의무다.", book=KOREAN)
    assert {row.item_id: row.user for row in other_prompts([asked], KOREAN)} == {
        "Q1-t03/answer_first": "1에서 2 사이의 숫자로 답하십시오.\n동의하십니까? 일은 의무다.\n1. 그렇다 2. 아니다",
        "Q1-t03/list": "일은 의무다.\n\n1: 그렇다\n2: 아니다\n\n1에서 2 사이의 숫자로 답하십시오.",
    }


def test_every_shipped_question_is_asked_in_prompts_that_all_differ():
    for question in survey.questions(""):
        found = prompts.other_survey_prompts(question.question, question.options)
        turned = prompts.survey_prompt(question.question, mirrored(question.options))
        texts = [prompts.survey_prompt(question.question, question.options), turned, *found.values()]
        assert len(set(texts)) == 5
        statement = texts[0].startswith(prompts.AGREE)
        assert turned.startswith(prompts.AGREE) == ("Do you agree with" in found["paper"]) == statement
        for text in texts:
            assert question.question.rstrip("?.") in text
            for code, option in question.options.items():
                assert not option or option in text, (code, option)


# Prompts of the systems that answer

def test_a_forecast_in_the_third_person():
    asked = prompts.third_person("Korean", item().user)
    assert asked.startswith("Forecast how most people of Korean culture would answer the question below")
    assert asked.endswith(f"\n\n{item().user}")


def test_a_culture_with_its_context():
    assert prompts.context_system("Korean", " Korea is\n a peninsula.\n") == (
        "You are a Korean chatbot that knows Korean culture very well.\n\nKorea is a peninsula.")
    assert prompts.context_system("Korean", "한국은 반도다.", KOREAN) == (
        "당신은 한국 문화를 잘 압니다.\n\n한국은 반도다.")
    with pytest.raises(UserError, match="culture_context is empty for Korean: write a paragraph"):
        prompts.context_system("Korean", " \n")


# Stability

def figures(rows):
    return {(row["part"], row["format"], row["culture"], row["system"], row["metric"]): row["value"] for row in rows}


def test_stability_by_hand():
    first, second = item(), item(OFTEN, (0.9, 0.1), "How often?", "Q2-t03")
    turned, other = option_order([first, second]), other_prompts([first])
    rows = [answer(first, (0.7, 0.1, 0.2)), answer(second, (0.8, 0.2)),
            answer(turned[0], (0.7, 0.1, 0.2)),  # the same digit, so the opposite
            answer(turned[1], (0.2, 0.8)),  # the same in meaning
            answer(other[0], (0.7, 0.1, 0.2)), answer(other[1], (0.2, 0.1, 0.7)),
            answer(other[2], (1, 0, 0), label=None),
            answer(turned[0], (0.7, 0.1, 0.2), "adapter")]  # whose answer to the item as it is is not here
    found = figures(stability(rows, 100, seed=0))
    key = "option_order", "reversed", "korean", "base"
    # 1 - distance of (0.7, 0.1, 0.2) and (0.2, 0.1, 0.7): the middle of both ends is 0.45, so
    # 0.7 log2(0.7 / 0.45) + 0.2 log2(0.2 / 0.45) = 0.446210 - 0.233985 = 0.212225 bits
    assert found.pop((*key, "js_similarity")) == pytest.approx((1 - 0.212225**0.5 + 1) / 2, abs=1e-5)
    assert (found.pop((*key, "same_answer")), found.pop((*key, "same_code"))) == (0.5, 0.5)
    same = {form: found.pop(("other_prompt", form, "korean", "base", "same_answer"))
            for form in ("answer_first", "list", "paper")}
    assert same == {"answer_first": 1, "list": 0, "paper": 0}
    assert {metric for *_, metric in found} == {"js_similarity"}
    assert len(found) == 3


def test_the_middle_of_a_scale_says_nothing_about_digits():
    asked = item()
    rows = [answer(asked, (0.1, 0.8, 0.1)), answer(option_order([asked])[0], (0.1, 0.8, 0.1))]
    assert figures(stability(rows, 100, seed=0)) == {
        ("option_order", "reversed", "korean", "base", "same_answer"): 1,
        ("option_order", "reversed", "korean", "base", "js_similarity"): 1}


def test_a_reply_that_cannot_be_parsed_is_never_the_same():
    asked = item()
    turned = option_order([asked])[0]
    for label, other in ((None, None), (None, "1"), ("1", None)):
        rows = [answer(asked, (0.8, 0.1, 0.1), label=label), answer(turned, (0.8, 0.1, 0.1), label=other)]
        found = figures(stability(rows, 100, seed=0))
        assert found["option_order", "reversed", "korean", "base", "same_answer"] == 0


def test_intervals_resample_questions_and_parts_asked_once_have_no_figures():
    asked = [item(name=name) for name in ("Q1-t03", "Q1-t04", "Q2-t03")]
    rows = [answer(i, (0.8, 0.1, 0.1)) for i in asked]
    assert stability(rows, 100, seed=0) == []
    rows += [answer(i, (0.1, 0.1, 0.8) if i.question_id == "Q2" else (0.8, 0.1, 0.1)) for i in option_order(asked)]
    found = {row["metric"]: row for row in stability(rows, 1000, seed=0)}
    same = found["same_answer"]
    assert (same["value"], same["low"], same["high"], same["n"], same["clusters"]) == (
        pytest.approx(1 / 3), 0, 1, 3, 2)
    assert found["same_code"]["value"] == pytest.approx(2 / 3)
    assert robustness.stability(rows, 1000, seed=0) == stability(rows, 1000, seed=0)
