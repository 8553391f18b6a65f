"""How the arms of a study differ: means with intervals, paired differences from the first arm, tests, and sentences.

A row of :func:`compare`, where ``difference`` is from the first arm and ``p`` is Holm-corrected over the arms::

    arm     measure   system   value  low   high  n    clusters  difference  difference_low  difference_high  p
    size_0  accuracy  adapter  0.55   0.49  0.61  780  40        -0.07       -0.11           -0.03            0.004

A mean is over cultures, each counting alike, of the mean over items; an item's value is its mean over seeds. Intervals
resample questions (for abilities and sets: items), the same in all cultures, since cultures are asked the same ones. So
an interval says how far other questions might move a figure, not other cultures; what seeds move is shown beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from culturellm_utils import alignment, classification
from culturellm_utils.alignment import Estimate
from culturellm_utils.parameters import ONE
from culturellm_utils.summary import OWN, WRONG
from culturellm_utils.variants import ARITHMETIC, HARNESS, PROMPTED, QUESTIONS, SETS, WORDINGS, Compared


@dataclass(frozen=True)
class Measure:
    """What is measured: the part asked, the metric, what a figure calls it in short and on its axis, and whether more
    is better. A ``share`` is written as a percentage."""

    part: str
    metric: str
    title: str
    words: str
    share: bool = True
    more_is_better: bool = True

    def shown(self, value: float) -> str:
        """A value as a reader wants it."""
        return f"{value:.0%}" if self.share else f"{value:.2f}"

    def difference(self, value: float, low: float, high: float) -> str:
        """A difference with its interval: percentage points where values are percentages."""
        if self.share:
            return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


MEASURES = {
    "accuracy": Measure(WORDINGS, "accuracy", "Held-out wordings", "held-out wordings answered as most people did"),
    "js_similarity": Measure(WORDINGS, "js_similarity", "Whole distribution",
                             "closeness to all of people's answers (1 - JS distance)", share=False),
    "emd": Measure(WORDINGS, "emd", "Distance on the scale", "earth mover's distance to people's answers (0 is best)",
                   share=False, more_is_better=False),
    "held_out_questions": Measure(QUESTIONS, "accuracy", "Held-out questions",
                                  "held-out questions answered as most people did"),
    "macro_f1": Measure(SETS, "macro_f1", "Classification", "macro-F1, mean over classification sets", share=False),
    "arithmetic": Measure(ARITHMETIC, "accuracy", "Arithmetic", "sums and differences right"),
    "harness": Measure(HARNESS, "accuracy", "General abilities", "BBH and GSM8K right"),
}


def compare(found: Compared, samples: int, seed: int) -> pd.DataFrame:
    """Every system that all arms have, in every arm, on every measure; the adapters' differences from the first arm
    are tested. Raises nothing where a measure was not taken: it has no rows."""
    rows = []
    for name, measure in MEASURES.items():
        for system in (*PROMPTED, WRONG, ONE, OWN):
            if measure.part == SETS:
                rows += _compare_sets(found, system, samples, seed)
            else:
                rows += _compare_items(found, name, system, samples, seed)
    table = pd.DataFrame(rows)
    for _, family in table[table["p"].notna()].groupby("measure"):
        table.loc[family.index, "p"] = alignment.holm(family["p"])
    return table


def wide(found: Compared, part: str, metric: str, system: str) -> pd.DataFrame:
    """One row an item (index culture, cluster, key), one column an arm, means over seeds."""
    rows = found.answers[(found.answers["part"] == part) & (found.answers["system"] == system)]
    table = rows.pivot_table(index=["culture", "cluster", "key"], columns="arm", values=metric, aggfunc="mean")
    return table.reindex(columns=list(found.variants)).dropna()


def draws(values: pd.Series, samples: int, seed: int) -> pd.DataFrame:
    """Mean of ``values`` (index culture and cluster) in each culture, a column each: first as they are, then in each of
    ``samples`` resamples of clusters. Missing where a resample has nothing of a culture."""
    grouped = values.groupby(level=["cluster", "culture"], sort=False).agg(["sum", "size"]).unstack("culture")
    sums, sizes = (grouped[name].fillna(0) for name in ("sum", "size"))
    number = len(sums)
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), samples)
    drawn = np.concatenate([np.ones((1, number), dtype=int), drawn])
    above, below = drawn @ sums.to_numpy(), drawn @ sizes.to_numpy()
    return pd.DataFrame(np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0),
                        columns=sums.columns)


def mean(values: pd.Series, samples: int, seed: int) -> Estimate:
    """Mean over cultures of ``values`` (see :func:`draws`) with its 95% interval."""
    return _estimate(draws(values, samples, seed).mean(axis=1).to_numpy(), values)


def _estimate(drawn: np.ndarray, values: pd.Series) -> Estimate:
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return Estimate(float(drawn[0]), float(low), float(high), len(values), values.index.unique("cluster").size)


def _p_value(values: pd.Series, seed: int) -> float:
    """Paired test of "the mean over cultures of these differences is 0"."""
    each = values.groupby(level="culture").transform("size")  # a culture counts alike, however many its items
    clusters = values.index.get_level_values("cluster").tolist()
    return alignment.paired_test(values / each, np.zeros(len(values)), clusters, alignment.PERMUTATIONS, seed)


def _compare_items(found: Compared, name: str, system: str, samples: int, seed: int) -> list[dict]:
    table = wide(found, MEASURES[name].part, MEASURES[name].metric, system)
    rows = []
    for arm in found.variants if len(table) else ():
        row = {"arm": arm, "measure": name, "system": system, **asdict(mean(table[arm], samples, seed)),
               "difference": np.nan, "difference_low": np.nan, "difference_high": np.nan, "p": np.nan}
        if arm != found.leading:
            apart = table[arm] - table[found.leading]
            by = mean(apart, samples, seed)
            row |= {"difference": by.value, "difference_low": by.low, "difference_high": by.high}
            if system == OWN:
                row["p"] = _p_value(apart, seed)
        rows.append(row)
    return rows


def chosen_sets(found: Compared) -> list[tuple[str, str]]:
    """The classification sets that are averaged over: those that can carry a claim, or, where none can, all."""
    every = sorted(set(zip(found.labels["culture"], found.labels["task"], strict=True)))
    return [name for name in every if name in found.sound] or every


def _compare_sets(found: Compared, system: str, samples: int, seed: int) -> list[dict]:
    answers = _by_set(found, system)
    if not answers:
        return []
    arms, drawn, swaps, asked = list(found.variants), [], [], 0
    for number, (name, (gold, said)) in enumerate(answers.items()):
        asked += len(gold)
        every = classification.together(gold, [row for arm in arms for row in said[arm]], found.words[name], samples,
                                        [seed, number])
        drawn.append(every.reshape(len(arms), -1, 1 + samples).mean(1))
        swaps.append([classification.swapped(gold, said[arm], said[found.leading], found.words[name],
                                             alignment.PERMUTATIONS, [seed, number])
                      if system == OWN else None for arm in arms[1:]])
    level = np.mean(drawn, axis=0)
    rows = []
    for place, arm in enumerate(arms):
        low, high = np.quantile(level[place, 1:], [0.025, 0.975])
        row = {"arm": arm, "measure": "macro_f1", "system": system, "value": level[place, 0], "low": low, "high": high,
               "n": asked, "clusters": len(answers), "difference": np.nan, "difference_low": np.nan,
               "difference_high": np.nan, "p": np.nan}
        if place:
            apart = level[place] - level[0]
            low, high = np.quantile(apart[1:], [0.025, 0.975])
            row |= {"difference": apart[0], "difference_low": low, "difference_high": high}
            if system == OWN:
                moved = np.abs(np.mean([each[place - 1] for each in swaps], axis=0))
                row["p"] = float(((moved[1:] >= moved[0] - 1e-9).sum() + 1) / len(moved))
        rows.append(row)
    return rows


def _by_set(found: Compared, system: str) -> dict[tuple[str, str], tuple[list[str], dict[str, list[list[str | None]]]]]:
    """For each averaged set the gold of its items, and by arm the answers to them, a list a seed."""
    rows = found.labels[found.labels["system"] == system]
    made = {}
    for culture, task in chosen_sets(found):
        mine = rows[(rows["culture"] == culture) & (rows["task"] == task)]
        if mine.empty:
            continue
        gold = mine.drop_duplicates("key").set_index("key")["gold"]
        said = {}
        for arm in found.variants:
            by_seed = mine[mine["arm"] == arm].groupby("seed", sort=False)
            said[arm] = [group.set_index("key")["label"].astype(object).where(lambda s: s.notna(), None)
                         .reindex(gold.index, fill_value=classification.NOT_ASKED).tolist() for _, group in by_seed]
        made[culture, task] = gold.tolist(), said
    return made


def values(found: Compared) -> pd.DataFrame:
    """Every figure of every run, tidy: arm, variant, seed, culture, system, measure, part, metric, value, n."""
    run = ["arm", "variant", "seed", "culture", "system"]
    tables = []
    for name, measure in MEASURES.items():
        if measure.part != SETS:
            rows = found.answers[found.answers["part"] == measure.part]
            table = rows.groupby(run, sort=False)[measure.metric].agg(value="mean", n="size").reset_index()
        else:
            chosen = set(chosen_sets(found))
            rows = pd.DataFrame([
                {**dict(zip(run, key, strict=True)), "value": _macro_f1(group, found.words[key[3], task]),
                 "n": len(group)}
                for (*key, task), group in found.labels.groupby([*run, "task"], sort=False) if (key[3], task) in chosen
            ], columns=[*run, "value", "n"])
            table = rows.groupby(run, sort=False).agg(value=("value", "mean"), n=("n", "sum")).reset_index()
        tables.append(table.assign(measure=name, part=measure.part, metric=measure.metric))
    return pd.concat(tables, ignore_index=True)


def _macro_f1(rows: pd.DataFrame, labels: Sequence[str]) -> float:
    said = rows["label"].astype(object).where(rows["label"].notna(), None)
    return float(classification.together(rows["gold"].tolist(), [said.tolist()], labels, 0, 0)[0, 0])


def against(found: Compared, rival: str, groups: Mapping[str, Sequence[str]], name: str, samples: int,
            seed: int) -> pd.DataFrame:
    """In each arm: own adapter minus ``rival`` (``one``, or ``wrong culture``) on held-out wordings that both were
    asked, by group of cultures; and, of two groups, the first's difference minus the second's. Columns arm, group,
    value, low, high, n, clusters and p, Holm-corrected over the table (missing for the difference of differences).
    Empty where the rival was not asked."""
    measure = MEASURES[name]
    own, other = (wide(found, measure.part, measure.metric, system) for system in (OWN, rival))
    rows = []
    for arm in found.variants:
        apart = (own[arm] - other[arm]).dropna()
        by_group = {}
        for group, members in groups.items():
            mine = apart[apart.index.get_level_values("culture").isin(members)]
            if len(mine):
                by_group[group] = mine.index.unique("culture")
                estimate = asdict(mean(mine, samples, seed))
                rows.append({"arm": arm, "group": group, **estimate, "p": _p_value(mine, seed)})
        if len(by_group) == 2:
            every = draws(apart, samples, seed)
            first, second = (every[list(members)].mean(axis=1) for members in by_group.values())
            rows.append({"arm": arm, "group": " minus ".join(by_group), "p": np.nan,
                         **asdict(_estimate((first - second).to_numpy(), apart))})
    table = pd.DataFrame(rows, columns=["arm", "group", "value", "low", "high", "n", "clusters", "p"])
    tested = table["p"].notna()
    table.loc[tested, "p"] = alignment.holm(table.loc[tested, "p"].tolist())
    return table
