"""Across cultures: every system side by side, who speaks for whom, and what can be claimed.

Reads what 01 and 05 wrote, and no model. A row of the comparison::

    culture  part              metric    system         value   low    high    n  clusters  p
    korean   held_out_wording  accuracy  wrong culture  0.458  0.36   0.56   702        40  0.002

``p`` tests the system against the culture's own adapter, paired by item, clusters permuted, Holm-corrected.
"""

from collections import defaultdict
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from culturellm_utils import alignment, evaluation
from culturellm_utils.parameters import ONE, Summary
from culturellm_utils.records import Prediction, Seed, read_json, read_rows

WRONG = "wrong culture"
OWN = "adapter"
SYSTEMS = ("uniform", "majority", "base", "persona", WRONG, ONE, OWN)
METRICS = ("accuracy", "js_similarity", "emd")


@dataclass(frozen=True)
class Results:
    """What the study's cultures and models wrote: seeds by culture, predictions by model, scores by model."""

    seeds: dict[str, list[Seed]]
    predictions: dict[str, list[Prediction]]
    scores: dict[str, list[dict]]


def load(knobs: Summary) -> Results:
    """Read the files of every culture and of One."""
    models = [*knobs.cultures, ONE]
    return Results(
        {name: read_rows(knobs.folder(name) / "seeds.jsonl", Seed) for name in knobs.cultures},
        {name: read_rows(knobs.folder(name) / "predictions.jsonl", Prediction) for name in models},
        {name: read_json(knobs.folder(name) / "scores.json")["figures"] for name in models},
    )


def item_values(results: Results, culture: str, part: str, metric: str) -> tuple[pd.DataFrame, pd.Series]:
    """One row per item of a culture and one column per answerer: ``base``, ``persona``, and the adapter of each
    model under its name; and the question of each item (its cluster). Only items that a column answered."""
    columns: dict[str, dict[str, float]] = {}
    questions: dict[str, str] = {}
    for model, predictions in results.predictions.items():
        rows = [p for p in predictions if p.culture == culture and p.part == part
                and (p.system == OWN or model == culture)]
        by_system = defaultdict(list)
        for row in rows:
            by_system[model if row.system == OWN else row.system].append(row)
            questions[row.item_id] = row.question_id
        for name, group in by_system.items():
            found = evaluation.values(group, metric)
            columns[name] = dict(zip((row.item_id for row in group), found, strict=True))
    table = pd.DataFrame(columns)
    return table, pd.Series(questions).reindex(table.index)


def compare(results: Results, samples: int, seed: int) -> pd.DataFrame:
    """Every system on every culture's held-out wordings and questions, with 95% interval and corrected p-value.

    ``wrong culture`` is the mean over the adapters of all other cultures (on the held-out templates alone, which every
    adapter was asked); the bounds come from the scores of 05. Correction is within each part and metric.
    """
    rows = []
    for culture in results.seeds:
        for part in evaluation.SURVEY_PARTS:
            for metric in METRICS:
                rows += _compare_one(results, culture, part, metric, samples, seed)
    table = pd.DataFrame(rows)
    for _, family in table[table["p"].notna()].groupby(["part", "metric"]):
        table.loc[family.index, "p"] = alignment.holm(family["p"])
    return table


def _compare_one(results: Results, culture: str, part: str, metric: str, samples: int, seed: int) -> list[dict]:
    table, clusters = item_values(results, culture, part, metric)
    if table.empty:
        return []
    others = [name for name in results.seeds if name != culture and name in table]
    if others:
        table[WRONG] = table[others].mean(axis=1)
    table = table.rename(columns={culture: OWN})
    key = {"culture": culture, "part": part, "metric": metric}
    rows = [key | {name: row[name] for name in ("system", "value", "low", "high", "n", "clusters")} | {"p": np.nan}
            for row in results.scores[culture]
            if row["system"] in ("uniform", "majority") and all(row[name] == value for name, value in key.items())]
    for system in SYSTEMS:
        if system in table:
            pairs = table[[system, OWN]].loc[:, lambda t: ~t.columns.duplicated()].dropna()
            estimate = alignment.bootstrap(pairs[system], clusters[pairs.index], samples, seed)
            p = np.nan
            if system != OWN:
                p = alignment.paired_test(pairs[OWN], pairs[system], clusters[pairs.index], samples, seed)
            rows.append(key | {"system": system, **asdict(estimate), "p": p})
    return rows


def matrix(results: Results, metric: str = "accuracy") -> pd.DataFrame:
    """Held-out templates: rows are the people asked about, columns the adapter that answers, One last."""
    found = {}
    for culture in results.seeds:
        table, _ = item_values(results, culture, "held_out_wording", metric)
        found[culture] = table.dropna().mean()
    return pd.DataFrame(found).T.reindex(columns=[*results.seeds, ONE])


def c_dist(square: pd.DataFrame) -> float:
    """C-Dist (arXiv 2505.16408): the mean over cultures of own-culture score over the best score that the same
    adapter has on any culture; 1 when each adapter is best at home. ``square``: people by adapter."""
    own = [square.loc[name, name] / square[name].max() for name in square.index]
    return float(np.mean(own))


def verdicts(comparison: pd.DataFrame) -> pd.DataFrame:
    """Held-out wordings, accuracy: for each culture whether its adapter beats base, persona and wrong culture, and
    whether its interval lies wholly above the base's (``clear``)."""
    view = comparison[(comparison["part"] == "held_out_wording") & (comparison["metric"] == "accuracy")]
    rows = []
    for culture, group in view.groupby("culture", sort=False):
        by = group.set_index("system")
        own, base = by.loc[OWN], by.loc["base"]
        rivals = [name for name in ("base", "persona", WRONG) if name in by.index]
        rows.append({"culture": culture, "base": base["value"], "adapter": own["value"],
                     "beats": all(own["value"] > by.loc[name, "value"] for name in rivals),
                     "clear": own["low"] > base["high"], "p_base": by.loc["base", "p"]})
    return pd.DataFrame(rows)


def forgetting(results: Results) -> pd.DataFrame:
    """General ability before (``base``) and after (``adapter``) fine-tuning, by model, with intervals."""
    rows = [row | {"model": model} for model, scores in results.scores.items() for row in scores
            if row["part"] == "ability" and row["system"] in ("base", OWN)]
    columns = ["model", "system", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=[*columns, "culture"])[columns]


def task_scores(results: Results) -> pd.DataFrame:
    """Macro-F1 on the small classification sets, by culture: base, persona, adapter, One."""
    rows = []
    for model, scores in results.scores.items():
        for row in scores:
            if row["metric"] == "macro_f1" and (model == row["culture"] or row["system"] == OWN):
                rows.append(row | {"system": ONE if model == ONE else row["system"]})
    columns = ["culture", "system", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def own_minus(comparison: pd.DataFrame, results: Results, rival: str, samples: int, seed: int) -> pd.DataFrame:
    """Own adapter minus ``rival`` (base, persona or one) on held-out wordings: accuracy difference with interval."""
    rows = []
    for culture in comparison["culture"].unique():
        table, clusters = item_values(results, culture, "held_out_wording", "accuracy")
        if rival in table:
            estimate = alignment.bootstrap(table[culture] - table[rival], clusters, samples, seed)
            rows.append({"culture": culture, **asdict(estimate)})
    return pd.DataFrame(rows)
