"""Figures of classification tasks, from labels and probabilities alone: macro-F1, invalid replies, tests, calibration.

>>> macro_f1(["RUDE", "RUDE", "NOT_RUDE"], ["RUDE", None, "NOT_RUDE"], ("RUDE", "NOT_RUDE"), samples=2000, seed=0)
Estimate(value=0.8333333333333333, low=0.5, high=1.0, n=3, clusters=3)
"""

from collections.abc import Mapping, Sequence

import numpy as np

from culturellm_utils.alignment import Estimate

Seeds = int | Sequence[int]
#: In the place of an answer: the item was not asked.
NOT_ASKED = "(not asked)"


def macro_f1(gold: Sequence[str], found: Sequence[str | None], labels: Sequence[str], samples: int,
             seed: Seeds) -> Estimate:
    """Macro-F1 over ``labels`` with a 95% percentile bootstrap interval that resamples items.

    As scikit-learn's ``f1_score(labels=labels, average="macro", zero_division=0)``: a label without items or answers
    counts 0, an answer that is no label (None) is wrong.
    """
    drawn = macro_f1_draws(gold, found, labels, samples, seed)
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return Estimate(float(drawn[0]), float(low), float(high), len(gold), len(gold))


def macro_f1_draws(gold: Sequence[str], found: Sequence[str | None], labels: Sequence[str], samples: int,
                   seed: Seeds) -> np.ndarray:
    """Macro-F1 of the items, then of each of ``samples`` resamples of them: an array of 1 + samples values in [0, 1].

    A resample is drawn as counts of (gold, found), not item by item: macro-F1 depends on nothing else. For several
    tasks give each a seed of its own (``[seed, number]``), or their resamples move together.
    """
    size = len(labels) + 1
    cells = np.bincount(_codes(gold, labels) * size + _codes(found, labels), minlength=size * size)
    drawn = np.random.default_rng(seed).multinomial(len(gold), cells / len(gold), samples)
    counts = np.concatenate([cells[None], drawn]).reshape(-1, size, size)
    right = counts.diagonal(axis1=1, axis2=2)[:, :-1]
    return _mean_f1(right, counts.sum(2)[:, :-1] + counts.sum(1)[:, :-1])


def paired_test(gold: Sequence[str], first: Sequence[str | None], second: Sequence[str | None], labels: Sequence[str],
                samples: int, seed: Seeds) -> float:
    """Two-sided p-value of "both systems have the same macro-F1": a permutation test that swaps the two systems'
    answers to an item (approximate randomisation; Yeh 2000, https://aclanthology.org/C00-2137)."""
    size = len(labels) + 1
    codes = (_codes(gold, labels) * size + _codes(first, labels)) * size + _codes(second, labels)
    cells, counts = np.unique(codes, return_counts=True)
    rows, (one, other) = cells // size**2, (cells // size % size, cells % size)
    asked = np.bincount(rows, counts, minlength=size)[:-1]
    # Items of one cell are alike, so how many of them are swapped says all; first, none are.
    swapped = np.random.default_rng(seed).binomial(counts, 0.5, (samples, len(counts)))
    swapped = np.concatenate([np.zeros_like(counts)[None], swapped])
    values = []
    for kept, taken in ((one, other), (other, one)):
        said_kept, said_taken = (said[:, None] == np.arange(len(labels)) for said in (kept, taken))
        is_right = rows[:, None] == np.arange(len(labels))
        right, said = ((counts - swapped) @ (said_kept & part) + swapped @ (said_taken & part)
                       for part in (is_right, np.ones_like(is_right)))
        values.append(_mean_f1(right, asked + said))
    difference = np.abs(values[0] - values[1])
    return float(((difference[1:] >= difference[0] - 1e-9).sum() + 1) / (samples + 1))


def together(gold: Sequence[str], answers: Sequence[Sequence[str | None]], labels: Sequence[str], samples: int,
             seed: Seeds) -> np.ndarray:
    """Macro-F1 of several systems on the same items, then on the same ``samples`` resamples of them: an array of
    (systems, 1 + samples) values in [0, 1], for intervals of what they differ by. Items that a system was not asked
    (:data:`NOT_ASKED`) do not count for it."""
    cells, counts = _cells(gold, answers, labels)
    drawn = np.random.default_rng(seed).multinomial(len(gold), counts / len(gold), samples)
    counts = np.concatenate([counts[None], drawn])
    return np.stack([_mean_f1(*_tallied(cells[0], said, counts, len(labels))) for said in cells[1:]])


def swapped(gold: Sequence[str], first: Sequence[Sequence[str | None]], second: Sequence[Sequence[str | None]],
            labels: Sequence[str], samples: int, seed: Seeds) -> np.ndarray:
    """Mean macro-F1 of ``first`` minus that of ``second`` (the same systems in two arms, a row each): 1 + ``samples``
    values, of the answers as they are and with those of random items swapped between the arms. As
    :func:`paired_test`, for means over seeds and sets."""
    cells, counts = _cells(gold, [*first, *second], labels)
    moved = np.random.default_rng(seed).binomial(counts, 0.5, (samples, len(counts)))
    moved = np.concatenate([np.zeros_like(counts)[None], moved])
    found = np.zeros(1 + samples)
    for one, other in zip(cells[1 : 1 + len(first)], cells[1 + len(first) :], strict=True):
        for sign, stays, comes in ((1, one, other), (-1, other, one)):
            parts = (_tallied(cells[0], stays, counts - moved, len(labels)),
                     _tallied(cells[0], comes, moved, len(labels)))
            found += sign * _mean_f1(*(kept + taken for kept, taken in zip(*parts, strict=True))) / len(first)
    return found


def _cells(gold: Sequence[str], answers: Sequence[Sequence[str | None]],
           labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Items with the same gold and the same answers of all are alike: codes (1 + systems, kinds), gold first, and how
    many items are of each kind. What was not asked has the code -1."""
    codes = [_codes(gold, labels)]
    for found in answers:
        codes.append(np.where([label == NOT_ASKED for label in found], -1, _codes(found, labels)))
    return np.unique(np.stack(codes), axis=1, return_counts=True)


def _tallied(gold: np.ndarray, said: np.ndarray, counts: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """By label, of each row of ``counts``: items answered rightly, and items asked about plus answers given."""
    asked_about = (gold[:, None] == np.arange(labels)) & (said >= 0)[:, None]
    answered = said[:, None] == np.arange(labels)
    return counts @ (asked_about & answered), counts @ asked_about + counts @ answered


def invalid_rate(found: Sequence[str | None], labels: Sequence[str]) -> float:
    """The share of answers that are none of ``labels``."""
    return sum(label not in labels for label in found) / len(found)


def batch_calibrated(probabilities: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Batch calibration (Zhou et al. 2023, arXiv 2309.17249): each label's probability divided by its mean over all
    prompts of a task, and normalised again (sum 1). It takes away what a model prefers whatever it reads; that a label
    is in truth more frequent goes with it."""
    if not probabilities:
        return []
    labels = list(probabilities[0])
    table = np.array([[row[label] for label in labels] for row in probabilities])
    means = table.mean(0)
    table = np.divide(table, means, out=np.zeros_like(table), where=means > 0)
    return [dict(zip(labels, row, strict=True)) for row in (table / table.sum(1, keepdims=True)).tolist()]


def _codes(found: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """The place of each label, and one more for what is none."""
    places = {label: place for place, label in enumerate(labels)}
    return np.array([places.get(label, len(labels)) for label in found], dtype=np.int64)


def _mean_f1(right: np.ndarray, asked_and_said: np.ndarray) -> np.ndarray:
    """Macro-F1 of each row from counts by label: items answered rightly, and items asked about plus answers given."""
    return (2 * right / np.maximum(asked_and_said, 1)).mean(1)
