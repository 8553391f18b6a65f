"""Kills at random moments: a command runs in a process group of its own, is killed, and started anew until it ends.

>>> killer = Killer(seed=7)
>>> killer.until_done([sys.executable, "-c", WORK], log, longest=2.0, most=5)    # how often it was killed: 5

A kill is SIGKILL to the whole group, and by a coin toss to everything else that was started too: Jupyter's kernels have
sessions of their own. Without that they live on for up to a second, beside the run that was started anew.
"""

import difflib
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import psutil
from safetensors import safe_open

from culturellm_utils import paths

#: Chooses the moments; another seed chooses others.
SEED = int(os.environ.get("KILL_SEED", "20240210"))
#: What a program says when its imports are over and its work begins.
READY = "ready\n"
#: Names of what is not finished: parts, temporary files of other libraries, SQLite's journals.
UNFINISHED = re.compile(r"\.part$|\.tmp$|^tmp|-journal$|-wal$|-shm$|^\.~|^\.ipynb_checkpoints$")
#: What differs between two runs that were never disturbed: times, and where a training went on.
TIMES = {"seconds", "tokens_per_second", "resumed_from", "tokens", "ran", "run", "memory", "hardware"}
TIMED = re.compile(r"\d[\d,.]*(?= ?(?:s|seconds|minutes|min|ms|tokens per second|tokens/s|GiB are free)\b)")

#: Lines about the way, which is another after a kill: progress, and what is still to be asked or trained.
ON_THE_WAY = re.compile(r"on disk already|requests? in flight|Nothing is sent|^<IPython\.core|^step \d+ of"
                        r"|\bof \d[\d,]* (?:done|replies)|^resumed from|^the checkpoints of another| tokens in #")
#: Pages of the report about times: where they come from is compared as a notebook.
TIMED_PAGES = re.compile(r"(provenance|02_augmentation|04_fine_tuning)\.html$")


class Killer:
    """Kills commands; ``kills`` counts all that were. With the same seed and the same speed it kills the same."""

    def __init__(self, seed: int = SEED, name: str = "") -> None:
        self.chance = random.Random(f"{seed}:{name}")
        self.kills = 0
        print(f"KILL_SEED={seed} {name}")

    def until_done(self, command: Sequence[object], log: Path, longest: float, most: int,
                   work: Callable[[], int] | None = None, check: Callable[[], None] = lambda: None,
                   **options: Any) -> int:
        """Start ``command``, kill it after up to ``longest`` seconds, ``most`` times, or fewer when it ends before;
        then let it end. The seconds count from when the number that ``work`` returns grows, as the imports of a program
        take longer than its work. ``check`` is called after each kill, and at the end.

        What it says is appended to ``log``. Raises AssertionError when it fails. Returns how often it was killed.
        """
        before = self.kills
        while True:
            start = log.stat().st_size if log.exists() else 0
            done = work() if work else 0
            with log.open("ab") as output:
                process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=subprocess.STDOUT,
                                           start_new_session=True, **options)
            if self.kills - before < most:
                until = time.monotonic() + 120
                while work and work() == done and process.poll() is None:
                    assert time.monotonic() < until, "the work did not begin"
                    time.sleep(0.005)
                try:
                    process.wait(self.chance.uniform(0, longest))
                except subprocess.TimeoutExpired:
                    self._kill(process)
                    check()
                    continue
            try:
                process.wait(600)
            finally:
                if process.poll() is None:  # the test itself is ended
                    self._kill(process)
            assert process.returncode == 0, log.read_bytes()[start:].decode(errors="replace")[-3000:]
            check()
            return self.kills - before

    def _kill(self, process: subprocess.Popen) -> None:
        """Kill a command with its group, or with all that it started. A kernel that is left dies by itself, soon."""
        everything = self.chance.random() < 0.5
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.kills += 1
        for one in started if everything else []:
            if one.is_running():
                one.kill()
        if everything:
            psutil.wait_procs(started, timeout=10)


def said(log: Path) -> Callable[[], int]:
    """How often a log says :data:`READY`."""
    return lambda: log.read_text(errors="replace").count(READY) if log.exists() else 0


def unfinished(*folders: Path) -> list[str]:
    """What lies in the folders under a temporary name."""
    return [str(path) for folder in folders for path in folder.rglob("*") if UNFINISHED.search(path.name)]


def is_whole(path: Path) -> bool:
    """Whether a file can be read to its end. Raises what its reader raises otherwise."""
    match path.suffix:
        case ".json":
            json.loads(path.read_text())
        case ".jsonl":
            text = path.read_text()
            assert text.endswith("\n") or not text
            [json.loads(line) for line in text.splitlines()]
        case ".ipynb":
            nbformat.read(path, 4)
        case ".safetensors":
            with safe_open(path, "pt") as file:
                [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
        case ".csv" | ".md":
            assert path.read_text().endswith("\n")
        case ".html" | ".svg":
            assert path.read_text().rstrip().endswith((">", "-->"))
    return True


def results(folder: Path) -> list[Path]:
    """The files of a study that somebody may read at any time: not logs, checkpoints, nor what is being written."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not any(
        part.startswith(".") or part in ("log", "checkpoints") for part in path.relative_to(folder).parts)]


def contents(folder: Path) -> dict[str, Any]:
    """What the files of a study say, by name: bytes, or without their times the values of a JSON document and the
    outputs of a notebook's cells."""
    return {str(path.relative_to(folder)): _content(path, folder) for path in results(folder)
            if not TIMED_PAGES.search(path.name)}


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Two such contents are the same. Raises AssertionError that shows the first file that differs, and where."""
    assert sorted(found) == sorted(wanted)
    for name, value in wanted.items():
        if found[name] != value:
            lines = [str(one).splitlines() if isinstance(one, bytes) else json.dumps(one, indent=0).splitlines()
                     for one in (value, found[name])]
            raise AssertionError("\n".join([name, *list(difflib.unified_diff(*lines, lineterm="", n=0))[:40]])[:6000])


def _content(path: Path, folder: Path) -> Any:
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text()))
    if path.suffix == ".ipynb":
        return [_outputs(cell, folder) for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return path.read_bytes()


def _outputs(cell: nbformat.NotebookNode, folder: Path) -> list[str]:
    """The lines of a cell's outputs that do not depend on where, how fast or how often it ran. Of a table that has a
    column of seconds no number with a decimal point is compared."""
    lines = []
    for output in cell.outputs:
        text = output.get("text") or "\n".join(map(str, output.get("data", {}).values()))
        text = re.sub(r"\d+\.\d+", "#", text) if re.search(r"\bseconds\b", text) else text
        lines += TIMED.sub("#", text.replace(str(folder), "")).splitlines()
    return [line for line in lines if not ON_THE_WAY.search(line)]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def environment(place: Path, code: Path = paths.ROOT, **more: str) -> dict[str, str]:
    """Outputs and cache of a run in ``place``, with the code that lies in ``code``."""
    return os.environ | {"CULTURELLM_OUTPUTS": str(place / "outputs"), "CULTURELLM_CACHE": str(place / "cache"),
                         "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"} | more
