"""How close a model's answers are to people's: metrics, intervals, tests, the ceiling that people set themselves, and
whether the adapters of several cultures have become one.

>>> emd([1, 0, 0, 0], [0, 0, 0, 1])          # opposite ends of an ordinal scale
1.0
>>> ceiling({"Q39": {"1": 249, "2": 660, "3": 262, "4": 74}}, "js_similarity", splits=100, samples=2000, seed=0)
Estimate(value=0.9628625949962476, low=0.9628625949962476, high=0.9628625949962476, n=1, clusters=1)
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial, floor
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import jensenshannon
from statsmodels.stats.multitest import multipletests

from culturellm_utils.errors import UserError
from culturellm_utils.records import Seed

Metric = Literal["accuracy", "js_similarity", "emd"]
#: Cultures can be assigned to adapters in this many ways, those of nine, before a sample of them is drawn.
ALL_ASSIGNMENTS = factorial(9)
#: Permutations of a test: with fewer the smallest p-value would not survive Holm's correction over a study.
PERMUTATIONS = 20_000
#: Resampled values held at a time.
_BLOCK = 2**21


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% bootstrap interval; ``n`` items in ``clusters`` independent groups."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


@dataclass(frozen=True)
class Collapse:
    """What :func:`collapse` finds. ``between_adapters`` and ``between_peoples`` are mean pairwise Jensen-Shannon
    distances, ``dispersion`` their ratio; ``p`` belongs to ``advantage`` and comes from ``assignments`` of adapters to
    cultures, all that there are when ``exact``."""

    between_adapters: float
    between_peoples: float
    dispersion: Estimate
    advantage: Estimate
    p: float
    assignments: int
    exact: bool


def js_similarity(p: Sequence[float], q: Sequence[float]) -> float:
    """1 - Jensen-Shannon distance (base 2): 1 for equal distributions, 0 for disjoint ones."""
    return float(1 - js_distance(p, q))


def emd(p: Sequence[float], q: Sequence[float]) -> float:
    """Earth mover's distance between two distributions over the same ordered options, divided by the scale's
    length (options - 1): 0 for equal, 1 for opposite ends."""
    return float(emd_distance(p, q))


def js_distance(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """Jensen-Shannon distance (base 2; 0 for equal distributions, 1 for disjoint ones) along the last axis."""
    # Of equal distributions rounding may leave a root of a tiny negative number.
    with np.errstate(invalid="ignore"):
        return np.where(np.isclose(p, q).all(-1), 0.0, jensenshannon(p, q, base=2, axis=-1))


def emd_distance(p: ArrayLike, q: ArrayLike) -> np.ndarray:
    """:func:`emd` along the last axis."""
    return np.abs(np.cumsum(np.asarray(p, float) - np.asarray(q, float), axis=-1)[..., :-1]).mean(-1)


def bootstrap(values: Sequence[float], clusters: Sequence[Hashable], samples: int, seed: int) -> Estimate:
    """Mean of ``values`` with a 95% percentile interval that resamples whole ``clusters`` (the wordings of one
    question stand or fall together, so they are no independent evidence)."""
    totals, sizes = _by_cluster(values, clusters)
    return _ratio(totals, sizes, int(sizes.sum()), samples, seed)


def difference(first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable], samples: int,
               seed: int) -> Estimate:
    """Mean of the paired differences ``first - second`` with the interval of :func:`bootstrap`."""
    return bootstrap(np.subtract(first, second), clusters, samples, seed)


def paired_test(first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable], samples: int,
                seed: int) -> float:
    """Two-sided p-value of "no difference" between paired values: a permutation test that flips the sign of whole
    clusters' summed differences."""
    totals, _ = _by_cluster(np.asarray(first, float) - np.asarray(second, float), clusters)
    chance = np.random.default_rng(seed)
    extreme = 0
    for rows in _blocks(samples, len(totals)):
        signs = chance.choice([-1.0, 1.0], (rows, len(totals)))
        extreme += int((np.abs(signs @ totals) >= abs(totals.sum()) - 1e-9).sum())
    return (extreme + 1) / (samples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for several tests."""
    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def _by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and size of each cluster, in order of first appearance."""
    index = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    places = np.array([index[name] for name in clusters])
    return np.bincount(places, np.asarray(values, float)), np.bincount(places).astype(float)


def _ratio(above: np.ndarray, below: np.ndarray, n: int, samples: int, seed: int) -> Estimate:
    """``above.sum() / below.sum()`` with the 95% percentile interval that resamples their entries together."""
    chance = np.random.default_rng(seed)
    found = []
    for rows in _blocks(samples, len(above)):
        picks = chance.integers(0, len(above), (rows, len(above)))
        found.append(above[picks].sum(1) / below[picks].sum(1))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return Estimate(float(above.sum() / below.sum()), float(low), float(high), n, len(above))


def _blocks(samples: int, width: int) -> list[int]:
    """``samples`` in portions, so that a hundred thousand resamples of ten thousand items need no gigabytes."""
    size = max(1, _BLOCK // width)
    return [min(size, samples - start) for start in range(0, samples, size)]


# What people themselves reach

def respondents(seeds: Iterable[Seed]) -> dict[str, dict[str, int]]:
    """How many people gave each answer to each question: shares times respondents, rounded so that the sum holds.

    Exact for the unweighted answers of one country. Where shares are weighted (by ``survey_weights``, or two countries
    by ``equal``) it is as if as many people had been asked without weights: the ceiling is then slightly too high.
    """
    found = {}
    for seed in seeds:
        if seed.distribution:
            exact = {code: share * seed.respondents for code, share in seed.distribution.items()}
            counts = {code: floor(amount) for code, amount in exact.items()}
            for code in sorted(exact, key=lambda c: counts[c] - exact[c])[: seed.respondents - sum(counts.values())]:
                counts[code] += 1
            found[seed.question_id] = counts
    return found


def split_half(counts: Mapping[str, int], splits: int,
               seed: int | np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Respondents split at random into two halves, ``splits`` times: two arrays (splits, options) of shares.

    ``counts`` says how many people chose each option; of an odd number the second half has one more. Raises UserError
    for fewer than two people.
    """
    people = np.array(list(counts.values()))
    if people.sum() < 2:
        raise UserError(f"a question has {people.sum()} respondents, too few to be split in halves: leave it out of "
                        "questions_path, or add countries")
    half = int(people.sum()) // 2
    first = np.random.default_rng(seed).multivariate_hypergeometric(people, half, splits)
    return first / half, (people - first) / (people.sum() - half)


def ceiling(people: Mapping[str, Mapping[str, int]], metric: Metric, splits: int, samples: int, seed: int) -> Estimate:
    """The human split-half ceiling: how well one half of a culture's respondents tells what the other half answers.

    ``people`` maps each question to its counts (:func:`respondents`). ``accuracy`` is how often the most frequent
    answer (of equals the first) is the same in both halves; ``js_similarity`` and ``emd`` compare their shares. The
    mean is over ``splits`` and questions, the 95% interval over questions. A half has half the people, so that a model
    which knew the population would pass the ceiling a little: what it says is that less than this is room for a model.
    """
    chance = np.random.default_rng(seed)
    measure = {"js_similarity": lambda p, q: 1 - js_distance(p, q), "emd": emd_distance,
               "accuracy": lambda p, q: p.argmax(-1) == q.argmax(-1)}[metric]
    values = [measure(*split_half(counts, splits, chance)).mean() for counts in people.values()]
    return bootstrap(values, list(people), samples, seed)


# Whether adapters differ

def pooled(answers: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean distribution of each question over its wordings, from pairs of a question and a distribution."""
    found: dict[str, list[Mapping[str, float]]] = {}
    for question, distribution in answers:
        found.setdefault(question, []).append(distribution)
    return {question: {code: float(np.mean([row[code] for row in rows])) for code in rows[0]}
            for question, rows in found.items()}


def collapse(answers: Mapping[str, Mapping[str, Mapping[str, float]]],
             people: Mapping[str, Mapping[str, Mapping[str, float]]], samples: int, seed: int) -> Collapse:
    """Whether the adapters of several cultures have collapsed to a common mean.

    ``answers[culture][question]`` is what the adapter of a culture answers (see :func:`pooled`), asked as in training;
    ``people[culture][question]`` what its people did. Questions that some culture lacks are left out.

    ``dispersion``: mean pairwise Jensen-Shannon distance between adapters over that between peoples. 1: the adapters
    differ as much as peoples do; 0: they all say the same; above 1: they exaggerate. ``advantage``: mean closeness
    (1 - distance) of the adapters to their own people minus that to the other peoples. Both with 95% intervals over
    questions. ``p`` is the one-sided p-value of "it does not matter which adapter belongs to which culture": the share
    of all assignments of adapters to cultures (of ``samples`` random ones beyond nine cultures) with an advantage at
    least as large; with k cultures it is never below 1/k!. Raises UserError when there is nothing to compare.
    """
    if len(people) < 2 or set(answers) != set(people):
        raise UserError("adapters are compared where two cultures or more have answers of their adapter and of their "
                        f"people: there are adapters of {', '.join(answers)}, and people of {', '.join(people)}")
    names = list(people)
    shared = [q for q in people[names[0]] if all(q in side[name] for side in (answers, people) for name in names)]
    if not shared:
        raise UserError(f"no question was answered by the adapters and people of all of {', '.join(names)}: give fewer "
                        "cultures")
    pairs = np.triu_indices(len(names), 1)
    adapters, peoples, closeness = [], [], []
    for question in shared:
        codes = list(people[names[0]][question])
        said, meant = (np.array([[side[name][question][code] for code in codes] for name in names])
                       for side in (answers, people))
        adapters.append(js_distance(said[:, None], said)[pairs].mean())
        peoples.append(js_distance(meant[:, None], meant)[pairs].mean())
        closeness.append(1 - js_distance(said[:, None], meant))  # adapters by peoples
    if not np.any(peoples):
        raise UserError(f"the people of {', '.join(names)} answer all alike, so adapters need not differ either: give "
                        "other cultures")
    by_question = [_advantage(square) for square in closeness]
    p, assignments, exact = _assignment_test(np.mean(closeness, axis=0), samples, seed)
    return Collapse(float(np.mean(adapters)), float(np.mean(peoples)),
                    _ratio(np.array(adapters), np.array(peoples), len(shared), samples, seed),
                    bootstrap(by_question, shared, samples, seed), p, assignments, exact)


def _advantage(square: np.ndarray) -> float:
    """Mean of the diagonal minus mean of the rest."""
    k = len(square)
    return float(np.trace(square) / k - (square.sum() - np.trace(square)) / (k * (k - 1)))


def assignments(k: int, samples: int, seed: int) -> tuple[np.ndarray, bool]:
    """Ways to put k cultures in order, one a row, and whether they are all: those of up to nine cultures, in
    lexicographic order; of more a random sample."""
    if factorial(k) <= ALL_ASSIGNMENTS:
        return np.array(list(permutations(range(k)))), True
    return np.random.default_rng(seed).permuted(np.tile(np.arange(k), (samples, 1)), axis=1), False


def p_value(extreme: np.ndarray, exact: bool) -> float:
    """Share of assignments that are ``extreme``; of a sample, the observed one is counted as one more."""
    return float(extreme.mean() if exact else (extreme.sum() + 1) / (len(extreme) + 1))


def _assignment_test(square: np.ndarray, samples: int, seed: int) -> tuple[float, int, bool]:
    """p-value, number of assignments, and whether they are all: the advantage grows with the sum over its pairs."""
    assigned, exact = assignments(len(square), samples, seed)
    extreme = square[np.arange(len(square)), assigned].sum(1) >= np.trace(square) - 1e-12
    return p_value(extreme, exact), len(assigned), exact
