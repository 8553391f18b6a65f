"""The filter and diversity benchmarks on a few texts: the plain way and this project find the same."""

import os

import numpy as np
import pytest
from benchmarks import bench_diversity, bench_filter, candidates


@pytest.fixture(scope="module")
def model():
    return candidates.model()


def test_both_ways_find_the_same_similarity_and_gain(model, own_cache):
    pairs = candidates.pairs(6)
    texts = [text for _, text in pairs]
    assert len(set(texts)) == 6
    with candidates.fresh(model) as encoder:
        assert np.allclose(bench_filter.ours(encoder, pairs), bench_filter.plain(model, pairs), atol=2e-6)
        gain = bench_diversity.ours(encoder, texts[:2], texts[2:])
    assert gain == pytest.approx(bench_diversity.plain(model, texts[:2], texts[2:]), abs=1e-5)
    assert gain > 0.1
    assert os.environ["CULTURELLM_CACHE"] == str(own_cache)


def test_operations_by_hand(model):
    # 6 layers: 4 matrices of 384 x 384, 2 of 384 x 1536; "work." is 4 tokens with the two at its ends
    weights = 6 * (4 * 384**2 + 2 * 384 * 1536)
    assert bench_filter.operations(model, ["work."]) == 2 * weights * 4 + 4 * 6 * 384 * 4**2
