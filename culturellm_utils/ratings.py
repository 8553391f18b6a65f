"""Ratings: one row a judgement, and CSV that no spreadsheet takes for formulas.

A row of ``ratings/*.csv`` (1 = clearly different ... 5 = the same in other words)::

    rater_id,pair_id,rating,seconds,position
    r07,p3fa91c07be,5,6.2,1

Automatic raters are named so (``automatic: word overlap``); what is not named so was given by a person.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from culturellm_utils import paths, records
from culturellm_utils.errors import UserError
from culturellm_utils.records import Row

AUTOMATIC = "automatic: "
#: The columns that every rating has, and those it may have.
COLUMNS, OPTIONAL = ("rater_id", "pair_id", "rating"), ("seconds", "position")

_RATER = re.compile(rf"(?:{AUTOMATIC}[\w ./:-]{{1,80}}|\w[\w.-]{{0,39}})")

#: A row of a table: where it stands ("ratings/anna.csv line 2"), and its cells by column.
Cells = tuple[str, dict[str, str]]


class Rating(Row):
    """One judgement. ``seconds`` is the time on the pair, ``position`` the place (from 1) at which this rater was shown
    it; None where not recorded."""

    rater_id: str
    pair_id: str
    rating: int = Field(ge=1, le=5)
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    position: int | None = Field(default=None, ge=1)

    @property
    def automatic(self) -> bool:
        return self.rater_id.startswith(AUTOMATIC)


def rating(cells: dict[str, str], where: str) -> Rating:
    """The rating in one row's cells, columns ``COLUMNS`` and any of ``OPTIONAL``.

    Whole numbers alone are ratings: 4.5 or 'four' is a mistake that a person must settle. Raises UserError with one
    sentence that begins with ``where``.
    """
    cells = {name: cell.strip() for name, cell in cells.items()}
    if not _RATER.fullmatch(cells["rater_id"]):
        raise UserError(f"{where}: rater_id '{cells['rater_id'][:40]}' must be 1 to 40 letters, digits, '.', '-', '_'")
    if not re.fullmatch("[1-5]", cells["rating"]):
        raise UserError(f"{where}: rating '{cells['rating'][:40]}' is not a whole number from 1 to 5")
    try:
        seconds = float(cells["seconds"]) if cells.get("seconds") else None
    except ValueError:
        seconds = math.nan
    if seconds is not None and not 0 <= seconds < math.inf:
        raise UserError(f"{where}: seconds '{cells['seconds'][:40]}' is not a number from 0 on (or empty)")
    position = cells.get("position", "")
    if position and not re.fullmatch("[1-9][0-9]{0,5}", position):
        raise UserError(f"{where}: position '{position[:40]}' is not a whole number from 1 on (or empty)")
    return Rating(rater_id=cells["rater_id"], pair_id=cells["pair_id"], rating=int(cells["rating"]), seconds=seconds,
                  position=int(position) if position else None)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> Path:
    """Rows as CSV (RFC 4180). A text cell that a spreadsheet might run gets an apostrophe in front."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(records.disarmed(getattr(row, column)) for column in columns)
    return records.write_text(path, text.getvalue())


def undo(cell: str) -> str:
    """The cell without the apostrophe that ``write_csv`` put in front."""
    return cell[1:] if cell.startswith("'") and records.FORMULA.match(cell) else cell


def read_csv(path: Path) -> tuple[list[str], list[Cells]]:
    """The columns of a CSV file, and its rows. Raises UserError when it cannot be read or a row has other cells."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{paths.shown(path)} cannot be read ({reason}): save it as CSV in UTF-8") from None
    if len(set(header)) != len(header):
        raise UserError(f"{paths.shown(path)} line 1: a column is named twice: give each its own name")
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(f"{paths.shown(path)} line {line}: {len(row)} cells instead of {len(header)}")
    return header, [(f"{paths.shown(path)} line {line}", dict(zip(header, row, strict=True))) for line, row in rows]


def is_ratings(header: Iterable[str]) -> bool:
    """Whether these columns are those of a ratings file: all of ``COLUMNS``, and none but ``OPTIONAL`` beside."""
    return set(COLUMNS) <= set(header) <= {*COLUMNS, *OPTIONAL}
