"""Maps: cultures placed in the plane so that the distance between two points tells how far apart two cultures are.

>>> points, stress = place(distances)                # distances: (9, 9), symmetric; points: (9, 2)
>>> round(stress, 2)
0.14
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Annotation, Text
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import smacof

#: Fewer cultures make no map: any two lie on a line.
FEWEST = 3
#: Where a label may stand, in points from its point: eight directions, at four distances.
_PLACES = [(radius * np.cos(angle), radius * np.sin(angle)) for radius in (7, 16, 28, 44)
           for angle in np.deg2rad([0, 180, 90, 270, 45, 135, 315, 225])]


def can_be_drawn(distances: np.ndarray) -> bool:
    """Whether there are enough cultures, a distance for each pair, and any that differ."""
    return len(distances) >= FEWEST and bool(np.isfinite(distances).all() and distances.any())


def place(distances: np.ndarray) -> tuple[np.ndarray, float]:
    """Points (k, 2) by metric multidimensional scaling (SMACOF from the classical solution: nothing is random), and
    their stress.

    Stress-1 (Kruskal, Psychometrika 29, 1964, 1-27): root of the squared error of the map's distances over their
    squares; 0 where the map is exact, 0.1 fair, 0.2 poor.
    """
    points, _ = smacof(distances, n_components=2, init=_classical(distances), n_init=1, eps=1e-9, max_iter=1000)
    drawn, wanted = pdist(points), squareform(distances, checks=False)
    return points, float(np.sqrt(((drawn - wanted) ** 2).sum() / (drawn**2).sum()))


def _classical(distances: np.ndarray) -> np.ndarray:
    """Torgerson's solution: the two largest components of the doubly centred squared distances."""
    centre = np.eye(len(distances)) - 1 / len(distances)
    values, vectors = np.linalg.eigh(-centre @ distances**2 @ centre / 2)
    return vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0))


def aligned(points: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Both maps with the second turned, mirrored and scaled to lie on the first as well as it can (Procrustes), and the
    squared distance that is left: 0 for the same shape, at most 1."""
    return procrustes(points, moved)


def resampled(points: np.ndarray, distances: np.ndarray) -> list[np.ndarray]:
    """The maps of other samples of the distances (samples, k, k), each laid on ``points``: how far a place is to be
    trusted."""
    centre = points.mean(0)
    size = np.linalg.norm(points - centre)
    return [centre + size * aligned(points, place(square)[0])[1] for square in distances if can_be_drawn(square)]


def order(distances: np.ndarray) -> list[int]:
    """An order in which near cultures stand beside each other (average linkage, optimal leaf ordering)."""
    if not can_be_drawn(distances):
        return list(range(len(distances)))
    found = linkage(squareform(distances, checks=False), "average", optimal_ordering=True)
    return [int(place) for place in leaves_list(found)]


def label(ax: Axes, points: np.ndarray, names: Sequence[str], others: np.ndarray | None = None) -> None:
    """Write each name beside its point, where it covers neither a point (of ``points`` or ``others``) nor another name,
    or as little of them as can be; call it once all is drawn."""
    ax.figure.draw_without_rendering()  # the layout decides how much room there is
    renderer = ax.figure.canvas.get_renderer()
    drawn = points if others is None else np.concatenate([points, others])
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in ax.transData.transform(drawn)]
    room = ax.get_window_extent(renderer).extents
    for point, name in zip(points, names, strict=True):
        text = ax.annotate(name, point, xytext=(0, 0), textcoords="offset points", fontsize=8, va="center",
                           arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6})
        boxes = [_box(text, offset, renderer) for offset in _PLACES]
        costs = [_covered(box, taken, room) for box in boxes]
        best = costs.index(min(costs))
        taken.append(_box(text, _PLACES[best], renderer))


def _box(text: Annotation, offset: tuple[float, float], renderer: RendererBase) -> tuple[float, ...]:
    """Move a label to where it stands ``offset`` points from its point: left, bottom, right, top of the words there."""
    text.set_position(offset)
    text.set_horizontalalignment("left" if offset[0] > 1 else "right" if offset[0] < -1 else "center")
    text.update_positions(renderer)
    return tuple(Text.get_window_extent(text, renderer).extents)  # an annotation's own has its line as well


def _covered(box: Sequence[float], taken: Sequence[Sequence[float]], room: Sequence[float]) -> float:
    """How much of a box (left, bottom, right, top) lies on others or outside the room."""
    def shared(other: Sequence[float]) -> float:
        width, height = (min(box[n + 2], other[n + 2]) - max(box[n], other[n]) for n in (0, 1))
        return max(width, 0) * max(height, 0)
    return sum(map(shared, taken)) + (box[2] - box[0]) * (box[3] - box[1]) - shared(room)
