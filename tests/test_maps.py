"""Maps: known shapes are found again, and labels do not cover each other."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.text import Annotation, Text
from scipy.spatial.distance import pdist, squareform

from culturellm_utils import maps

#: A triangle with sides 3, 4 and 5.
TRIANGLE = np.array([[0, 3, 4], [3, 0, 5], [4, 5, 0]], float)


def turned(points, angle=0.7):
    """Turned, mirrored, doubled and moved."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return 2 * (points @ turn) * [1, -1] + [5, 7]


def test_a_triangle_is_drawn_exactly():
    points, stress = maps.place(TRIANGLE)
    np.testing.assert_allclose(pdist(points), [3, 4, 5], atol=1e-5)
    assert stress == pytest.approx(0, abs=1e-5)


@given(arrays(float, (5, 2), elements=st.integers(-9, 9).map(float)))
def test_any_points_of_a_plane_are_found_again(points):
    square = squareform(pdist(points))
    if maps.can_be_drawn(square):
        drawn, stress = maps.place(square)
        np.testing.assert_allclose(pdist(drawn), pdist(points), atol=1e-3)
        assert stress < 1e-3


def test_stress_says_what_the_plane_cannot_hold():
    """Four points all 1 apart have no place in a plane."""
    square = np.ones((4, 4)) - np.eye(4)
    points, stress = maps.place(square)
    drawn = pdist(points)
    assert stress == pytest.approx(np.sqrt(((drawn - 1) ** 2).sum() / (drawn**2).sum()))
    assert stress > 0.1
    np.testing.assert_array_equal(points, maps.place(square)[0])


@pytest.mark.parametrize(("distances", "can"), [
    (TRIANGLE, True),
    (TRIANGLE[:2, :2], False),
    (np.zeros((3, 3)), False),
    (np.array([[0, 1, np.nan], [1, 0, 1], [np.nan, 1, 0]]), False),
])
def test_what_can_be_drawn(distances, can):
    assert maps.can_be_drawn(distances) is can


def test_the_second_map_is_laid_on_the_first():
    points = np.array([[0, 0], [3, 0], [0, 4], [5, 5]], float)
    first, second, left = maps.aligned(points, turned(points))
    assert left == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(first, second, atol=1e-9)
    assert maps.aligned(points, points[[1, 0, 3, 2]])[2] > 0.1


def test_other_samples_are_laid_on_the_map():
    points, _ = maps.place(TRIANGLE)
    again = maps.resampled(turned(points), np.array([TRIANGLE, np.zeros((3, 3)), 3 * TRIANGLE]))
    assert len(again) == 2  # all equal: no map
    for cloud in again:
        np.testing.assert_allclose(cloud, turned(points), atol=1e-4)


def test_near_ones_stand_side_by_side():
    line = np.array([0.0, 10, 1, 11])
    found = maps.order(np.abs(np.subtract.outer(line, line)))
    assert found in ([0, 2, 1, 3], [3, 1, 2, 0])
    assert maps.order(TRIANGLE[:2, :2]) == [0, 1]


def boxes(ax):
    renderer = ax.figure.canvas.get_renderer()
    return [Text.get_window_extent(text, renderer) for text in ax.texts if isinstance(text, Annotation)]


def test_labels_do_not_cover_each_other_or_a_point():
    """Six cultures in two heaps, one of them in the corner."""
    points = np.array([[0, 0], [0.01, 0], [0, 0.01], [1, 1], [1, 0.99], [0.99, 1]], float)
    _, ax = plt.subplots(figsize=(4, 3))
    ax.plot(*points.T, "o")
    ax.margins(0.15)
    maps.label(ax, points, ["portuguese", "spanish", "english", "arabic", "bengali", "turkish"])
    found = boxes(ax)
    assert len(found) == 6
    for place, box in enumerate(found):
        assert not any(box.overlaps(other) for other in found[:place])
        assert not any(box.contains(*ax.transData.transform(point)) for point in points)
        assert ax.get_window_extent().contains(*box.min)
        assert ax.get_window_extent().contains(*box.max)
    plt.close("all")


def test_labels_keep_off_points_without_a_label():
    _, ax = plt.subplots(figsize=(4, 3))
    others = np.column_stack([np.linspace(0.5, 0.7, 20), np.full(20, 0.5)])  # right of the point, where it would stand
    ax.set(xlim=(0, 1), ylim=(0, 1))
    maps.label(ax, np.array([[0.5, 0.5]]), ["korean"], others)
    (box,) = boxes(ax)
    assert not any(box.contains(*ax.transData.transform(point)) for point in others)
    plt.close("all")
