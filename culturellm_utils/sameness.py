"""How alike open-ended answers are: of several cultures to one question, and of one culture to several questions.

Adapters that say the same whoever is asked about have learned no culture; one that says the same whatever is asked does
not answer. A row of :func:`table`::

    where            system   measure  value  low   high    n  clusters
    across cultures  adapter  cosine   0.84   0.79  0.89  504        14
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from culturellm_utils import alignment
from culturellm_utils.open_answers import ADAPTER, words
from culturellm_utils.open_ended import OpenAnswer

#: Answers are cut to so many words for distinct-n, which falls with length.
DISTINCT_WORDS = 20
CULTURES, QUESTIONS = "across cultures", "across questions"


@dataclass(frozen=True)
class Alike:
    """How alike the answers of one system are, pair by pair: ``cosine`` and ``identical`` have the shape (questions,
    cultures, questions, cultures), ``texts`` (questions, cultures)."""

    questions: list[str]
    cultures: list[str]
    texts: np.ndarray
    cosine: np.ndarray
    identical: np.ndarray

    def between_cultures(self, of: str) -> np.ndarray:
        """Cultures by cultures: the mean over questions."""
        return np.einsum("qaqb->ab", getattr(self, of)) / len(self.questions)

    def by_question(self, of: str) -> np.ndarray:
        """A value a question: the mean over pairs of cultures."""
        pairs = np.triu_indices(len(self.cultures), 1)
        return np.einsum("qaqb->qab", getattr(self, of))[:, *pairs].mean(1)

    def between_questions(self, of: str) -> np.ndarray:
        """Questions by questions: the mean over cultures."""
        return np.einsum("qara->qr", getattr(self, of)) / len(self.cultures)


def alike(answers: Sequence[OpenAnswer], encode: Callable[[list[str]], np.ndarray]) -> dict[str, Alike]:
    """By system, over the questions that it answered for every culture. ``encode`` makes a unit row vector of each text
    (``Encoder.encode``). Answers of the same words are identical, whatever their signs and capitals."""
    texts = {(row.system, row.question_id, row.culture): row.text for row in answers}
    unique = list(dict.fromkeys(texts.values()))
    vectors = dict(zip(unique, encode(unique), strict=True)) if unique else {}
    said = {text: " ".join(words(text)) for text in unique}
    found = {}
    for system in dict.fromkeys(row.system for row in answers):
        cultures = list(dict.fromkeys(row.culture for row in answers if row.system == system))
        asked = [name for name in dict.fromkeys(row.question_id for row in answers)
                 if all((system, name, culture) in texts for culture in cultures)]
        if not asked:
            continue
        grid = np.array([[texts[system, name, culture] for culture in cultures] for name in asked], dtype=object)
        points = np.array([vectors[text] for text in grid.flat])
        same = np.array([said[text] for text in grid.flat])
        shape = (*grid.shape, *grid.shape)
        found[system] = Alike(asked, cultures, grid, (points @ points.T).reshape(shape),
                              (same[:, None] == same).astype(float).reshape(shape))
    return found


def table(found: dict[str, Alike], samples: int, seed: int) -> pd.DataFrame:
    """How alike the answers of each system are, with 95% intervals over questions; ``n`` counts pairs of answers.

    ``identical``: share of pairs of the same words; ``cosine``: mean over pairs. Across cultures also ``distinct_1``
    and ``distinct_2``: different words, and pairs of neighbouring words, over all that were written to a question (Li
    et al. 2016, arXiv 1510.03055) in the first :data:`DISTINCT_WORDS` words of each answer; ``n`` counts questions.
    One culture has no row across cultures, one question none across questions.
    """
    rows = []
    for system, one in found.items():
        for of in ("identical", "cosine"):
            rows += [{"where": where, "system": system, "measure": of, **asdict(value)}
                     for where, value in _means(one, None, of, samples, seed).items()]
        for size in (1, 2) if len(one.cultures) > 1 else ():
            shares = {name: share for name, texts in zip(one.questions, one.texts, strict=True)
                      if (share := distinct(texts, size)) is not None}
            if shares:
                value = alignment.bootstrap(list(shares.values()), list(shares), samples, seed)
                rows.append({"where": CULTURES, "system": system, "measure": f"distinct_{size}", **asdict(value)})
    return pd.DataFrame(rows, columns=["where", "system", "measure", "value", "low", "high", "n", "clusters"])


def changes(found: dict[str, Alike], samples: int, seed: int) -> pd.DataFrame:
    """The adapter's sameness minus each other system's that answered the same questions for the same cultures, with a
    95% interval over questions: above 0 the adapter's answers are more alike."""
    rows = []
    own = found.get(ADAPTER)
    for rival, one in found.items():
        if own and rival != ADAPTER and (own.questions, own.cultures) == (one.questions, one.cultures):
            for of in ("identical", "cosine"):
                rows += [{"where": where, "rival": rival, "measure": of, **asdict(value)}
                         for where, value in _means(own, one, of, samples, seed).items()]
    return pd.DataFrame(rows, columns=["where", "rival", "measure", "value", "low", "high", "n", "clusters"])


def _means(one: Alike, less: Alike | None, of: str, samples: int, seed: int) -> dict[str, alignment.Estimate]:
    """The means across cultures and across questions of a measure of pairs, minus those of ``less``."""
    wide, deep, means = len(one.cultures), len(one.questions), {}
    if wide > 1:
        values = one.by_question(of) - (less.by_question(of) if less else 0)
        mean = alignment.bootstrap(values, one.questions, samples, seed)
        means[CULTURES] = replace(mean, n=deep * wide * (wide - 1) // 2)
    if deep > 1:
        mean = over_pairs(one.between_questions(of) - (less.between_questions(of) if less else 0), samples, seed)
        means[QUESTIONS] = replace(mean, n=wide * mean.n)
    return means


def over_pairs(square: np.ndarray, samples: int, seed: int) -> alignment.Estimate:
    """The mean over pairs of different questions of a symmetric table, with a 95% interval that resamples questions and
    not pairs, for the pairs of one question stand or fall together. A question drawn twice makes no pair with itself.
    """
    size = len(square)
    apart = np.where(np.eye(size, dtype=bool), 0.0, square)
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), samples).astype(float)
    drawn = drawn[(drawn > 0).sum(1) > 1]
    means = ((drawn @ apart) * drawn).sum(1) / (drawn.sum(1) ** 2 - (drawn**2).sum(1))
    low, high = np.quantile(means, [0.025, 0.975])
    return alignment.Estimate(float(apart.sum() / (size * (size - 1))), float(low), float(high),
                              size * (size - 1) // 2, size)


def distinct(texts: Sequence[str], size: int) -> float | None:
    """Different runs of ``size`` words over all runs, in the first words of some texts; None where there are fewer runs
    than texts, which are then too short to be told apart by them."""
    runs = [tuple(said[place : place + size]) for said in (words(text)[:DISTINCT_WORDS] for text in texts)
            for place in range(len(said) - size + 1)]
    return len(set(runs)) / len(runs) if runs and len(runs) >= len(texts) else None


def most_different(found: Alike, number: int) -> list[str]:
    """The questions to which the cultures' answers are least alike by cosine, least first."""
    if len(found.cultures) < 2:
        return found.questions[:number]
    order = np.argsort(found.by_question("cosine"), kind="stable")
    return [found.questions[place] for place in order[:number]]
