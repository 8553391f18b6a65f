"""The human study: pairs, their files and the automatic raters, on toy texts."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culturellm_utils import human_study
from culturellm_utils.errors import UserError
from culturellm_utils.human_study import PairKey
from culturellm_utils.records import Augmented, Pair, Question

TOPICS = {"Q1": "Work", "Q2": "Work", "Q3": "Trust", "Q4": "Trust"}
QUESTIONS = [Question(question_id=name, topic=topic, question=f"Seed {name} on {topic}.",
                      options={"1": "Yes", "2": "No"}) for name, topic in TOPICS.items()]


def row(name: str, question: str, stage: int = 2, text: str = "") -> Augmented:
    return Augmented(candidate_id=name, question_id=question, stage=stage, template_id=name, substitutions=[],
                     text=text or f"Text {name}.", source="recorded", similarity=0.9)


AUGMENTED = [row(f"{question}-s{i}", question) for question in TOPICS for i in range(6)]
PAIRS = [Pair(pair_id=f"p{i}", seed=f"Seed {i}.", text=f"Text {i}.") for i in range(3)]
KEY = {"p1": PairKey(question_id="Q1", candidate_id="c0", check="")}


# pairs

def test_pairs_are_spread_over_questions_and_checks_are_what_they_say():
    pairs, key = human_study.sample_pairs(AUGMENTED, QUESTIONS, pairs=10, attention_checks=5, seed=3)
    assert list(key) == [pair.pair_id for pair in pairs]
    assert len(pairs) == len(set(key)) == 15
    seeds = {question.question_id: question for question in QUESTIONS}
    real, same, different = ([pair for pair in pairs if key[pair.pair_id].check == check]
                             for check in ("", "same", "different"))
    counts = [sum(key[pair.pair_id].question_id == name for pair in real) for name in TOPICS]
    assert sorted(counts) == [2, 2, 3, 3]
    assert (len(same), len(different)) == (2, 3)
    assert all(pair.seed == pair.text for pair in same)
    for pair in different:
        entry = key[pair.pair_id]
        assert pair.seed == seeds[entry.question_id].question
        assert TOPICS[entry.candidate_id[:2]] != TOPICS[entry.question_id]
    for pair in real:
        entry = key[pair.pair_id]
        assert (pair.seed, pair.text) == (seeds[entry.question_id].question, f"Text {entry.candidate_id}.")


def test_pairs_do_not_depend_on_the_order_of_rows_and_change_with_the_seed():
    first = human_study.sample_pairs(AUGMENTED, QUESTIONS, 8, 4, seed=0)
    assert human_study.sample_pairs(AUGMENTED[::-1], QUESTIONS[::-1], 8, 4, seed=0) == first
    assert human_study.sample_pairs(AUGMENTED, QUESTIONS, 8, 4, seed=1) != first


def test_pairs_skip_templates_copies_and_samples_equal_to_a_seed():
    rows = [row("a", "Q1", stage=1), row("b", "Q1", text="Same."), row("c", "Q1", text="Same."),
            row("d", "Q2", text="Seed Q2 on Work."), row("e", "Q3")]
    _, key = human_study.sample_pairs(rows, QUESTIONS, pairs=10, attention_checks=0)
    assert {entry.candidate_id for entry in key.values()} == {"b", "e"}


def test_pair_files_are_blind(tmp_path):
    pairs, key = human_study.sample_pairs(AUGMENTED, QUESTIONS, 6, 4)
    human_study.write_pairs(tmp_path, pairs, key)
    assert (tmp_path / "pairs.csv").read_text().splitlines()[0] == "pair_id,seed,text"
    assert all(re.fullmatch("p[0-9a-f]{12}", pair.pair_id) for pair in pairs)
    form = (tmp_path / "rating_form.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', form, re.DOTALL)[1])
    assert data["pairs"] == [pair.model_dump() for pair in pairs]
    assert set(data) == {"form", "pairs", "texts", "consent", "notices", "minutes", "completion"}
    tasks = json.loads((tmp_path / "label_studio_tasks.json").read_text())
    assert [task["data"] for task in tasks] == data["pairs"]
    assert all(set(task) == {"data"} for task in tasks)
    assert human_study.read_pairs(tmp_path) == (pairs, key)


@pytest.mark.parametrize(("rows", "checks", "words"), [
    ([row("x", "Q9")], 0, "Q9"),
    ([], 0, "no wordings but the seeds'"),
    ([row("x", "Q1"), row("y", "Q2")], 2, "ask for fewer"),          # one topic only
    ([row("x", "Q1"), row("y", "Q3")], 9, "ask for fewer"),
])
def test_pairs_that_cannot_be_made(rows, checks, words):
    with pytest.raises(UserError, match=words):
        human_study.sample_pairs(rows, QUESTIONS, 5, checks)


def test_where_no_samples_are_templates_are_rated():
    template, sample = row("x", "Q1", stage=1), row("y", "Q1")
    assert [pair.text for pair in human_study.sample_pairs([template], QUESTIONS, 5, 0)[0]] == [template.text]
    assert [pair.text for pair in human_study.sample_pairs([template, sample], QUESTIONS, 5, 0)[0]] == [sample.text]


def test_pairs_stay_once_people_have_rated(tmp_path):
    pairs, key = human_study.sample_pairs(AUGMENTED, QUESTIONS, 6, 2, seed=0)
    human_study.write_pairs(tmp_path, pairs, key)
    human_study.write_automatic(tmp_path, human_study.rate("word overlap", pairs, human_study.overlaps(pairs)))
    new = human_study.pairs_of(tmp_path, AUGMENTED, QUESTIONS, 6, 2, seed=5)
    assert new[0] != pairs
    assert not new[2]
    (tmp_path / "ratings" / "anna.csv").write_text(f"rater_id,pair_id,rating,seconds\nanna,{pairs[0].pair_id},4,2.0\n")
    assert human_study.pairs_of(tmp_path, AUGMENTED, QUESTIONS, 6, 2, seed=5) == (pairs, key, True)
    (tmp_path / "pairs_key.json").write_text("{}")
    with pytest.raises(UserError, match="put back"):
        human_study.pairs_of(tmp_path, AUGMENTED, QUESTIONS, 6, 2, seed=5)


# files

@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1", "'=1"])
def test_no_cell_is_a_formula(tmp_path, text):
    human_study.write_pairs(tmp_path, [Pair(pair_id="p1", seed=text, text="a")], KEY)
    line = (tmp_path / "pairs.csv").read_text().splitlines()[1]
    assert line.split(",")[1].strip('"').startswith("'")
    assert human_study.read_pairs(tmp_path)[0][0].seed == text


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("'=+-@\t\r\n\",; "), st.characters(exclude_categories=["Cs"]))))
def test_any_text_survives_the_pairs_file(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("pairs")
    human_study.write_pairs(folder, [Pair(pair_id="p1", seed=text, text="a")], KEY)
    assert human_study.read_pairs(folder)[0] == [Pair(pair_id="p1", seed=text, text="a")]


HEADER = "rater_id,pair_id,rating,seconds\n"


def put(folder, text, name="anna.csv"):
    (folder / "ratings").mkdir(exist_ok=True)
    (folder / "ratings" / name).write_text(text)


def test_automatic_files_are_replaced_and_peoples_files_are_not(tmp_path):
    put(tmp_path, HEADER + "anna,p0,5,2.5\n")
    put(tmp_path, HEADER + "automatic: old,p7,5,\n", "automatic_old.csv")
    made = human_study.rate("word overlap", PAIRS, human_study.overlaps(PAIRS))
    human_study.write_automatic(tmp_path, made)
    assert sorted(path.name for path in (tmp_path / "ratings").iterdir()) == ["anna.csv", "automatic_word_overlap.csv"]
    assert human_study.read_ratings(tmp_path, PAIRS)[1:] == made
    put(tmp_path, HEADER + "ben,p0,5,2.5\n", "automatic_ben.csv")
    with pytest.raises(UserError, match="person"):
        human_study.write_automatic(tmp_path, made)
    assert (tmp_path / "ratings" / "automatic_ben.csv").is_file()


# automatic raters

def test_scores_are_laid_on_the_scale_by_a_fixed_rule():
    scores = [-0.3, 0, 0.12, 0.125, 0.374, 0.375, 0.624, 0.625, 0.874, 0.875, 1, 1.0000001]
    pairs = [Pair(pair_id=f"p{i}", seed="a", text="b") for i in range(len(scores))]
    made = human_study.rate("toy", pairs, np.array(scores))
    assert [rating.rating for rating in made] == [1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]
    assert {rating.rater_id for rating in made} == {"automatic: toy"}


def test_cosines_and_overlaps_by_hand():
    vectors = {"a": [1, 0], "b": [0.6, 0.8], "c": [0, 1]}
    pairs = [Pair(pair_id="x", seed="a", text="b"), Pair(pair_id="y", seed="a", text="c")]
    found = human_study.cosines(pairs, lambda texts: np.array([vectors[text] for text in texts], dtype=np.float32))
    assert found == pytest.approx([0.6, 0.0])
    # {men, lead, better} and {men, lead, badly, too}: two shared of five
    assert human_study.overlaps([Pair(pair_id="x", seed="Men lead better.", text="men lead: badly, too"),
                                 Pair(pair_id="y", seed="...", text="?")]) == pytest.approx([0.4, 0.0])
