"""How well the adapter of one culture answers for the people of another, and whether that follows how far apart the
peoples themselves are.

05 asks every adapter the held-out templates of every culture, each under that culture's system prompt: on such an item
adapters differ by their weights alone. A row of ``relations.csv``::

    figure                          against              method   r     low   high  p       p_holm  cultures pairs
    transfer loss, 1 - JS distance  distance of peoples  pearson  0.83  0.72  0.89  2.8e-6  8.3e-6  9        36
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from culturellm_utils import alignment, evaluation, mantel, paths, summary
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import COMMON, Transfer
from culturellm_utils.records import Seed, read_rows
from culturellm_utils.summary import OWN, Results

#: The base model under the culture's system prompt: what is there without any adapter.
PERSONA = "persona"
PART = "held_out_wording"
ALL = "all cultures"
METRICS = {"js_similarity": "1 - JS distance", "accuracy": "accuracy"}
PEOPLES = "distance of peoples"
UNTRAINED = "distance of peoples, questions no adapter saw"
ADAPTERS = "distance of adapters"


@dataclass(frozen=True)
class Sums:
    """A figure for rows by columns of cultures, kept by question so that questions can be resampled: ``totals``
    (questions, rows, columns) over the items of each question, and their number ``sizes``; 0 where there are none."""

    totals: np.ndarray
    sizes: np.ndarray

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """Means over items (..., rows, columns), each question counted ``weights`` times (..., questions); NaN where
        no item is left."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.tensordot(weights, self.totals, 1) / np.tensordot(weights, self.sizes, 1)


@dataclass(frozen=True)
class Measured:
    """What :func:`measure` finds. ``scores`` by metric: peoples by adapters, with :data:`PERSONA` as last column.
    ``peoples`` and ``adapters``: distances (Jensen-Shannon, 0 to 1) between two peoples' answers to a question, and
    between two adapters' answers to the same items. ``untrained`` marks questions that no adapter saw."""

    cultures: list[str]
    questions: list[str]
    untrained: np.ndarray
    scores: dict[str, Sums]
    peoples: Sums
    adapters: Sums

    def draws(self, samples: int, seed: int) -> np.ndarray:
        """How often each question is drawn in each of ``samples`` resamples (samples, questions)."""
        count = len(self.questions)
        return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)

    @property
    def once(self) -> np.ndarray:
        """Every question counted once: the figures as measured."""
        return np.ones(len(self.questions))


def load(knobs: Transfer) -> Results:
    """Read the adapters' and the persona prompt's answers to survey questions, and the people's.

    Left out are cultures that were not evaluated, and those where nobody was asked: they have no people to speak for.
    Raises UserError when none is left, or seeds have changed since they were asked.
    """
    seeds, predictions = {}, {}
    for name in knobs.cultures:
        folder = knobs.folder(name)
        if not (folder / "predictions.jsonl").is_file():
            continue
        asked = [row for row in read_rows(folder / "seeds.jsonl", Seed, may_be_empty=True) if row.distribution]
        answered = [row for row in summary.predictions(folder / "predictions.jsonl")
                    if row.system in (OWN, PERSONA) and row.part in evaluation.SURVEY_PARTS]
        if asked:
            seeds[name], predictions[name] = asked, answered
            gone = {row.question_id for row in answered if row.culture == name} - {row.question_id for row in asked}
            if gone:
                raise UserError(f"{paths.shown(folder / 'predictions.jsonl')} has questions that seeds.jsonl lacks, "
                                f"such as {min(gone)}: rerun 05_evaluation")
    if not seeds:
        raise UserError(f"no culture of {paths.shown(knobs.folder(COMMON).parent)} was evaluated and has people that "
                        "were asked: run 05_evaluation")
    return Results(seeds, predictions, {})


def measure(results: Results) -> Measured:
    """Every adapter on every people's held-out templates, and the distances of peoples and of adapters."""
    cultures = list(results.seeds)
    questions = list(dict.fromkeys(s.question_id for rows in results.seeds.values() for s in rows))
    unseen = {p.question_id for rows in results.predictions.values() for p in rows if p.part == "held_out_question"}
    people: dict[str, dict[str, Mapping[str, float]]] = {question: {} for question in questions}
    for name, rows in results.seeds.items():
        for seed in rows:
            people[seed.question_id][name] = seed.distribution
    return Measured(cultures, questions, np.array([question in unseen for question in questions]),
                    {metric: _scores(results, questions, metric) for metric in METRICS},
                    _distances({question: [row] for question, row in people.items()}, questions, cultures),
                    _distances(_answers(results), questions, cultures))


def _scores(results: Results, questions: Sequence[str], metric: str) -> Sums:
    """The items of a people that all adapters were asked."""
    columns = [*results.seeds, PERSONA]
    totals, sizes = np.zeros((2, len(questions), len(results.seeds), len(columns)))
    for row, answers in enumerate(summary.answered(results, PART).values()):
        table, asked = summary.item_values(answers, metric)
        table = table.reindex(columns=columns).dropna()
        for question, items in table.groupby(asked[table.index]):
            totals[questions.index(question), row] = items.sum()
            sizes[questions.index(question), row] = len(items)
    return Sums(totals, sizes)


def _answers(results: Results) -> dict[str, list[dict[str, Mapping[str, float]]]]:
    """By question: for each held-out template that all adapters were asked, what each answers."""
    found: dict[tuple[str, str, str], dict[str, Mapping[str, float]]] = defaultdict(dict)
    for model, rows in results.predictions.items():
        for row in rows:
            if row.part == PART and row.system == OWN and row.culture in results.seeds:
                found[row.question_id, row.culture, row.item_id][model] = row.probabilities
    by_question = defaultdict(list)
    for (question, *_), answers in found.items():
        if len(answers) == len(results.seeds):
            by_question[question].append(answers)
    return by_question


def _distances(answers: Mapping[str, Iterable[Mapping[str, Mapping[str, float]]]], questions: Sequence[str],
               cultures: Sequence[str]) -> Sums:
    """Pairwise distances between the answers of a row (by culture; those missing have no distance), by question."""
    totals, sizes = np.zeros((2, len(questions), len(cultures), len(cultures)))
    for place, question in enumerate(questions):
        for row in answers.get(question, ()):
            there = [n for n, name in enumerate(cultures) if name in row]
            codes = list(row[cultures[there[0]]])
            shares = np.array([[row[cultures[n]][code] for code in codes] for n in there])
            totals[place][np.ix_(there, there)] += alignment.js_distance(shares[:, None], shares)
            sizes[place][np.ix_(there, there)] += 1
    return Sums(totals, sizes)


def matrix(found: Measured) -> pd.DataFrame:
    """A row for each people and each adapter, the persona prompt among them: score by metric, and number of items."""
    means = {metric: scores.mean(found.once) for metric, scores in found.scores.items()}
    items = found.scores["accuracy"].sizes.sum(0)
    return pd.DataFrame([{"people": people, "adapter": name, **{metric: mean[n, m] for metric, mean in means.items()},
                          "n": int(items[n, m])} for n, people in enumerate(found.cultures)
                         for m, name in enumerate([*found.cultures, PERSONA])])


def pairs(found: Measured) -> pd.DataFrame:
    """A row for each pair of cultures: how far apart peoples and adapters are, and by metric the :func:`loss`."""
    figures = {"peoples": found.peoples.mean(found.once), "adapters": found.adapters.mean(found.once)}
    figures |= {f"loss_{metric}": loss(scores.mean(found.once)[:, :-1]) for metric, scores in found.scores.items()}
    return pd.DataFrame([{"first": found.cultures[n], "second": found.cultures[m],
                          **{name: square[n, m] for name, square in figures.items()}}
                         for n, m in combinations(range(len(found.cultures)), 2)],
                        columns=["first", "second", *figures])


def questions_apart(found: Measured) -> pd.DataFrame:
    """A row for each question that adapters were asked: the mean distance between two peoples, and two adapters."""
    rows, columns = np.triu_indices(len(found.cultures), 1)
    table = pd.DataFrame({"question_id": found.questions})
    for name, sums in {"peoples": found.peoples, "adapters": found.adapters}.items():
        asked = sums.sizes[:, rows, columns].sum(1)
        table[name] = sums.totals[:, rows, columns].sum(1) / np.where(asked, asked, np.nan)
    return table.dropna().sort_values("peoples", ascending=False)


def loss(scores: np.ndarray) -> np.ndarray:
    """What two peoples lose on average when each is answered for by the other's adapter: of scores (..., k, k), peoples
    by adapters, ``(own + own - exchanged - exchanged) / 2`` for each pair.

    Symmetric, 0 on the diagonal, below 0 where the exchange helps. Peoples that all adapters answer well for, and
    adapters good for all peoples, cancel out. Did peoples answer in place of adapters, it would be their distance.
    """
    own = np.diagonal(scores, axis1=-2, axis2=-1)
    exchanged = scores + np.swapaxes(scores, -1, -2)
    return (own[..., :, None] + own[..., None, :] - exchanged) / 2


def relations(found: Measured, samples: int, seed: int) -> pd.DataFrame:
    """Mantel tests of the transfer losses and of the distances of adapters against the distances of peoples: over all
    questions, and as a control over those that no adapter saw, where nothing is scored against the answers compared.

    95% intervals resample questions, cultures being fixed. Holm's correction is over the three figures; below
    ``mantel.FEWEST`` cultures nothing is tested.
    """
    k = len(found.cultures)
    draws = found.draws(samples, seed)
    figures = {f"transfer loss, {METRICS[metric]}": lambda w, s=sums: loss(s.mean(w)[..., :k])
               for metric, sums in found.scores.items()} | {ADAPTERS: found.adapters.mean}
    others = {PEOPLES: found.peoples.mean}
    if found.untrained.any():
        others[UNTRAINED] = lambda w: found.peoples.mean(w * found.untrained)
    rows = []
    for method in mantel.METHODS if k > 2 else ():
        for figure, of in figures.items():
            for against, apart in others.items():
                test = mantel.test(of(found.once), apart(found.once), method, alignment.PERMUTATIONS, seed)
                low, high = interval(mantel.correlations(of(draws), apart(draws), method))
                p = test.p if k >= mantel.FEWEST else np.nan
                rows.append({"figure": figure, "against": against, "method": method, "r": test.r, "low": low,
                             "high": high, "p": p, "p_holm": np.nan, "cultures": k, "pairs": k * (k - 1) // 2,
                             "questions": int(found.untrained.sum()) if against == UNTRAINED else len(found.questions),
                             "permutations": test.permutations, "exact": test.exact})
    table = pd.DataFrame(rows, columns=["figure", "against", "method", "r", "low", "high", "p", "p_holm", "cultures",
                                        "pairs", "questions", "permutations", "exact"])
    for _, family in table[table["p"].notna()].groupby(["method", "against"]):
        table.loc[family.index, "p_holm"] = alignment.holm(family["p"])
    return table


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95% of resampled values, without those that could not be computed."""
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def nearest(found: Measured) -> list[int]:
    """For each culture the place of the one whose people answer most alike."""
    apart = np.nan_to_num(found.peoples.mean(found.once), nan=np.inf)
    np.fill_diagonal(apart, np.inf)
    return [int(place) for place in apart.argmin(1)]


def comparisons(found: Measured) -> dict[str, np.ndarray]:
    """What is compared in each people's row of scores: weights (peoples, columns) that add up to 0 a row."""
    k = len(found.cultures)
    own, persona = np.eye(k, k + 1), np.eye(1, k + 1, k)
    made = {"own adapter - persona prompt": own - persona}
    if k > 1:
        near = np.eye(k, k + 1)[nearest(found)]
        foreign = np.ones((k, k + 1)) - own - persona
        made |= {"own adapter - mean of the others": own - foreign / (k - 1),
                 "nearest people's adapter - persona prompt": near - persona}
        if k > 2:
            made["nearest people's adapter - mean of the others but own"] = near - (foreign - near) / (k - 2)
    return made


def gains(found: Measured, samples: int, seed: int) -> pd.DataFrame:
    """Each of :func:`comparisons` for each people and on average, by metric, with a 95% interval that resamples
    questions; ``n`` items of ``clusters`` questions."""
    draws = found.draws(samples, seed)
    rows = []
    for metric, scores in found.scores.items():
        measured, resampled = scores.mean(found.once), scores.mean(draws)
        items = scores.sizes[..., 0]
        for comparison, weights in comparisons(found).items():
            value, moved = (measured * weights).sum(-1), (resampled * weights).sum(-1)
            key = {"metric": metric, "comparison": comparison}
            for place, people in enumerate(found.cultures):
                low, high = interval(moved[:, place])
                rows.append(key | {"people": people, "value": value[place], "low": low, "high": high,
                                   "n": int(items[:, place].sum()), "clusters": int((items[:, place] > 0).sum())})
            low, high = interval(np.nanmean(moved, axis=1))
            rows.append(key | {"people": ALL, "value": np.nanmean(value), "low": low, "high": high,
                               "n": int(items.sum()), "clusters": int((items > 0).any(1).sum())})
    return pd.DataFrame(rows)


def stand_ins(found: Measured, metric: str, samples: int, seed: int) -> pd.DataFrame:
    """For each people: the nearest other people, how their adapter ranks among the adapters of other cultures (1: best;
    by chance half their number and a half), and which of these is best.

    ``best_again`` is the share of resamples of questions in which it is: low where the best is only just the best, so
    that its score, the largest of several, flatters. Empty for a single culture.
    """
    k = len(found.cultures)
    scores = found.scores[metric]
    measured, resampled = scores.mean(found.once), scores.mean(found.draws(samples, seed))
    apart = found.peoples.mean(found.once)
    rows = []
    for place, near in enumerate(nearest(found) if k > 1 else ()):
        foreign = [n for n in range(k) if n != place]
        level = measured[place]
        best = max(foreign, key=lambda n: level[n])
        again = resampled[:, place, [best]] >= resampled[:, place, foreign]
        rows.append({"people": found.cultures[place], "nearest": found.cultures[near], "distance": apart[place, near],
                     "nearest_rank": 1 + sum(level[n] > level[near] for n in foreign), "others": k - 1,
                     "best": found.cultures[best], "best_again": float(again.all(1).mean()), "own": level[place],
                     "nearest_score": level[near], "best_score": level[best], PERSONA: level[k]})
    return pd.DataFrame(rows)
