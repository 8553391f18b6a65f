"""What a culture answers to each seed question: questions, answer counts, distributions, labels.

A seed, as notebook 01 writes it to ``seeds.jsonl``::

    {"question_id": "Q39", "topic": "Social values", "question": "Not working makes people lazy.",
     "options": {"1": "Strongly agree", ...}, "culture": "korean", "countries": ["KOR"], "respondents": 1245,
     "distribution": {"1": 0.20, "2": 0.53, ...}, "label": "2", "label_rule": "mode"}

Answer codes are the survey's: 0 and above are options; negative ones say why there is no answer (-1 don't know,
-2 no answer, -4 not asked, -5 other) and are never opinions. The label rule ``paper`` is the released recipe,
which averages them in; it is kept to measure what that costs: see :func:`paper_labels`.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd
from scipy.spatial.distance import jensenshannon

from culturellm_utils import paths, records, wvs
from culturellm_utils.errors import UserError
from culturellm_utils.records import Question, Seed

SHIPPED_QUESTIONS = paths.DATA / "questions.jsonl"
#: The highest number of an option: scales of which only the ends are named are filled up.
HIGHEST_CODE = 999
Distribution = dict[str, float]


class _Released(records.Row):
    """A line of the ``WVQ.jsonl`` that the CultureLLM authors released."""

    topic: str
    q_id: str
    q_content: str
    option: str


def questions(questions_path: str) -> list[Question]:
    """The seed questions: those that ship for ``""``, else a JSON Lines file (relative to the repository) in this
    project's format or in that of the released ``WVQ.jsonl``.

    Raises UserError when the file is missing or broken, a question comes twice, or an option code is no number.
    """
    path = paths.given(questions_path) if questions_path else SHIPPED_QUESTIONS
    where = paths.shown(path)
    if not path.is_file():
        raise UserError(f"questions_path: {where} does not exist; give a JSON Lines file, or '' for what ships")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        released = '"q_id"' in next((line for line in file if line.strip()), "")
    rows = records.read_rows(path, _Released if released else Question)
    found = [_from_released(row, where) for row in rows] if released else rows
    seen: set[str] = set()
    for question in found:
        if question.question_id in seen:
            raise UserError(f"{where}: question {question.question_id} comes twice; keep one of them")
        seen.add(question.question_id)
        if not all(re.fullmatch("[0-9]{1,4}", code) for code in question.options):
            raise UserError(f"{where}: question {question.question_id} has the option codes "
                            f"{', '.join(question.options)}; use the survey's numbers, 0 and above")
    return found


def _from_released(row: _Released, where: str) -> Question:
    try:
        options = parse_options(row.option)
    except ValueError as error:
        raise UserError(f"{where}: question {row.q_id}: {error}; write them as '1. Agree 2. Disagree'") from None
    if not row.q_content.strip():
        raise UserError(f"{where}: question {row.q_id} has no text; write what is asked")
    return Question(
        question_id=f"Q{row.q_id.strip().removeprefix('Q')}",
        topic=row.topic.strip().capitalize().replace("&", "and"),
        question=row.q_content.strip(),
        options=options,
    )


def parse_options(text: str) -> dict[str, str]:
    """``"1. Agree 2. Disagree"`` as ``{"1": "Agree", "2": "Disagree"}``, in the order written.

    One number that repeats another is read as the one due at its place (the released Q31 has 1 2 4 4). A scale of
    which only the two ends are named gets its middle codes with empty texts. Raises ValueError for anything else.
    """
    before, *parts = re.split(r"(?:^|\s)([0-9]{1,9})\.(?=\s|$)", text.strip())
    codes, texts = [int(code) for code in parts[::2]], [part.strip() for part in parts[1::2]]
    if len(codes) < 2 or before.strip():
        raise ValueError(f"the options '{text}' are not a numbered list")
    if max(codes) > HIGHEST_CODE:
        raise ValueError(f"the options '{text}' have the number {max(codes)}")
    step = 1 if codes[1] > codes[0] else -1
    if len(set(codes)) < len(codes):
        due = [codes[0] + step * place for place in range(len(codes))]
        if len(codes) < 3 or min(due) < 0 or sum(code != other for code, other in zip(codes, due, strict=True)) > 1:
            raise ValueError(f"the options '{text}' repeat a number")
        codes = due
    named = dict(zip(codes, texts, strict=True))
    shown = range(codes[0], codes[1] + step, step) if len(codes) == 2 else codes
    return {str(code): named.get(code, "") for code in shown}


def counts(countries: Sequence[str], asked: Sequence[Question], wvs_path: str, survey_weights: bool) -> pd.DataFrame:
    """How many respondents of each country gave each answer code to each question.

    Returns the columns ``country_alpha, question, answer_code, respondents`` (people), ``first_1000`` (those among
    the country's first 1000 in file order) and ``weight`` (their sum of W_WEIGHT, or people when unweighted).
    ``wvs_path`` is an official WVS-7 file, relative to the repository; ``""`` takes the counts that ship. Empty
    cells are not counted. Raises UserError as :func:`wvs.read` does, for a country or question that the shipped
    counts do not have, for an answer that is none of the question's options, and where no answer is valid.
    """
    ids = [question.question_id for question in asked]
    path = paths.given(wvs_path) if wvs_path else wvs.SHIPPED_COUNTS
    if wvs_path:
        table = wvs.tally(wvs.read(path, countries, ids, survey_weights))
    else:
        table = _shipped(countries, ids, survey_weights)
    options = {question.question_id: question.options for question in asked}
    valid = table[table["answer_code"] >= 0]
    if valid.empty:
        raise UserError(f"{paths.shown(path)}: nobody in {', '.join(countries)} gave a valid answer to any question; "
                        "choose other countries or questions")
    for row in valid.itertuples():
        if str(row.answer_code) not in options[row.question]:
            raise UserError(f"{paths.shown(path)}: {row.respondents} respondents of {row.country_alpha} answered "
                            f"{row.answer_code} to {row.question}, whose options are "
                            f"{', '.join(options[row.question])}; correct the file or the question's options")
    return table


def _shipped(countries: Sequence[str], ids: Sequence[str], survey_weights: bool) -> pd.DataFrame:
    if survey_weights:
        raise UserError("survey_weights: the counts that ship are unweighted; set wvs_path to an official WVS-7 file")
    table = pd.read_csv(wvs.SHIPPED_COUNTS)
    for column, wanted in (("country_alpha", countries), ("question", ids)):
        for value in sorted(set(wanted) - set(table[column])):
            raise UserError(f"the answer counts that ship have no {column.removesuffix('_alpha')} {value}; "
                            "set wvs_path to an official WVS-7 file")
    table = table[table["country_alpha"].isin(countries) & table["question"].isin(ids)]
    return table.drop(columns="country_code").assign(weight=table["respondents"].astype(float)).reset_index(drop=True)


def _answers(table: pd.DataFrame, column: str) -> dict[tuple[str, str], dict[int, float]]:
    """``{(country, question): {answer code: amount}}``."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    columns = ["country_alpha", "question", "answer_code", column]
    for country, question, code, amount in table[columns].itertuples(index=False):
        found.setdefault((country, question), {})[code] = amount
    return found


def distributions(countries: Sequence[str], asked: Sequence[Question], table: pd.DataFrame,
                  country_weighting: str) -> dict[str, Distribution]:
    """What people said: for each question the share of each option among valid answers (sum 1), options in order.

    ``equal`` averages the shares of the countries that asked the question, ``respondents`` adds their answers up.
    A question that no country asked has an empty distribution.
    """
    answers = _answers(table, "weight")
    found = {}
    for question in asked:
        pooled = dict.fromkeys(question.options, 0.0)
        for country in countries:
            given = answers.get((country, question.question_id), {})
            valid = {code: amount for code, amount in given.items() if code >= 0 and amount}
            size = sum(valid.values()) if country_weighting == "equal" else 1
            for code, amount in valid.items():
                pooled[str(code)] += amount / size
        total = sum(pooled.values())
        found[question.question_id] = {code: share / total for code, share in pooled.items()} if total else {}
    return found


def mode(distribution: Distribution) -> str:
    """The most frequent answer; of equally frequent ones the first in option order."""
    return max(distribution, key=lambda code: round(distribution[code], 12))


def mean(distribution: Distribution) -> str:
    """The option nearest to the mean answer code; a mean half way between two goes to the higher code."""
    centre = sum(int(code) * share for code, share in distribution.items())
    return min(distribution, key=lambda code: (round(abs(int(code) - centre), 9), -int(code)))


def paper_labels(countries: Sequence[str], asked: Sequence[Question], table: pd.DataFrame) -> pd.DataFrame:
    """The labels of the released CultureLLM data: columns ``block, country, question_id, label, valid``.

    Block 1 is the first country. Block 2 is the second country, or the first 1000 respondents of a single one. A
    label is the mean over all codes, missing ones included, cut to an integer, its sign dropped. The released
    script also leaves a country's 1,001st respondent out of the sum but not out of the count. The counts do not
    know who that was, so a mean answer is left out; on the eleven countries of the paper this gives every released
    label, e.g. 3 and not 4 where nobody in China was asked (all codes -4). ``valid`` is the number of valid answers
    in the block. A question without any code in a block has no row.
    """
    second = (countries[1], "respondents") if len(countries) > 1 else (countries[0], "first_1000")
    rows = []
    for block, (country, column) in enumerate([(countries[0], "respondents"), second], start=1):
        answers = _answers(table, column)
        for question in asked:
            codes = answers.get((country, question.question_id), {})
            size = int(sum(codes.values()))
            if not size:
                continue
            total = abs(sum(int(code) * int(people) for code, people in codes.items()))
            label = total * (size - 1) // size**2 if size > wvs.FIRST else total // size
            valid = sum(people for code, people in codes.items() if code >= 0)
            rows.append((block, country, question.question_id, str(label), int(valid)))
    return pd.DataFrame(rows, columns=["block", "country", "question_id", "label", "valid"])


def seeds(culture: str, countries: Sequence[str], asked: Sequence[Question], table: pd.DataFrame, label_rule: str,
          country_weighting: str) -> list[Seed]:
    """The seeds of a culture from the counts of its countries.

    ``mode`` and ``mean`` label the pooled distribution, one row per question; a question that no country asked is
    left out. ``paper`` gives one row per block (``countries`` is the block's country) with the released label, and
    keeps questions that nobody was asked; ``distribution`` still says what the people of the culture answered.
    ``respondents`` counts people with a valid answer, unweighted.
    """
    shares = distributions(countries, asked, table, country_weighting)
    people = table[table["answer_code"] >= 0].groupby(["question", "country_alpha"])["respondents"].sum()
    released = paper_labels(countries, asked, table) if label_rule == "paper" else None
    found = []
    for question in asked:
        name, shared = question.question_id, shares[question.question_id]
        answered = [country for country in countries if people.get((name, country), 0)]
        if released is not None:
            block = released[released["question_id"] == name]
            labels = [([country], label) for country, label in zip(block["country"], block["label"], strict=True)]
        else:
            labels = [(answered, {"mode": mode, "mean": mean}[label_rule](shared))] if shared else []
        found += [
            Seed(**question.model_dump(exclude={"protected"}), culture=culture, countries=behind, label=label,
                 respondents=int(sum(people.get((name, country), 0) for country in answered)), distribution=shared,
                 label_rule=label_rule)
            for behind, label in labels
        ]
    return found


def paper_comparison(countries: Sequence[str], asked: Sequence[Question], table: pd.DataFrame,
                     country_weighting: str) -> pd.DataFrame:
    """Each released label beside what most people of the culture said.

    Adds to :func:`paper_labels`: ``most_said`` (None when nobody was asked) and three findings: ``differs`` (the
    label is not what most said), ``off_scale`` (it is none of the options), ``missing_only`` (there is no valid
    answer behind it).
    """
    shares = distributions(countries, asked, table, country_weighting)
    said = {name: mode(shared) for name, shared in shares.items() if shared}
    options = {question.question_id: question.options for question in asked}
    rows = paper_labels(countries, asked, table)
    most = rows["question_id"].map(said)
    pairs = zip(rows["label"], rows["question_id"], strict=True)
    return rows.assign(
        most_said=most,
        differs=most.notna() & (rows["label"] != most),
        off_scale=pd.Series([label not in options[name] for label, name in pairs], rows.index, dtype=bool),
        missing_only=rows["valid"] == 0,
    )


def paper_cost(cultures: Mapping[str, Sequence[str]], asked: Sequence[Question], table: pd.DataFrame,
               country_weighting: str) -> pd.DataFrame:
    """What the released labels cost: a row per culture and block.

    ``cultures`` maps a culture to its countries. ``differs`` counts among the ``asked`` questions, those with an
    answer in the culture; ``off_scale`` and ``missing_only`` among all ``questions`` that have a label.
    """
    rows, findings = [], ["differs", "off_scale", "missing_only"]
    for culture, countries in cultures.items():
        compared = paper_comparison(countries, asked, table, country_weighting)
        for (block, country), part in compared.groupby(["block", "country"]):
            rows.append({"culture": culture, "block": block, "country": country, "questions": len(part),
                         "asked": part["most_said"].notna().sum(), **part[findings].sum()})
    return pd.DataFrame(rows, columns=["culture", "block", "country", "questions", "asked", *findings])


def coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Who was asked, per country: ``respondents``, ``questions`` with at least one valid answer, and ``missing``,
    the share of codes that are no answer among those questions."""
    rows = []
    for country, part in table.groupby("country_alpha"):
        valid = part[part["answer_code"] >= 0]
        asked = part[part["question"].isin(valid["question"])]
        rows.append({"country": country, "respondents": part.groupby("question")["respondents"].sum().max(),
                     "questions": valid["question"].nunique(),
                     "missing": 1 - valid["respondents"].sum() / asked["respondents"].sum()})
    return pd.DataFrame(rows, columns=["country", "respondents", "questions", "missing"])


def agreement(countries: Sequence[str], asked: Sequence[Question], table: pd.DataFrame) -> pd.DataFrame:
    """How alike the countries of a culture answer: a row per pair and question that both asked, with ``same``
    (the most frequent answer is the same) and ``similarity`` (1 - Jensen-Shannon distance, base 2; 1 is alike)."""
    alone = {country: distributions([country], asked, table, "equal") for country in countries}
    rows = []
    for one, other in combinations(countries, 2):
        for question in asked:
            first, second = (alone[country][question.question_id] for country in (one, other))
            if first and second:
                distance = jensenshannon(list(first.values()), list(second.values()), base=2)
                same = mode(first) == mode(second)
                rows.append((f"{one}-{other}", question.question_id, question.topic, same, 1 - distance))
    return pd.DataFrame(rows, columns=["pair", "question_id", "topic", "same", "similarity"])
