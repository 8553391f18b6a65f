"""Which candidates are kept and why not, on vectors in the plane; the encoder and its cache."""

import math
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import encoder, filtering
from culturellm_utils.errors import UserError
from culturellm_utils.filtering import diversity_gain, filter_candidates, most_different, sweep
from culturellm_utils.records import Candidate, Question

QUESTIONS = [Question(question_id=name, topic="Work", question=text, options={"1": "Agree", "2": "Disagree"})
             for name, text in (("Q1", "Work is a duty."), ("Q2", "Most people can be trusted."))]
KNOBS = {"tau": 0.8, "near_duplicate": 0.999, "guards": False, "samples_per_template": 2}


class Plane:
    """An encoder of made-up angles (degrees): the seeds lie at 0 and 90, a text where its number says."""

    def __init__(self, angles):
        self.angles = {QUESTIONS[0].question: 0, QUESTIONS[1].question: 90, **angles}
        self.calls = 0

    def encode(self, texts):
        self.calls += 1
        turns = np.radians([self.angles[text] for text in texts])
        return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)


def candidate(text, template=1, sample=0, question="Q1"):
    place = f"{question}-t{template:02d}"
    return Candidate(candidate_id=f"{place}-s{sample}" if sample else place, question_id=question,
                     stage=2 if sample else 1, template_id=place, text=text, substitutions=[], source="test")


def judged(rows, **knobs):
    """Candidates with their angles, filtered: what is kept, and the reason for the rest, by text."""
    plane = Plane({row.text: angle for row, angle in rows})
    accepted, rejected = filter_candidates([row for row, _ in rows], QUESTIONS, plane, **KNOBS | knobs)
    return [row.text for row in accepted], {row.text: row.reason for row in rejected}


# Each reason in turn

def test_a_candidate_needs_more_than_tau():
    close, far = math.degrees(math.acos(0.81)), math.degrees(math.acos(0.79))
    kept, why = judged([(candidate("Working is a duty."), close), (candidate("Labour is a duty.", 2), far)])
    assert kept == ["Working is a duty."]
    assert why == {"Labour is a duty.": "similarity: at most 0.80"}


def test_tau_itself_is_not_enough():
    assert judged([(candidate("Working is a duty."), 0)], tau=1.0)[0] == []


def test_similarity_is_to_the_own_seed():
    kept, why = judged([(candidate("People can mostly be trusted.", question="Q2"), 80),
                        (candidate("People can be trusted.", 2, question="Q2"), 10)])
    assert (kept, list(why)) == (["People can mostly be trusted."], ["People can be trusted."])


def test_the_same_words_are_a_duplicate_whatever_case_and_signs():
    kept, why = judged([(candidate("Work is a  DUTY!"), 0), (candidate("Working is a duty."), 10),
                        (candidate("Working, is a duty", 2), 20), (candidate("Most people can be trusted.", 3), 30)])
    assert kept == ["Working is a duty.", "Most people can be trusted."]  # another question's words are no duplicate
    assert set(why.values()) == {"duplicate: same words as an earlier text"}


def test_what_lies_too_near_an_accepted_text_is_a_near_duplicate():
    near, apart = (math.degrees(math.acos(cosine)) for cosine in (0.996, 0.994))
    kept, why = judged([(candidate("Working is a duty."), 10), (candidate("To work is a duty.", 2), 10 + near),
                        (candidate("It is a duty to work.", 3), 10 + near + apart)], near_duplicate=0.995)
    # the third is nearer to the second, but that was rejected, and so is no earlier text to compare with
    assert kept == ["Working is a duty.", "It is a duty to work."]
    assert why == {"To work is a duty.": "near-duplicate: cosine to an earlier text at least 0.995"}


def test_a_flipped_stance_is_rejected_unless_the_guard_is_off():
    rows = [(candidate("Work is not a duty."), 5)]
    kept, why = judged(rows, guards=True)
    assert kept == []
    assert why["Work is not a duty."].startswith("polarity: ")
    assert judged(rows) == (["Work is not a duty."], {})


def test_a_broken_sentence_is_rejected_unless_the_guards_are_off():
    rows = [(candidate("Work is a a duty."), 5)]
    assert judged(rows, guards=True) == ([], {"Work is a a duty.": "damage: broken grammar (a a)"})
    assert judged(rows) == (["Work is a a duty."], {})


def test_a_sample_is_read_against_its_template_where_a_lost_word_shows(monkeypatch):
    read = []
    monkeypatch.setattr(filtering, "_damage", lambda whole, text: read.append((whole, text)) or "")
    judged([(candidate("Working is a duty."), 5), (candidate("Labour is a duty.", sample=1), 10)], guards=True)
    assert read == [("Work is a duty.", "Working is a duty."), ("Working is a duty.", "Labour is a duty.")]


def test_a_sample_falls_with_its_template():
    kept, why = judged([(candidate("Labour is a duty."), 80), (candidate("Toil is a duty.", sample=1), 5)])
    assert kept == []
    assert why["Toil is a duty."] == "template: its template was rejected"


def test_samples_are_those_most_different():
    rows = [(candidate("Working is a duty."), 0.1), (candidate("A is a duty.", sample=1), 5),
            (candidate("B is a duty.", sample=2), 30), (candidate("C is a duty.", sample=3), 27),
            (candidate("D is a duty.", sample=4), 15)]
    kept, why = judged(rows)
    assert kept == ["Working is a duty.", "B is a duty.", "D is a duty."]  # farthest, then half way back
    assert set(why.values()) == {"selection: not among the 2 most different samples of its template"}
    assert judged(rows, samples_per_template=9)[1] == {}


def test_rows_keep_their_fields_their_order_and_their_similarity():
    rows = [candidate("Working is a duty."), candidate("A is a duty.", sample=1), candidate("Labour is a duty.", 2)]
    plane = Plane({rows[0].text: 10, rows[1].text: 60, rows[2].text: 20})
    accepted, rejected = filter_candidates(rows, QUESTIONS, plane, **KNOBS)
    assert [row.candidate_id for row in accepted] == ["Q1-t01", "Q1-t02"]
    assert [row.candidate_id for row in rejected] == ["Q1-t01-s1"]
    assert accepted[0].model_dump() == rows[0].model_dump() | {
        "similarity": pytest.approx(math.cos(math.radians(10)), abs=1e-6)}
    assert rejected[0].similarity == pytest.approx(0.5, abs=1e-6)
    assert plane.calls == 1  # all texts in one batch


def test_a_candidate_of_no_question_is_refused():
    with pytest.raises(UserError, match="Q9-t01 belongs to no question: rerun 02_augmentation"):
        judged([(candidate("Working is a duty.", question="Q9"), 0)])


def test_nothing_to_filter_is_nothing_kept():
    assert filter_candidates([], QUESTIONS, Plane({}), **KNOBS) == ([], [])


@given(angles=st.lists(st.integers(0, 90), min_size=1, max_size=12, unique=True), tau=st.floats(0, 0.99))
def test_every_candidate_is_kept_or_rejected_once(angles, tau):
    rows = [(candidate(f"Working is a duty number {i}.", 1 + i // 4, i % 4), angle) for i, angle in enumerate(angles)]
    kept, why = judged(rows, tau=tau)
    assert sorted([*kept, *why]) == sorted(row.text for row, _ in rows)
    all_of = {"samples_per_template": 99, "near_duplicate": 1.01}
    assert set(judged(rows, tau=min(0.99, tau + 0.1), **all_of)[0]) <= set(judged(rows, tau=tau, **all_of)[0])


# Diversity

def plane(*angles):
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1)


def test_most_different_by_hand():
    pool = plane(10, 40, 90, 80)
    assert most_different(pool, plane(0), 1) == {2}
    assert most_different(pool, plane(0), 2) == {1, 2}  # 40 is 40 from 0 and 50 from 90; 80 only 10 from 90
    assert most_different(pool, plane(0, 90), 1) == {1}
    assert most_different(pool, plane(0), 9) == {0, 1, 2, 3}


@given(st.lists(st.integers(1, 180), min_size=1, max_size=8, unique=True), st.integers(1, 8))
def test_the_most_different_contain_the_farthest_and_no_twins(angles, count):
    found = most_different(plane(*angles), plane(0), count)
    assert len(found) == min(count, len(angles))
    assert angles.index(max(angles)) in found
    pool = plane(*angles, *angles)  # each twice: a twin is only taken when nothing else is left
    twice = most_different(pool, plane(0), min(count, len(angles)))
    assert len({i % len(angles) for i in twice}) == len(twice)


def test_diversity_gain_by_hand():
    new, base = np.array([[0.0, 3.0], [4.0, 1.0]]), np.array([[0.0, 0.0], [4.0, 0.0]])
    assert diversity_gain(new, base) == pytest.approx((3 + 1) / 2)
    assert diversity_gain(plane(60), plane(0)) == pytest.approx(1)  # a chord of 60 degrees is as long as the radius
    assert diversity_gain(plane(0, 90), plane(90, 0, 45)) == pytest.approx(0, abs=1e-6)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_diversity_gain_is_brute_force(m, n, seed):
    chance = np.random.default_rng(seed)
    new, base = chance.normal(size=(m, 5)), chance.normal(size=(n, 5))
    brute = np.mean([min(np.linalg.norm(x - y) for y in base) for x in new])
    assert diversity_gain(new, base) == pytest.approx(brute)


def test_sweep_by_hand():
    rows = [(candidate("Working is a duty."), 20), (candidate("Labour is a duty.", 2), 40),
            (candidate("A is a duty.", sample=1), 30), (candidate("B is a duty.", sample=2), 10)]
    knobs = {name: value for name, value in KNOBS.items() if name != "tau"}
    table, texts = sweep([row for row, _ in rows], QUESTIONS, Plane({row.text: angle for row, angle in rows}),
                         [0.5, 0.9, 0.99], **knobs)
    assert table["templates"].tolist() == [2, 1, 0]  # cosines 0.94, 0.77; of the samples 0.87, 0.98
    assert table["samples"].tolist() == [2, 1, 0]
    assert table["kept"].tolist() == [1.0, 0.5, 0.0]
    assert texts == {0.5: ["A is a duty.", "B is a duty."], 0.9: ["B is a duty."], 0.99: []}
    chord = {angle: 2 * math.sin(math.radians(angle / 2)) for angle in (10, 30)}
    assert table["diversity_gain"][0] == pytest.approx((chord[10] + chord[30]) / 2, abs=1e-5)
    assert table["diversity_gain"][1] == pytest.approx(chord[10], abs=1e-5)
    assert np.isnan(table["diversity_gain"][2])


# The encoder

@pytest.fixture
def spy(own_cache, monkeypatch):
    """sentence-transformers replaced by letter counts; what it is asked is written down."""
    asked = types.SimpleNamespace(names=[], texts=[])

    class Spy:
        def __init__(self, name):
            asked.names.append(name)
            if name.startswith("no/"):
                raise OSError(f"{name} is not a local folder\nand more lines")

        def encode(self, texts, normalize_embeddings, **_):
            asked.texts += texts
            rows = np.array([[text.count(letter) + 1.0 for letter in "abcde"] for text in texts], dtype=np.float64)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True) if normalize_embeddings else rows

    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=Spy))
    return asked


def test_each_text_is_encoded_once_and_a_second_load_encodes_nothing(spy):
    texts = ["abba", "cede", "abba"]
    first = encoder.load("some/encoder").encode(texts)
    assert spy.texts == ["abba", "cede"]
    assert first.dtype == np.float32
    assert np.array_equal(first[0], first[2])
    again = encoder.load("some/encoder").encode(reversed(texts))
    assert (spy.texts, spy.names) == (["abba", "cede"], ["some/encoder"])  # not even the model is loaded
    assert np.array_equal(again, first[::-1])
    encoder.load("some/encoder").encode(["abba", "bad"])
    assert spy.texts == ["abba", "cede", "bad"]


def test_vectors_have_unit_length(spy):
    rows = encoder.load("some/encoder").encode(["a", "bead", "b" * 50, "", "ß"])
    assert rows.shape == (5, 5)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(5))


def test_encoders_do_not_share_vectors(spy):
    encoder.load("some/encoder").encode(["abba"])
    encoder.load("other/encoder").encode(["abba"])
    assert spy.texts == ["abba", "abba"]


def test_the_bundled_encoder_is_a_folder_of_its_package(spy):
    encoder.load(encoder.BUNDLED).encode(["abba"])
    assert (spy.names[0] + "/").startswith("/")


def test_an_unknown_encoder_is_one_sentence(spy):
    with pytest.raises(UserError) as error:
        encoder.load("no/such").encode(["abba"])
    assert str(error.value) == ("encoder 'no/such' cannot be loaded (no/such is not a local folder): give "
                                "'all-MiniLM-L6-v2', a folder, or the hub name of a sentence-transformers model")


@pytest.mark.slow
def test_the_real_bundled_encoder_knows_what_is_alike(own_cache):
    rows = encoder.load(encoder.BUNDLED).encode(["Work is a duty.", "Working is a duty.", "Snow is white."])
    assert rows.shape == (3, 384)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert rows[0] @ rows[1] > 0.8 > 0.5 > rows[0] @ rows[2]


@pytest.mark.slow
def test_a_real_unknown_encoder_is_one_sentence(own_cache):
    with pytest.raises(UserError, match="cannot be loaded"):
        encoder.load("./no-such-folder").encode(["abba"])
