"""What fine-tuning on survey answers did besides: to classification sets, and to general abilities.

A row of :func:`sets`, where ``p`` tests the system against the culture's own adapter, Holm-corrected over the table::

    culture  task             system   value   low    high    n    carries_claim  p
    german   rudeness_detect  persona  0.657   0.36   0.91   12    True           1.0
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from culturellm_utils import alignment, classification
from culturellm_utils.parameters import ONE
from culturellm_utils.records import Prediction
from culturellm_utils.summary import OWN, WRONG, Results

SET_COLUMNS = ("culture", "task", "system", "value", "low", "high", "n", "carries_claim", "p")
ABILITY_COLUMNS = ("model", "ability", "before", "after", "difference", "low", "high", "n", "p", "verdict")


def sets(results: Results, samples: int, seed: int) -> pd.DataFrame:
    """Macro-F1 of every system on every classification set: those of 05, One, and the adapter of the wrong culture that
    was asked (one a culture). Tests are paired by item and permute the two systems' answers."""
    unsound = {(row["culture"], row["task"]) for found in results.scores.values() for row in found["tasks"]
               if not row["carries a claim"]}
    rows = []
    for (culture, task), answered in _by_set(results).items():
        own = answered.get(OWN, [])
        for system, found in answered.items():
            labels = list(found[0].probabilities)
            gold = [p.gold for p in found]
            estimate = classification.macro_f1(gold, [p.label for p in found], labels, samples, seed)
            p_value = np.nan
            if system != OWN and [p.item_id for p in own] == [p.item_id for p in found]:
                p_value = classification.paired_test(gold, [p.label for p in own], [p.label for p in found], labels,
                                                     alignment.PERMUTATIONS, seed)
            rows.append({"culture": culture, "task": task, "system": system, **asdict(estimate),
                         "carries_claim": (culture, task) not in unsound, "p": p_value})
    return _corrected(pd.DataFrame(rows, columns=list(SET_COLUMNS)))


def _by_set(results: Results) -> dict[tuple[str, str], dict[str, list[Prediction]]]:
    """The answers to each set by system, in the order of the items."""
    found: dict[tuple[str, str], dict[str, list[Prediction]]] = defaultdict(lambda: defaultdict(list))
    for model, predictions in results.predictions.items():
        for row in predictions:
            known = row.culture in results.predictions
            if row.part == "task" and known and (row.system == OWN or model == row.culture):
                mine = row.system if model == row.culture else ONE if model == ONE else WRONG
                found[row.culture, row.question_id][mine].append(row)
    return found


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean macro-F1 by system over the sets that can carry a claim (``sound``) and over all, with how many sets."""
    rows = []
    for system, group in table.groupby("system", sort=False):
        sound = group[group["carries_claim"]]
        rows.append({"system": system, "sound": sound["value"].mean(), "sound_sets": len(sound),
                     "all": group["value"].mean(), "sets": len(group)})
    return pd.DataFrame(rows, columns=["system", "sound", "sound_sets", "all", "sets"])


def abilities(results: Results, samples: int, seed: int) -> pd.DataFrame:
    """Each general ability before (``base``) and after (the adapter) fine-tuning, by model: shares right, their
    difference with 95% interval, and the verdict of a test paired by item, Holm-corrected: lost, gained or unclear."""
    rows = []
    for model, predictions in results.predictions.items():
        right: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for p in predictions:
            if p.part == "ability" and p.system in ("base", OWN):
                right[p.question_id][p.system][p.item_id] = float(p.label == p.gold)
        for ability, by_system in right.items():
            if len(by_system) == 2:
                rows.append({"model": model, "ability": ability,
                             **_changed(by_system["base"], by_system[OWN], samples, seed)})
    table = _corrected(pd.DataFrame(rows, columns=list(ABILITY_COLUMNS)))
    table["verdict"] = [_verdict(row.difference, row.p) for row in table.itertuples()]
    return table


def _changed(before: dict[str, float], after: dict[str, float], samples: int, seed: int) -> dict[str, float]:
    names = [name for name in before if name in after]
    first, second = [after[name] for name in names], [before[name] for name in names]
    change = alignment.difference(first, second, names, samples, seed)
    return {"before": float(np.mean(second)), "after": float(np.mean(first)), "difference": change.value,
            "low": change.low, "high": change.high, "n": len(names),
            "p": alignment.paired_test(first, second, names, alignment.PERMUTATIONS, seed)}


def _verdict(difference: float, p: float) -> str:
    if p >= 0.05:
        return "unclear"
    return "lost" if difference < 0 else "gained"


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Holm's correction of the column ``p``."""
    tested = table["p"].notna()
    corrected: Sequence[float] = alignment.holm(table.loc[tested, "p"].tolist())
    table.loc[tested, "p"] = corrected
    return table
