"""The contract of every file between notebooks: one typed row model per JSON Lines file, one reader, one writer.

A row of ``candidates.jsonl``::

    {"candidate_id": "Q27-t02-s1", "question_id": "Q27", "stage": 2, "template_id": "Q27-t02",
     "text": "...", "substitutions": [{"position": 4, "word": "goals", "substitute": "aims"}], "source": "recorded"}

Unknown or missing fields are refused with file name and line number. Files are written beside and renamed,
so a reader never sees half of one.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from culturellm_utils import parts, paths
from culturellm_utils.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

#: What a spreadsheet may take for a formula, also behind the apostrophes that disarm one.
FORMULA = re.compile(r"'*(?:[\t\r\n]|[\s\0\ufeff]*[=+\-@＝＋－＠])")
Part = Literal["held_out_wording", "held_out_question", "held_out_country", "option_order", "other_prompt", "task",
               "ability"]


class Row(BaseModel):
    """A row with exactly the declared fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)  # JSON has no NaN: written, it is lost


class Question(Row):
    """``questions.jsonl``: a seed question. ``options`` keep the order in which they are shown."""

    question_id: str = Field(min_length=1)
    topic: str
    question: str = Field(min_length=1)
    options: dict[str, str] = Field(min_length=2)
    protected: list[str] = []


class Seed(Row):
    """``seeds.jsonl``: what one culture answers. ``distribution`` holds shares of valid answers (sum 1, or
    empty when nobody was asked, which only the ``paper`` label rule lets through); ``respondents`` counts the
    people behind it; ``label`` is the answer trained on. ``borrowed.jsonl`` has the same rows with the label rule
    ``borrowed``: ``countries`` are then those that lent their answers, and ``respondents`` is 0, because nobody of the
    culture was asked."""

    question_id: str
    topic: str
    question: str
    options: dict[str, str]
    culture: str
    countries: list[str] = Field(min_length=1)
    respondents: int = Field(ge=0)
    distribution: dict[str, float]
    label: str
    label_rule: Literal["mode", "mean", "paper", "borrowed"]


class Substitution(Row):
    """One replaced word: ``position`` counts tokens of the template from 0."""

    position: int = Field(ge=0)
    word: str
    substitute: str


class Candidate(Row):
    """``candidates.jsonl``: a wording of a question. Stage 1 rows are templates, stage 2 rows samples."""

    candidate_id: str
    question_id: str
    stage: Literal[1, 2]
    template_id: str
    text: str = Field(min_length=1)
    substitutions: list[Substitution]
    source: str


class Augmented(Candidate):
    """``augmented.jsonl``: an accepted candidate; ``similarity`` is its cosine to the seed question."""

    similarity: float = Field(ge=-1.001, le=1.001)


class Rejected(Augmented):
    """``rejected.jsonl``: a candidate that was not kept, and why."""

    reason: str


#: What can become of a chat reply: it is used as it came or in part, or why it is not.
OUTCOMES = ("used", "partly used", "empty", "refusal", "cut off", "not JSON", "wrong count", "markup",
            "another language", "unusable")


class ReplyRow(Row):
    """``replies.jsonl``: what became of one chat request. ``outcome`` is one of :data:`OUTCOMES`, ``detail`` says more,
    and ``text`` keeps a reply that was not used as it came. ``attempt`` counts from 0."""

    key: str
    purpose: str
    subject: str
    attempt: int = Field(ge=0)
    outcome: str
    detail: str
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    text: str


class Translation(Row):
    """``translations.jsonl``: one text of the study in a culture's language. ``kind`` is question, option or phrase;
    ``name`` a question id, the English option, or a phrase's name. ``back`` is its translation back into English,
    ``similarity`` the cosine of that to ``english`` (both None for a user's own wording), ``reason`` why it is not
    used ("" when it is)."""

    name: str
    kind: Literal["question", "option", "phrase"]
    english: str
    text: str
    protected: list[str] = []
    back: str | None = None
    similarity: float | None = None
    source: str
    reason: str = ""


class Message(Row):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class TrainRow(Row):
    """``train.jsonl``: exactly what OpenAI's fine-tuning takes."""

    messages: list[Message] = Field(min_length=3, max_length=3)


class TargetRow(Row):
    """``targets.jsonl``: the answer distribution that belongs to the same line of ``train.jsonl``."""

    question_id: str
    wording_id: str
    distribution: dict[str, float]


class Answer(Row):
    """What a model says to one prompt: ``probabilities`` over the allowed labels (sum 1), the raw ``reply``, and the
    ``label`` parsed from it (None when it could not be parsed). Likelihood scoring replies the likeliest label."""

    probabilities: dict[str, float]
    reply: str
    label: str | None


class Prediction(Row):
    """``predictions.jsonl``: one prompt, one reply. ``culture`` is who is asked about; ``system`` is what answers
    (see ``systems.SYSTEMS``); ``question_id`` is the survey question, the task, or the set of an ability;
    ``probabilities`` are over the allowed labels, ``label`` the parsed answer (None when it could not be parsed),
    ``gold_distribution`` what people said."""

    item_id: str
    part: Part
    culture: str
    system: str
    question_id: str
    messages: list[Message]
    probabilities: dict[str, float]
    reply: str
    label: str | None
    gold: str
    gold_distribution: dict[str, float] = {}


class TaskItem(Row):
    """``bundled_tasks.jsonl``: one labelled sentence of the small sets that ship with the package."""

    item_id: str
    culture: str
    task: str
    split: Literal["train", "test"]
    text: str
    label: str
    english: str


class Pair(Row):
    """``pairs.csv``: a seed and a sample to be rated."""

    pair_id: str
    seed: str
    text: str


T = TypeVar("T", bound=Row)


def read_rows(path: Path | str, model: type[T], may_be_empty: bool = False) -> list[T]:
    """All rows of a JSON Lines file. Raises UserError naming file and line when one does not fit ``model``, and when
    there is none, unless the file ``may_be_empty``."""
    return list(rows_of(path, model, may_be_empty))


def rows_of(path: Path | str, model: type[T], may_be_empty: bool = False) -> Iterator[T]:
    """The same rows one by one."""
    path, row = Path(path), None
    _there(path)
    for number, line in numbered_lines(path):
        try:
            row = model.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{paths.shown(path)} line {number}: {problem(error)}; remove the file and rerun "
                            "the notebook that writes it, or repair the line") from None
        yield row
    if row is None and not may_be_empty:
        raise UserError(f"{paths.shown(path)} has no rows: rerun the notebook that writes it")


def _there(path: Path) -> None:
    with paths.reading(path):
        if not path.is_file():
            raise UserError(f"{paths.shown(path)} is missing: run the notebook that writes it first")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that hold anything, with their numbers from 1. Raises UserError when the file is not UTF-8."""
    number = before = 0
    with paths.reading(path), path.open("rb") as file:
        for line in file:
            try:
                text = line.decode("utf-8" if number else "utf-8-sig")
            except UnicodeDecodeError as error:
                raise UserError(f"{paths.shown(path)} is not UTF-8 (byte {before + error.start}): save it as "
                                "UTF-8") from None
            before += len(line)
            for piece in text.removesuffix("\n").removesuffix("\r").split("\r"):
                number += 1
                if piece.strip():
                    yield number, piece


def write_rows(path: Path | str, rows: Iterable[Row]) -> Path:
    """Write rows as JSON Lines, whole or not at all."""
    return write_text(path, (row.model_dump_json() + "\n" for row in rows))


def write_json(path: Path | str, value: Any) -> Path:
    """Write a JSON document, whole or not at all. NaN is refused: JSON has none."""
    return write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_table(path: Path | str, frame: "pd.DataFrame", float_format: str = "%.6g") -> Path:
    """Write a table as CSV, whole or not at all: no index, numbers as numbers, text :func:`disarmed`. Every line break
    inside a text becomes a line feed: a carriage return is not quoted, and would begin a row in a spreadsheet."""
    def clean(cell: Any) -> Any:
        return disarmed(re.sub("\r\n?", "\n", cell)) if isinstance(cell, str) else cell

    shown = frame.rename(columns=clean)
    for place, dtype in enumerate(frame.dtypes):
        if dtype.kind not in "biuf":
            shown.isetitem(place, frame.iloc[:, place].astype(object).map(clean))
    return write_text(path, shown.to_csv(index=False, float_format=float_format))


def disarmed(cell: Any) -> Any:
    """A cell of a CSV file that no spreadsheet runs: a text that may be a formula gets an apostrophe in front."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def read_json(path: Path | str) -> Any:
    """Read a JSON document. Raises UserError when it is missing or broken, or holds what could not be written again
    (NaN, half a surrogate pair)."""
    path = Path(path)
    _there(path)
    try:
        with paths.reading(path):
            value = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return value
    except RecursionError:
        raise UserError(f"{paths.shown(path)} cannot be read (nested too deeply): remove it and rerun") from None
    except ValueError as error:
        raise UserError(f"{paths.shown(path)} is not valid JSON ({error}): remove it and rerun") from None


def write_text(path: Path | str, text: str | Iterable[str]) -> Path:
    """Write a text file, or its pieces one by one, beside its place, then rename it there. Raises UserError when the
    disk does not let it."""
    path = Path(path)
    with parts.replacing(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines([text] if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())
    return path


def problem(error: ValidationError) -> str:
    """The first problem of a pydantic error in a few words."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return "not valid JSON"
    if first["type"] == "extra_forbidden":
        return f"unknown field '{where}'"
    if first["type"] == "missing":
        return f"field '{where}' is missing"
    return f"field '{where}': {first['msg']}" if where else first["msg"]
