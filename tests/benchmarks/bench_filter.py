"""Similarity of 2,000 candidates to their seeds, never seen and seen before.

Plain: a pair at a time, seed and candidate encoded by themselves. Limit: the products of the encoder's layers for the
candidates' real tokens, at the rate at which this machine multiplies float32 matrices.
"""

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks import candidates
from benchmarks.measuring import Result, alternate, matrix_rate
from culturellm_utils import filtering
from culturellm_utils.encoder import Encoder

CANDIDATES, ONE_BY_ONE, REPEATS = 2000, 50, 3
#: Matrix products to a measurement, and their size.
PRODUCTS, SIZE = 40, 1024
Pairs = Sequence[tuple[str, str]]


def ours(encoder: Encoder, pairs: Pairs) -> np.ndarray:
    """The cosine of each pair, as the filter finds it (its guard left out: the plain way has none)."""
    rows = filtering.filter_pairs([{"seed": seed, "text": text} for seed, text in pairs], encoder,
                                  filtering.BUNDLED_TAU, filtering.Guards(trained=False))
    return np.array([row["similarity"] for row in rows])


def plain(model, pairs: Pairs) -> np.ndarray:
    """The cosine of each pair, one after the other."""
    found = []
    for seed, text in pairs:
        one, other = model.encode(seed, show_progress_bar=False), model.encode(text, show_progress_bar=False)
        found.append(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
    return np.array(found)


def operations(model, texts: Sequence[str]) -> float:
    """Floating-point operations that encoding ``texts`` takes: 2 per weight of a layer and token, and 4 per pair of
    tokens, layer and width in attention. Norms, activations and the look-up of tokens are not counted."""
    lengths = np.array([len(ids) for ids in model.tokenizer(list(texts))["input_ids"]], dtype=float)
    network = model[0].auto_model
    weights = sum(part.weight.numel() for part in network.encoder.modules() if isinstance(part, torch.nn.Linear))
    return float(2 * weights * lengths.sum()
                 + 4 * network.config.num_hidden_layers * network.config.hidden_size * (lengths**2).sum())


def measure() -> list[Result]:
    """Both states of the cache, a part of the plain way and matrix products, in alternation."""
    model, pairs = candidates.model(), candidates.pairs(CANDIDATES)
    part, product = pairs[:ONE_BY_ONE], matrix_rate(SIZE)

    def cold() -> None:
        with candidates.fresh(model) as unused:
            ours(unused, pairs)

    with candidates.fresh(model) as used:
        assert np.allclose(ours(used, pairs)[:ONE_BY_ONE], plain(model, part), atol=2e-6)
        mine, again, slow, products = alternate(cold, lambda: ours(used, pairs), lambda: plain(model, part),
                                                lambda: [product() for _ in range(PRODUCTS)], repeats=REPEATS)
    work = operations(model, [text for _, text in pairs])
    slow *= CANDIDATES / ONE_BY_ONE
    least = work * products / (PRODUCTS * 2 * SIZE**3)
    note = f"plain: {ONE_BY_ONE} of {CANDIDATES:,} pairs, scaled"
    return [Result("filter: 2,000 candidates, never seen", mine, slow, 8, least, 0.6, REPEATS,
                   f"{note}; limit: the candidates' {work / 1e12:.2f} T operations as float32 products"),
            Result("filter: 2,000 candidates, seen before", again, slow, 500, repeats=REPEATS, note=note)]
