"""How many raters and pairs a human study needs, before anybody rates, and how many more once some have.

Ratings are crossed: every rater rates every pair, rating = mean + pair + rater + rest, each with its variance::

    >>> parts = assumed(sd=0.9, pair_share=0.3, rater_share=0.1)
    >>> round(half_width(parts, raters=12, pairs=100), 3)    # of the 95% interval of the mean, in points of the scale
    0.205
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from culturellm_utils.errors import UserError

#: Between two and this many raters are thought of: beyond, more pairs are the better buy.
MOST_RATERS = 200


@dataclass(frozen=True)
class Components:
    """Variances of a rating (points squared) or of whether it passes: between pairs, between raters, and the rest."""

    pair: float
    rater: float
    residual: float

    @property
    def total(self) -> float:
        return self.pair + self.rater + self.residual


def assumed(sd: float, pair_share: float, rater_share: float) -> Components:
    """Components from the standard deviation of a single rating and the shares of its variance that lie between pairs
    and between raters. Raises UserError when the shares leave nothing to chance."""
    if pair_share + rater_share >= 1:
        raise UserError(f"06_human_study: pair_share {pair_share:g} and rater_share {rater_share:g} must leave a part "
                        "of the variance to chance: let them sum to less than 1")
    return Components(sd**2 * pair_share, sd**2 * rater_share, sd**2 * (1 - pair_share - rater_share))


def assumed_pass(rate: float, pair_share: float, rater_share: float) -> Components:
    """Components of passing, when a share ``rate`` of ratings passes: the variance is ``rate (1 - rate)``."""
    return assumed((rate * (1 - rate)) ** 0.5, pair_share, rater_share)


def standard_error(parts: Components, raters: float, pairs: float, ratings: float = 0) -> float:
    """Standard error of the mean of crossed ratings, both raters and pairs being samples:
    ``sqrt(pair/P + rater/R + residual/n)`` (Brennan 2001, "Generalizability theory", design p × r). ``raters`` and
    ``pairs`` may be effective numbers; ``ratings`` is n, raters × pairs unless given."""
    return (parts.pair / pairs + parts.rater / raters + parts.residual / (ratings or raters * pairs)) ** 0.5


def degrees_of_freedom(parts: Components, raters: float, pairs: float) -> float:
    """Degrees of freedom of that standard error, from the expected mean squares (Satterthwaite 1946); at least
    1."""
    by_pair, by_rater = raters * parts.pair + parts.residual, pairs * parts.rater + parts.residual
    below = (by_pair**2 / (pairs - 1) + by_rater**2 / (raters - 1) + parts.residual**2 / ((pairs - 1) * (raters - 1)))
    return max(1.0, (by_pair + by_rater - parts.residual) ** 2 / below)


def half_width(parts: Components, raters: int, pairs: int) -> float:
    """Half the width of the 95% interval of the mean when ``raters`` (2 or more) all rate ``pairs`` (2 or more)."""
    t = stats.t.ppf(0.975, degrees_of_freedom(parts, raters, pairs))
    return float(t * standard_error(parts, raters, pairs))


def power(parts: Components, difference: float, raters: int, pairs: int) -> float:
    """Chance that a two-sided t-test at 5% finds ``difference`` between two augmenters, 0 to 1.

    The same ``raters`` rate ``pairs`` of each. A rater's severity is in both means and cancels, so that the means of
    the pairs are the test's units: 2 (pairs - 1) degrees of freedom, noncentral t (Cohen 1988, chapter 2). That raters
    favour one augmenter is assumed away.
    """
    error = (2 * (parts.pair + parts.residual / raters) / pairs) ** 0.5
    free, shift = 2 * (pairs - 1), difference / error
    limit = stats.t.ppf(0.975, free)
    tails = 1 - stats.nct.cdf(limit, free, shift), stats.nct.cdf(-limit, free, shift)
    return float(np.nansum(tails))  # for a tail of less than about 1e-30 scipy has no number


def table(rating: Components, passing: Components, difference: float, raters: Iterable[int],
          pairs: Iterable[int]) -> pd.DataFrame:
    """A row a design: raters, pairs, ratings, half-widths of the mean rating (points) and of the pass rate (a share),
    and the power to find ``difference`` points between two augmenters."""
    return pd.DataFrame([{"raters": r, "pairs": p, "ratings": r * p, "half_width_mean": half_width(rating, r, p),
                          "half_width_pass_rate": half_width(passing, r, p), "power": power(rating, difference, r, p)}
                         for p in pairs for r in raters])


def fewest_raters(parts: Components, wanted: float, pairs: int) -> int | None:
    """The smallest number of raters whose mean over ``pairs`` has a half-width of at most ``wanted``; None when more
    than ``MOST_RATERS`` would be needed: then the pairs are too few."""
    return next((r for r in range(2, MOST_RATERS + 1) if half_width(parts, r, pairs) <= wanted), None)


def sentence(parts: Components, wanted: float, pairs: int) -> str:
    """What a mean over ``pairs`` within ``wanted`` points takes, in words."""
    raters = fewest_raters(parts, wanted, pairs)
    if raters is None:
        return (f"{pairs} pairs are too few for a mean within ±{wanted:g}: with {MOST_RATERS} raters it would be "
                f"±{half_width(parts, MOST_RATERS, pairs):.2f}.")
    return f"{pairs} pairs need {raters} raters for a mean within ±{wanted:g}."
