"""What is trained on and what is held out, in English and in Korean; what systems answer; figures by hand."""

import collections

import pytest
import toys
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from culturellm_utils import (
    ability,
    encoding,
    evaluation,
    models,
    parameters,
    prompts,
    scoring,
    studies,
    survey,
    tasks,
    training,
    wordings,
)
from culturellm_utils.errors import UserError
from culturellm_utils.evaluation import Item, bounds, macro_f1, score, survey_items, values, with_bounds
from culturellm_utils.prompts import ENGLISH, Phrasebook, survey_prompt
from culturellm_utils.records import Augmented, Prediction, Question, Seed, Translation, write_rows
from culturellm_utils.wordings import Texts, held_out, held_out_questions, trained, training_rows

KOREAN = "You are a Korean chatbot that knows Korean culture very well."
AGREE = {"1": "Agree", "2": "Neither", "3": "Disagree"}
OFTEN = {"1": "Often", "2": "Never"}


def seed(name, shares, options=AGREE, rule="mode", label="", countries=("KOR",)):
    distribution = dict(zip(options, shares, strict=True)) if shares else {}
    return Seed(question_id=name, topic="Work", question=f"Is {name} so?", options=options, culture="korean",
                countries=list(countries), respondents=10 if shares else 0, distribution=distribution,
                label=label or survey.mode(distribution), label_rule=rule)


def wording(name, template, stage=1, sample=1):
    place = f"{name}-t{template:02d}"
    text = f"{name} in words {template}" + (f" sample {sample}" if stage == 2 else "")
    return Augmented(candidate_id=place if stage == 1 else f"{place}-s{sample}", question_id=name, stage=stage,
                     template_id=place, text=text, substitutions=[], source="test", similarity=0.9)


#: Three templates of each of two questions, each template with one sample, in the order that 03 writes.
AUGMENTED = [wording(name, t, stage) for stage in (1, 2) for name in ("Q1", "Q2") for t in (1, 2, 3)]
SEEDS = [seed("Q1", [0.2, 0.5, 0.3]), seed("Q2", [0.6, 0.1, 0.3])]
TEXTS = Texts([], AUGMENTED, ENGLISH)


def prediction(culture="korean", system="base", part="held_out_wording", question="Q1", item=None, p=(0.1, 0.6, 0.3),
               gold=(0.2, 0.5, 0.3), label=None, options=AGREE):
    probabilities = dict(zip(options, p, strict=True))
    golden = dict(zip(options, gold, strict=True))
    label = survey.mode(probabilities) if label is None else label
    return Prediction(item_id=item or question, part=part, culture=culture, system=system, question_id=question,
                      messages=[], probabilities=probabilities, reply=label or "", label=label or None,
                      gold=survey.mode(golden), gold_distribution=golden)


# Which wordings are trained on

def ids(rows):
    return [row.wording_id for row in rows]


def test_stages_of_training_by_hand():
    rows = [row for row in AUGMENTED if row.question_id == "Q1"]
    assert ids(trained(SEEDS[0], rows, "seeds", 2, 3)) == ["Q1"]
    assert ids(trained(SEEDS[0], rows, "templates", 1, 3)) == ["Q1", "Q1-t01"]
    assert ids(trained(SEEDS[0], rows, "templates", 9, 3)) == ["Q1", "Q1-t01", "Q1-t02"]
    assert ids(trained(SEEDS[0], rows, "samples", 1, 3)) == ["Q1", "Q1-t01-s1"]
    assert ids(trained(SEEDS[0], rows, "samples", 9, 4)) == ["Q1", "Q1-t01-s1", "Q1-t02-s1", "Q1-t03-s1"]
    assert ids(held_out(rows, 3)) == ["Q1-t03", "Q1-t03-s1"]
    assert held_out(rows, 4) == []


def test_the_first_templates_are_the_first_accepted():
    rows = [wording("Q1", t) for t in (2, 4, 5)]  # 1 and 3 were rejected
    assert ids(trained(SEEDS[0], rows, "templates", 2, 5)) == ["Q1", "Q1-t02", "Q1-t04"]


def test_a_template_id_without_number_names_the_notebook():
    assert wordings.number("Q27-t03") == 3
    with pytest.raises(UserError, match="'Q27' has no number: rerun 02_augmentation"):
        wordings.number("Q27")


def test_training_on_samples_needs_some():
    alone = Texts([], [row for row in AUGMENTED if row.stage == 1], ENGLISH)
    with pytest.raises(UserError, match="has no samples, only templates: set stages to templates"):
        training_rows(SEEDS, alone, "Korean", frozenset(), "samples", 1, 3)
    assert training_rows(SEEDS, alone, "Korean", frozenset(), "seeds", 1, 3)


def test_training_rows_by_hand():
    rows = training_rows(SEEDS, TEXTS, "Korean", frozenset({"Q1"}), "templates", 1, 3)
    assert [(aim.question_id, aim.wording_id, aim.distribution) for _, aim in rows] == [
        ("Q2", "Q2", SEEDS[1].distribution), ("Q2", "Q2-t01", SEEDS[1].distribution)]
    system, user, assistant = rows[1][0].messages
    assert system.content == KOREAN
    assert user.content == prompts.survey_prompt("Q2 in words 1", AGREE)
    assert (assistant.role, assistant.content) == ("assistant", "1")


def test_survey_items_by_hand():
    items = survey_items(SEEDS, TEXTS, frozenset({"Q2"}), 3)
    assert [(item.item_id, item.part) for item in items] == [
        ("Q1-t03", "held_out_wording"), ("Q1-t03-s1", "held_out_wording"),
        ("Q2", "held_out_question"), ("Q2-t03", "held_out_question"), ("Q2-t03-s1", "held_out_question")]
    assert (items[0].gold, items[0].labels, items[0].culture) == ("2", ("1", "2", "3"), "korean")
    assert items[0].gold_distribution == SEEDS[0].distribution
    assert items[2].user == prompts.survey_prompt("Is Q2 so?", AGREE)


def test_two_rows_a_question_of_the_paper_rule_train_twice_and_ask_once():
    """The paper's two blocks: two labels to train on, one of them off the scale, the people's answer to score by."""
    blocks = [seed("Q1", [0.2, 0.5, 0.3], rule="paper", label="3"),
              seed("Q1", [0.2, 0.5, 0.3], rule="paper", label="4", countries=("USA",)),
              seed("Q2", [], rule="paper", label="4"), seed("Q2", [], rule="paper", label="3")]
    rows = training_rows(blocks, TEXTS, "Korean", frozenset(), "templates", 1, 3)
    assert [(aim.wording_id, row.messages[2].content) for row, aim in rows] == [
        ("Q1", "3"), ("Q1-t01", "3"), ("Q1", "4"), ("Q1-t01", "4"),
        ("Q2", "4"), ("Q2-t01", "4"), ("Q2", "3"), ("Q2-t01", "3")]
    items = survey_items(blocks, TEXTS, frozenset(), 3)
    assert [(item.item_id, item.gold) for item in items] == [("Q1-t03", "2"), ("Q1-t03-s1", "2")]  # Q2: nobody asked


@given(data=st.data(), held_out_from=st.integers(2, 12), stages=st.sampled_from(["seeds", "templates", "samples"]),
       templates=st.integers(1, 10), rule=st.sampled_from(["mode", "paper"]))
@settings(max_examples=60)
def test_nothing_that_is_asked_was_trained_on(data, held_out_from, stages, templates, rule):
    names = ["Q1", "Q2", "Q3", "Q4"]
    places = data.draw(st.lists(st.tuples(st.sampled_from(names), st.integers(1, 12), st.integers(0, 2)), unique=True))
    augmented = [wording(name, t, stage=2 if sample else 1, sample=sample) for name, t, sample in places]
    assume(stages != "samples" or any(row.stage == 2 for row in augmented))  # without any it is refused
    left_out = frozenset(data.draw(st.sets(st.sampled_from(names))))
    seeds = [seed(name, [0.2, 0.5, 0.3], rule=rule, label=label) for label in "12"[: 1 + (rule == "paper")]
             for name in names]
    texts = Texts([], augmented, ENGLISH)
    rows = training_rows(seeds, texts, "Korean", left_out, stages, templates, held_out_from)
    items = survey_items(seeds, texts, left_out, held_out_from)
    assert not {aim.wording_id for _, aim in rows} & {item.item_id for item in items}
    assert not {row.messages[1].content for row, _ in rows} & {item.user for item in items}
    assert not {aim.question_id for _, aim in rows} & left_out
    assert len({item.item_id for item in items}) == len(items)
    for item in items:
        assert (item.part == "held_out_question") == (item.question_id in left_out)
    asked_of = {item.question_id for item in items if item.part == "held_out_wording"}
    assert asked_of <= {aim.question_id for _, aim in rows}  # a held-out wording is of a question trained on


# In a culture's own language

def translation(name, kind, english, text, reason="", protected=()):
    return Translation(name=name, kind=kind, english=english, text=text, protected=list(protected), source="test",
                       reason=reason)


PHRASES = {"agree": "다음 말에 동의하십니까?", "options": "보기:",
           "answer": "{low}부터 {high}까지의 숫자 하나로 답하십시오."}
TRANSLATIONS = [
    translation("Q1", "question", "Is Q1 so?", "일은 의무이다.", protected=["의무"]),
    translation("Q2", "question", "Is Q2 so?", "가족이 중요하다.", reason="no usable back-translation"),
    translation("Agree", "option", "Agree", "동의한다"),
    translation("Neither", "option", "Neither", "어느 쪽도 아니다"),
    translation("Disagree", "option", "Disagree", "동의하지 않는다"),
    *(translation(name, "phrase", prompts.PHRASES[name], text) for name, text in PHRASES.items()),
    translation("system Korean", "phrase", KOREAN, "당신은 한국 문화를 잘 아는 한국 챗봇입니다."),
]


@pytest.fixture
def local(outputs):
    """The knobs of a study in Korean, its hand-made files written where 02 and 03 write them."""
    knobs = parameters.validate(parameters.FineTuning, studies.defaults("04_fine_tuning") | {
        "study": "toy", "culture": "korean", "cultures": ["korean"], "language": "local"})
    write_rows(knobs.folder("korean") / "translations.jsonl", TRANSLATIONS)
    write_rows(knobs.folder("korean") / "augmented.jsonl", [
        wording(name, t).model_copy(update={"text": f"{name} 한국어 {t}"}) for name in ("Q1", "Q2") for t in (1, 3)])
    return knobs


def question(name, topic="Work"):
    return Question(question_id=name, topic=topic, question=f"Is {name} so?", options=AGREE, protected=[name])


QUESTIONS = [question("Q1"), question("Q2")]


def test_training_rows_and_items_are_in_the_cultures_own_language(local):
    texts = wordings.texts(local, "korean", QUESTIONS)
    rows = training_rows(SEEDS, texts, "Korean", frozenset(), "templates", 5, 3)
    assert [[message.content for message in row.messages] for row, _ in rows] == [
        ["당신은 한국 문화를 잘 아는 한국 챗봇입니다.",
         f"다음 말에 동의하십니까? {text}\n보기: 1. 동의한다 2. 어느 쪽도 아니다 3. 동의하지 않는다\n"
         "1부터 3까지의 숫자 하나로 답하십시오.", "2"]
        for text in ("일은 의무이다.", "Q1 한국어 1")]
    assert [(aim.wording_id, aim.distribution) for _, aim in rows] == [("Q1", SEEDS[0].distribution),
                                                                       ("Q1-t01", SEEDS[0].distribution)]
    (item,) = survey_items(SEEDS, texts, frozenset(), 3)
    assert (item.item_id, item.part, item.gold, item.labels) == ("Q1-t03", "held_out_wording", "2", ("1", "2", "3"))
    assert item.user == rows[1][0].messages[1].content.replace("한국어 1", "한국어 3")


def test_a_held_out_question_is_asked_in_the_words_of_its_translation(local):
    texts = wordings.texts(local, "korean", QUESTIONS)
    items = survey_items(SEEDS, texts, frozenset({"Q1"}), 3)
    assert [item.item_id for item in items] == ["Q1", "Q1-t03"]
    assert {item.part for item in items} == {"held_out_question"}
    assert items[0].user.startswith("다음 말에 동의하십니까? 일은 의무이다.\n보기: ")
    assert training_rows(SEEDS, texts, "Korean", frozenset({"Q1"}), "templates", 5, 3) == []


def test_a_question_without_a_usable_translation_is_left_out(local):
    texts = wordings.texts(local, "korean", QUESTIONS)
    (asked,) = texts.questions
    assert (asked.question_id, asked.question, asked.protected) == ("Q1", "일은 의무이다.", ["의무"])
    assert asked.options == AGREE
    assert [(s.question_id, s.question, s.options) for s in texts.localised(SEEDS)] == [("Q1", "일은 의무이다.", AGREE)]
    assert texts.book.text("Is Q2 so?") == "Is Q2 so?"


def test_an_adapter_is_told_in_its_own_language_whose_people_are_asked_about(local):
    book = wordings.texts(local, "korean", QUESTIONS).book
    assert book.text(prompts.culture_system("Korean")) == "당신은 한국 문화를 잘 아는 한국 챗봇입니다."
    assert book.text(prompts.culture_system("German")) == prompts.culture_system("German")  # nobody translated it


def test_english_texts_are_those_of_all_cultures_and_leave_seeds_as_they_are(local):
    english = local.model_copy(update={"language": "english"})
    write_rows(english.folder("common") / "augmented.jsonl", AUGMENTED)
    other = [question("Q1").model_copy(update={"question": "Another?"})]  # a questions_path that 01 did not have
    texts = wordings.texts(english, "korean", other)
    assert (texts.questions, texts.augmented, texts.book) == (other, AUGMENTED, ENGLISH)
    assert texts.localised(SEEDS) == SEEDS
    assert texts == wordings.texts(english, "german", other)
    rows = training_rows(SEEDS, texts, "Korean", frozenset(), "seeds", 5, 3)
    assert [row.messages[1].content for row, _ in rows] == [survey_prompt(f"Is {q} so?", AGREE) for q in ("Q1", "Q2")]


def test_one_reads_the_texts_of_each_culture_in_its_own_folder(local):
    one = local.model_copy(update={"culture": "one", "cultures": ["korean", "german"]})
    write_rows(one.folder("german") / "translations.jsonl", [translation("Q2", "question", "Is Q2 so?", "Ist Q2 so?")])
    write_rows(one.folder("german") / "augmented.jsonl", [wording("Q2", 1)])
    asked = {name: wordings.texts(one, name, QUESTIONS).questions[0].question for name in one.cultures}
    assert asked == {"korean": "일은 의무이다.", "german": "Ist Q2 so?"}


def test_missing_translations_name_the_file(local):
    (local.folder("korean") / "translations.jsonl").unlink()
    with pytest.raises(UserError, match=r"toy/main/korean/translations\.jsonl is missing: run the notebook"):
        wordings.texts(local, "korean", QUESTIONS)


@pytest.mark.parametrize(("question", "options", "prompt"), [
    # a statement is asked about; a question asks by itself, whatever its mark; so does what has no scale of agreement
    ("일은 의무이다.", AGREE, "동의? 일은 의무이다.\n보기: 1. 그렇다 2. Neither 3. 아니다\n1-3"),
    ("일이 의무입니까?", AGREE, "일이 의무입니까?\n보기: 1. 그렇다 2. Neither 3. 아니다\n1-3"),
    ("工作是义务吗？", AGREE, "工作是义务吗？\n보기: 1. 그렇다 2. Neither 3. 아니다\n1-3"),
    ("얼마나 자주.", OFTEN, "얼마나 자주.\n보기: 1. Often 2. Never\n1-2"),
    ("일.", {"10": "Disagree", "2": "", "1": "Agree"}, "동의? 일.\n보기: 10. 아니다 1. 그렇다\n1-10"),
])
def test_a_survey_prompt_in_another_language_by_hand(question, options, prompt):
    book = Phrasebook("Korean", {"Agree": "그렇다", "Disagree": "아니다", prompts.PHRASES["agree"]: "동의?",
                                 prompts.PHRASES["options"]: "보기:", prompts.PHRASES["answer"]: "{low}-{high}"})
    assert survey_prompt(question, options, book) == prompt


def test_an_empty_phrasebook_is_english():
    assert survey_prompt("Work is a duty.", AGREE, Phrasebook()) == survey_prompt("Work is a duty.", AGREE) == (
        "Do you agree with this statement? Work is a duty.\nOptions: 1. Agree 2. Neither 3. Disagree\n"
        "Answer with one number from 1 to 3.")


# Which questions are held out


@given(sizes=st.lists(st.integers(1, 15), min_size=1, max_size=8), share=st.floats(0, 1), chance=st.integers(0, 99))
@settings(max_examples=100)
def test_held_out_questions_spread_over_topics(sizes, share, chance):
    asked = [question(f"Q{t}-{i}", f"topic {t}") for t, size in enumerate(sizes) for i in range(size)]
    count = int(share * len(asked))
    found = held_out_questions(asked, count, chance)
    assert len(found) == count
    assert found == held_out_questions(asked, count, chance)
    for t, size in enumerate(sizes):
        taken = sum(name.startswith(f"Q{t}-") for name in found)
        assert abs(taken - size * count / len(asked)) <= 1.5


def test_held_out_questions_of_the_shipped_ones():
    asked = survey.questions("")
    found = held_out_questions(asked, 10, 0)
    topics = collections.Counter(q.topic for q in asked if q.question_id in found)
    assert len(found) == 10
    assert len(topics) >= 5
    assert max(topics.values()) <= 3
    assert found != held_out_questions(asked, 10, 1)
    assert found < held_out_questions(asked, 12, 0)  # holding out more keeps what was held out
    assert held_out_questions(asked, 0, 0) == frozenset()


# What systems answer

@pytest.fixture(scope="module")
def adapted():
    tokenizer = toys.tokenizer()
    model = models.add_lora(toys.model(tokenizer), rank=4, alpha=8, dropout=0.0, seed=0)
    rows = [encoding.encode(tokenizer, toys.chat("Is it?", "1"), 512)]
    training.train(model, tokenizer, rows, epochs=5, batch_size=1, learning_rate=0.05)
    return model, tokenizer


ITEMS = [Item("i1", "held_out_wording", "korean", "Q1", "Is it?", ("1", "2", "3"), "2", {"1": 0.2, "2": 0.5, "3": 0.3}),
         Item("i2", "ability", "toy", "arithmetic", "What is 1 plus 2?", ("1", "2", "3"), "3", {})]


@pytest.mark.parametrize(("system", "korean"), [
    ("base", prompts.NEUTRAL),
    ("persona", KOREAN),
    ("adapter", KOREAN),
])
def test_what_each_system_is_told_and_which_weights_answer(adapted, system, korean):
    model, tokenizer = adapted
    rows = evaluation.predict(model, tokenizer, ITEMS, system, {"korean": KOREAN, "toy": ""}, batch_size=2)
    assert [row.messages[0].content for row in rows] == [korean, prompts.NEUTRAL]
    assert [row.messages[1].content for row in rows] == ["Is it?", "What is 1 plus 2?"]
    answering = model if system == "adapter" else toys.model(tokenizer)
    for item, row in zip(ITEMS, rows, strict=True):
        chat = prompts.chat(row.messages[0].content, item.user)
        (alone,) = scoring.label_probabilities(answering, tokenizer, [chat], [item.labels], 1)
        assert row.probabilities == pytest.approx(alone, abs=1e-4)
        assert row.reply == row.label == max(alone, key=alone.get)
        assert (row.system, row.part, row.gold) == (system, item.part, item.gold)
        assert row.gold_distribution == item.gold_distribution


def test_shipped_items_are_well_formed():
    for item in [*evaluation.task_items("german"), *evaluation.ability_items("german", 20, 0)]:
        assert item.gold in item.labels
        assert item.culture == "german"
    assert len(evaluation.ability_items("german", 20, 0)) == 20
    assert evaluation.ability_items("german", 20, 0) == evaluation.ability_items("german", 20, 0)
    assert len({item.item_id for item in evaluation.ability_items("german", 999, 0)}) == len(ability.items())
    assert {item.item_id for item in evaluation.task_items("german")} == {
        row.item_id for row in tasks.bundled("test", "german")}
    assert evaluation.task_items("klingon") == []


# Figures

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
    rows += [prediction(culture="german"), prediction(part="ability")]
    made = with_bounds(rows, known)
    assert collections.Counter((p.item_id, p.system) for p in made) == {
        (item, system): 1 for item in ("Q1-t03", "Q1-t04") for system in ("uniform", "majority")}
    majority = next(p for p in made if p.system == "majority")
    assert majority.probabilities == SEEDS[1].distribution  # the only other question
    assert (majority.label, majority.gold) == ("1", "2")
    assert all(p.label is None and p.messages == [] for p in made if p.system == "uniform")


def test_score_by_hand():
    rows = [prediction(question="Q1", item="a", p=(0.1, 0.6, 0.3)),
            prediction(question="Q1", item="b", p=(0.8, 0, 0.2)),
            prediction(question="Q2", item="c", p=(0.1, 0.6, 0.3))]
    rows += with_bounds(rows, {"korean": bounds(SEEDS, frozenset())})
    found = {(row["system"], row["metric"]): row for row in score(rows, samples=200, seed=0)}
    assert len(found) == 9
    accuracy = found["base", "accuracy"]
    assert accuracy["value"] == pytest.approx(2 / 3)
    assert (accuracy["n"], accuracy["clusters"]) == (3, 2)
    assert (accuracy["low"], accuracy["high"]) == (0.5, 1.0)  # both draws Q1 (half right), or both Q2
    # a guess is right as often as the gold label has a third; the majority of the other question is right on Q2
    assert found["uniform", "accuracy"]["value"] == pytest.approx(1 / 3)
    assert found["majority", "accuracy"]["value"] == pytest.approx(1 / 3)
    assert accuracy["baselines"] == pytest.approx({"uniform": 1 / 3, "majority": 1 / 3})
    assert found["majority", "accuracy"]["baselines"] == pytest.approx({"uniform": 1 / 3, "base": 2 / 3})
    assert found["base", "emd"]["value"] == pytest.approx((0.05 + (0.6 + 0.1) / 2 + 0.05) / 3)


def test_score_keeps_parts_and_cultures_apart():
    rows = [prediction(), prediction(culture="german", label="3"), prediction(part="ability", label="1"),
            prediction(part="ability", item="x"), prediction(part="task", label="3")]
    found = {(row["part"], row["culture"], row["metric"]): row["value"] for row in score(rows, 100, 0)}
    assert found["held_out_wording", "korean", "accuracy"] == 1
    assert found["held_out_wording", "german", "accuracy"] == 0
    assert found["ability", "korean", "accuracy"] == 0.5
    assert found["task", "korean", "macro_f1"] == 0
    assert ("ability", "korean", "emd") not in found
    assert score(rows, 100, 0) == score(rows, 100, 0)


@given(rows=st.lists(st.tuples(st.sampled_from("123"), st.sampled_from(["1", "2", "3", ""])), min_size=1, max_size=40))
@settings(max_examples=60)
def test_macro_f1_is_that_of_scikit_learn(rows):
    """Classes without items or answers, and answers that could not be parsed, included."""
    found = macro_f1([prediction(label=label, gold=[float(gold == o) for o in "123"]) for gold, label in rows], 100, 0)
    gold, label = ([row[i] for row in rows] for i in (0, 1))
    expected = f1_score(gold, label, labels=["1", "2", "3"], average="macro", zero_division=0)
    assert found.value == pytest.approx(expected)
    assert 0 <= found.low <= found.high <= 1
    assert found.n == len(rows)


def test_macro_f1_resamples_with_the_same_definition():
    rows = [prediction(label=label, gold=[float(gold == o) for o in "123"]) for gold, label in
            [("1", "1"), ("1", "2"), ("2", "2"), ("3", "1")] * 8]
    found = macro_f1(rows, samples=2000, seed=0)
    # class 1: 1 right of 2 asked and 2 answered, class 2: 1 of 1 and 2, class 3: never answered
    assert found.value == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)
    assert found.low < found.value < found.high
    alone = macro_f1(rows[:1], samples=100, seed=0)
    assert alone.low == alone.high == pytest.approx(1 / 3)  # one item, right, of one class in three
