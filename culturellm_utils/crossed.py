"""Ratings of pairs by raters, both of which are samples: intervals of means, variance components, and drift.

A figure::

    {"value": 4.31, "low": 4.11, "high": 4.47, "method": "mixed model"}

Ratings of one rater are alike, and so are those of one pair: an interval that took them for independent would be too
narrow. ``RULE`` says how each interval is made.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.proportion import proportion_confint

from culturellm_utils import alignment, power
from culturellm_utils.power import Components

#: From this many raters, and pairs, on both are resampled; the bootstrap of fewer clusters is too narrow.
MANY = 20
#: A rater's slope over fewer pairs is noise.
FEWEST_POSITIONS = 10
RULE = (
    f"95% intervals: from {MANY} people and {MANY} pairs on, a bootstrap that resamples people and pairs; with fewer, "
    "a linear mixed model with crossed random effects of person and pair (the bootstrap where it cannot be fitted); of "
    "one person, and of automatic raters, a bootstrap over pairs, which says nothing about other raters. Where all "
    "ratings pass, or none, the exact binomial interval over pairs."
)
Figure = dict[str, Any]


def mean(frame: pd.DataFrame, column: str, bounds: tuple[float, float], samples: int, seed: int,
         sampled: bool = True) -> Figure:
    """Mean of ``column`` with the 95% interval of ``RULE``; a row of ``frame`` is a rating (rater_id, pair_id, column).

    ``bounds`` are the ends of the scale, which no interval passes. ``sampled`` says that the raters are a sample of
    those who might rate. ``low`` and ``high`` are None where there is but one pair, or no rating differs; where all
    pass or none, the interval is the exact binomial one over pairs (Clopper and Pearson 1934).
    """
    values = frame[column].astype(float)
    found = {"value": float(values.mean()), "low": None, "high": None, "method": "none"}
    raters, pairs = frame["rater_id"].nunique(), frame["pair_id"].nunique()
    if pairs >= 2 and values.nunique() < 2 and bounds == (0, 1):
        low, high = proportion_confint(pairs * found["value"], pairs, method="beta")
        return found | {"low": float(low), "high": float(high), "method": "exact binomial over pairs"}
    if pairs < 2 or values.nunique() < 2:
        return found
    if not sampled or raters < 2:
        made = alignment.bootstrap(values, frame["pair_id"], samples, seed)
        return found | {"low": made.low, "high": made.high, "method": "bootstrap over pairs"}
    parts = components(frame, column) if min(raters, pairs) < MANY else None
    if parts is None or not parts.total:
        low, high = _two_way(frame, column, samples, seed)
        return found | {"low": low, "high": high, "method": "bootstrap over people and pairs"}
    low, high = _model_interval(frame, found["value"], parts, bounds)
    return found | {"low": low, "high": high, "method": "mixed model"}


def components(frame: pd.DataFrame, column: str) -> Components | None:
    """Variance components of ``column`` by restricted maximum likelihood (statsmodels' MixedLM, crossed random effects
    of rater and pair); None where they cannot be told apart: one rater or pair, no rater and pair rated twice over, or
    a fit that does not converge."""
    raters, pairs = frame["rater_id"].nunique(), frame["pair_id"].nunique()
    if raters < 2 or pairs < 2 or len(frame) <= raters + pairs - 1 or frame[column].nunique() < 2:
        return None
    data = pd.DataFrame({"y": frame[column].astype(float), "rater": pd.factorize(frame["rater_id"])[0],
                         "pair": pd.factorize(frame["pair_id"])[0], "all": 1})
    effects = {"pair": "0 + C(pair)", "rater": "0 + C(rater)"}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a variance of zero lies on the boundary, and is a fine estimate
        try:
            model = MixedLM.from_formula("y ~ 1", data, groups="all", vc_formula=effects)
            fit = model.fit(reml=True, method="powell")  # the gradient methods stop short where a variance is zero
        except (np.linalg.LinAlgError, ValueError):  # raters who copy each other leave no rest to estimate
            return None
    found = [*fit.vcomp, fit.scale]
    if not fit.converged or not np.isfinite(found).all():
        return None
    return Components(*(max(0.0, float(value)) for value in found))


def _model_interval(frame: pd.DataFrame, value: float, parts: Components,
                    bounds: tuple[float, float]) -> tuple[float, float]:
    """The interval of the plain mean under the mixed model, whoever rated what: by a t quantile on the logit of the
    place between ``bounds`` (delta method), which no interval can leave."""
    # A rater with few ratings weighs little: the effective number of raters is n² / sum of squares of their counts.
    raters, pairs = (len(frame) ** 2 / (frame[name].value_counts() ** 2).sum() for name in ("rater_id", "pair_id"))
    error = power.standard_error(parts, raters, pairs, len(frame))
    free = power.degrees_of_freedom(parts, frame["rater_id"].nunique(), frame["pair_id"].nunique())
    low, high = bounds
    place = (value - low) / (high - low)
    step = stats.t.ppf(0.975, free) * error / (high - low) / (place * (1 - place))
    ends = 1 / (1 + np.exp(-(np.log(place / (1 - place)) + np.array([-step, step]))))
    return tuple((low + (high - low) * ends).tolist())


def _two_way(frame: pd.DataFrame, column: str, samples: int, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean when raters and pairs are resampled independently (Owen 2007, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1)."""
    rater, pair = (pd.factorize(frame[name])[0] for name in ("rater_id", "pair_id"))
    sums, counts = np.zeros((2, rater.max() + 1, pair.max() + 1))
    np.add.at(sums, (rater, pair), frame[column].astype(float))
    np.add.at(counts, (rater, pair), 1)
    chance = np.random.default_rng(seed)
    r, p = (chance.multinomial(n, np.full(n, 1 / n), samples).astype(float) for n in sums.shape)
    above, below = ((r @ table * p).sum(axis=1) for table in (sums, counts))
    some = below > 0
    low, high = np.quantile(above[some] / below[some], [0.025, 0.975])
    return float(low), float(high)


def drift(frame: pd.DataFrame, column: str) -> Figure | None:
    """How ``column`` changes with the place at which a rater was shown a pair: the mean slope per 10 pairs.

    Each rater's least-squares slope on ``position``; their mean with a t interval over raters (the two-stage form of a
    mixed model with a random intercept and slope per rater; Matthews et al. 1990, "Analysis of serial measurements").
    It takes the order of the pairs to differ between raters, as the form sees to: with one order for all a hard pair
    would pass for drift. None with fewer than two raters who have at least ``FEWEST_POSITIONS`` places each.
    """
    known = frame.dropna(subset=["position", column])
    slopes = [10 * stats.linregress(rows["position"].astype(float), rows[column].astype(float)).slope
              for _, rows in known.groupby("rater_id") if rows["position"].nunique() >= FEWEST_POSITIONS]
    if len(slopes) < 2:
        return None
    value, error = float(np.mean(slopes)), float(stats.sem(slopes))
    half = float(stats.t.ppf(0.975, len(slopes) - 1)) * error
    return {"value": value, "low": value - half, "high": value + half, "method": "mean slope of raters"}
