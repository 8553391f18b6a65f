"""The contract of files: rows survive writing and reading, broken ones name their line, files are whole or absent."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from culturellm_utils import paths, records
from culturellm_utils.errors import UserError
from culturellm_utils.records import (
    Augmented,
    Candidate,
    Message,
    Prediction,
    Question,
    ReplyRow,
    Seed,
    Substitution,
    TargetRow,
    Translation,
)

ROW = {"candidate_id": "Q27-t02-s1", "question_id": "Q27", "stage": 2, "template_id": "Q27-t02", "text": "Few aims.",
       "substitutions": [{"position": 1, "word": "goals", "substitute": "aims"}], "source": "recorded"}
GOOD = json.dumps(ROW)

words = st.text(max_size=20)
shares = st.dictionaries(words, st.floats(0, 1), max_size=4)
candidates = st.builds(
    Candidate, candidate_id=words, question_id=words, stage=st.sampled_from([1, 2]), template_id=words,
    text=st.text(min_size=1, max_size=60), source=words,
    substitutions=st.lists(st.builds(Substitution, position=st.integers(0), word=words, substitute=words), max_size=3),
)
predictions = st.builds(
    Prediction, item_id=words, part=st.sampled_from(["task", "ability"]), culture=words, system=words,
    messages=st.lists(st.builds(Message, role=st.sampled_from(["system", "user"]), content=words), max_size=2),
    question_id=words, probabilities=shares, reply=words, label=st.none() | words, gold=words, gold_distribution=shares,
)

translations = st.builds(
    Translation, name=words, kind=st.sampled_from(["question", "option", "phrase"]), english=words, text=words,
    protected=st.lists(words, max_size=2), back=st.none() | words, similarity=st.none() | st.floats(-1, 1),
    source=words, reason=words,
)
reply_rows = st.builds(
    ReplyRow, key=words, purpose=words, subject=words, attempt=st.integers(0, 9), outcome=words, detail=words,
    prompt_tokens=st.integers(0), completion_tokens=st.integers(0), text=words,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def complaint(path: Path, content: str | bytes, model: type[records.Row] = Candidate) -> str:
    """What a reader of a broken file is told."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        records.read_rows(path, model)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


# --- rows


@settings(max_examples=40)
@given(rows=st.lists(candidates, min_size=1, max_size=4))
def test_candidates_survive_writing_and_reading(folder, rows):
    assert records.read_rows(records.write_rows(folder / "candidates.jsonl", rows), Candidate) == rows


@settings(max_examples=40)
@given(rows=st.lists(predictions, min_size=1, max_size=4))
def test_predictions_survive_writing_and_reading(folder, rows):
    assert records.read_rows(records.write_rows(folder / "predictions.jsonl", rows), Prediction) == rows


@settings(max_examples=40)
@given(translated=st.lists(translations, min_size=1, max_size=3), replied=st.lists(reply_rows, min_size=1, max_size=3))
def test_translations_and_replies_survive_writing_and_reading(folder, translated, replied):
    assert records.read_rows(records.write_rows(folder / "translations.jsonl", translated), Translation) == translated
    assert records.read_rows(records.write_rows(folder / "replies.jsonl", replied), ReplyRow) == replied


def test_a_translation_says_what_it_translates_and_is_used_unless_it_has_a_reason():
    row = Translation(name="Q27", kind="question", english="Is it?", text="Ist es?", source="user")
    assert (row.protected, row.back, row.similarity, row.reason) == ([], None, None, "")
    with pytest.raises(ValidationError, match="'question', 'option' or 'phrase'"):
        Translation(name="Q27", kind="topic", english="Is it?", text="Ist es?", source="user")


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_other_file_is_a_user_error(folder, content):
    assert complaint(folder / "any.jsonl", content)


def test_byte_order_mark_windows_lines_and_blank_lines_are_read(folder):
    path = folder / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n" + GOOD.replace("aims", "\u2028ends").encode())
    assert [row.text for row in records.read_rows(path, Candidate)] == ["Few aims.", "Few \u2028ends."]


@given(lines=st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=6),
                                st.sampled_from(["\n", "\r\n", "\r"])), max_size=6))
def test_lines_are_numbered_however_they_end(folder, lines):
    path = folder / "lines.txt"
    path.write_bytes("".join(text + end for text, end in lines).encode())
    wanted = path.read_text(encoding="utf-8-sig").split("\n")  # Python's own reading
    assert list(records.numbered_lines(path)) == [
        (number, line) for number, line in enumerate(wanted, start=1) if line.strip()]


@given(before=st.lists(st.sampled_from(["Few aims.", "\u2028", ""]), max_size=4))
def test_the_byte_that_is_no_utf_8_is_counted_from_the_start(folder, before):
    path = folder / "lines.txt"
    start = "\n".join([*before, "ab"]).encode()
    path.write_bytes(start + b"\xff\nc")
    with pytest.raises(UserError, match=rf"lines\.txt is not UTF-8 \(byte {len(start)}\)"):
        list(records.numbered_lines(path))


def test_one_line_per_row_in_plain_utf8(folder):
    row = Candidate(**ROW | {"text": "삶의 목표\n두 줄"})
    path = records.write_rows(folder / "out.jsonl", [row, row])
    assert path.read_bytes().count(b"\n") == 2
    assert "삶의 목표" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("line", "problem"), [
    (GOOD[:-1], "not valid JSON"),
    ("[]", "line 3: Input should be an object"),
    (json.dumps(ROW | {"colour": 1}), "unknown field 'colour'"),
    (json.dumps({k: v for k, v in ROW.items() if k != "source"}), "field 'source' is missing"),
    (json.dumps(ROW | {"stage": 3}), "field 'stage': Input should be 1 or 2"),
    (json.dumps(ROW | {"text": ""}), "field 'text': String should have at least 1 character"),
    (json.dumps(ROW | {"text": None}), "field 'text': Input should be a valid string"),
    (GOOD.replace('"position": 1', '"position": -1'), "field 'substitutions.0.position'"),
    (GOOD.replace("aims", "\\ud800"), "not valid JSON"),
])
def test_a_broken_line_is_named_by_number(folder, line, problem):
    said = complaint(folder / "candidates.jsonl", f"{GOOD}\n\n{line}\n")
    assert "candidates.jsonl line 3: " in said
    assert problem in said


def test_files_without_rows(folder):
    assert "has no rows" in complaint(folder / "empty.jsonl", "")
    assert "has no rows" in complaint(folder / "blank.jsonl", "\n \n")
    assert "not UTF-8 (byte 3)" in complaint(folder / "latin.jsonl", "caf\xe9".encode("latin-1"))
    for absent in (folder / "absent.jsonl", folder):
        with pytest.raises(UserError, match="is missing: run the notebook that writes it"):
            records.read_rows(absent, Candidate)


def test_a_number_that_json_lacks_is_refused_when_made_and_when_read(folder):
    with pytest.raises(ValidationError):
        TargetRow(question_id="Q27", wording_id="Q27", distribution={"1": math.nan})
    with pytest.raises(ValidationError):
        Augmented(**ROW, similarity=math.inf)
    line = '{"question_id": "Q27", "wording_id": "Q27", "distribution": {"1": NaN}}'
    assert "line 1: field 'distribution.1'" in complaint(folder / "targets.jsonl", line, TargetRow)


@pytest.mark.parametrize("similarity", [-1.0, 0.8, 1.0000001])
def test_a_cosine_may_exceed_one_by_rounding_alone(similarity):
    assert Augmented(**ROW, similarity=similarity).similarity == similarity
    with pytest.raises(ValidationError):
        Augmented(**ROW, similarity=1.01)


def test_a_row_cannot_be_changed():
    with pytest.raises(ValidationError):
        Candidate(**ROW).text = "Other."


def test_options_keep_the_order_in_which_they_are_shown(folder):
    question = Question(question_id="Q122", topic="Migration", question="Jobs are filled.",
                        options={"2": "Agree", "1": "Hard to say", "0": "Disagree"})
    (read,) = records.read_rows(records.write_rows(folder / "questions.jsonl", [question]), Question)
    assert list(read.options) == ["2", "1", "0"]


def test_a_seed_needs_a_country_and_a_known_rule():
    seed = {"question_id": "Q27", "topic": "t", "question": "q", "options": {"1": "a"}, "culture": "korean",
            "countries": ["KOR"], "respondents": 0, "distribution": {}, "label": "1", "label_rule": "paper"}
    assert Seed(**seed).respondents == 0
    for change in ({"countries": []}, {"label_rule": "median"}, {"respondents": -1}):
        with pytest.raises(ValidationError):
            Seed(**seed | change)


# --- files, whole or not at all


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = records.write_text(tmp_path / "new" / "a.txt", "old\n")

    def rows():
        yield Candidate(**ROW)
        raise RuntimeError("stopped half way")

    with pytest.raises(RuntimeError, match="half way"):
        records.write_rows(path, rows())
    with pytest.raises(UnicodeEncodeError):
        records.write_text(path, "half a surrogate pair: \ud800")
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write_json(path, {"score": math.nan})
    assert path.read_text() == "old\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_written_file_can_be_read_by_others_and_has_unix_lines(tmp_path):
    path = records.write_text(tmp_path / "a.txt", "one\ntwo\n")
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.read_bytes() == b"one\ntwo\n"


def test_json_documents(tmp_path):
    value = {"accuracy": 0.5, "name": "한국"}
    path = records.write_json(tmp_path / "scores.json", value)
    assert records.read_json(path) == value
    with pytest.raises(UserError, match=r"absent\.json is missing"):
        records.read_json(tmp_path / "absent.json")
    for broken in (b'{"a": 1', b"", b"\xff", b"[" + b"1" * 5000 + b"]"):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"^scores\.json is not valid JSON \(.*\): remove it and rerun$"):
            records.read_json(path)


def test_paths_are_shown_without_the_machine_they_lie_on(tmp_path):
    assert paths.shown(paths.ROOT / "params" / "korean.yaml") == "params/korean.yaml"
    assert paths.shown(paths.outputs() / "laptop" / "seeds.jsonl") == "outputs/laptop/seeds.jsonl"
    assert paths.shown(Path("/somewhere/else/survey.csv")) == "survey.csv"
    assert paths.shown("survey.csv") == "survey.csv"
    assert paths.stage_dir("laptop", "korean") == tmp_path / "outputs" / "laptop" / "main" / "korean"


def test_a_file_without_rows_is_refused_unless_it_may_be_empty(tmp_path):
    path = records.write_rows(tmp_path / "seeds.jsonl", [])
    with pytest.raises(UserError, match=r"seeds\.jsonl has no rows"):
        records.read_rows(path, records.Seed)
    assert records.read_rows(path, records.Seed, may_be_empty=True) == []
