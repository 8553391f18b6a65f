"""A culture of one's own: from a survey file to ``params/<culture>.yaml``; and which survey file has its answers.

    python -m culturellm_utils.cultures --name greek --countries GRC --language Greek --wvs ../WVS_7.csv

checks the file, says who was asked what, and writes::

    culture: greek                # its name in file and folder names: lowercase, as this file is called
    countries: [GRC]              # WVS countries behind it, ISO 3166 alpha-3
    culture_language: Greek       # the language its people speak, in English
    prompt_name: Greek            # what the system prompt calls it
    wvs_path: ../WVS_7.csv        # the survey file its answers are in, from the repository
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from babel import Locale
from babel.core import get_global

from culturellm_utils import borrowing, languages, parameters, paths, records, studies, survey, wvs
from culturellm_utils.errors import UserError, command_line
from culturellm_utils.records import Question

#: Codes in use that ISO 3166 does not have: the survey asks Northern Ireland by itself.
NOT_ISO = {"NIR": "Northern Ireland", "XKX": "Kosovo"}
#: What each line of a culture's file is for.
COMMENTS = {
    "culture": "its name in file and folder names: lowercase, as this file is called",
    "countries": "WVS countries behind it, ISO 3166 alpha-3",
    "culture_language": "the language its people speak, in English",
    "prompt_name": "what the system prompt calls it",
    "culture_context": "for the system \"context\" of 05: an encyclopaedic paragraph, no survey answers",
    "wvs_path": "the survey file its answers are in, from the repository",
    "borrow": "what nobody was asked is answered by the nearest countries, as 01 says",
}


def answer_counts(names: Sequence[str], asked: Sequence[Question], wvs_path: str) -> dict[str, pd.DataFrame]:
    """The counts of each culture's countries (columns of :func:`survey.counts`), unweighted: from the survey file that
    ``params/<culture>.yaml`` names, else from ``wvs_path``. Each file is read once."""
    known = {name: studies.culture(name) for name in names}
    files = {name: known[name].model_dump().get("wvs_path") or wvs_path for name in names}
    tables = {path: borrowing.everyone(asked, path, False) for path in dict.fromkeys(files.values())}
    return {name: tables[files[name]].loc[lambda table, name=name: table["country_alpha"].isin(known[name].countries)]
            for name in names}


def is_country(code: str) -> bool:
    """Whether a code is an ISO 3166 alpha-3 code of today, or one of :data:`NOT_ISO`."""
    return code in NOT_ISO or (code.isalpha() and code not in wvs.FORMER and bool(_alpha_2(code)))


def country_name(code: str) -> str:
    """The English name of a country by its alpha-3 code."""
    return NOT_ISO.get(code) or Locale("en").territories[_alpha_2(code)]


def _alpha_2(code: str) -> str:
    """The alpha-2 code of an alpha-3 code, "" where CLDR has no such country."""
    short = get_global("territory_aliases").get(code, []) if len(code) == 3 else []
    return short[0] if len(short) == 1 and short[0] in Locale("en").territories and short[0] != "ZZ" else ""


def check(name: str, countries: Sequence[str], language: str, prompt_name: str, wvs_path: str,
          borrow: str) -> pd.DataFrame:
    """Who was asked what: the counts of the culture's countries.

    Raises UserError for a name, country or language that is none, for a survey file that cannot be read, and for a
    country that has no answers unless ``borrow`` is ``missing``.
    """
    if name in (parameters.ONE, parameters.COMMON):
        raise UserError(f"a culture cannot be called '{name}': the name is taken")
    for code in countries:
        if not is_country(code):
            raise UserError(f"countries: '{code}' is no ISO 3166 alpha-3 code; write them as in KOR or GRC")
    if len(set(countries)) < len(countries):
        raise UserError(f"countries: {', '.join(countries)}: list each country once")
    languages.code(language)
    parameters.validate(parameters.SeedExtraction, studies.defaults("01_seed_extraction") | {
        "culture": name, "countries": list(countries), "culture_language": language, "prompt_name": prompt_name,
        "wvs_path": wvs_path, "borrow": borrow})
    table = borrowing.everyone(survey.questions(""), wvs_path, False)
    valid = set(table.loc[table["answer_code"] >= 0, "country_alpha"])
    for code in countries:
        if code not in valid and borrow != "missing":
            where = paths.shown(paths.ROOT / wvs_path) if wvs_path else "the answer counts that ship"
            raise UserError(f"{where}: nobody in {country_name(code)} ({code}) was asked; take it off, name a survey "
                            "file that has it (--wvs), or let the nearest countries lend their answers (--borrow)")
    return table[table["country_alpha"].isin(countries)]


def described(countries: Sequence[str], table: pd.DataFrame, borrow: str) -> list[str]:
    """Sentences about who was asked what."""
    asked = survey.questions("")
    found = survey.coverage(table).set_index("country")
    lines = []
    for code in countries:
        people, questions = found.loc[code, ["respondents", "questions"]] if code in found.index else (0, 0)
        lines.append(f"{country_name(code)} ({code}): {people:,} respondents, {questions} of {len(asked)} questions")
    answered = set(table.loc[table["answer_code"] >= 0, "question"])
    lacking = [question.question_id for question in asked if question.question_id not in answered]
    if lacking:
        fate = ("the nearest countries lend their answers" if borrow == "missing" else
                "they are left out (--borrow lets the nearest countries lend their answers)")
        lines.append(f"Nobody was asked {', '.join(lacking)} ({len(lacking)}): {fate}")
    zones = sorted({borrowing.zones().get(code, "none known") for code in countries})
    return [*lines, f"Cultural zone: {' and '.join(zones)}"]


def text_of(name: str, countries: Sequence[str], language: str, prompt_name: str, wvs_path: str, borrow: str) -> str:
    """What ``params/<name>.yaml`` holds."""
    values = {"culture": name, "countries": list(countries), "culture_language": language, "prompt_name": prompt_name,
              "culture_context": ""}
    values |= {"wvs_path": wvs_path} if wvs_path else {}
    values |= {"borrow": borrow} if borrow != "nothing" else {}
    lines = [f"{f'{key}: {_scalar(value)}':<29} # {COMMENTS[key]}\n" for key, value in values.items()]
    return ("# What this culture is. Every key is a parameter of some notebook; any other knob may be overridden here "
            "too.\n" + "".join(lines))


def _scalar(value: str | list[str]) -> str:
    """A value as YAML writes it on one line, quoted where it must be."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**6).strip()[1:-1]


@command_line
def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the parameter file of a culture.")
    parser.add_argument("--name", required=True, help="its name in file and folder names, lowercase: greek")
    parser.add_argument("--countries", required=True, help="ISO alpha-3 codes, with spaces or commas between: GRC CYP")
    parser.add_argument("--language", required=True, help="the language its people speak, in English: Greek")
    parser.add_argument("--wvs", default="", help="official WVS-7 file (.csv, .sav, .dta); without it, what ships")
    parser.add_argument("--prompt-name", default="", help="what the system prompt calls it; the language when not said")
    parser.add_argument("--borrow", action="store_true", help="the nearest countries lend answers that nobody gave")
    parser.add_argument("--replace", action="store_true", help="write over a file that is there")
    given = parser.parse_args()
    path = paths.PARAMS / f"{given.name}.yaml"
    countries = [code for code in re.split(r"[\s,]+", given.countries) if code]
    wvs_path = Path(os.path.relpath(Path(given.wvs).expanduser(), paths.ROOT)).as_posix() if given.wvs else ""
    values = (given.name, countries, given.language, given.prompt_name or given.language, wvs_path,
              "missing" if given.borrow else "nothing")
    if path.is_file() and not given.replace:
        raise UserError(f"{paths.shown(path)} is there already: choose another name, or add --replace to write over it")
    table = check(*values)
    print(*described(countries, table, values[-1]), sep="\n")
    records.write_text(path, text_of(*values))
    print(f"{paths.shown(path)} is written; a paragraph for culture_context is yours to add")
    alone = bool((table["answer_code"] >= 0).any())
    if not alone:
        print("Nobody was asked, so that nothing can be scored: run it beside a culture that has answers")
    print(f'make report CULTURES="{given.name}{"" if alone else " english"}"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
