"""What is trained on and what is asked, in English and in Korean; classification sets and the general ability."""

import collections

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opinions import AGREE, KOREAN, OFTEN, question, seed, wording

from culturellm_utils import ability, parameters, prompts, studies, survey, tasks, wordings
from culturellm_utils.errors import UserError
from culturellm_utils.items import (
    ability_items,
    country_items,
    never_trained,
    one_each,
    set_items,
    survey_items,
    templates_of,
)
from culturellm_utils.prompts import ENGLISH, Phrasebook, survey_prompt
from culturellm_utils.records import Translation, write_rows
from culturellm_utils.released import Task
from culturellm_utils.wordings import Texts, held_out, held_out_questions, trained, training_rows

#: Three templates of each of two questions, each template with one sample, in the order that 03 writes.
AUGMENTED = [wording(name, t, stage) for stage in (1, 2) for name in ("Q1", "Q2") for t in (1, 2, 3)]
SEEDS = [seed("Q1", [0.2, 0.5, 0.3]), seed("Q2", [0.6, 0.1, 0.3])]
TEXTS = Texts([], AUGMENTED, ENGLISH)


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
    for item in items:
        assert item.user == prompts.survey_prompt(item.text, item.options)
        assert item.options == AGREE
    assert (items[1].text, items[2].text) == ("Q1 in words 3 sample 1", "Is Q2 so?")


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


# How many generated texts are trained on

MANY = [wording(name, t, stage) for name, count in (("Q1", 4), ("Q2", 4), ("Q3", 1)) for stage in (1, 2)
        for t in range(1, count + 1)]
MANY_SEEDS = [seed(name, [0.2, 0.5, 0.3]) for name in ("Q1", "Q2", "Q3")]


def rows_drawn(count, chance=0, stage="templates", seeds=MANY_SEEDS):
    every = training_rows(seeds, Texts([], MANY, ENGLISH), "Korean", frozenset(), stage, 9, 9)
    return wordings.drawn(every, count, chance)


def generated(rows):
    return [aim.wording_id for _, aim in rows if aim.wording_id != aim.question_id]


def test_texts_are_drawn_evenly_over_the_questions_by_hand():
    assert [aim.wording_id for _, aim in rows_drawn(0)] == ["Q1", "Q2", "Q3"]
    for chance in range(5):  # one of each, two of those that have two, and so on
        for count, each in ((3, (1, 1, 1)), (5, (2, 2, 1)), (7, (3, 3, 1)), (9, (4, 4, 1)), (99, (4, 4, 1))):
            found = generated(rows_drawn(count, chance))
            assert tuple(sum(name.startswith(q) for name in found) for q in ("Q1", "Q2", "Q3")) == each
    assert rows_drawn(-1) == rows_drawn(9) == rows_drawn(99)
    assert len({tuple(generated(rows_drawn(3, chance))) for chance in range(20)}) > 5
    assert all("-s" in name for name in generated(rows_drawn(5, stage="samples")))


def test_a_text_of_two_rows_of_the_paper_rule_is_drawn_once():
    blocks = [seed("Q1", [0.2, 0.5, 0.3], rule="paper", label=label) for label in "34"]
    rows = rows_drawn(2, seeds=blocks)
    assert len(set(generated(rows))) == 2
    assert [row.messages[2].content for row, _ in rows] == ["3"] * 3 + ["4"] * 3


@given(count=st.integers(0, 12), more=st.integers(0, 12), chance=st.integers(0, 99),
       stage=st.sampled_from(["seeds", "templates", "samples"]))
@settings(max_examples=60)
def test_a_smaller_draw_is_part_of_a_larger_one_and_keeps_the_order(count, more, chance, stage):
    small, large, every = (rows_drawn(n, chance, stage) for n in (count, count + more, -1))
    assert [row for row in every if row in small] == small
    assert [row for row in large if row in small] == small
    assert len(generated(small)) == min(count, len(generated(every)))
    assert [aim.question_id for _, aim in small if aim.wording_id == aim.question_id] == ["Q1", "Q2", "Q3"]


def test_items_asked_in_words_trained_on_are_left_out():
    trained_on = [row for row, _ in training_rows(SEEDS, TEXTS, "Korean", frozenset(), "templates", 9, 3)]
    items = survey_items(SEEDS, TEXTS, frozenset(), 3)
    assert never_trained(items, trained_on) == items
    other = [row.model_copy(update={"text": text}) for row, text in zip(
        [wording("Q1", 3), wording("Q2", 3)], [" q1 IN words: 1!", "Q2 in words 9"], strict=True)]
    asked = survey_items(SEEDS, Texts([], other, ENGLISH), frozenset(), 3)
    assert [item.item_id for item in never_trained(asked, trained_on)] == ["Q2-t03"]
    assert never_trained(asked, []) == asked


@pytest.mark.parametrize(("text", "words"), [("Is it so?", "is it so"), ("  IS-it\u00a0so…", "is it so"),
                                             ("Straße", "strasse"), ("?!", "")])
def test_texts_of_the_same_words(text, words):
    assert wordings.plain(text) == words


# What a culture of two countries holds back

def two_countries(rule="mode", last="DEU"):
    """Country seeds as 01 writes them: those of all countries but the last, then those of the last."""
    here = [seed("Q1", [0.2, 0.5, 0.3], countries=("AUT",), rule=rule),
            seed("Q2", [0.6, 0.1, 0.3], countries=("AUT",), rule=rule)]
    return [*here, seed("Q1", [0.7, 0.2, 0.1], countries=(last,), rule=rule)]


def test_the_last_country_is_held_out():
    seeds = two_countries()
    assert wordings.but_last_country(seeds) == seeds[:2]
    assert wordings.of_last_country(seeds) == seeds[2:]
    rows = training_rows(wordings.but_last_country(seeds), TEXTS, "German", frozenset(), "seeds", 1, 3)
    assert [(aim.question_id, row.messages[2].content) for row, aim in rows] == [("Q1", "2"), ("Q2", "1")]


def test_of_three_countries_the_last_alone_is_held_out():
    pooled = seed("Q1", [0.2, 0.5, 0.3], countries=("AUT", "CHE"))
    blocks = [seed("Q1", [0.2, 0.5, 0.3], countries=(code,), rule="paper") for code in ("AUT", "CHE", "DEU", "DEU")]
    assert wordings.but_last_country([pooled, blocks[2]]) == [pooled]
    assert wordings.but_last_country(blocks) == blocks[:2]  # the paper's two blocks of each side
    assert wordings.of_last_country(blocks) == blocks[2:]


def test_country_items_are_the_same_questions_held_against_other_people():
    items = survey_items(SEEDS, TEXTS, frozenset(), 3)
    (found,) = country_items(templates_of(items), wordings.of_last_country(two_countries()))  # Q2 was not asked there
    before = items[0]
    assert (found.item_id, found.part, found.user) == ("Q1-t03", "held_out_country", before.user)
    assert (found.gold, found.gold_distribution) == ("1", {"1": 0.7, "2": 0.2, "3": 0.1})
    assert (before.gold, before.part) == ("2", "held_out_wording")
    assert country_items(items, [seed("Q1", [], rule="paper", label="4")]) == []


def test_templates_and_one_item_of_each_question():
    items = survey_items(SEEDS, TEXTS, frozenset({"Q2"}), 2)
    assert [item.item_id for item in templates_of(items)] == ["Q1-t02", "Q1-t03"]  # no sample, no held-out question
    assert [item.item_id for item in one_each(items)] == ["Q1-t02", "Q2"]
    assert one_each([]) == []


# Classification sets and the general ability

def test_the_shipped_set_of_a_culture_is_asked_like_one_of_the_registry():
    (found,) = tasks.shipped("german")
    rows = tasks.bundled("test", "german")
    for item, row in zip(set_items(found), rows, strict=True):
        assert (item.item_id, item.culture, item.question_id) == (row.item_id, "german", "rudeness_detect")
        assert (item.user, item.labels, item.gold) == (tasks.prompt(row), tasks.LABELS, row.label)
    assert not found.carries_claim  # six of a class
    assert found.doubts == ["fewer than 10 of RUDE (6), NOT_RUDE (6)"]
    assert tasks.shipped("klingon") == []


def test_items_of_the_general_ability_are_drawn_by_their_seed():
    assert len(ability_items("german", 20, 0)) == 20
    assert ability_items("german", 20, 0) == ability_items("german", 20, 0) != ability_items("german", 20, 1)
    every = ability_items("german", 999, 0)
    assert len({item.item_id for item in every}) == len(ability.items()) == 77
    assert all(item.gold in item.labels and item.culture == "german" for item in every)


def test_the_general_ability_by_hand():
    for item in ability_items("one", 77, 0):
        first, second = (int(word) for word in item.user.replace("?", "").split() if word.isdigit())
        assert (item.part, item.question_id) == ("ability", "arithmetic")
        assert int(item.gold) == (first + second if "plus" in item.user else first - second)


def test_items_of_a_set_of_the_registry(tmp_path):
    """Asked with the words of the registry, not those of the file; rows that are set aside are no items."""
    (tmp_path / "s.jsonl").write_text('{"text": "Win!", "y": "1"}\n{"text": "Hi", "y": "0"}\n{"text": "", "y": "0"}\n')
    task = Task(culture="korean", task="spam", path="s.jsonl", text_field="text", label_field="y", metric="macro-F1",
                labels={"1": "Spam", "0": "Ham"}, prompt="What is {text}", version=1)
    assert [(item.item_id, item.part, item.culture, item.question_id, item.user, item.labels, item.gold)
            for item in set_items(tasks.load(task, tmp_path))] == [
        ("spam-1", "task", "korean", "spam", "What is Win!", ("Spam", "Ham"), "Spam"),
        ("spam-2", "task", "korean", "spam", "What is Hi", ("Spam", "Ham"), "Ham")]


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


