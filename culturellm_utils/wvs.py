"""Official World Values Survey wave 7 files: wanted respondents and columns as numbers, and their counts.

A file has about 97,000 respondents and 600 columns; only the needed columns are read. Three respondents of
``read(path, ["KOR"], ["Q27", "Q28"], survey_weights=True)``::

       country_alpha  weight  Q27  Q28
    0            KOR    0.98  1.0  3.0
    1            KOR    1.02  2.0 -1.0
    2            KOR    1.00  2.0  NaN
"""

import csv
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyreadstat
from babel.core import get_global
from pyarrow import compute
from pyarrow import csv as arrow_csv

from culturellm_utils import paths
from culturellm_utils.errors import UserError

SHIPPED_COUNTS = paths.DATA / "wvs7_counts.csv"
COUNTRY, COUNTRY_NUMBER, WEIGHT = "B_COUNTRY_ALPHA", "B_COUNTRY", "W_WEIGHT"
WAVE_COLUMNS = ("A_WAVE", "S002VS")
#: Alpha-3 codes of countries that are no more, where a country of today has their number or alpha-2 code.
FORMER = {"BUR", "DDR", "FXX", "TMP", "YMD", "ZAR"}
#: The survey asks Northern Ireland by itself, under codes that are not ISO's.
_NOT_ISO = {909: "NIR"}
FIRST = 1000                    # respondents behind the paper's second block in a culture of one country
LONGEST_HEADER = 1 << 20        # bytes; that of 600 columns has about 6,000
#: What Arrow says of a row; its own handler of such rows fails where they are not UTF-8.
_WRONG_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
#: More than any wave has: a file that says so is damaged, and room would be made for them all.
MOST_RESPONDENTS = 2_000_000
DOWNLOAD = "download 'WVS Cross-National Wave 7' (not time series, not inverted scales) again"


@cache
def alpha_codes() -> dict[int, str]:
    """The ISO 3166 alpha-3 code of each number that a survey file may have for a country (from CLDR, by babel)."""
    aliases = get_global("territory_aliases")
    alpha = {short[0]: code for code, short in aliases.items()
             if len(code) == 3 and code.isalpha() and len(short) == 1 and code not in FORMER}
    return {int(code): alpha[short[0]] for code, short in aliases.items()
            if code.isdigit() and len(short) == 1 and short[0] in alpha} | _NOT_ISO


def countries(path: Path) -> list[str]:
    """The countries of a survey file (ISO alpha-3), in file order. Raises UserError as :func:`read` does."""
    return list(dict.fromkeys(read(path, None, [], False)["country_alpha"]))


def read(path: Path, countries: Sequence[str] | None, ids: Sequence[str], survey_weights: bool) -> pd.DataFrame:
    """The respondents of ``countries`` (ISO alpha-3; None: of all), in file order, indexed by their place in the file.

    Reads ``.csv`` (``,`` or ``;``, with or without byte order mark), ``.sav`` and ``.dta``. Columns:
    ``country_alpha``, ``weight`` (W_WEIGHT, or 1) and one per question id, empty cells as NaN. Raises UserError,
    naming file, place and remedy, for a file that is missing, empty, cut off, of another wave, or without a needed
    column or country, and for text where a number belongs.
    """
    where = paths.shown(path)
    if not path.is_file():
        raise UserError(f"wvs_path: {where} does not exist; give the official WVS-7 file, or '' for the shipped counts")
    if path.suffix.lower() not in (".csv", ".sav", ".dta"):
        raise UserError(f"wvs_path: {where} is neither .csv nor .sav nor .dta; {DOWNLOAD} in one of these formats")
    if not path.stat().st_size:
        raise UserError(f"{where} is empty; {DOWNLOAD}")
    is_csv = path.suffix.lower() == ".csv"
    have = _csv_header(path)[0] if is_csv else _stat_header(path)
    country = COUNTRY_NUMBER if COUNTRY_NUMBER in have and COUNTRY not in have else COUNTRY
    wave = [column for column in WAVE_COLUMNS if column in have][:1]
    needed = [country, *ids, *([WEIGHT] if survey_weights else [])]
    _check_columns([column for column in needed if column not in have], have, where)
    columns = [*wave, *needed]
    if not is_csv:
        frame = _stat(path, usecols=columns, apply_value_formats=False)[0]
        return _wanted(frame, wave, country, countries, ids, survey_weights, where, is_csv)
    try:
        frame = _csv_numbers(path, columns, country)
        return _wanted(frame, wave, country, countries, ids, survey_weights, where, is_csv)
    except (pa.ArrowInvalid, UserError):
        # Something is not as it should be: read again with care, to say what and where.
        frame = _csv_text(path, columns)
        return _wanted(frame, wave, country, countries, ids, survey_weights, where, is_csv)


def _wanted(frame: pd.DataFrame, wave: Sequence[str], country: str, countries: Sequence[str] | None,
            ids: Sequence[str], survey_weights: bool, where: str, is_csv: bool) -> pd.DataFrame:
    """What :func:`read` returns, from the columns of a file."""
    if not len(frame):
        raise UserError(f"{where} has no respondents; {DOWNLOAD}")
    alpha = _alpha(frame[country])
    if countries is None:
        countries = alpha[alpha.str.fullmatch("[A-Z]{3}").fillna(False)].unique()
    for wanted in countries:
        if country == COUNTRY_NUMBER and wanted not in alpha_codes().values():
            raise UserError(f"{where} has no column {COUNTRY}, and which number {wanted} has in {COUNTRY_NUMBER} is "
                            f"not known here; add a column {COUNTRY} with alpha-3 codes")
        if not (alpha == wanted).any():
            raise UserError(f"{where} has no respondents of {wanted} in column {country}; take {wanted} off the "
                            "culture's countries, or use the file of all countries")
    frame = frame[alpha.isin(countries)]
    numbers = pd.DataFrame({name: _numbers(frame[name], where, is_csv) for name in frame.columns if name != country},
                           index=frame.index)
    for column in wave:
        for row, value in numbers.loc[numbers[column] != 7, column].head(1).items():
            raise UserError(f"{where} {_place(row, is_csv)} is of wave {value:g} (column {column}), but the questions "
                            f"are those of wave 7; {DOWNLOAD}")
    weight = numbers[WEIGHT] if survey_weights else pd.Series(1.0, numbers.index)
    for row in weight.index[~(weight >= 0)][:1]:
        raise UserError(f"{where} {_place(row, is_csv)} has no weight of 0 or more in column {WEIGHT}; "
                        "complete it, or set survey_weights to False")
    return numbers[list(ids)].assign(country_alpha=alpha[frame.index], weight=weight)


def tally(answers: pd.DataFrame) -> pd.DataFrame:
    """Count respondents (a row each, as :func:`read` gives them) into the columns of :func:`survey.counts`."""
    known = ["country_alpha", "weight", "respondents", "first_1000"]
    first = (answers.groupby("country_alpha").cumcount() < FIRST).astype(int)
    long = answers.assign(respondents=1, first_1000=first).melt(known, var_name="question", value_name="answer_code")
    long = long.dropna(subset="answer_code").astype({"answer_code": int})
    keys = ["country_alpha", "question", "answer_code"]
    return long.groupby(keys, as_index=False)[["respondents", "first_1000", "weight"]].sum()


def _check_columns(lacking: Sequence[str], have: Sequence[str], where: str) -> None:
    if not lacking:
        return
    more = f" and {len(lacking) - 1} more that are needed" if len(lacking) > 1 else ""
    inverted = any(f"{column}P" in have for column in lacking)   # the inverted release renames what it turns round
    kind = "; it is the release with inverted scales" if inverted else ""
    raise UserError(f"{where} lacks the column {lacking[0]}{more}{kind}; {DOWNLOAD}")


def _alpha(column: pd.Series) -> pd.Series:
    """ISO alpha-3 codes of a country column, by name or by number."""
    if column.name == COUNTRY:
        return column.map(lambda code: str(code).strip(), na_action="ignore").astype(str)  # once a category
    return pd.to_numeric(column, errors="coerce").map(alpha_codes())


def _place(row: int, is_csv: bool) -> str:
    """Where a respondent stands: the line of a CSV file (the header is line 1), else the case number."""
    return f"line {row + 2}" if is_csv else f"case {row + 1}"


def _numbers(column: pd.Series, where: str, is_csv: bool) -> pd.Series:
    """A column as numbers. Answers are whole; only weights may have decimals, with point or comma."""
    text = column.str.strip().str.replace(",", ".").replace("", None) if column.dtype.kind == "O" else column
    number = pd.to_numeric(text, errors="coerce").astype(float)
    wrong = number.isna() & text.notna() | np.isinf(number)
    if column.name != WEIGHT:
        wrong |= number.notna() & (number % 1 != 0)
    if wrong.any():
        row = wrong.idxmax()
        raise UserError(f"{where} {_place(row, is_csv)}, column {column.name}: '{column[row]}' is not a "
                        f"{'weight' if column.name == WEIGHT else 'whole number'}; put the survey's number there, "
                        "or leave the cell empty")
    return number


def _csv_header(path: Path) -> tuple[list[str], str]:
    """Column names and delimiter."""
    with path.open("rb") as file:
        line = file.readline(LONGEST_HEADER).decode("utf-8-sig", errors="replace")
    delimiter = max(",;", key=line.count)
    try:
        names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error as error:
        raise UserError(f"{paths.shown(path)} line 1 cannot be read as CSV ({error}); {DOWNLOAD}") from None
    return [name.strip() for name in names], delimiter


def _csv_numbers(path: Path, columns: Sequence[str], country: str) -> pd.DataFrame:
    """The wanted columns of a faultless CSV file, ``country`` as categories and the others as numbers, read by all
    processors. Raises ArrowInvalid where something is no number or the file is damaged, without a usable place."""
    types = {column: pa.float64() for column in columns}
    if country == COUNTRY:
        types[country] = pa.dictionary(pa.int32(), pa.string())
    table = _arrow(path, types, threads=True)
    if any(compute.any(compute.is_nan(table[name])).as_py() for name, kind in types.items() if kind == pa.float64()):
        raise pa.ArrowInvalid("a cell holds the word nan")
    return table.to_pandas()


def _csv_text(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The wanted columns of a CSV file as text. One thread: only then does the parser know line numbers."""
    try:
        return _arrow(path, dict.fromkeys(columns, pa.string()), threads=False).to_pandas()
    except pa.ArrowInvalid as error:
        if row := _WRONG_ROW.search(str(error)):
            raise UserError(f"{paths.shown(path)} line {row[1]} has {row[3]} of {row[2]} columns: the file is cut off "
                            f"or damaged; {DOWNLOAD}") from None
        reason = str(error).splitlines()[0]
        raise UserError(f"{paths.shown(path)} cannot be read as CSV ({reason}); {DOWNLOAD}") from None


def _arrow(path: Path, types: dict[str, pa.DataType], threads: bool) -> pa.Table:
    names, delimiter = _csv_header(path)
    return arrow_csv.read_csv(
        path,
        arrow_csv.ReadOptions(use_threads=threads, column_names=names, skip_rows=1),
        arrow_csv.ParseOptions(delimiter=delimiter),
        arrow_csv.ConvertOptions(include_columns=list(types), column_types=types, strings_can_be_null=True,
                                 null_values=["", "NA"]),
    )


def _stat_header(path: Path) -> list[str]:
    """The column names of an SPSS or Stata file."""
    found = _stat(path, metadataonly=True)[1]
    if (found.number_rows or 0) > MOST_RESPONDENTS:
        raise UserError(f"{paths.shown(path)} says that it has {found.number_rows:,} respondents: the file is damaged; "
                        f"{DOWNLOAD}")
    return found.column_names


def _stat(path: Path, **options: object) -> tuple:
    """An SPSS or Stata file as pyreadstat gives it: data and metadata."""
    try:
        if path.suffix.lower() == ".sav":
            # Without user_missing the missing codes, which the paper's labels need, would come as empty cells.
            return pyreadstat.read_sav(path, user_missing=True, **options)
        return pyreadstat.read_dta(path, **options)
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, UnicodeDecodeError) as error:
        raise UserError(f"{paths.shown(path)} cannot be read ({error}): the file is cut off or damaged; "
                        f"{DOWNLOAD}") from None
