"""What ratings say: means, pass rates and agreement, people and automatic raters apart.

A part of ``agreement.json``::

    "human": null,
    "human_note": "There are no human ratings: ...",
    "automatic": {"raters": 2, "pairs": 100, "ratings": 200, "mean": {"value": 3.9, "low": 3.8, "high": 4.0},
                  "pass_rate": {...}, "alpha": 0.12, "hardest": [{"pair_id": "p3fa91c07be5d", "mean": 2.5, ...}]}
"""

from collections.abc import Iterable
from typing import Any

import krippendorff
import numpy as np
import pandas as pd

from culturellm_utils import alignment
from culturellm_utils.human_study import Key, Rating

CHECK_RULE = (
    "A person who rates a pair of identical texts below 4, or a pair of unrelated texts above 2, is left out; "
    "automatic raters stay, and their checks are reported."
)
NO_HUMANS = "There are no human ratings: nothing here says what people think of these pairs."


def analysis(ratings: Iterable[Rating], key: Key, pass_rating: int = 4, bootstrap_samples: int = 1000,
             seed: int = 0) -> dict[str, Any]:
    """What the ratings say, people and automatic raters apart: the content of ``agreement.json``.

    ``raters`` lists each rater with the checks failed and whether ``CHECK_RULE`` leaves them out. ``human`` and
    ``automatic`` hold, over the real pairs of the raters kept: counts, mean rating and pass rate (share of ratings
    of at least ``pass_rating``) with 95% percentile bootstrap intervals that resample whole pairs, Krippendorff's
    ordinal alpha (Krippendorff 2011, "Computing Krippendorff's alpha-reliability"), and the ten pairs with the
    lowest mean; None without ratings, with a note that says so.
    """
    ratings = list(ratings)
    frame = pd.DataFrame([rating.model_dump() for rating in ratings], columns=list(Rating.model_fields))
    frame["check"] = [key[rating.pair_id].check for rating in ratings]
    frame["automatic"] = [rating.automatic for rating in ratings]
    frame["passed"] = frame["rating"] >= pass_rating
    frame["failed"] = ((frame["check"] == "same") & (frame["rating"] < 4)
                       | (frame["check"] == "different") & (frame["rating"] > 2))
    raters, kept = [], {"human": [], "automatic": []}
    for name, rows in frame.groupby("rater_id"):
        kind = "automatic" if rows["automatic"].any() else "human"
        real = rows[rows["check"] == ""]
        excluded = kind == "human" and bool(rows["failed"].any())
        raters.append({"rater_id": name, "kind": kind, "ratings": len(real), "checks_rated": len(rows) - len(real),
                       "checks_failed": int(rows["failed"].sum()), "excluded": excluded,
                       **_figures(real, bootstrap_samples, seed)})
        if len(real) and not excluded:
            kept[kind].append(real)
    people = [rater for rater in raters if rater["kind"] == "human"]
    note = "" if kept["human"] else NO_HUMANS
    if people and not kept["human"]:
        left_out = sum(rater["excluded"] for rater in people)
        note = f"No human rating of a real pair is left: the rule leaves out {left_out} of {len(people)} human raters."
    return {
        "pass_rating": pass_rating,
        "bootstrap_samples": bootstrap_samples,
        "check_rule": CHECK_RULE,
        "human": _group(kept["human"], key, bootstrap_samples, seed),
        "human_note": note,
        "automatic": _group(kept["automatic"], key, bootstrap_samples, seed),
        "raters": raters,
    }


def alpha(table: np.ndarray) -> float | None:
    """Krippendorff's ordinal alpha of ratings 1 to 5, shape (raters, pairs), NaN where not rated.

    None when it is not defined: fewer than two raters, no pair rated twice, or one value throughout.
    """
    paired = table[:, (~np.isnan(table)).sum(axis=0) >= 2]
    if paired.size == 0 or len(np.unique(paired[~np.isnan(paired)])) < 2:
        return None
    return float(krippendorff.alpha(paired, level_of_measurement="ordinal"))


def sentences(found: dict[str, Any]) -> list[str]:
    """The result of ``analysis`` in words, people first."""
    human, automatic, limit = found["human"], found["automatic"], found["pass_rating"]
    said = [found["human_note"]] if human is None else [
        f"{human['raters']} people rated {human['pairs']} pairs: the mean is {shown(human['mean'])}, and a share of "
        f"{shown(human['pass_rate'])} of ratings is {limit} or more.", f"Among people, {_meaning(human['alpha'])}"]
    people = [rater for rater in found["raters"] if rater["kind"] == "human"]
    if left_out := sum(rater["excluded"] for rater in people):
        said.append(f"The rule on attention checks left out {left_out} of {len(people)} people.")
    for rater in found["raters"]:
        if rater["kind"] == "automatic" and rater["ratings"]:
            said.append(f"'{rater['rater_id']}' rates {rater['pass_rate']['value']:.0%} of {rater['ratings']} pairs "
                        f"{limit} or more and fails {rater['checks_failed']} of {rater['checks_rated']} checks.")
    if automatic:
        said.append(f"Among automatic raters, {_meaning(automatic['alpha'])}")
    return said


def shown(figure: dict[str, float | None]) -> str:
    """A figure with its interval, as in ``4.52 (4.41 to 4.62)``."""
    span = "too few pairs for an interval" if figure["low"] is None else f"{figure['low']:.2f} to {figure['high']:.2f}"
    return f"{figure['value']:.2f} ({span})"


def _meaning(value: float | None) -> str:
    """Alpha in words, by Krippendorff's customary limits: .800 to rely on, .667 for tentative conclusions."""
    if value is None:
        return "alpha is not defined: it needs two raters of the same pairs, and ratings that differ."
    if value < 0:
        words = "they contradict each other more than chance would"
    elif value < 0.667:
        words = "too low to conclude from"
    else:
        words = "enough for tentative conclusions" if value < 0.8 else "high enough to rely on"
    return f"ordinal alpha is {value:.2f}: {words}."


def _group(parts: list[pd.DataFrame], key: Key, samples: int, seed: int) -> dict[str, Any] | None:
    if not parts:
        return None
    frame = pd.concat(parts)
    hard = frame.groupby("pair_id")["rating"].agg(["mean", "count"]).reset_index().sort_values(["mean", "pair_id"])
    return {
        "raters": len(parts),
        "pairs": len(hard),
        "ratings": len(frame),
        **_figures(frame, samples, seed),
        "alpha": alpha(frame.pivot(index="rater_id", columns="pair_id", values="rating").to_numpy(dtype=float)),
        "hardest": [{"pair_id": name, "question_id": key[name].question_id, "candidate_id": key[name].candidate_id,
                     "mean": float(mean), "ratings": int(count)}
                    for name, mean, count in hard.head(10).itertuples(index=False)],
    }


def _figures(frame: pd.DataFrame, samples: int, seed: int) -> dict[str, Any]:
    return {"mean": _interval(frame, "rating", samples, seed), "pass_rate": _interval(frame, "passed", samples, seed)}


def _interval(frame: pd.DataFrame, column: str, samples: int, seed: int) -> dict[str, float | None] | None:
    """Mean of a column and its interval: ratings of one pair are not independent, so pairs are resampled."""
    if frame.empty:
        return None
    found = alignment.bootstrap(frame[column], frame["pair_id"], samples, seed)
    several = found.clusters > 1
    return {"value": found.value, "low": found.low if several else None, "high": found.high if several else None}
