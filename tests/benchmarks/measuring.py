"""What benchmarks share: timing in alternation, the machine's limits, peak memory, and one row of the result.

A row of ``outputs/bench/bench.json`` (times in seconds; ``ratio`` is plain / ours)::

    {"name": "survey: 11 countries", "ours": 1.9, "plain": 210.4, "ratio": 110.7, "wanted": 50.0, "limit": 1.2,
     "share_of_limit": 0.63, "wanted_share": 0.5, "repeats": 5, "note": "97,000 x 600, 300 MB", "machine": {...}}
"""

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import psutil
import torch

from culturellm_utils import provenance


@dataclass
class Result:
    """One measured line. ``plain`` and ``limit`` are None where there is none to compare with; ``wanted`` is the least
    ratio, ``wanted_share`` the least share of the limit (limit / ours)."""

    name: str
    ours: float
    plain: float | None = None
    wanted: float | None = None
    limit: float | None = None
    wanted_share: float | None = None
    repeats: int = 1
    note: str = ""
    ratio: float | None = field(init=False)
    share_of_limit: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.ratio = self.plain / self.ours if self.plain is not None else None
        self.share_of_limit = self.limit / self.ours if self.limit is not None else None

    @property
    def met(self) -> bool:
        """Whether every target that the line has is reached."""
        return ((self.wanted is None or (self.ratio or 0) >= self.wanted)
                and (self.wanted_share is None or (self.share_of_limit or 0) >= self.wanted_share))

    def row(self) -> dict:
        """The line of ``bench.json``."""
        return asdict(self) | {"met": self.met, "machine": provenance.hardware()}


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes, wall clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(*ways: Callable[[], object], repeats: int = 5) -> list[float]:
    """The median seconds of each way, run in turns (a b c a b c ...), so that a slow minute of the machine hits all."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        for way, taken in zip(ways, times, strict=True):
            taken.append(seconds(way))
    return [statistics.median(taken) for taken in times]


def matrix_rate(size: int = 1024) -> Callable[[], object]:
    """One float32 product of two ``size`` x ``size`` matrices (2 size^3 operations), to be timed in alternation."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    return lambda: left @ right


@contextmanager
def peak_memory(every: float = 0.01):
    """Yields a list whose last entry is, at the end, the most bytes this process had resident meanwhile."""
    process, peak, stop = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            stop.wait(every)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
