"""Answers for people whom nobody asked: lent by the countries nearest to them, by a stated rule, and what that costs.

The rule. With at least eight questions that a culture and a country were both asked, countries are ranked by the mean
Jensen-Shannon distance (base 2) of their answers, and each missing answer comes from the nearest ``neighbours`` that
were asked the question. With fewer, it comes from all countries of the culture's zone on the Inglehart-Welzel map
(``data/zones.yaml``), and where the zone has none, from all countries. What is lent is the mean of their answers, each
country counted once. A row of ``borrowed.jsonl``; its ``respondents`` are 0, because nobody of the culture was asked::

    {"question_id": "Q224", ..., "culture": "chinese", "countries": ["KOR", "USA", "DEU"], "respondents": 0,
     "distribution": {"1": 0.22, ...}, "label": "2", "label_rule": "borrowed"}
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from culturellm_utils import alignment, paths, studies, survey, wordings, wvs
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Country
from culturellm_utils.records import Question, Seed, problem, read_rows
from culturellm_utils.survey import Distribution

#: Questions that both must have been asked before the distance between them ranks anything.
ENOUGH = 8
#: Draws of known questions behind each figure of :func:`leave_one_out`.
DRAWS = 20
BORROWED, WORLD, AMERICA, ANOTHER = "borrowed", "mean of all countries", "United States", "another country"
METRICS = ("accuracy", "js_similarity")


@dataclass(frozen=True)
class World:
    """What the people of each country answered: ``shares`` (countries, questions, options), options in the order shown
    and filled up with zeros to the longest scale, NaN where a country was not asked."""

    countries: tuple[str, ...]
    questions: tuple[Question, ...]
    shares: np.ndarray


@dataclass(frozen=True)
class Donors:
    """Who lends to a culture: places in the world's countries, the nearest first, the rule that chose them, how many
    ``each`` question takes, and the mean ``distances`` that ranked them (NaN where none did)."""

    rule: Literal["nearest", "zone", "all"]
    places: np.ndarray
    each: int
    distances: np.ndarray


@cache
def zones() -> dict[str, str]:
    """The cultural zone of each country (ISO alpha-3) that ``data/zones.yaml`` knows."""
    path = paths.DATA / "zones.yaml"
    listed = studies.read_yaml(path)
    listed.pop("borderline", None)
    try:
        known = TypeAdapter(dict[str, dict[str, list[Country]]]).validate_python(listed)
    except ValidationError as error:
        raise UserError(f"{paths.shown(path)}: {problem(error)}; reinstall the package") from None
    return {country: zone for zone, parts in known.items() for part in parts.values() for country in part}


def everyone(asked: Sequence[Question], wvs_path: str, survey_weights: bool) -> pd.DataFrame:
    """:func:`survey.counts` of every country in the user's file; those that it lacks come from the counts that ship."""
    shipped = pd.read_csv(wvs.SHIPPED_COUNTS)
    known = [question for question in asked if question.question_id in set(shipped["question"])]
    table = survey.counts(sorted(shipped["country_alpha"].unique()), known, "", False) if known else shipped[:0]
    if not wvs_path:
        return table
    path = paths.given(wvs_path)
    own = survey.counts(wvs.countries(path), asked, wvs_path, survey_weights)
    return pd.concat([own, table[~table["country_alpha"].isin(own["country_alpha"])]], ignore_index=True)


def world(table: pd.DataFrame, asked: Sequence[Question]) -> World:
    """The answers of every country of a table of counts that has any."""
    parts = dict(iter(table[table["answer_code"] >= 0].groupby("country_alpha")))
    shares = [_array(survey.distributions([name], asked, part, "equal"), asked) for name, part in parts.items()]
    return World(tuple(parts), tuple(asked), np.array(shares).reshape(len(parts), *_array({}, asked).shape))


def _array(said: Mapping[str, Distribution], asked: Sequence[Question]) -> np.ndarray:
    """Distributions by question as (questions, options)."""
    found = np.full((len(asked), max(len(question.options) for question in asked)), np.nan)
    for row, question in zip(found, asked, strict=True):
        if shared := said.get(question.question_id):
            row[:] = 0
            row[: len(question.options)] = [shared[code] for code in question.options]
    return found


def donors(known: np.ndarray, countries: Sequence[str], lenders: World, neighbours: int) -> Donors:
    """Who lends to a culture of ``countries`` of which the answers ``known`` (questions, options; NaN where not) are
    known, by the rule of this module. Its own countries never lend to it."""
    distances = alignment.js_distance(known, lenders.shares)
    shared = np.isfinite(distances).sum(axis=1)
    mean = np.divide(np.nansum(distances, axis=1), shared, out=np.full(len(shared), np.nan), where=shared >= ENOUGH)
    foreign = np.array([name not in countries for name in lenders.countries])
    ranked = np.flatnonzero(foreign & np.isfinite(mean))
    if len(ranked):
        return Donors("nearest", ranked[np.argsort(mean[ranked], kind="stable")], neighbours, mean)
    own = {zones()[name] for name in countries if name in zones()}
    near = np.flatnonzero(foreign & [zones().get(name) in own for name in lenders.countries])
    rule, places = ("zone", near) if len(near) else ("all", np.flatnonzero(foreign))
    return Donors(rule, places, len(lenders.countries), np.full(len(foreign), np.nan))


def lend(found: Donors, countries: Sequence[str], lenders: World) -> tuple[np.ndarray, list[list[str]]]:
    """The answers lent (questions, options; NaN where no country was asked), and who lends each.

    A question that none of the donors was asked is lent by all countries that were.
    """
    asked = np.isfinite(lenders.shares[:, :, 0])
    chosen = np.zeros_like(asked)
    ordered = asked[found.places]
    chosen[found.places] = ordered & (ordered.cumsum(axis=0) <= found.each)
    foreign = np.array([name not in countries for name in lenders.countries])
    chosen |= asked & foreign[:, None] & ~chosen.any(axis=0)
    total = np.where(chosen[:, :, None], lenders.shares, 0).sum(axis=0)
    number = chosen.sum(axis=0)
    shares = np.where(number[:, None] > 0, total / np.maximum(number, 1)[:, None], np.nan)
    return shares, [[lenders.countries[place] for place in np.flatnonzero(column)] for column in chosen.T]


def pretended(seeds: Sequence[Seed], count: int, seed: int) -> list[str]:
    """Ids of ``count`` questions that a culture was asked, the only ones whose answers are pretended to be known.

    They are spread over the topics, and come last where 04 holds out first: with all fifty questions asked and the same
    random seed, no question that 04 holds out is among them.
    """
    asked = [row for row in {row.question_id: row for row in seeds}.values() if row.distribution]
    return _known(asked, count, seed)


def _known(asked: Sequence[Question | Seed], count: int, seed: int) -> list[str]:
    unknown = wordings.held_out_questions(asked, max(0, len(asked) - count), seed)
    return [row.question_id for row in asked if row.question_id not in unknown]


def borrow(culture: str, countries: Sequence[str], known: Mapping[str, Distribution], lenders: World, neighbours: int,
           label_rule: str) -> tuple[list[Seed], Donors]:
    """Rows for every question that is not among the ``known`` answers, and who lends them.

    The label is the most frequent lent answer, or with the label rule ``mean`` the option nearest to their mean (the
    rule ``paper`` has no meaning without respondents).
    """
    found = donors(_array(known, lenders.questions), countries, lenders, neighbours)
    shares, who = lend(found, countries, lenders)
    label = survey.mean if label_rule == "mean" else survey.mode
    rows = []
    for question, row, lent_by in zip(lenders.questions, shares, who, strict=True):
        if question.question_id in known or not lent_by:
            continue
        distribution = dict(zip(question.options, row[: len(question.options)].tolist(), strict=True))
        rows.append(Seed(**question.model_dump(exclude={"protected"}), culture=culture, countries=lent_by,
                         respondents=0, distribution=distribution, label=label(distribution), label_rule="borrowed"))
    return rows, found


def trained_on(folder: Path) -> list[Seed]:
    """The rows of a culture's folder that 04 trains on: its seeds, with borrowed rows in place of those of the same
    question, and after them. Raises UserError when there is neither."""
    seeds = read_rows(folder / "seeds.jsonl", Seed, may_be_empty=True)
    path = folder / "borrowed.jsonl"
    lent = read_rows(path, Seed) if path.is_file() else []
    by_question: dict[str, list[Seed]] = {}
    for row in seeds:
        by_question.setdefault(row.question_id, []).append(row)
    rows = [row for found in (by_question | {row.question_id: [row] for row in lent}).values() for row in found]
    if not rows:
        raise UserError(f"{paths.shown(folder / 'seeds.jsonl')} has no rows: nobody of this culture was asked; set "
                        "borrow to missing, or take the culture out of the study")
    return rows


# What borrowing costs

def leave_one_out(cultures: Mapping[str, Sequence[str]], lenders: World, neighbours: int,
                  known: Sequence[int] = (0, 5, 10)) -> pd.DataFrame:
    """How near lent answers come to those of cultures whose answers are known, by pretending that they are not.

    ``cultures`` maps a culture to its countries, which count alike; ``known`` says how many of its answers are known
    all the same (of :data:`DRAWS` draws of them, a question has its mean over those in which it was unknown). Columns:
    ``culture, known, source, question_id, accuracy`` (the most frequent answer is the same) and ``js_similarity``
    (1 - Jensen-Shannon distance). Besides what is ``borrowed`` the sources are the mean of all other countries, the
    answers of the United States, and those of another country (the mean over all of them of the scores).
    """
    tables = []
    for culture, countries in cultures.items():
        own = np.array([name in countries for name in lenders.countries])
        truth = _nanmean(lenders.shares[own])
        others = lenders.shares[~own]
        found = {(0, WORLD): _score(_nanmean(others), truth), (0, ANOTHER): _nanmean(_score(others, truth))}
        if "USA" in lenders.countries and "USA" not in countries:
            found[0, AMERICA] = _score(lenders.shares[lenders.countries.index("USA")], truth)
        asked = [question for question, row in zip(lenders.questions, truth, strict=True) if np.isfinite(row[0])]
        for number in known:
            if number < len(asked):
                found[number, BORROWED] = _nanmean(np.array([
                    _pretend(truth, _known(asked, number, draw), countries, lenders, neighbours)
                    for draw in range(DRAWS if number else 1)]))
        for (number, source), scores in found.items():
            table = pd.DataFrame(scores, columns=list(METRICS))
            table.insert(0, "question_id", [question.question_id for question in lenders.questions])
            tables.append(table.dropna().assign(culture=culture, known=number, source=source))
    columns = ["culture", "known", "source", "question_id", *METRICS]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _pretend(truth: np.ndarray, known: Sequence[str], countries: Sequence[str], lenders: World,
             neighbours: int) -> np.ndarray:
    """The scores of what is lent when only ``known`` questions were asked, NaN for those."""
    told = np.array([question.question_id in known for question in lenders.questions])
    lent, _ = lend(donors(np.where(told[:, None], truth, np.nan), countries, lenders, neighbours), countries, lenders)
    return np.where(told[:, None], np.nan, _score(lent, truth))


def _score(lent: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The two :data:`METRICS` along a new last axis in place of the options; NaN where either has no answer."""
    distance = alignment.js_distance(lent, truth)
    same = np.round(lent, 12).argmax(axis=-1) == np.round(truth, 12).argmax(axis=-1)
    return np.stack([np.where(np.isfinite(distance), same, np.nan), 1 - distance], axis=-1)


def _nanmean(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is not NaN, NaN where nothing is."""
    number = np.isfinite(values).sum(axis=0)
    return np.divide(np.nansum(values, axis=0), number, out=np.full(values.shape[1:], np.nan), where=number > 0)


def means(scores: pd.DataFrame, clusters: str, samples: int, seed: int) -> pd.DataFrame:
    """Means of :func:`leave_one_out` by number known, source and metric, with 95% intervals that resample ``clusters``:
    ``question_id`` for one culture, ``culture`` for many."""
    rows = []
    for (number, source), part in scores.groupby(["known", "source"], sort=False):
        for metric in METRICS:
            estimate = alignment.bootstrap(part[metric], part[clusters], samples, seed)
            rows.append({"known": number, "source": source, "metric": metric, **asdict(estimate)})
    return pd.DataFrame(rows, columns=["known", "source", "metric", "value", "low", "high", "n", "clusters"])


def gains(scores: pd.DataFrame, clusters: str, samples: int, seed: int) -> pd.DataFrame:
    """Borrowed minus each other source on the same questions, by number known and metric, with the intervals of
    :func:`means` and ``p`` of a paired permutation test, Holm-corrected within each metric."""
    keys = ["culture", "question_id"]
    rows = []
    for number, lent in scores[scores["source"] == BORROWED].groupby("known"):
        for source, other in scores[scores["source"] != BORROWED].groupby("source", sort=False):
            both = lent.merge(other, on=keys, suffixes=("", "_other"))
            for metric in METRICS:
                pair = both[metric], both[f"{metric}_other"], both[clusters]
                rows.append({"known": number, "source": source, "metric": metric,
                             **asdict(alignment.difference(*pair, samples, seed)),
                             "p": alignment.paired_test(*pair, alignment.PERMUTATIONS, seed)})
    table = pd.DataFrame(rows, columns=["known", "source", "metric", "value", "low", "high", "n", "clusters", "p"])
    for _, family in table.groupby("metric"):
        table.loc[family.index, "p"] = alignment.holm(family["p"])
    return table


def verdict(gains: pd.DataFrame) -> tuple[str, str]:
    """What :func:`gains` says, in words for a title and in a sentence: whether what is lent, with the most answers
    known, is nearer to people's answers than the mean of all other countries."""
    found = gains[(gains["source"] == WORLD) & (gains["metric"] == "js_similarity")].sort_values("known")
    if found.empty:
        return "there is nobody to borrow from", "No other country was asked these questions: nobody can lend answers."
    row = found.iloc[-1]
    side = "clearly nearer" if row["low"] > 0 else "clearly farther" if row["high"] < 0 else "not clearly nearer"
    words = f"lent answers with {row['known']} known are\n{side} than the mean of all countries"
    return words, (f"With {row['known']} answers known, lent ones are {side} to people's answers than the mean of all "
                   f"other countries: {row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] in 1 - JS distance "
                   f"(p {row['p']:.2g} after correction, n = {row['clusters']}).")
