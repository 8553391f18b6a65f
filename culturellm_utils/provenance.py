"""What a run ran on: versions, revision and a digest of the parameters, as one line and as a record.

>>> print(stamp(knobs))
culturellm 0.1.0 · git 1a2b3c4 · python 3.11.7 · torch 2.13.0 · transformers 5.23.0 · parameters 0f3a...
"""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

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


def record(knobs: Knobs) -> dict:
    """Versions, revision and parameters, for files."""
    return {"versions": versions(), "revision": revision(), "parameters": knobs.model_dump(), "digest": knobs.digest}


def stamp(knobs: Knobs) -> str:
    """One line for the top of a notebook."""
    parts = [f"{name} {number}" for name, number in versions().items()]
    return " · ".join([*parts, f"git {revision()}", f"parameters {knobs.digest}"])
