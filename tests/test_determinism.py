"""The same seed on the same machine: the same bytes in the files of 01 to 05, by fresh processes with own caches.

With another number of threads sums are added up in another order: texts and labels stay the same, and figures move by
at most ``TOLERANCE``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import seaborn as sns

from culturellm_utils import figures, paths, stand_in

#: How far a similarity, a probability or a score may move between one thread and two. Measured on two cores: 1e-6,
#: the last digit that is written.
TOLERANCE = 1e-4
STAGES = paths.NOTEBOOK_NAMES[:5]
#: Eight of the shipped questions, one culture, and as little of everything as the notebooks take.
SMALL = {"base_model": "stand-in-tiny", "perplexity_model": "", "samples_drawn": 1, "samples_per_template": 1,
         "templates_per_seed": 3, "held_out_from": 11, "held_out_questions": 2, "epochs": 2, "ablations": [],
         "prompted_systems": ["base", "persona"], "robustness": False, "bundled_tasks": False, "ability_items": 5,
         "open_questions": 0, "bootstrap_samples": 200}
#: All cells of the notebooks, one after another in one process, which loads torch but once.
RUN = """
import json, sys
import nbformat
from IPython.core.interactiveshell import InteractiveShell
from culturellm_utils import parameters, paths, studies
small = json.loads(sys.argv[1])
for stage in sys.argv[2:]:
    shell = InteractiveShell()
    values = studies.merged(stage, "smoke", "korean", "main", ["korean"])
    values |= {name: value for name, value in small.items() if name in parameters.names(stage)}
    for cell in nbformat.read(paths.NOTEBOOKS / f"{stage}.ipynb", 4).cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()
            if "parameters" in cell.metadata.get("tags", []):
                shell.push(values)
"""


def start(place: Path, threads: int) -> subprocess.Popen[str]:
    """The notebooks in a process of its own that writes into ``place``; the stand-in is there, all else is not."""
    base = stand_in.folder(SMALL["base_model"])
    shutil.copytree(base, place / "cache" / base.name)
    questions = place.parent / "questions.jsonl"
    shipped = (paths.DATA / "questions.jsonl").read_text(encoding="utf-8")
    questions.write_text("".join(shipped.splitlines(keepends=True)[:8]), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CULTURELLM_OUTPUTS": str(place / "outputs"),
                                "CULTURELLM_CACHE": str(place / "cache"), "MPLBACKEND": "agg",
                                "PYTHONHASHSEED": "random", "IPYTHONDIR": str(place / "ipython")}
    small = SMALL | {"questions_path": str(questions)}
    return subprocess.Popen([sys.executable, "-c", RUN, json.dumps(small), *STAGES], cwd=paths.ROOT, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def written(run: subprocess.Popen[str], place: Path) -> dict[str, bytes]:
    """The files that such a process wrote, without the revision of the code, which a commit meanwhile would change."""
    told = run.communicate(timeout=600)[0]
    assert run.returncode == 0, told[-3000:]
    home = place / "outputs" / "smoke" / "main"
    return {str(path.relative_to(home)): re.sub(rb'"revision": "[^"]*"', b'"revision": ""', path.read_bytes())
            for path in sorted(home.rglob("*"))
            if path.suffix == ".jsonl" or path.name in ("scores.json", "adapter_model.safetensors")}


def leaves(value: Any, where: str = "") -> dict[str, Any]:
    """Every value of a JSON document by its place."""
    if isinstance(value, (dict, list)):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, part in inside for name, leaf in leaves(part, f"{where}/{key}").items()}
    return {where: value}


def documents(name: str, content: bytes) -> dict[str, Any]:
    return leaves([json.loads(line) for line in content.splitlines()] if name.endswith(".jsonl")
                  else json.loads(content))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Where the runs lie: the place of the questions is a parameter, so it is the same for all."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(home) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Two runs of one thread each, side by side."""
    runs = [(start(home / name, threads=1), home / name) for name in ("one", "two")]
    one, two = (written(*run) for run in runs)
    return one, two


def test_the_same_seed_gives_the_same_bytes(first):
    one, two = first
    assert {"korean/seeds.jsonl", "common/candidates.jsonl", "common/augmented.jsonl", "common/rejected.jsonl",
            "korean/train.jsonl", "korean/targets.jsonl", "korean/model/adapter_model.safetensors",
            "korean/predictions.jsonl", "korean/scores.json"} <= one.keys()
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


@pytest.mark.slow
def test_another_number_of_threads_moves_figures_by_less_than_the_tolerance(first, home):
    one = first[0]
    two = written(start(home / "threads", threads=2), home / "threads")
    assert one.keys() == two.keys()
    for name in one:
        if name.endswith(".safetensors"):
            continue
        before, after = documents(name, one[name]), documents(name, two[name])
        assert before.keys() == after.keys()
        for where, value in before.items():
            same = pytest.approx(value, abs=TOLERANCE) if isinstance(value, float) else value
            assert after[where] == same, f"{name} {where}"


def test_scattered_points_stand_where_they_stood(tmp_path):
    frame = pd.DataFrame({"x": [0.5] * 20, "y": ["base", "adapter"] * 10})
    pictures = []
    for name in ("one", "other"):
        np.random.seed(len(name))  # whatever was drawn before
        figures.style()
        ax = figures.axes("Same", "", "")
        sns.stripplot(frame, x="x", y="y", ax=ax)
        figures.save(ax, tmp_path / name, "points", frame)
        pictures.append((tmp_path / name / "figures" / "points.svg").read_bytes())
    assert pictures[0] == pictures[1]
