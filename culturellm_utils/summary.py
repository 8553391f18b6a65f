"""Across cultures: every system side by side, who speaks for whom, and what can be claimed about survey answers.

Reads what 01 and 05 wrote, and no model. What fine-tuning did besides is side_effects.py's. A row of the comparison::

    culture  part              metric    system         value   low    high    n  clusters  p
    korean   held_out_wording  accuracy  wrong culture  0.458  0.36   0.56   702        40  0.002

``p`` tests the system against the culture's own adapter, paired by item, clusters permuted, Holm-corrected.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from culturellm_utils import alignment, evaluation, paths
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import ONE, Summary
from culturellm_utils.records import Prediction, Seed, read_json, read_rows, rows_of
from culturellm_utils.systems import ABLATIONS, PROMPTED

WRONG = "wrong culture"
OWN = "adapter"
#: What needs no model; their figures come from 05.
BOUNDS = ("uniform", "majority", "split_half")
#: Everything that a culture's own adapter is held against, and that adapter.
RIVALS = (*PROMPTED, *ABLATIONS.values(), WRONG, ONE, OWN)
PARTS = (*evaluation.SURVEY_PARTS, "held_out_country")
METRICS = ("accuracy", "js_similarity", "emd")
Answered = dict[str, list[Prediction]]  # by answerer
_FIELDS = set(Prediction.model_fields)  # one for all rows: each would have its own


@dataclass(frozen=True)
class Results:
    """What the cultures and models wrote: seeds by culture (of those that were asked), predictions by model, and
    what ``scores.json`` of each model holds (``figures``, ``stability``, ``tasks``, ``released``, ``win_rates``)."""

    seeds: dict[str, list[Seed]]
    predictions: dict[str, list[Prediction]]
    scores: dict[str, dict[str, list[dict]]]

    def table(self, name: str) -> pd.DataFrame:
        """One of the lists of ``scores.json``, of all models, each row with its ``model``."""
        return pd.DataFrame([row | {"model": model} for model, found in self.scores.items() for row in found[name]])


def load(knobs: Summary) -> Results:
    """Read the files of every culture, and of One, that was evaluated. Where nobody of a culture was asked, only its
    model is there. Raises UserError when nothing was evaluated, or nobody was asked at all."""
    models = [name for name in (*knobs.cultures, ONE) if (knobs.folder(name) / "scores.json").is_file()]
    if not set(models) - {ONE}:
        raise UserError(f"no culture of {paths.shown(knobs.folder(ONE).parent)} has a scores.json: run 05_evaluation")
    seeds = {name: read_rows(knobs.folder(name) / "seeds.jsonl", Seed, may_be_empty=True)
             for name in models if name != ONE}
    asked = {name: rows for name, rows in seeds.items() if any(row.distribution for row in rows)}
    if not asked:
        raise UserError(f"nobody of {', '.join(seeds)} was asked anything, so there are no answers to hold a model "
                        "against: run the study with a culture that has survey answers as well")
    return Results(
        asked,
        {name: list(predictions(knobs.folder(name) / "predictions.jsonl")) for name in models},
        {name: read_json(knobs.folder(name) / "scores.json") for name in models},
    )


def predictions(path: Path) -> Iterator[Prediction]:
    """The rows of a ``predictions.jsonl`` without their prompts, which are not needed here: with many cultures there
    are millions of rows, each adapter being asked about every people. Raises what ``read_rows`` raises."""
    people: dict[tuple, dict[str, float]] = {}  # what people answered is held once
    for row in rows_of(path, Prediction):
        said = people.setdefault(tuple(row.gold_distribution.items()), row.gold_distribution)
        yield Prediction.model_construct(_FIELDS, **vars(row) | {"messages": [], "gold_distribution": said})


def answered(results: Results, part: str) -> dict[str, Answered]:
    """The predictions of a part by the culture that is asked about and by answerer: ``base`` and the other systems of
    the culture's own model, and the adapter of each model under its name."""
    found: dict[str, Answered] = {culture: defaultdict(list) for culture in results.seeds}
    for model, rows in results.predictions.items():
        for row in rows:
            if row.part == part and row.culture in found and (row.system == OWN or model == row.culture):
                found[row.culture][model if row.system == OWN else row.system].append(row)
    return found


def item_values(answers: Answered, metric: str) -> tuple[pd.DataFrame, pd.Series]:
    """One row per item and one column per answerer, NaN where it was not asked; and the question of each item (its
    cluster)."""
    columns = {name: dict(zip((row.item_id for row in rows), evaluation.values(rows, metric), strict=True))
               for name, rows in answers.items()}
    questions = {row.item_id: row.question_id for rows in answers.values() for row in rows}
    table = pd.DataFrame(columns)
    return table, pd.Series(questions).reindex(table.index)


def compare(results: Results, samples: int, seed: int) -> pd.DataFrame:
    """Every system on every culture's held-out wordings, questions and country, with 95% interval and corrected p.

    ``wrong culture`` is the mean over the adapters of all other cultures (on the held-out templates alone, which every
    adapter was asked); the bounds come from the scores of 05. Correction is within each part and metric.
    """
    asked = {part: answered(results, part) for part in PARTS}
    rows = []
    for culture in results.seeds:
        for part in PARTS:
            for metric in METRICS:
                rows += _compare_one(results, asked[part][culture], culture, part, metric, samples, seed)
    table = pd.DataFrame(rows)
    for _, family in table[table["p"].notna()].groupby(["part", "metric"]):
        table.loc[family.index, "p"] = alignment.holm(family["p"])
    return table


def _compare_one(results: Results, answers: Answered, culture: str, part: str, metric: str, samples: int,
                 seed: int) -> list[dict]:
    table, clusters = item_values(answers, metric)
    if table.empty:
        return []
    others = [name for name in results.seeds if name != culture and name in table]
    if others:
        table[WRONG] = table[others].mean(axis=1)
    table = table.rename(columns={culture: OWN})
    key = {"culture": culture, "part": part, "metric": metric}
    rows = [key | {name: row[name] for name in ("system", "value", "low", "high", "n", "clusters")} | {"p": np.nan}
            for row in results.scores[culture]["figures"]
            if row["system"] in BOUNDS and all(row[name] == value for name, value in key.items())]
    for system in RIVALS:
        if system in table:
            pairs = table[[system, OWN]].loc[:, lambda t: ~t.columns.duplicated()].dropna()
            estimate = alignment.bootstrap(pairs[system], clusters[pairs.index], samples, seed)
            p = np.nan
            if system != OWN:
                p = alignment.paired_test(pairs[OWN], pairs[system], clusters[pairs.index],
                                         alignment.PERMUTATIONS, seed)
            rows.append(key | {"system": system, **asdict(estimate), "p": p})
    return rows


def matrix(results: Results, metric: str = "accuracy") -> pd.DataFrame:
    """Held-out templates: rows are the people asked about, columns the adapter that answers, One last."""
    found = {culture: item_values(answers, metric)[0].dropna().mean()
             for culture, answers in answered(results, "held_out_wording").items()}
    return pd.DataFrame(found).T.reindex(columns=list(results.scores))


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


def shared_questions(results: Results) -> set[str]:
    """The questions of the held-out wordings that all cultures were asked; :func:`collapse` needs at least one."""
    return set.intersection(*({p.question_id for p in results.predictions[name]
                               if (p.culture, p.part) == (name, "held_out_wording")} for name in results.seeds))


def collapse(results: Results, system: str, samples: int, seed: int) -> alignment.Collapse:
    """Whether the answers of ``system`` (each culture's own adapter, or the persona prompt as a control) have collapsed
    to a common mean, on held-out wordings of the questions that all cultures share."""
    answers = {name: alignment.pooled((p.question_id, p.probabilities) for p in results.predictions[name]
                                      if (p.culture, p.part, p.system) == (name, "held_out_wording", system))
               for name in results.seeds}
    people = {name: {seed.question_id: seed.distribution for seed in rows if seed.distribution}
              for name, rows in results.seeds.items()}
    return alignment.collapse(answers, people, samples, seed)


def own_minus(results: Results, rival: str, samples: int, seed: int) -> pd.DataFrame:
    """Own adapter minus ``rival`` (a column of :func:`item_values`) on held-out wordings: accuracy difference with
    interval."""
    rows = []
    for culture, answers in answered(results, "held_out_wording").items():
        table, clusters = item_values(answers, "accuracy")
        if rival in table:
            both = table[[culture, rival]].dropna()
            estimate = alignment.difference(both[culture], both[rival], clusters[both.index], samples, seed)
            rows.append({"culture": culture, **asdict(estimate)})
    return pd.DataFrame(rows, columns=["culture", "value", "low", "high", "n", "clusters"])
