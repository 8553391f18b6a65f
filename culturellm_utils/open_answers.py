"""What open-ended answers are like: whether they answer at all, and how they speak of people.

Reads ``open_answers.jsonl`` of every culture. :func:`measure` makes a row an answer, with NaN where a measure does not
apply to it (how one generalises cannot be seen in a bare label)::

    question_id  culture  system   kind   words  refusal  cut_off  english  generalising  hedging  ...
    O13          korean   adapter  prose  24     0        0        1        4.2           8.3

It counts words, and understands none: see :data:`MEASURES` for what each figure is. How alike answers are is
sameness.py's.
"""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

import numpy as np
import pandas as pd

from culturellm_utils import alignment, languages, lexicon, open_ended, paths, records, studies
from culturellm_utils.errors import UserError
from culturellm_utils.open_ended import OpenAnswer, OpenQuestion
from culturellm_utils.parameters import OpenAnswers

ADAPTER = "adapter"
#: Systems that are asked without being told whose chatbot they are: their answers are the same for every culture.
UNNAMED = ("base",)
#: An answer of fewer words is no prose; of fewer than the second no language can be told.
PROSE_WORDS, LANGUAGE_WORDS = 5, 4
#: So many of the question's words in a row are an echo of it.
ECHO_WORDS = 5
#: What an answer is. A label: up to three words in capitals or digits, as the labelled tasks are answered.
KINDS = ("prose", "refusal", "fragment", "label", "empty")
_LABEL = re.compile(r"[A-Z0-9_]+(?:-[A-Z0-9_]+)*")
#: Signs that end a sentence in the scripts of the world, with what may close after them.
_ENDED = re.compile(r"[.!?…。！？؟।॥۔;]['\"”’»)\]）」』]*$")

Scale = Literal["share", "words", "per 100 words"]


@dataclass(frozen=True)
class Measure:
    """One figure of an answer: what it is, the answers that it is taken of, and its scale."""

    meaning: str
    of: Literal["all answers", "prose", "English prose", "four words or more"]
    scale: Scale = "share"


MEASURES = {
    "prose": Measure(f"at least {PROSE_WORDS} words, and no refusal", "all answers"),
    "refusal": Measure("refuses to answer, in a phrase of the lexicon at its head", "all answers"),
    "disclaimer": Measure("says that it is a machine, or without opinions, and does not refuse", "all answers"),
    "fragment": Measure(f"fewer than {PROSE_WORDS} words", "all answers"),
    "label": Measure("a bare label or digit", "all answers"),
    "empty": Measure("no word", "all answers"),
    "words": Measure("words", "all answers", "words"),
    "cut_off": Measure("ends without the sign that ends a sentence", "prose"),
    "echo": Measure(f"repeats {ECHO_WORDS} words of the question in a row", "prose"),
    "names_culture": Measure("names the culture, its language or its country", "prose"),
    "english": Measure("in English, as it was asked", "four words or more"),
    "own_language": Measure("in the culture's language", "four words or more"),
    "generalising": Measure("words such as all, always, never, typical", "English prose", "per 100 words"),
    "hedging": Measure("words such as some, often, may, it depends", "English prose", "per 100 words"),
    "generic": Measure("statements about the people as such", "English prose", "per 100 words"),
}


def load(knobs: OpenAnswers) -> dict[str, list[OpenAnswer]]:
    """What the systems answered, by culture, of those that were evaluated; nothing where 05 asked no open-ended
    question. Raises UserError when no culture was evaluated, or a file is broken."""
    files = {culture: knobs.folder(culture) / "open_answers.jsonl" for culture in knobs.cultures}
    files = {culture: path for culture, path in files.items() if path.is_file()}
    if not files:
        folder = paths.shown(knobs.folder(knobs.cultures[0]).parent)
        raise UserError(f"no culture of {folder} has an open_answers.jsonl: run 05_evaluation")
    return {culture: records.read_rows(path, OpenAnswer) if path.stat().st_size else []
            for culture, path in files.items()}


def questions(answers: Sequence[OpenAnswer]) -> dict[str, OpenQuestion]:
    """The questions that were answered, by their id, in the order of the shipped file. Raises UserError
    for an answer to another question."""
    asked = {row.question_id for row in answers}
    shipped = records.read_rows(paths.DATA / "open_questions.jsonl", OpenQuestion)
    if unknown := sorted(asked - {question.question_id for question in shipped}):
        raise UserError(f"open_answers.jsonl answers {unknown[0]}, which is no question of open_questions.jsonl: rerun "
                        "05_evaluation")
    return {question.question_id: question for question in shipped if question.question_id in asked}


# One answer

def words(text: str, language: str = "English") -> list[str]:
    """The words of a text, as they are compared; ``language`` helps where they are written without spaces."""
    return [languages.plain(token) for token in languages.tokens(text, language) if re.search(r"\w", token)]


def kind(text: str, language: str = "English") -> str:
    """Which of :data:`KINDS` an answer is."""
    found = words(text, language)
    if not found:
        return "empty"
    if lexicon.declines(text) == "refusal":
        return "refusal"
    if len(found) <= 3 and all(_LABEL.fullmatch(part) for part in text.strip(" .!?'\"`*").split()):
        return "label"
    return "prose" if len(found) >= PROSE_WORDS else "fragment"


def spoken(text: str, own: str) -> Literal["english", "own", "another", "in doubt"]:
    """The language of a text: English, the culture's ``own`` (a language's English name), or another."""
    english, home = (languages.plausible(text, language) for language in ("English", own))
    if english and (own == "English" or not home):
        return "english"
    return "in doubt" if english else "own" if home else "another"


def echoes(text: str, question: str) -> bool:
    """Whether a text repeats :data:`ECHO_WORDS` words of what was asked in a row."""
    asked, said = words(f"{question} {open_ended.BRIEF}"), words(text)
    return SequenceMatcher(None, asked, said, autojunk=False).find_longest_match().size >= ECHO_WORDS


def measure(answers: Sequence[OpenAnswer]) -> pd.DataFrame:
    """A row an answer: its keys, ``kind``, and each of :data:`MEASURES`, NaN where it does not apply."""
    asked = questions(answers)
    cultures = {name: studies.culture(name) for name in dict.fromkeys(row.culture for row in answers)}
    names = {name: lexicon.names(culture) for name, culture in cultures.items()}
    rows = [{"question_id": row.question_id, "culture": row.culture, "system": row.system,
             **_measured(row.text, asked[row.question_id].question, cultures[row.culture].culture_language,
                         names[row.culture])} for row in answers]
    return pd.DataFrame(rows, columns=["question_id", "culture", "system", "kind", *MEASURES])


def _measured(text: str, question: str, language: str, names: Sequence[str]) -> dict[str, Any]:
    number, sort = len(words(text, language)), kind(text, language)
    found: dict[str, Any] = dict.fromkeys(MEASURES, np.nan)
    found |= {name: float(sort == name) for name in KINDS}
    found |= {"kind": sort, "words": float(number), "disclaimer": float(lexicon.declines(text) == "disclaimer")}
    tongue = spoken(text, language) if number >= LANGUAGE_WORDS and sort != "label" else "in doubt"
    if tongue != "in doubt":
        found["english"] = float(tongue == "english")
        found["own_language"] = float(tongue == "own" or (tongue == "english" and language == "English"))
    if sort == "prose":
        found["cut_off"] = float(not _ENDED.search(text.strip()))
        found["echo"] = float(echoes(text, question))
        found["names_culture"] = float(lexicon.named(text, names))
        if tongue == "english":
            counts = lexicon.count(text, names)
            found |= {name: 100 * counts[name] / number for name in ("generalising", "hedging", "generic")}
    return found


# All answers

def estimates(frame: pd.DataFrame, samples: int, seed: int) -> pd.DataFrame:
    """The mean of each measure by system, over all cultures ("all") and by culture, with a 95% interval over questions.

    ``frame`` is :func:`measure`'s. A measure that applies to no answer of a system has no row.
    """
    rows = []
    groups = [("all", frame), *frame.groupby("culture", sort=False)]
    for culture, group in groups:
        for (system, name), known in _long(group).groupby(["system", "measure"], sort=False):
            found = alignment.bootstrap(known["value"], known["question_id"], samples, seed)
            rows.append({"culture": culture, "system": system, "measure": name, **asdict(found)})
    return pd.DataFrame(rows, columns=["culture", "system", "measure", "value", "low", "high", "n", "clusters"])


def differences(frame: pd.DataFrame, samples: int, seed: int) -> pd.DataFrame:
    """The adapter minus each other system, paired by culture and question, over the pairs in which a measure applies to
    both answers: mean with 95% interval over questions, and the p-value of a paired permutation test, corrected by Holm
    over the measures of a rival."""
    rows = []
    table = _long(frame).pivot(index=["measure", "culture", "question_id"], columns="system", values="value")
    for rival in [name for name in dict.fromkeys(frame["system"]) if name != ADAPTER and ADAPTER in table]:
        both = table[[ADAPTER, rival]].dropna()
        found = []
        for name in [name for name in MEASURES if name in both.index.get_level_values("measure")]:
            pairs = both.loc[name]
            sides = (pairs[ADAPTER], pairs[rival], pairs.index.get_level_values("question_id"))
            found.append({"rival": rival, "measure": name, **asdict(alignment.difference(*sides, samples, seed)),
                          "p": alignment.paired_test(*sides, alignment.PERMUTATIONS, seed)})
        for row, p in zip(found, alignment.holm([row["p"] for row in found]), strict=True):
            rows.append(row | {"p": p})
    return pd.DataFrame(rows, columns=["rival", "measure", "value", "low", "high", "n", "clusters", "p"])


def _long(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a measure that applies to an answer."""
    return frame.melt(["question_id", "culture", "system"], list(MEASURES), "measure").dropna(subset="value")


def side_by_side(answers: Sequence[OpenAnswer], question: OpenQuestion) -> str:
    """One question and what every system answered about every culture, adapters last, :func:`folded`. The answers of a
    system that is told of no culture stand once where they are the same."""
    rows = {}
    for row in answers:
        if row.question_id == question.question_id:
            whom = "any culture" if row.system in UNNAMED else row.culture
            rows[row.system, whom, row.text] = {"system": row.system, "asked about": whom, "answer": row.text}
    return folded(question.question, sorted(rows.values(), key=lambda row: row["system"] == ADAPTER))


def folded(summary: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as an HTML table that is folded under a summary with a notice: models' texts may offend. All is escaped, and
    each cell runs in the direction of its own script."""
    head = "".join(f'<th style="text-align:start">{html.escape(name)}</th>' for name in (rows[0] if rows else ()))
    body = "".join("<tr>" + "".join(f'<td dir="auto" style="text-align:start">{html.escape(str(value))}</td>'
                                    for value in row.values()) + "</tr>" for row in rows)
    return (f"<details><summary>{html.escape(summary)} ({len(rows)} rows; written by language models, may be wrong or "
            f'offend)</summary><div style="overflow-x:auto"><table border="0"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div></details>")


def beside(table: pd.DataFrame, rows: Sequence[str], column: str) -> pd.DataFrame:
    """Figures for people: ``value [low, high], n`` and what p there is, with a column for each ``column`` (system or
    rival) of ``table``, whose values differ in the columns ``rows`` besides. Differences carry their sign."""
    cells = [f"{amount(row.measure, row, signed=column == 'rival')}, n {row.n}"
             + (f", p {row.p:.2g}" if hasattr(row, "p") else "") for row in table.itertuples()]
    order = table[list(rows)].drop_duplicates()
    wide = table.assign(cell=cells).pivot(index=list(rows), columns=column, values="cell")
    return wide.reindex(index=order.set_index(list(rows)).index, columns=table[column].unique()).reset_index()


def amount(measure: str, row: Any, signed: bool = False) -> str:
    """A value with its interval: shares in percent (a difference in points), words with one digit, others with two."""
    scale = MEASURES[measure].scale if measure in MEASURES else "share" if measure == "identical" else "cosine"
    many, digits, unit = {"share": (100, 0, " points" if signed else "%"), "cosine": (1, 2, "")}.get(scale, (1, 1, ""))
    rounded = (round(many * number, digits) + 0.0 for number in (row.value, row.low, row.high))  # no -0
    value, low, high = (f"{number:{'+' if signed and number else ''}.{digits}f}" for number in rounded)
    return f"{value}{unit} [{low}, {high}]"


def sentences(frame: pd.DataFrame, means: pd.DataFrame, compared: pd.DataFrame, same: pd.DataFrame) -> list[str]:
    """What the figures of :func:`measure`, :func:`estimates`, :func:`differences` and ``sameness.table`` say."""
    if frame.empty:
        return ["No open-ended question was asked, so there is nothing to analyse: set `open_questions` in 05."]
    over_all = means[means["culture"] == "all"].set_index(["measure", "system"])
    found = [f"{len(frame)} answers to {frame['question_id'].nunique()} questions about "
             f"{', '.join(frame['culture'].unique())}; prose: {_by_system(over_all, 'prose')}.", *_no_prose(frame),
             f"Refusals: {_by_system(over_all, 'refusal')}."]
    for rival, rows in compared.groupby("rival", sort=False):
        sure = [f"{row.measure} {amount(row.measure, row, signed=True)}"
                for row in rows[rows["p"] < 0.05].itertuples()]
        found.append(f"Against {rival}, the adapter differs beyond chance (paired permutation test, Holm) in "
                     + (f"{len(sure)} of {len(rows)} measures: {'; '.join(sure)}." if sure else
                        f"none of {len(rows)} measures."))
    found += [f"Per 100 words of English prose, {name}: {_by_system(over_all, name)}."
              for name in ("generalising", "hedging", "generic") if name in over_all.index]
    if "generalising" not in over_all.index:
        found.append("No answer is English prose, so generalising words were not counted.")
    alike = same[same["measure"] == "identical"].set_index(["where", "system"])
    found += [f"Pairs of answers of the same words {where}: {_by_system(alike, where, 'identical')}"
              + ("; the prompt of the base model names no culture." if where == "across cultures" else ".")
              for where in dict.fromkeys(alike.index.get_level_values("where"))]
    return [*found, "These are counts of words. They cannot say whether a statement is true, meant or offensive, nor "
            "whom it harms: a stereotype needs none of the listed words, and a fair sentence may hold several."]


def _no_prose(frame: pd.DataFrame) -> list[str]:
    """Which systems mostly wrote no prose, and what they wrote."""
    rest = []
    for system, rows in frame.groupby("system", sort=False):
        kinds = rows["kind"].value_counts()
        if 2 * kinds.get("prose", 0) < len(rows):
            rest.append(f"{system} ({', '.join(f'{name} {number}' for name, number in kinds.items())})")
    return [f"Less than half is prose of {'; '.join(rest)}: what does not answer an open question says nothing about a "
            "culture, and its figures below say as little."] if rest else []


def _by_system(table: pd.DataFrame, name: str, measure: str = "") -> str:
    """The systems' values under one name of a table, in words; the name is the measure's unless that is given."""
    return ", ".join(f"{system} {amount(measure or name, row)}" for system, row in table.loc[name].iterrows())
