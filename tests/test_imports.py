"""Everything that people may put into ratings/: the form's files, plain CSV, Label Studio's and Prolific's exports.

The exports are made up in the formats that their documentation and exporters show; see the module for where."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culturellm_utils import human_study, imports, rating_form
from culturellm_utils.errors import UserError
from culturellm_utils.imports import Participant
from culturellm_utils.ratings import Rating
from culturellm_utils.records import Pair

PAIRS = [Pair(pair_id=f"p{i}", seed=f"Seed {i}.", text=f"Text {i}.") for i in range(3)]
HEADER = "rater_id,pair_id,rating,seconds\n"
# printf anna@example.org | sha256sum | cut -c1-10
ANNA = "ls-a3bf86238a"


def put(folder, text, name="anna.csv"):
    (folder / "ratings").mkdir(exist_ok=True)
    (folder / "ratings" / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def refusal(folder):
    with pytest.raises(UserError) as error:
        human_study.read_ratings(folder, PAIRS)
    return str(error.value)


# the form, and plain CSV

def test_a_persons_file_is_read(tmp_path):
    put(tmp_path, "\ufeff" + HEADER + "anna,p0,5,2.5\r\nanna,p1, 1 ,\r\n\r\n")
    put(tmp_path, "rating,seconds,rater_id,pair_id\n3,0,Žaneta_2,p0\n", "b.csv")
    put(tmp_path, "rater_id,pair_id,rating,seconds,position\nr07,p2,4,6.25,17\nr07,p1,4,6.25,\n", "c.csv")
    put(tmp_path, "pair_id,rater_id,rating\np0,plain,2\n", "d.csv")
    put(tmp_path, b"\x00", ".DS_Store")
    assert human_study.read_ratings(tmp_path, PAIRS) == [
        Rating(rater_id="anna", pair_id="p0", rating=5, seconds=2.5, position=None),
        Rating(rater_id="anna", pair_id="p1", rating=1, seconds=None),
        Rating(rater_id="Žaneta_2", pair_id="p0", rating=3, seconds=0.0),
        Rating(rater_id="r07", pair_id="p2", rating=4, seconds=6.25, position=17),
        Rating(rater_id="r07", pair_id="p1", rating=4, seconds=6.25, position=None),
        Rating(rater_id="plain", pair_id="p0", rating=2),
    ]


@pytest.mark.parametrize(("text", "words"), [
    (HEADER + "anna,p9,5,1\n", "anna.csv line 2: there is no pair 'p9'"),
    (HEADER + "anna,p0,5,1\nanna,p1,6,1\n", "anna.csv line 3: rating '6'"),
    (HEADER + "anna,p0,0,1\n", "rating '0'"),
    (HEADER + "anna,p0,4.5,1\n", "rating '4.5'"),
    (HEADER + "anna,p0,four,1\n", "rating 'four'"),
    (HEADER + "anna,p0,٤,1\n", "rating"),
    (HEADER + "anna,p0,,1\n", "rating ''"),
    (HEADER + "anna,p0,4,-1\n", "seconds '-1'"),
    (HEADER + "anna,p0,4,nan\n", "seconds 'nan'"),
    (HEADER + "anna,p0,4,soon\n", "seconds 'soon'"),
    (HEADER + ",p0,4,1\n", "rater_id ''"),
    (HEADER + "=cmd(),p0,4,1\n", "rater_id '=cmd"),
    (HEADER + "anna,p0,4,1\nanna,p0,4,1\n", "line 3: rater 'anna' has rated p0 before"),
    (HEADER + "automatic: me,p0,4,1\n", "wrong file"),
    (HEADER + "anna,p0,4\n", "line 2: 3 cells"),
    (HEADER + 'anna,"p0,4,1\n', "cannot be read"),
    ("rater_id,pair_id,rating,position\nanna,p0,4,0\n", "position '0'"),
    ("rater_id,pair_id,rating,position\nanna,p0,4,1.5\n", "position '1.5'"),
    ("rater_id,pair_id\nanna,p0\n", "line 1: the columns must be those of a ratings file (rater_id,pair_id,rating"),
    ("rater_id,pair_id,rating,second\nanna,p0,4,1\n", "line 1: the columns must be"),
    ("rater_id,pair_id,rating,rating\nanna,p0,4,1\n", "named twice"),
    ("rater_id;pair_id;rating;seconds\nanna;p0;4;1\n", "commas"),
    ("", "line 1"),
    (b"rater_id,pair_id,rating,seconds\n\xe9,p0,4,1\n", "UTF-8"),
])
def test_a_wrong_ratings_file_is_refused_by_name_and_line(tmp_path, text, words):
    put(tmp_path, text)
    said = refusal(tmp_path)
    assert words in said
    assert "anna.csv" in said
    assert "\n" not in said


def test_each_wrong_row_is_one_sentence_and_right_ones_are_not_mentioned(tmp_path):
    put(tmp_path, HEADER + "anna,p0,9,1\nanna,p1,5,1\nanna,p7,5,1\n" + "ben,p0,x,1\n" * 5)
    lines = refusal(tmp_path).splitlines()
    assert [re.search(r"line (\d+)", line)[1] for line in lines[:-1]] == ["2", "4", "5", "6", "7"]
    assert lines[-1] == "2 more rows are wrong."


@pytest.mark.parametrize("name", ["anna.xlsx", "anna.tsv", "ratings.zip"])
def test_files_that_nobody_reads_are_not_passed_over(tmp_path, name):
    put(tmp_path, b"PK", name)
    assert f"{name} is neither CSV nor JSON" in refusal(tmp_path)


# Label Studio

def annotation(value, by=7, created="2026-03-09T21:52:49.5Z", lead=4.25, **more):
    return {"id": 1001, "completed_by": by, "was_cancelled": False, "created_at": created, "lead_time": lead,
            "result": [{"from_name": "rating", "to_name": "text", "type": "choices", "value": value}], **more}


def task(pair, *annotations):
    return {"id": 1, "project": 83, "data": pair.model_dump(), "annotations": list(annotations), "predictions": []}


def test_label_studio_json_is_read(tmp_path):
    later, first = "2026-03-09T22:10:00.000001Z", "2026-03-09T22:09:59.999Z"
    tasks = [task(PAIRS[0], annotation({"choices": ["5"]}, created=later), annotation({"rating": 2}, by="Anna@b.org")),
             task(PAIRS[1], annotation({"choices": ["1"]}, created=first, lead=None),
                  annotation({"choices": ["3"]}, by={"id": 9, "email": "Ben@b.org"}),
                  annotation({}, by=8, was_cancelled=True))]
    put(tmp_path, json.dumps(tasks), "project-83.json")
    read = human_study.read_ratings(tmp_path, PAIRS)
    assert read[:1] + read[2:3] == [Rating(rater_id="ls-7", pair_id="p0", rating=5, seconds=4.25, position=2),
                                    Rating(rater_id="ls-7", pair_id="p1", rating=1, seconds=None, position=1)]
    assert (read[1].rating, read[1].position) == (2, 1)
    assert len({rating.rater_id for rating in read}) == 3
    assert not any("@" in rating.rater_id or "ben" in rating.rater_id for rating in read)


def test_label_studio_csv_and_json_min_give_what_json_gives(tmp_path):
    rows = [{"id": 1, "pair_id": "p0", "seed": "=Seed", "text": "Text, 0.", "rating": "5",
             "annotator": "Anna@example.org", "annotation_id": 11, "created_at": "2026-03-09T10:00:00Z",
             "updated_at": "", "lead_time": 3.5},
            {"id": 2, "pair_id": "p1", "seed": "Seed", "text": "Text", "rating": '[{"rating": 4}]', "annotator": "3",
             "annotation_id": 12, "created_at": "2026-03-09T10:01:00Z", "updated_at": "", "lead_time": ""}]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(rows)
    flat = [rows[0], {**rows[1], "rating": [{"rating": 4}], "annotator": 3, "lead_time": None}]
    for folder, name, content in (("csv", "export.csv", text.getvalue()), ("min", "export.json", json.dumps(flat))):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder, content, name)
        read = human_study.read_ratings(tmp_path / folder, PAIRS)
        assert read == [Rating(rater_id=read[0].rater_id, pair_id="p0", rating=5, seconds=3.5, position=1),
                        Rating(rater_id="ls-3", pair_id="p1", rating=4, position=1)]
        assert read[0].rater_id == ANNA


@pytest.mark.parametrize(("tasks", "words"), [
    ({"a": 1}, "no export of Label Studio"),
    ([1], "no export of Label Studio"),
    ([{"data": {"pair_id": "p0"}}], "task 1: field 'annotations' is not as Label Studio writes it"),
    ([task(PAIRS[0])], "task 1: field 'annotations'"),
    ([task(PAIRS[0], {"completed_by": 1, "result": "5"})], "field 'annotations.0.result'"),
    ([task(PAIRS[0], annotation({"choices": ["5", "4"]}))], "task 1 annotation 1: rating"),
    ([task(PAIRS[0], annotation({"choices": ["Five"]}))], "task 1 annotation 1: rating 'Five'"),
    ([task(PAIRS[0], annotation({"choices": ["5"]}, by=None))], "task 1 annotation 1: rater_id ''"),
    ([task(PAIRS[0], annotation({"choices": ["5"]}, lead=-1))], "seconds '-1.0'"),
    ([task(PAIRS[0], annotation({"choices": ["5"]}), annotation({"choices": ["4"]}))], "has rated p0 before"),
    ([{**task(PAIRS[0], annotation({"choices": ["5"]})), "data": {"pair_id": "q"}}], "there is no pair 'q'"),
])
def test_wrong_label_studio_files_are_refused(tmp_path, tasks, words):
    put(tmp_path, json.dumps(tasks), "export.json")
    said = refusal(tmp_path)
    assert words in said
    assert "export.json" in said
    assert "\n" not in said


def test_the_files_for_label_studio_name_each_pair_and_the_scale(tmp_path):
    hostile = Pair(pair_id="p9", seed='"><script>alert(1)</script>', text="& <b>")
    imports.write_label_studio(tmp_path, [*PAIRS, hostile], "tr")
    tasks = json.loads((tmp_path / "label_studio_tasks.json").read_text())
    assert [one["data"] for one in tasks] == [pair.model_dump() for pair in [*PAIRS, hostile]]
    config = ET.parse(tmp_path / "label_studio_config.xml").getroot()
    choices = config.find("Choices")
    assert (choices.get("name"), choices.get("toName"), choices.get("required")) == ("rating", "text", "true")
    shown = {field.get("name"): field.get("value") for field in config.iter("Text")}
    assert shown == {"seed": "$seed", "text": "$text"}
    rubric = rating_form.texts("tr")["rubric"]
    assert {choice.get("alias"): choice.get("value") for choice in choices} == {
        str(value): f"{value}: {meaning}" for value, meaning in rubric.items()}


# Prolific

PROLIFIC = ("Submission id,Participant id,Status,Started at,Completed at,Time taken,Completion code,Age,Sex\n"
            "s1,5e9088a8a4b6ed018b45ba7b,APPROVED,2026-01-01T10:00:00Z,2026-01-01T10:20:00Z,1200.5,C1,30,Female\n"
            "s2,5e9088a8a4b6ed018b45ba7c,TIMED-OUT,2026-01-01T10:00:00Z,,,,DATA_EXPIRED,Male\n"
            "s3,5e9088a8a4b6ed018b45ba7d,AWAITING REVIEW,2026-01-01T10:00:00Z,,60,C1,40,Male\n"
            "s4,5e9088a8a4b6ed018b45ba7d,RETURNED,2026-01-01T09:00:00Z,,5,,40,Male\n")


def test_a_prolific_export_tells_statuses_and_holds_no_ratings(tmp_path):
    put(tmp_path, PROLIFIC, "prolific_export_1.csv")
    put(tmp_path, HEADER + "5e9088a8a4b6ed018b45ba7b,p0,5,2.5\n")
    put(tmp_path, "[]", "empty.json")
    assert len(human_study.read_ratings(tmp_path, PAIRS)) == 1
    expected = [("5e9088a8a4b6ed018b45ba7b", "APPROVED", 1200.5), ("5e9088a8a4b6ed018b45ba7c", "TIMED OUT", None),
                ("5e9088a8a4b6ed018b45ba7d", "AWAITING REVIEW", 60.0)]
    assert imports.participants(tmp_path) == {
        rater: Participant(rater_id=rater, status=status, seconds=seconds) for rater, status, seconds in expected}


def test_the_columns_of_older_prolific_exports(tmp_path):
    put(tmp_path, "session_id,participant_id,status,time_taken,age\ns,abc,REJECTED,7,30\n")
    found = imports.participants(tmp_path)
    assert found == {"abc": Participant(rater_id="abc", status="REJECTED", seconds=7)}


def test_a_prolific_row_without_a_person_is_refused(tmp_path):
    put(tmp_path, PROLIFIC + "s5,,APPROVED,,,1,,,\n")
    with pytest.raises(UserError, match=r"anna\.csv line 6: the participant id or the status is empty"):
        imports.participants(tmp_path)


def test_no_ratings_and_no_participants(tmp_path):
    assert human_study.read_ratings(tmp_path, PAIRS) == []
    assert imports.participants(tmp_path) == {}


# whatever comes

FIELDS = ["data", "annotations", "annotator", "pair_id", "rating", "choices", "result", "value", "from_name",
          "completed_by", "email", "lead_time", "created_at"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.sampled_from(["p0", "5", "[5]", "a@b", "rating"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=25)
RESULT = st.fixed_dictionaries({"from_name": st.just("rating"), "value": JSON})
ANNOTATION = st.fixed_dictionaries({"completed_by": JSON, "lead_time": st.none() | st.floats(),
                                    "created_at": st.text(max_size=2), "result": st.lists(RESULT, max_size=2)})
TASKS = st.lists(st.fixed_dictionaries({"data": st.just({"pair_id": "p0"}),
                                        "annotations": st.lists(ANNOTATION, min_size=1, max_size=2)}), max_size=2)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=80),
                 st.text(alphabet="anp019,.;\"'\n\r -=", max_size=60).map(lambda text: (HEADER + text).encode()),
                 st.text(alphabet="a01,.\"\n -=", max_size=40).map(
                     lambda text: ("pair_id,annotator,rating\n" + text).encode())))
def test_any_csv_file_is_read_or_refused_with_a_sentence(tmp_path_factory, content):
    check_any(tmp_path_factory.mktemp("ratings"), content, "anna.csv")


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=40), JSON.map(lambda value: json.dumps(value).encode()),
                 TASKS.map(lambda value: json.dumps(value).encode())))
def test_any_json_file_is_read_or_refused_with_a_sentence(tmp_path_factory, content):
    check_any(tmp_path_factory.mktemp("ratings"), content, "export.json")


def test_json_nested_too_deeply_is_refused(tmp_path):
    put(tmp_path, "[" * 200_000, "export.json")
    assert "export.json cannot be read" in refusal(tmp_path)


def check_any(folder, content, name):
    put(folder, content, name)
    try:
        found = human_study.read_ratings(folder, PAIRS)
        imports.participants(folder)
    except UserError:
        return
    assert all(1 <= rating.rating <= 5 and rating.pair_id in {"p0", "p1", "p2"} for rating in found)
