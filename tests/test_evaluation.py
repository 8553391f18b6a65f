"""What is trained on and what is held out; what systems answer; figures by hand and against scikit-learn."""

import collections

import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from culturellm_utils import ability, encoding, evaluation, models, prompts, scoring, survey, tasks, training, wordings
from culturellm_utils.errors import UserError
from culturellm_utils.evaluation import Item, bounds, macro_f1, score, survey_items, values, with_bounds
from culturellm_utils.records import Augmented, Prediction, Question, Seed
from culturellm_utils.wordings import held_out, held_out_questions, trained, training_rows

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


def test_training_rows_by_hand():
    rows = training_rows(SEEDS, AUGMENTED, "Korean", frozenset({"Q1"}), "templates", 1, 3)
    assert [(aim.question_id, aim.wording_id, aim.distribution) for _, aim in rows] == [
        ("Q2", "Q2", SEEDS[1].distribution), ("Q2", "Q2-t01", SEEDS[1].distribution)]
    system, user, assistant = rows[1][0].messages
    assert system.content == "You are a Korean chatbot that knows Korean culture very well."
    assert user.content == prompts.survey_prompt("Q2 in words 1", AGREE)
    assert (assistant.role, assistant.content) == ("assistant", "1")


def test_survey_items_by_hand():
    items = survey_items(SEEDS, AUGMENTED, frozenset({"Q2"}), 3)
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
    rows = training_rows(blocks, AUGMENTED, "Korean", frozenset(), "templates", 1, 3)
    assert [(aim.wording_id, row.messages[2].content) for row, aim in rows] == [
        ("Q1", "3"), ("Q1-t01", "3"), ("Q1", "4"), ("Q1-t01", "4"),
        ("Q2", "4"), ("Q2-t01", "4"), ("Q2", "3"), ("Q2-t01", "3")]
    items = survey_items(blocks, AUGMENTED, frozenset(), 3)
    assert [(item.item_id, item.gold) for item in items] == [("Q1-t03", "2"), ("Q1-t03-s1", "2")]  # Q2: nobody asked


@given(data=st.data(), held_out_from=st.integers(2, 12), stages=st.sampled_from(["seeds", "templates", "samples"]),
       templates=st.integers(1, 10), rule=st.sampled_from(["mode", "paper"]))
@settings(max_examples=60)
def test_nothing_that_is_asked_was_trained_on(data, held_out_from, stages, templates, rule):
    names = ["Q1", "Q2", "Q3", "Q4"]
    places = data.draw(st.lists(st.tuples(st.sampled_from(names), st.integers(1, 12), st.integers(0, 2)), unique=True))
    augmented = [wording(name, t, stage=2 if sample else 1, sample=sample) for name, t, sample in places]
    left_out = frozenset(data.draw(st.sets(st.sampled_from(names))))
    seeds = [seed(name, [0.2, 0.5, 0.3], rule=rule, label=label) for label in "12"[: 1 + (rule == "paper")]
             for name in names]
    rows = training_rows(seeds, augmented, "Korean", left_out, stages, templates, held_out_from)
    items = survey_items(seeds, augmented, left_out, held_out_from)
    assert not {aim.wording_id for _, aim in rows} & {item.item_id for item in items}
    assert not {row.messages[1].content for row, _ in rows} & {item.user for item in items}
    assert not {aim.question_id for _, aim in rows} & left_out
    assert len({item.item_id for item in items}) == len(items)
    for item in items:
        assert (item.part == "held_out_question") == (item.question_id in left_out)
    asked_of = {item.question_id for item in items if item.part == "held_out_wording"}
    assert asked_of <= {aim.question_id for _, aim in rows}  # a held-out wording is of a question trained on


# Which questions are held out

def question(name, topic):
    return Question(question_id=name, topic=topic, question="?", options=AGREE)


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
    ("persona", "You are a Korean chatbot that knows Korean culture very well."),
    ("adapter", "You are a Korean chatbot that knows Korean culture very well."),
])
def test_what_each_system_is_told_and_which_weights_answer(adapted, system, korean):
    model, tokenizer = adapted
    rows = evaluation.predict(model, tokenizer, ITEMS, system, {"korean": "Korean", "toy": ""}, batch_size=2)
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
