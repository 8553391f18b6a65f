"""`make report` from nothing: the default study of nine cultures, on two cores, within ten minutes.

It runs in a copy of the repository that has neither outputs nor a cache: the stand-in is built, every text is embedded,
every notebook runs. What was installed before (.venv) is not part of it. A smaller study, for trying this out::

    PYTHONPATH=tests python -m benchmarks.bench_report smoke korean german
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import measuring
from benchmarks.measuring import Result
from culturellm_utils import paths

CORES = 2
MINUTES = 10


def checkout(place: Path) -> None:
    """What a run needs of the repository."""
    for name in ("notebooks", "culturellm_utils", "params"):
        shutil.copytree(paths.ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(paths.ROOT / name, place / name)


def report(place: Path, study: str, cultures: str = "", *options: str) -> None:
    """What the Makefile's target does in a checkout. Raises CalledProcessError when a notebook stops."""
    tools = Path(sys.executable).parent
    environment = os.environ | {"PYTHONPATH": str(place), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    for name in ("CULTURELLM_OUTPUTS", "CULTURELLM_CACHE"):
        environment.pop(name, None)
    subprocess.run([tools / "snakemake", "--cores", str(CORES), "--quiet", "reason", "host", *options, "--config",
                    f"study={study}", f"cultures={cultures}"], cwd=place, env=environment, check=True,
                   stdout=sys.stderr)


def timed(study: str, cultures: str = "") -> float:
    """Seconds from nothing to the report."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        checkout(place)
        taken = measuring.seconds(lambda: report(place, study, cultures))
        assert (place / "outputs" / study / "report" / "index.html").is_file(), "there is no report"
    return taken


def measure() -> list[Result]:
    """Once: it takes minutes."""
    return [Result("report: the default study, nine cultures", timed("laptop"), limit=60 * MINUTES, wanted_share=1.0,
                   note=f"limit: {MINUTES} minutes on {CORES} cores; nothing cached, the stand-in's building included")]


if __name__ == "__main__":
    print(f"{timed(sys.argv[1], ' '.join(sys.argv[2:])):.0f} s")
