"""Which candidates are kept and why not, in the plane, with toy guards; pairs of a user's own; the encoder."""

import io
import json
import math
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import encoder, filtering, paths
from culturellm_utils.errors import UserError
from culturellm_utils.filtering import Guards, diversity_gain, filter_candidates, filter_pairs, most_different, sweep
from culturellm_utils.records import Candidate, Question

QUESTIONS = [Question(question_id=name, topic="Work", question=text, options={"1": "Agree", "2": "Disagree"})
             for name, text in (("Q1", "Work is a duty."), ("Q2", "Most people can be trusted."))]
FLIPPED = "polarity: flipped"


class Toy:
    """A guard that objects to the texts it is told, and remembers what it was shown."""

    def __init__(self, objections=None):
        self.objections, self.shown = objections or {}, []

    def judge(self, pairs):
        self.shown += pairs
        return [self.objections.get(text, "") for _, text in pairs]


KNOBS = {"tau": 0.8, "near_duplicate": 0.999, "guard": Toy(), "samples_per_template": 2}


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


# A portion at a time

def test_questions_are_filtered_in_portions_as_if_at_once(monkeypatch):
    rows = [(candidate("Work, a duty", 1), 10), (candidate("To trust people", 1, question="Q2"), 80),
            (candidate("Work as a duty", 1, 1), 15), (candidate("Trust in people", 1, 1, question="Q2"), 5)]
    plane = Plane({row.text: angle for row, angle in rows})
    found = filter_candidates([row for row, _ in rows], QUESTIONS, plane, **KNOBS)
    assert plane.calls == 1
    monkeypatch.setattr(filtering, "BLOCK", 3)
    assert filtering._blocks([[0, 2], [1, 3]]) == [[0, 2], [1, 3]]
    assert filtering._blocks([[0, 4], [3], [1, 2, 5, 6], [7]]) == [[0, 3, 4], [1, 2, 5, 6], [7]]  # in whole questions
    assert filter_candidates([row for row, _ in rows], QUESTIONS, plane, **KNOBS) == found
    assert plane.calls == 3
    assert [row.text for row in found[0]] == ["Work, a duty", "To trust people", "Work as a duty"]  # in their order


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


def test_what_the_guard_objects_to_is_rejected_with_its_reason():
    rows = [(candidate("Working is a duty."), 5), (candidate("Work is not a duty.", 2), 10)]
    assert judged(rows, guard=Toy({"Work is not a duty.": FLIPPED})) == (["Working is a duty."],
                                                                        {"Work is not a duty.": FLIPPED})
    assert judged(rows) == (["Working is a duty.", "Work is not a duty."], {})


def test_only_texts_above_tau_are_shown_to_the_guard_each_with_its_seed():
    guard = Toy()
    judged([(candidate("Working is a duty."), 36), (candidate("Labour is a duty.", 2), 38),  # cosines 0.81 and 0.79
            (candidate("People can be trusted.", question="Q2"), 80), (candidate("A is a duty.", sample=1), 20)],
           guard=guard)
    one, two = (question.question for question in QUESTIONS)
    assert guard.shown == [(one, "Working is a duty."), (two, "People can be trusted."), (one, "A is a duty.")]


def test_similarity_comes_before_an_objection():
    why = judged([(candidate("Work is not a duty."), 60)], guard=Toy({"Work is not a duty.": FLIPPED}))[1]
    assert why == {"Work is not a duty.": "similarity: at most 0.80"}


def test_an_objection_comes_before_a_near_duplicate_and_is_no_earlier_text():
    rows = [(candidate("Working is a duty."), 10), (candidate("Working is no duty.", 2), 10.1),
            (candidate("To work is no duty.", 3), 20), (candidate("To work is a duty.", 4), 20.1)]
    kept, why = judged(rows, guard=Toy({"Working is no duty.": FLIPPED, "To work is no duty.": FLIPPED}))
    assert kept == ["Working is a duty.", "To work is a duty."]
    assert why == {"Working is no duty.": FLIPPED, "To work is no duty.": FLIPPED}


def test_samples_fall_with_a_template_that_the_guard_rejects():
    rows = [(candidate("Work is no duty."), 5), (candidate("Toil is a duty.", sample=1), 10)]
    kept, why = judged(rows, guard=Toy({"Work is no duty.": FLIPPED}))
    assert kept == []
    assert why == {"Work is no duty.": FLIPPED, "Toil is a duty.": "template: its template was rejected"}


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


# Several guards

@pytest.fixture
def guards(monkeypatch):
    """The trained guard and the NLI model replaced by toys."""
    toys = types.SimpleNamespace(trained=Toy({"no": FLIPPED, "bad": "damage: broken"}),
                                 nli=Toy({"no": "polarity: contradiction (NLI)", "other": "polarity: not equivalent"}))
    monkeypatch.setattr(filtering, "Guard", lambda: toys.trained)
    monkeypatch.setattr(filtering, "Entailment", {"some/nli": toys.nli}.__getitem__)
    return toys


PAIRS = [("seed", "good"), ("seed", "no"), ("seed", "other"), ("seed", "bad")]


def test_guards_judge_in_sequence_and_the_first_objection_counts(guards):
    both = Guards(True, "some/nli")
    assert both.judge(PAIRS) == ["", FLIPPED, "polarity: not equivalent", "damage: broken"]
    assert guards.trained.shown == PAIRS
    assert guards.nli.shown == [("seed", "good"), ("seed", "other")]


def test_each_guard_can_be_left_out(guards):
    assert Guards(True).judge(PAIRS) == ["", FLIPPED, "", "damage: broken"]
    assert Guards(False, "some/nli").judge(PAIRS) == ["", "polarity: contradiction (NLI)", "polarity: not equivalent",
                                                      ""]
    assert Guards(False).judge(PAIRS) == [""] * 4
    assert Guards(True, "some/nli").judge([]) == []


def test_guards_judge_a_pair_once_however_often_it_comes(guards):
    both = Guards(True, "some/nli")
    assert both.judge([PAIRS[1], PAIRS[0], PAIRS[1]]) == [FLIPPED, "", FLIPPED]
    assert both.judge([PAIRS[3], PAIRS[1]]) == ["damage: broken", FLIPPED]
    assert both.judge([("another seed", "no")]) == [FLIPPED]
    assert guards.trained.shown == [PAIRS[1], PAIRS[0], PAIRS[3], ("another seed", "no")]
    assert guards.nli.shown == [PAIRS[0]]


def test_a_sweep_asks_the_guards_once(guards):
    rows = [candidate("good"), candidate("other", 2)]
    knobs = {name: value for name, value in KNOBS.items() if name != "tau"} | {"guard": Guards(True, "some/nli")}
    sweep(rows, QUESTIONS, Plane({"good": 10, "other": 20}), [0.5, 0.6, 0.7], **knobs)
    assert len(guards.trained.shown) == len(guards.nli.shown) == 2


# Pairs of a user's own

ROWS = [{"seed": "Work is a duty.", "text": "Working is a duty.", "id": 7, "tags": ["a", None]},
        {"text": "Work is no duty.", "seed": "Work is a duty."},
        {"seed": "Work is a duty.", "text": "Snow is white."}]
ANGLES = {"Working is a duty.": 10, "Work is no duty.": 20, "Snow is white.": 80}


def test_pairs_are_filtered_by_similarity_then_guard_and_keep_their_fields():
    guard = Toy({"Work is no duty.": FLIPPED, "Snow is white.": "damage: about something else"})
    found = filter_pairs(ROWS, Plane(ANGLES), 0.8, guard)
    cosine = {text: pytest.approx(math.cos(math.radians(angle)), abs=2e-6) for text, angle in ANGLES.items()}
    assert found == [
        ROWS[0] | {"similarity": cosine["Working is a duty."], "kept": True, "reason": ""},
        ROWS[1] | {"similarity": cosine["Work is no duty."], "kept": False, "reason": FLIPPED},
        ROWS[2] | {"similarity": cosine["Snow is white."], "kept": False, "reason": "similarity: at most 0.80"}]
    assert guard.shown == [(row["seed"], row["text"]) for row in ROWS[:2]]
    assert filter_pairs([], Plane({}), 0.8, guard) == []


def test_tau_itself_is_not_enough_for_a_pair():
    assert filter_pairs([{"seed": "a", "text": "a"}], Plane({"a": 0}), 1.0, Toy())[0]["kept"] is False


@pytest.fixture
def command(tmp_path, monkeypatch, guards):
    """The command line on a file of rows, with the toy encoder and toy guards; what it returned, wrote and said."""
    guards.trained.objections = {"Work is no duty.": FLIPPED}
    guards.nli.objections = {"Working is a duty.": "polarity: not equivalent (NLI)"}
    monkeypatch.setattr(encoder, "load", lambda name: Plane(ANGLES))

    def run(content, *options):
        path = tmp_path / "pairs.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        out, err = io.TextIOWrapper(io.BytesIO(), "ascii"), io.StringIO()  # a terminal that knows no other letters
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["filtering", str(path), *map(str, options)])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = filtering.main()
        return code, out.buffer.getvalue().decode(), err.getvalue()
    return run


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_the_command_line_writes_every_row_with_its_verdict(command, tmp_path):
    code, out, said = command(lines(ROWS), "--tau", 0.8)
    assert (code, said) == (0, "1 of 3 kept\n")
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["kept"] for row in found] == [True, False, False]
    assert [{key: row[key] for key in given} for row, given in zip(found, ROWS, strict=True)] == ROWS
    assert command(lines(ROWS), "--tau", 0.8, "--output", tmp_path / "new" / "out.jsonl")[:2] == (0, "")
    assert (tmp_path / "new" / "out.jsonl").read_text(encoding="utf-8") == out


def test_the_command_line_knows_a_tau_and_each_guard(command):
    assert command(lines(ROWS), "--no-guard", "--tau", 0.1)[2] == "3 of 3 kept\n"
    assert command(lines(ROWS), "--no-guard")[2] == "2 of 3 kept\n"  # cosines 0.98, 0.94, 0.17 and the bundled tau
    assert command(lines(ROWS), "--no-guard", "--nli-model", "some/nli", "--tau", 0.1)[2] == "2 of 3 kept\n"
    assert command(lines(ROWS), "--nli-model", "some/nli", "--tau", 0.1)[2] == "1 of 3 kept\n"


def test_rows_in_any_script_go_out_as_they_came(command):
    row = {"seed": "Work is a duty.", "text": "Working is a duty.", "한국어": "일은 의무\u2028입니다"}
    found = command(lines([row]))[1]
    assert '"한국어": "일은 의무\u2028입니다"' in found
    assert json.loads(found.rstrip("\n")).items() >= row.items()


@pytest.mark.parametrize(("line", "name"), [
    ('{"seed": "a"}', "no text"), ('{"text": "a", "seed": 1}', "a number"), ('{"seed": ["a"], "text": ["b"]}', "lists"),
    ("[]", "a list"), ('"seed text"', "a text"), ("7", "a number"), ("null", "nothing"),
    ('{"seed": "a", "text": "b"', "cut"),
    ('{"seed": "a", "text": "\\ud800"}', "half a pair"), ('{"seed": "a", "text": "b", "x": "\\ud800"}', "elsewhere"),
    ('{"seed": "a", "text": "b", "x": NaN}', "no number"), ("[" * 100_000, "deep"), ("1" * 5000, "long"),
], ids=lambda value: value if len(value) < 20 else "")
def test_a_wrong_row_is_one_sentence_with_its_line_and_nothing_is_written(command, tmp_path, line, name):
    (tmp_path / "out.jsonl").write_text("old\n")
    content = f"{lines(ROWS[:1])}\n{line}\n".encode()
    code, out, said = command(content, "--output", tmp_path / "out.jsonl")
    assert (code, out) == (1, "")
    assert said == ("Error: pairs.jsonl line 3: no JSON object with the texts seed and text; repair or remove the "
                    "line\n")
    assert (tmp_path / "out.jsonl").read_text() == "old\n"


def test_a_file_that_cannot_be_read_or_written_is_one_sentence(command, tmp_path):
    assert command(b"caf\xe9")[2] == "Error: pairs.jsonl is not UTF-8 (byte 3): save it as UTF-8\n"
    code, _, said = command(lines(ROWS), "--output", tmp_path)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("Error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl"]


def test_the_module_runs_as_a_command(tmp_path):
    done = subprocess.run([sys.executable, "-m", "culturellm_utils.filtering", "absent.jsonl"], cwd=tmp_path,
                          env={"PYTHONPATH": str(paths.ROOT)}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == ("Error: absent.jsonl does not exist; give a JSON Lines file of rows with seed and text\n")


texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | texts, lambda inner: st.lists(
    inner, max_size=2) | st.dictionaries(texts, inner, max_size=2), max_leaves=4)
objects = st.fixed_dictionaries({}, optional={"seed": texts | values, "text": texts | values, "x": values}) | values


@given(content=st.binary(max_size=80) | st.lists(objects, max_size=3).map(
    lambda rows: "\n".join(map(json.dumps, rows)).encode()))
def test_any_file_of_pairs_is_read_or_refused_in_one_sentence(folder, content):
    path = folder / "any.jsonl"
    path.write_bytes(content)
    rows, said = [], "any.jsonl was read"
    try:
        rows = filtering.read_pairs(path)
    except UserError as error:
        said = str(error)
    assert said.startswith("any.jsonl ")
    assert "\n" not in said
    assert all(isinstance(row["seed"], str) and isinstance(row["text"], str) for row in rows)
    path.write_text("".join(map(filtering._line, rows)), encoding="utf-8")
    assert filtering.read_pairs(path) == rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pairs")


# The encoder

@pytest.fixture
def spy(own_cache, monkeypatch):
    """sentence-transformers replaced by letter counts; what it is asked is written down."""
    asked = types.SimpleNamespace(names=[], texts=[])

    class Spy:
        device = types.SimpleNamespace(type="cpu")

        def __init__(self, name, **_):
            asked.names.append(name)
            self.tokenizer = lambda texts: {"input_ids": [list(text) for text in texts]}
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


def test_rows_are_in_the_order_of_the_texts_though_short_ones_are_encoded_first(spy):
    texts = ["abc" * 100, "a" * 200, "b" * 310]
    rows = encoder.load("some/encoder").encode(texts)
    assert spy.texts == [texts[1], texts[0], texts[2]]
    assert rows.argmax(1).tolist() == [0, 0, 1]


def test_batches_hold_next_to_no_padding():
    assert encoder.batches([]) == []
    assert encoder.batches([3, 1, 2]) == [[1, 2, 0]]                # few tokens: padding does not matter
    assert encoder.batches([500, 20, 500, 700]) == [[1], [0, 2], [3]]
    assert encoder.batches([300, 290, 285]) == [[2, 1, 0]]          # 875 of 900 are tokens
    assert encoder.batches([300, 290, 250]) == [[2], [1, 0]]        # 540 of 580 are not enough, 590 of 600 are
    assert [len(part) for part in encoder.batches([20] * 130)] == [64, 64, 2]


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
                                "'all-MiniLM-L6-v2', a folder, or the hub name of a sentence-transformers model "
                                "with safetensors")


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
