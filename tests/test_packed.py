"""Packed rows: the same as in a list, in a small part of its memory."""

import gc
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_records import candidates, predictions

from culturellm_utils import packed, records
from culturellm_utils.errors import UserError
from culturellm_utils.packed import Packed
from culturellm_utils.records import Candidate, Prediction, Substitution


def row(number: int) -> Candidate:
    name = f"Q{number % 7}-t{number:05d}"
    return Candidate(candidate_id=name, question_id=f"Q{number % 7}", stage=1, template_id=name, source="test",
                     text=f"Few goals have driven me as strongly in life as number {number}.",
                     substitutions=[Substitution(position=2, word="aims", substitute="goals")])


ROWS = [row(number) for number in range(20)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(packed, "BLOCK", 3)


@settings(max_examples=40)
@given(rows=st.lists(candidates, max_size=8))
def test_candidates_are_what_they_were(rows):
    assert Packed(Candidate, rows) == rows


@settings(max_examples=40)
@given(rows=st.lists(predictions, max_size=8))
def test_predictions_are_what_they_were(rows):
    assert list(Packed(Prediction, rows)) == rows


@given(count=st.integers(0, 20), start=st.none() | st.integers(-25, 25), stop=st.none() | st.integers(-25, 25),
       step=st.sampled_from([None, -3, -1, 1, 2, 7]))
def test_places_and_slices_are_those_of_a_list(count, start, stop, step):
    rows, made = ROWS[:count], Packed(Candidate, ROWS[:count])
    assert len(made) == count
    assert made[start:stop:step] == rows[start:stop:step]
    for place in (start, stop):
        if place is not None and -count <= place < count:
            assert made[place] == rows[place]
        elif place is not None:
            with pytest.raises(IndexError):
                made[place]


@given(sizes=st.lists(st.integers(0, 7), max_size=5))
def test_packed_rows_are_added_to_packed_rows(sizes):
    made, wanted = Packed(Candidate), []
    for size in sizes:
        new = [row(len(wanted) + number) for number in range(size)]
        made.extend(Packed(Candidate, new))
        wanted += new
        made.append(ROWS[0])
        wanted.append(ROWS[0])
    assert made == wanted
    assert [made[place] for place in range(len(wanted))] == wanted
    before = list(made)
    made.extend(made)
    assert made == before * 2


def test_rows_can_be_added_after_some_were_read():
    made = Packed(Candidate, ROWS[:4])
    assert (made[0], made[3]) == (ROWS[0], ROWS[3])
    made.extend(ROWS[4:8])
    assert made == ROWS[:8]


@pytest.mark.parametrize("other", [ROWS[:4], [*ROWS[:4], ROWS[0]], ROWS[4::-1], 5, Packed(Candidate, ROWS[:4])])
def test_other_rows_are_not_equal(other):
    assert Packed(Candidate, ROWS[:5]) != other


def test_rows_take_a_twentieth_of_the_memory_of_a_list(monkeypatch):
    monkeypatch.undo()

    def size(make) -> int:
        gc.collect()
        tracemalloc.start()
        try:
            kept = make(row(number) for number in range(20 * packed.BLOCK))
            assert len(kept) == 20 * packed.BLOCK
            gc.collect()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert size(lambda rows: Packed(Candidate, rows)) < size(list) / 20


def test_a_cell_shows_how_many_rows_of_what_there_are():
    assert repr(Packed(Candidate, ROWS * 60)) == "<1,200 packed rows: Candidate>"


def test_a_file_is_read_like_any_other(tmp_path):
    path = records.write_rows(tmp_path / "candidates.jsonl", ROWS)
    made = packed.read(path, Candidate)
    assert isinstance(made, Packed)
    assert made == ROWS
    with path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match=r"candidates\.jsonl line 21: field 'candidate_id' is missing"):
        packed.read(path, Candidate)
    with pytest.raises(UserError, match=r"none\.jsonl is missing"):
        packed.read(tmp_path / "none.jsonl", Candidate)
    with pytest.raises(UserError, match=r"empty\.jsonl has no rows"):
        packed.read(records.write_rows(tmp_path / "empty.jsonl", []), Candidate)
