"""What ratings say: means, pass rates, agreement, drift, and how far automatic raters can stand in for people.

A part of ``agreement.json``::

    "human": null,
    "human_note": "There are no human ratings: ...",
    "automatic": {"raters": 2, "pairs": 100, "ratings": 200, "alpha": {"value": 0.12, "low": 0.02, "high": 0.2},
                  "mean": {"value": 3.9, "low": 3.8, "high": 4.0, "method": "bootstrap over pairs"}, ...}
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import krippendorff
import numpy as np
import pandas as pd

from culturellm_utils import cleaning, crossed, raters
from culturellm_utils.cleaning import Rules
from culturellm_utils.human_study import Key
from culturellm_utils.imports import Participant
from culturellm_utils.ratings import Rating

NO_HUMANS = "There are no human ratings: nothing here says what people think of these pairs."
SCALE = (1, 2, 3, 4, 5)
#: Pairs in a list of the hardest, the most disputed, or those an automatic rater gets most wrong.
LISTED = 10


def analysis(ratings: Iterable[Rating], key: Key, rules: Rules | None = None,
             participants: Mapping[str, Participant] | None = None, pass_rating: int = 4,
             bootstrap_samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """What the ratings say, people and automatic raters apart: the content of ``agreement.json``.

    ``raters`` lists each rater, with why ``cleaning`` leaves them out (``reason``, "" for those who stay).
    ``human`` and ``automatic`` hold, over the real pairs of those who stay: counts, mean rating and pass rate (share of
    ratings of at least ``pass_rating``) with intervals by ``crossed.RULE``, ordinal ``alpha``, the pairs with the
    lowest mean (``hardest``) and with the largest spread (``disputed``); for people also variance ``components`` and
    ``drift``. None without ratings, with a note that says so. ``against_people``: ``raters.compare``.
    """
    rules, ratings = rules or Rules(), list(ratings)
    _, left_out = cleaning.clean(ratings, key, rules, participants)
    reasons = dict(zip(left_out["rater_id"], left_out["reason"], strict=True))
    frame = _frame(ratings, key, rules, pass_rating)
    listed = []
    for name, rows in frame.groupby("rater_id"):
        real = rows[rows["check"] == ""]
        listed.append({"rater_id": name, "kind": rows["kind"].iloc[0], "ratings": len(real),
                       "checks_rated": len(rows) - len(real), "checks_failed": int(rows["failed"].sum()),
                       "excluded": name in reasons, "reason": reasons.get(name, ""),
                       **_figures(real, bootstrap_samples, seed, sampled=False)})
    kept = frame[(frame["check"] == "") & ~frame["rater_id"].isin(list(reasons))]
    people, automatic = (kept[kept["kind"] == kind] for kind in ("human", "automatic"))
    human = _group(people, key, bootstrap_samples, seed, sampled=True)
    if human:
        human |= {"components": {name: (parts := crossed.components(people, column)) and asdict(parts)
                                 for name, column in (("mean", "rating"), ("pass_rate", "passed"))},
                  "drift": {name: crossed.drift(people, column)
                            for name, column in (("rating", "rating"), ("log_seconds", "log_seconds"))}}
    note = "" if human else NO_HUMANS
    if reasons and not human:
        number = len({rating.rater_id for rating in ratings if not rating.automatic})
        note = f"No human rating of a real pair is left: the rules leave out {len(reasons)} of {number} people."
    return {
        "pass_rating": pass_rating, "bootstrap_samples": bootstrap_samples, "interval_rule": crossed.RULE,
        "human": human, "human_note": note,
        "automatic": _group(automatic, key, bootstrap_samples, seed, sampled=False),
        "against_people": raters.compare(people, automatic, bootstrap_samples, seed) if human else None,
        "raters": listed,
    }


def alpha(table: np.ndarray) -> float | None:
    """Krippendorff's ordinal alpha of ratings 1 to 5, shape (raters, pairs), NaN where not rated (Krippendorff 2011,
    "Computing Krippendorff's alpha-reliability").

    None when it is not defined: fewer than two raters, no pair rated twice, or one value throughout.
    """
    return _alpha(_counts(table))


def alpha_figure(table: np.ndarray, samples: int, seed: int) -> dict[str, float | None]:
    """Alpha with a 95% percentile interval that resamples pairs (Zapf et al. 2016, "Measuring inter-rater reliability
    for nominal data"); draws in which it is not defined are left out."""
    counts, chance = _counts(table), np.random.default_rng(seed)
    found = {"value": _alpha(counts), "low": None, "high": None}
    if found["value"] is None or len(counts) < 2:
        return found
    drawn = [_alpha(counts[chance.integers(0, len(counts), len(counts))]) for _ in range(samples)]
    low, high = np.quantile([value for value in drawn if value is not None], [0.025, 0.975])
    return found | {"low": float(low), "high": float(high)}


def _counts(table: np.ndarray) -> np.ndarray:
    """How often each value of the scale was given to each pair that was rated twice, shape (pairs, 5)."""
    counts = np.stack([(table == value).sum(axis=0) for value in SCALE], axis=1)
    return counts[counts.sum(axis=1) >= 2]


def _alpha(counts: np.ndarray) -> float | None:
    if (counts.sum(axis=0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, value_domain=SCALE, level_of_measurement="ordinal"))


def _frame(ratings: Iterable[Rating], key: Key, rules: Rules, pass_rating: int) -> pd.DataFrame:
    """A row a rating, with what its pair is and whether it passes or fails a check."""
    frame = pd.DataFrame([rating.model_dump() for rating in ratings], columns=list(Rating.model_fields))
    frame["kind"] = ["automatic" if rating.automatic else "human" for rating in ratings]
    frame["check"] = [key[rating.pair_id].check for rating in ratings]
    frame["passed"] = frame["rating"] >= pass_rating
    frame["failed"] = ((frame["check"] == "same") & (frame["rating"] < rules.same_at_least)
                       | (frame["check"] == "different") & (frame["rating"] > rules.different_at_most))
    seconds = frame["seconds"].astype(float)
    frame["log_seconds"] = np.log(seconds.where(seconds > 0))
    return frame


def _figures(frame: pd.DataFrame, samples: int, seed: int, sampled: bool) -> dict[str, Any]:
    if frame.empty:
        return {"mean": None, "pass_rate": None}
    return {"mean": crossed.mean(frame, "rating", (SCALE[0], SCALE[-1]), samples, seed, sampled),
            "pass_rate": crossed.mean(frame, "passed", (0, 1), samples, seed, sampled)}


def _group(frame: pd.DataFrame, key: Key, samples: int, seed: int, sampled: bool) -> dict[str, Any] | None:
    if frame.empty:
        return None
    table = frame.pivot(index="rater_id", columns="pair_id", values="rating").to_numpy(dtype=float)
    by_pair = frame.groupby("pair_id")["rating"].agg(["mean", "std", "min", "max", "count"]).reset_index()
    by_pair["question_id"] = [key[name].question_id for name in by_pair["pair_id"]]
    by_pair["candidate_id"] = [key[name].candidate_id for name in by_pair["pair_id"]]
    hard = by_pair.sort_values(["mean", "pair_id"])[["pair_id", "question_id", "candidate_id", "mean", "count"]]
    split = by_pair[by_pair["std"] > 0].sort_values(["std", "pair_id"], ascending=[False, True])
    return {
        "raters": frame["rater_id"].nunique(), "pairs": len(by_pair), "ratings": len(frame),
        **_figures(frame, samples, seed, sampled),
        "alpha": alpha_figure(table, samples, seed),
        "hardest": hard.head(LISTED).rename(columns={"count": "ratings"}).to_dict("records"),
        "disputed": split.head(LISTED).rename(columns={"count": "ratings", "std": "sd"}).to_dict("records"),
    }


# In words

def sentences(found: dict[str, Any]) -> list[str]:
    """The result of ``analysis`` in words, people first."""
    human, automatic, limit = found["human"], found["automatic"], found["pass_rating"]
    said = [found["human_note"]] if human is None else [
        f"{human['raters']} {'person' if human['raters'] == 1 else 'people'} rated {human['pairs']} pairs: the mean is "
        f"{shown(human['mean'])}, and a share of {shown(human['pass_rate'])} of ratings is {limit} or more.",
        f"Among people, {_meaning(human['alpha'])}", *_drifts(human["drift"])]
    out = [rater for rater in found["raters"] if rater["excluded"]]
    if out:
        people = sum(rater["kind"] == "human" for rater in found["raters"])
        said.append(f"The cleaning rules left out {len(out)} of {people} people.")
    for rater in found["raters"]:
        if rater["kind"] == "automatic" and rater["ratings"]:
            said.append(f"'{rater['rater_id']}' rates {rater['pass_rate']['value']:.0%} of {rater['ratings']} pairs "
                        f"{limit} or more and fails {rater['checks_failed']} of {rater['checks_rated']} checks.")
    if automatic:
        said.append(f"Among automatic raters, {_meaning(automatic['alpha'])}")
    return [*said, *raters.sentences(found["against_people"])]


def shown(figure: Mapping[str, Any] | None, digits: int = 2) -> str:
    """A figure with its interval, as in ``4.52 (4.41 to 4.62)``."""
    if figure is None or figure["value"] is None:
        return "–"
    if figure["low"] is None:
        return f"{figure['value']:.{digits}f} (no interval: too few pairs, or nothing varies)"
    return f"{figure['value']:.{digits}f} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def _meaning(figure: Mapping[str, float | None]) -> str:
    """Alpha in words, by Krippendorff's customary limits: .800 to rely on, .667 for tentative conclusions."""
    value = figure["value"]
    if value is None:
        return "alpha is not defined: it needs two raters of the same pairs, and ratings that differ."
    if value < 0:
        words = "they contradict each other more than chance would"
    elif value < 0.667:
        words = "too low to conclude from"
    else:
        words = "enough for tentative conclusions" if value < 0.8 else "high enough to rely on"
    return f"ordinal alpha is {shown(figure)}: {words}."


def _drifts(drift: Mapping[str, Any]) -> list[str]:
    """Whether raters change on the way."""
    rating, seconds = drift["rating"], drift["log_seconds"]
    if rating is None:
        return ["Drift cannot be told: it needs two people or more with "
                f"{crossed.FEWEST_POSITIONS} pairs each whose order was recorded."]
    beyond = rating["low"] > 0 or rating["high"] < 0
    said = [f"Per 10 pairs ratings change by {rating['value']:+.2f} points ({rating['low']:+.2f} to "
            f"{rating['high']:+.2f}): {'raters drift' if beyond else 'no drift beyond chance'}."]
    if seconds:
        value, low, high = (100 * np.expm1(seconds[name]) for name in ("value", "low", "high"))
        said.append(f"Per 10 pairs the time that a pair takes changes by {value:+.0f}% ({low:+.0f}% to {high:+.0f}%).")
    return said
