"""Automatic raters beside people: a chat model that is asked for the same judgement, and how far any rater agrees.

A row of ``raters.compare``: each figure over the pairs that people and this rater rated::

    {"rater_id": "automatic: word overlap", "pairs": 100, "spearman": {"value": 0.31, "low": 0.1, "high": 0.5},
     "kappa": {...}, "difference": {"value": -1.2, ...}, "furthest": [{"pair_id": "p3fa91c07be5d", ...}]}
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from culturellm_utils import human_study, prompts
from culturellm_utils.client import Client, Reply, Request, Show, quiet
from culturellm_utils.errors import UserError
from culturellm_utils.ratings import Rating
from culturellm_utils.records import Pair, ReplyRow
from culturellm_utils.replies import Verdict, json_object, not_json, settle
from culturellm_utils.usage import Usage, estimated_tokens

#: Which text a chat model reads first: the seed, whose reply is the rating, or the sample, to see if order matters.
ORDERS = ("seed first", "sample first")
#: Tokens of a reply.
REPLY_TOKENS = 8
#: Pairs listed with the largest difference between people and an automatic rater.
LISTED = 5
_SCHEMA = {"type": "object", "properties": {"rating": {"type": "integer", "enum": [1, 2, 3, 4, 5]}},
           "required": ["rating"], "additionalProperties": False}


# A chat model as a rater

def chat_requests(pairs: Sequence[Pair]) -> list[Request]:
    """What a chat model is asked: each pair in both orders, the checks among them like any other."""
    return [Request(pair.pair_id, f"rating, {order}", prompts.rating_request(
        *((pair.seed, pair.text) if order == ORDERS[0] else (pair.text, pair.seed)), human_study.RUBRIC), _SCHEMA)
        for pair, order in product(pairs, ORDERS)]


def expected(requests: Sequence[Request]) -> Usage:
    """An estimate of what the requests take: requests and tokens."""
    said = sum(estimated_tokens(message.content) for request in requests for message in request.messages)
    return Usage(len(requests), said, len(requests) * REPLY_TOKENS)


def by_chat(client: Client, pairs: Sequence[Pair],
            show: Show = quiet) -> tuple[list[Rating], dict[str, Any], list[ReplyRow]]:
    """Ratings by ``automatic: chat <model>``, how far the order of the texts matters, and a record of every reply.

    The rating is the reply with the seed first; a pair without a usable one (refusal, no whole number from 1 to 5) is
    not rated. The second value counts ``pairs``, those ``rated``, those rated in both orders, and of these the share
    with the ``same`` rating and the mean ``shift`` (sample first minus seed first). Raises UserError for recorded
    replies, which hold no ratings, and what a live client raises.
    """
    if client.source == "recorded":
        raise UserError("chat_rater needs a chat model: set chat_backend to openai or batch, or chat_rater to False")
    values, replies = settle(client, chat_requests(pairs), _read, show)
    first, second = values[0::2], values[1::2]
    rated = [(pair, value) for pair, value in zip(pairs, first, strict=True) if value is not None]
    ratings = human_study.rate(f"chat {client.source}", [pair for pair, _ in rated],
                               np.array([(value - 1) / 4 for _, value in rated]))
    both = np.array([(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None])
    order = {"pairs": len(pairs), "rated": len(rated), "both_orders": len(both),
             "same": float((both[:, 0] == both[:, 1]).mean()) if len(both) else None,
             "shift": float((both[:, 1] - both[:, 0]).mean()) if len(both) else None}
    return ratings, order, replies


def order_sentence(order: Mapping[str, Any]) -> str:
    """What ``by_chat`` counts, in words."""
    said = f"The chat model rated {order['rated']} of {order['pairs']} pairs"
    if not order["both_orders"]:
        return f"{said}."
    return (f"{said}; with the two texts exchanged it gave the same rating to {order['same']:.0%} of "
            f"{order['both_orders']} and {order['shift']:+.2f} points on average.")


def _read(_: Request, reply: Reply) -> Verdict:
    """The verdict on a reply: its rating. A bare digit without JSON will do."""
    bare = reply.text.strip()
    try:
        said = int(bare) if bare in {"1", "2", "3", "4", "5"} else json_object(reply.text)["rating"]
    except (ValueError, KeyError, TypeError) as error:
        return not_json(reply.text, error)
    if type(said) is not int or not 1 <= said <= 5:
        return Verdict(None, 0, "unusable", f"the rating is {str(said)[:40]!r}, no whole number from 1 to 5")
    return Verdict(said, 1)


# Raters against people

def compare(people: pd.DataFrame, automatic: pd.DataFrame, samples: int, seed: int) -> dict[str, Any]:
    """How each automatic rater agrees with people, and as a yardstick how a person agrees with the others.

    Both frames have a row a rating of a real pair (rater_id, pair_id, rating). Per rater, against the mean of people's
    ratings of each pair: ``spearman`` rank correlation, ``kappa`` (Cohen's, quadratic weights, that mean rounded half
    up), and ``difference`` (automatic minus people, in points), with 95% percentile intervals that resample pairs, None
    where not defined; and the pairs ``furthest`` apart. ``person``: mean over people of the same two agreements, each
    against the mean of the others; None with fewer than two people.
    """
    means = people.groupby("pair_id")["rating"].mean()
    rows = []
    for name, own in automatic.groupby("rater_id"):
        both = own.set_index("pair_id")[["rating"]].join(means.rename("people"), how="inner").sort_index()
        if len(both):
            rows.append({"rater_id": name, "pairs": len(both), **_agreement(both, samples, seed),
                         "furthest": _furthest(both)})
    return {"person": _person(people), "automatic": rows}


def _agreement(both: pd.DataFrame, samples: int, seed: int) -> dict[str, Any]:
    rater, people = both["rating"].to_numpy(float), both["people"].to_numpy(float)
    picks = np.random.default_rng(seed).integers(0, len(both), (samples, len(both)))
    measures = {"spearman": spearman, "kappa": lambda x, y: kappa(x, half_up(y)),
                "difference": lambda x, y: (x - y).mean(axis=-1)}
    return {name: _interval(float(measure(rater, people)), measure(rater[picks], people[picks]))
            for name, measure in measures.items()}


def _interval(value: float, drawn: np.ndarray) -> dict[str, float | None]:
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not np.ptp(drawn):
        return {"value": None if np.isnan(value) else value, "low": None, "high": None}
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation along the last axis; NaN where one side has one value throughout."""
    x, y = (ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (rankdata(x, axis=-1), rankdata(y, axis=-1)))
    with np.errstate(invalid="ignore"):
        return (x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))


def kappa(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights along the last axis; NaN where both sides have one and the same value.

    ``1 - mean((x - y)²) / (var x + var y + (mean x - mean y)²)``, which is the weighted kappa of the table of x and y
    (Fleiss and Cohen 1973, "The equivalence of weighted kappa and the intraclass correlation coefficient").
    """
    chance = x.var(axis=-1) + y.var(axis=-1) + (x.mean(axis=-1) - y.mean(axis=-1)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance > 0, 1 - ((x - y) ** 2).mean(axis=-1) / chance, np.nan)


def half_up(values: np.ndarray) -> np.ndarray:
    """Rounded to whole numbers, halves upwards."""
    return np.floor(values + 0.5)


def _person(people: pd.DataFrame) -> dict[str, float | None] | None:
    """How well a person agrees with the mean of the others, on average."""
    table = people.pivot(index="rater_id", columns="pair_id", values="rating").to_numpy(float)
    found = []
    for person in range(len(table)):
        others = np.delete(table, person, axis=0)
        shared = ~np.isnan(table[person]) & (~np.isnan(others)).any(axis=0)
        if shared.sum() > 1:
            mean = np.nanmean(others[:, shared], axis=0)
            found.append((spearman(table[person, shared], mean), kappa(table[person, shared], half_up(mean))))
    if not found:
        return None
    defined = [[float(value) for value in column if not np.isnan(value)] for column in zip(*found, strict=True)]
    return {name: float(np.mean(values)) if values else None
            for name, values in zip(("spearman", "kappa"), defined, strict=True)}


def _furthest(both: pd.DataFrame) -> list[dict[str, Any]]:
    """The pairs on which rater and people differ most."""
    apart = both.assign(difference=both["rating"] - both["people"]).reset_index()
    order = apart["difference"].abs().sort_values(ascending=False, kind="stable").index
    return apart.loc[order].head(LISTED).rename(columns={"rating": "rater"}).to_dict("records")


def sentences(found: Mapping[str, Any] | None) -> list[str]:
    """The result of ``compare`` in words."""
    said = []
    for row in found["automatic"] if found else []:
        rank, gap = row["spearman"], row["difference"]
        person = (found["person"] or {}).get("spearman")
        yardstick = "" if person is None else f"; a person reaches {person:.2f} with the others"
        ranks = ("its rank correlation with people is not defined" if rank["value"] is None else
                 f"its rank correlation with people is {rank['value']:.2f}" + (
                     "" if rank["low"] is None else f" ({rank['low']:.2f} to {rank['high']:.2f})") + yardstick)
        said.append(f"'{row['rater_id']}' rates {abs(gap['value']):.2f} points "
                    f"{'below' if gap['value'] < 0 else 'above'} people on {row['pairs']} pairs; {ranks}.")
    return said
