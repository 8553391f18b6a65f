"""Diversity gain of 1,000 texts against 1,050 others: the mean distance to the nearest one.

Plain: for each of the 1,050,000 pairs both texts are embedded anew. Ours encodes each text once, and not at all when it
was seen before.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks import candidates
from benchmarks.measuring import Result, alternate
from culturellm_utils.encoder import Encoder
from culturellm_utils.filtering import diversity_gain

NEW, BASE, PAIRS, REPEATS = 1000, 1050, 100, 3


def ours(encoder: Encoder, new: Sequence[str], base: Sequence[str]) -> float:
    """The gain, as notebook 03 finds it."""
    return diversity_gain(encoder.encode(new), encoder.encode(base))


def plain(model, new: Sequence[str], base: Sequence[str]) -> float:
    """The gain, every pair embedded anew."""
    return float(np.mean([min(distance(model, one, other) for other in base) for one in new]))


def distance(model, one: str, other: str) -> float:
    """The Euclidean distance of two texts' unit vectors."""
    rows = [model.encode(text, normalize_embeddings=True, show_progress_bar=False) for text in (one, other)]
    return float(np.linalg.norm(rows[0] - rows[1]))


def measure() -> list[Result]:
    """Ours with nothing seen and with all seen, and a few pairs of the plain way, in alternation."""
    model, texts = candidates.model(), [text for _, text in candidates.pairs(NEW + BASE)]
    new, base = texts[:NEW], texts[NEW:]

    def cold() -> None:
        with candidates.fresh(model) as unused:
            ours(unused, new, base)

    with candidates.fresh(model) as used:
        ours(used, new, base)
        assert abs(ours(used, new[:1], base[:PAIRS]) - plain(model, new[:1], base[:PAIRS])) < 1e-4
        mine, again, slow = alternate(cold, lambda: ours(used, new, base),
                                      lambda: plain(model, new[:1], base[:PAIRS]), repeats=REPEATS)
    slow *= NEW * BASE / PAIRS
    name, note = f"diversity: {NEW:,} x {BASE:,} texts", f"plain: {PAIRS} of {NEW * BASE:,} pairs, scaled"
    return [Result(f"{name}, never seen", mine, slow, 1000, repeats=REPEATS, note=note),
            Result(f"{name}, seen before", again, slow, 1000, repeats=REPEATS, note=note)]
