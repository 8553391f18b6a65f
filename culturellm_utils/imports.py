"""What people put into ``ratings/``: files of the rating form, plain CSV, Label Studio's and Prolific's exports.

Files are told apart by their content, and every rating becomes the cells of one row::

    ("ratings/anna.csv line 2", {"rater_id": "anna", "pair_id": "p3fa91c07be", "rating": "5", "seconds": "6.2"})

- **Form, or plain CSV**: the columns rater_id, pair_id, rating, and if wanted seconds and position.
- **Label Studio**, set up with ``label_studio_tasks.json`` and ``label_studio_config.xml``: its exports JSON, JSON-MIN
  and CSV. Fields as in its task format (https://labelstud.io/guide/task_format) and its exporter
  (label-studio-converter, ``exports/csv2.py``); ``lead_time`` is seconds, the order of submitting is the position.
- **Prolific**, the demographic export (CSV): columns "Participant id", "Status", "Time taken" (seconds), statuses as in
  https://docs.prolific.com/api-reference/submissions/submission-object. Nothing else of it is read.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, Field, ValidationError

from culturellm_utils import paths, rating_form, ratings, records
from culturellm_utils.errors import UserError
from culturellm_utils.ratings import Cells
from culturellm_utils.records import Pair, Row

_KINDS = ("a ratings file (rater_id,pair_id,rating and if wanted seconds,position, with commas between them), an "
          "export of Label Studio, or Prolific's demographic export")
_FINISHED = ("APPROVED", "AWAITING REVIEW")


class Participant(Row):
    """One person in a Prolific export. ``status`` is written as in ``TIMED OUT``; ``seconds`` from start to end."""

    rater_id: str
    status: str
    seconds: float | None


class _Annotation(BaseModel):
    completed_by: int | str | dict[str, Any] | None = None
    result: list[dict[str, Any]]
    was_cancelled: bool = False
    lead_time: float | None = None
    created_at: str = ""


class _Task(BaseModel):
    data: dict[str, Any]
    annotations: list[_Annotation] = Field(min_length=1)


def files(folder: Path) -> list[Path]:
    """What lies in ``folder/ratings``, hidden files aside. Raises UserError for what is neither CSV nor JSON."""
    found = [path for path in sorted((folder / "ratings").glob("*")) if not path.name.startswith(".")]
    for path in found:
        if path.suffix.lower() not in (".csv", ".json"):
            raise UserError(f"{paths.shown(path)} is neither CSV nor JSON: save it as CSV, or put it elsewhere")
    return found


def rows(path: Path) -> list[Cells]:
    """The ratings of one file, whatever it came from; none from a Prolific export.

    A cell that should say who, what or how much may still say anything: ``ratings.rating`` judges it. Raises UserError
    when the file is of no known kind.
    """
    if path.suffix.lower() == ".json":
        return _label_studio_json(path)
    header, found = ratings.read_csv(path)
    if ratings.is_ratings(header):
        return found
    if {"pair_id", "rating", "annotator"} <= set(header):
        return _submissions((where, cells["annotator"], cells["pair_id"], cells["rating"], cells.get("lead_time", ""),
                             cells.get("created_at", "")) for where, cells in found)
    if _prolific(header):
        return []
    raise UserError(f"{paths.shown(path)} line 1: the columns must be those of {_KINDS}")


def participants(folder: Path) -> dict[str, Participant]:
    """Everyone in the Prolific exports of ``folder/ratings``, by participant id.

    Who has several submissions counts with the one that was finished. Raises UserError naming file and line when a
    participant id or a status is missing.
    """
    found: dict[str, Participant] = {}
    for path in files(folder):
        if path.suffix.lower() != ".csv":
            continue
        header, lines = ratings.read_csv(path)
        names = {} if ratings.is_ratings(header) else _prolific(header)
        for where, cells in lines if names else []:
            rater = cells[names["participant_id"]].strip()
            status = re.sub(r"[\s_-]+", " ", cells[names["status"]]).strip().upper()
            if not rater or not status:
                raise UserError(f"{where}: the participant id or the status is empty: export the list again")
            taken = cells.get(names.get("time_taken", ""), "").strip()
            seconds = float(taken) if re.fullmatch(r"\d{1,9}(\.\d+)?", taken) else None
            if rater not in found or found[rater].status not in _FINISHED:
                found[rater] = Participant(rater_id=rater, status=status, seconds=seconds)
    return found


def write_label_studio(folder: Path, pairs: Sequence[Pair], language: str = "en") -> None:
    """Write ``label_studio_tasks.json`` and ``label_studio_config.xml``: import the one, paste the other.

    The choices are the five sentences of the form's scale, and ``alias`` has an export hold the digit alone. Ratings
    come back under the pair's id; the checks stay as blind as in the form.
    """
    words = rating_form.texts(language)
    records.write_json(folder / "label_studio_tasks.json", [{"data": pair.model_dump()} for pair in pairs])
    choices = "\n".join(f'    <Choice value={quoteattr(f"{value}: {meaning}")} alias="{value}" hotkey="{value}"/>'
                        for value, meaning in words["rubric"].items())
    records.write_text(folder / "label_studio_config.xml", f"""<View>
  <Header value={quoteattr(words["ask"])}/>
  <Text name="seed" value="$seed"/>
  <Text name="text" value="$text"/>
  <Choices name="rating" toName="text" choice="single-radio" required="true">
{choices}
  </Choices>
</View>
""")


def _label_studio_json(path: Path) -> list[Cells]:
    """The rows of Label Studio's JSON (tasks with annotations) or JSON-MIN (a flat record for each annotation)."""
    tasks = records.read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{paths.shown(path)} is no export of Label Studio: it must be {_KINDS}")
    found = []
    for number, task in enumerate(tasks, start=1):
        where = f"{paths.shown(path)} task {number}"
        if "annotator" in task:
            found.append((where, task["annotator"], task.get("pair_id", ""), task.get("rating", ""),
                          task.get("lead_time"), task.get("created_at", "")))
            continue
        try:
            read = _Task.model_validate(task)
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
            raise UserError(f"{where}: field '{field}' is not as Label Studio writes it: export annotated tasks "
                            "as JSON") from None
        found += [(f"{where} annotation {place}", one.completed_by, read.data.get("pair_id", ""),
                   next((result.get("value") for result in one.result if result.get("from_name") == "rating"), ""),
                   one.lead_time, one.created_at)
                  for place, one in enumerate(read.annotations, start=1) if not one.was_cancelled]
    return _submissions(found)


def _submissions(found: Iterable[tuple[str, Any, Any, Any, Any, Any]]) -> list[Cells]:
    """Label Studio's annotations as rating cells: (where, who, pair, value, lead time, created at) of each."""
    found = list(found)
    orders: dict[str, list[int]] = defaultdict(list)
    for index, (_, who, *_, created) in enumerate(found):
        if created:
            orders[_person(who)].append(index)
    positions = {index: str(place) for order in orders.values()
                 for place, index in enumerate(sorted(order, key=lambda index: str(found[index][-1])), start=1)}
    return [(where, {"rater_id": _person(who), "pair_id": str(pair), "rating": _value(value),
                     "seconds": "" if lead in (None, "") else str(lead), "position": positions.get(index, "")})
            for index, (where, who, pair, value, lead, _) in enumerate(found)]


def _person(who: Any) -> str:
    """A rater id for a Label Studio user. A mail address becomes a short hash, so that no result shows it (whoever
    knows the address can still compute it)."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    who = "" if who is None else str(who).strip()
    if not who or re.fullmatch("[0-9]{1,20}", who):
        return who and f"ls-{who}"
    return "ls-" + hashlib.sha256(who.lower().encode()).hexdigest()[:10]


def _value(cell: Any) -> str:
    """The rating in what Label Studio exports: ``5``, ``{"choices": ["5"]}`` or ``[{"rating": 5}]``, also as text."""
    if isinstance(cell, str) and cell.lstrip().startswith(("[", "{")):
        with suppress(ValueError, RecursionError):
            cell = json.loads(cell)
    while isinstance(cell, list | dict) and len(cell) == 1:
        cell = cell[0] if isinstance(cell, list) else cell.get("rating", cell.get("choices"))
    return str(cell)


def _prolific(header: Sequence[str]) -> dict[str, str]:
    """A Prolific export's own column names by the ones used here; empty when it is none."""
    names = {re.sub(r"[\s_]+", "_", name.strip().lower()): name for name in header}
    return names if {"participant_id", "status"} <= names.keys() else {}
