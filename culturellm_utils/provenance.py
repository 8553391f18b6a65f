"""What a run ran on: versions, revision, hardware and a digest of the parameters, as two lines and as a record.

>>> print(stamp(knobs))
culturellm 0.1.0 · python 3.11.7 · torch 2.13.0 · transformers 5.23.0 · git 1a2b3c4 · parameters 0f3a...
ran on Intel(R) Xeon(R) CPU @ 2.20GHz · 2 cores · 8 GB memory · no GPU
"""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from culturellm_utils import __version__, paths
from culturellm_utils.parameters import Knobs

PACKAGES = ("torch", "transformers", "peft", "sentence-transformers", "datasets", "pandas")


def revision() -> str:
    """The git revision, with ``+`` when tracked files differ from it; ``none`` outside a checkout."""
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"


def versions() -> dict[str, str]:
    """Versions of Python, this project and the libraries that shape the numbers."""
    found = {"culturellm": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package).split("+")[0]
        except PackageNotFoundError:
            found[package] = "missing"
    return found


@cache
def hardware() -> dict[str, str | int | float]:
    """What kind of machine this is, never which: the processor's model, the cores that this process may use, the
    memory in GB, and the GPUs ("none" where no driver names one)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        gpu = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True,
                             text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        gpu = ""
    return {"processor": _processor(), "cores": cores, "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "gpu": ", ".join(gpu.splitlines()) or "none"}


def _processor() -> str:
    """The processor's model, or its architecture where the system names no model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((" ".join(name.split()) for name in named if name), platform.machine() or "unknown processor")


def record(knobs: Knobs) -> dict:
    """Versions, revision, hardware and parameters, for files."""
    return {"versions": versions(), "revision": revision(), "hardware": hardware(), "parameters": knobs.model_dump(),
            "digest": knobs.digest}


def stamp(knobs: Knobs) -> str:
    """Two lines for the top of a notebook: what ran, and on what."""
    parts = [f"{name} {number}" for name, number in versions().items()]
    found = hardware()
    machine = [found["processor"], f"{found['cores']} core{'s' * (found['cores'] != 1)}",
               f"{found['memory_gb']:.0f} GB memory", "no GPU" if found["gpu"] == "none" else f"GPU {found['gpu']}"]
    return (" · ".join([*parts, f"git {revision()}", f"parameters {knobs.digest}"])
            + "\nran on " + " · ".join(map(str, machine)))
