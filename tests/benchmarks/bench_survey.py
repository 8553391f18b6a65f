"""Counts of 11 countries' answers from a file of the size of the official one.

Plain, as the released code does it: one ``csv.DictReader`` pass for every country. Limit: pyarrow reading the same
columns, and nothing done with them.
"""

import csv
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from benchmarks.measuring import Result, alternate, seconds
from culturellm_utils import studies, survey, wvs
from culturellm_utils.records import Question

RESPONDENTS, COLUMNS = 97_000, 600
#: Countries beside those that are counted: wave 7 has 66.
OTHERS = 55
Counts = dict[tuple[str, str, int], int]


def countries() -> list[str]:
    """The countries behind the cultures of the default study."""
    cultures = studies.study("laptop")["cultures"]
    return sorted({country for name in cultures for country in studies.culture(name).countries})


def write(path: Path, asked: Sequence[Question], own: Sequence[str], respondents: int, columns: int) -> None:
    """A file as the official one is: country by country, answers as the survey codes them, one in ten of them missing,
    and so many further columns of small numbers and of decimals that there are ``columns``."""
    random = np.random.default_rng(0)
    names = [*own, *(code for code in sorted(wvs.alpha_codes().values()) if code not in own)][: len(own) + OTHERS]
    random.shuffle(names)
    place = np.sort(random.integers(len(names), size=respondents))
    table = {"A_WAVE": pa.array(np.full(respondents, 7)), "B_COUNTRY_ALPHA": pa.array(np.array(names)[place]),
             "W_WEIGHT": pa.array(random.uniform(0.3, 3, respondents).round(6))}
    for number in range(columns - len(table) - len(asked)):
        made = random.normal(size=respondents).round(4) if number % 10 == 0 else random.integers(-5, 11, respondents)
        table[f"X{number}"] = pa.array(made)
    for question in asked:
        codes = random.choice([int(code) for code in question.options], respondents)
        missing = random.choice([-1, -2, -4, -5], respondents)
        table[question.question_id] = pa.array(np.where(random.random(respondents) < 0.1, missing, codes))
    first, rest = list(table)[:3], list(table)[3:]
    order = [*first, *random.permutation(rest).tolist()]  # what is asked stands all over the file
    arrow_csv.write_csv(pa.table({name: table[name] for name in order}), path)


def plain(path: Path, country: str, asked: Sequence[Question]) -> Counts:
    """How often each answer was given in one country: the whole file, row by row."""
    found: Counter[tuple[str, str, int]] = Counter()
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["B_COUNTRY_ALPHA"] == country:
                for question in asked:
                    found[country, question.question_id, int(row[question.question_id])] += 1
    return dict(found)


def ours(path: Path, own: Sequence[str], asked: Sequence[Question]) -> Counts:
    """The same for all countries, by this project."""
    table = survey.counts(own, asked, str(path), False)
    keys = table[["country_alpha", "question", "answer_code"]].itertuples(index=False, name=None)
    return dict(zip(keys, table["respondents"].tolist(), strict=True))


def limit(path: Path, asked: Sequence[Question], threads: bool = True) -> pa.Table:
    """The needed columns, read and no more."""
    needed = ["A_WAVE", "B_COUNTRY_ALPHA", *(question.question_id for question in asked)]
    return arrow_csv.read_csv(path, arrow_csv.ReadOptions(use_threads=threads),
                              convert_options=arrow_csv.ConvertOptions(include_columns=needed))


def measure() -> list[Result]:
    """Ours for all countries against the plain way for one of them, scaled."""
    own, asked = countries(), survey.questions("")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wvs.csv"
        write(path, asked, own, RESPONDENTS, COLUMNS)
        found, counted = ours(path, own, asked), {}
        taken = seconds(lambda: counted.update(plain(path, own[0], asked)))
        assert counted == {key: people for key, people in found.items() if key[0] == own[0]}
        mine, least, alone = alternate(lambda: ours(path, own, asked), lambda: limit(path, asked),
                                       lambda: limit(path, asked, threads=False))
        size = path.stat().st_size / 1e6
    return [Result(f"survey: {len(own)} countries of a WVS-size file", mine, taken * len(own), 50, least, 0.5, 5,
                   f"{RESPONDENTS:,} x {COLUMNS}, {size:.0f} MB; plain: 1 of {len(own)} passes, scaled; pyarrow on one "
                   f"thread takes {alone:.3g} s")]
