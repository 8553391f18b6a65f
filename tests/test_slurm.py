"""The first five notebooks of the smoke study as jobs of a real Slurm: same files, a GPU where one is asked for, and a
cancelled job tried again. Opt-in (`pytest -m slow tests/test_slurm.py`); needs Debian's slurmctld, slurmd, slurm-client
and munge."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from slurm_cluster import Slurm, missing
from test_profiles import checkout

from culturellm_utils import paths

pytest.importorskip("snakemake_executor_plugin_slurm", reason="needs pip install -e '.[cluster]'")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"Slurm is not installed: {missing()}")]
FILES = ["seeds.jsonl", "train.jsonl", "targets.jsonl", "predictions.jsonl"]
TARGET = "outputs/smoke/main/korean/scores.json"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with Slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def study(place: Path, environment: dict[str, str], *arguments: str) -> None:
    """The study up to one culture's evaluation, in a checkout of its own; the cache is shared."""
    environment = environment | {
        "CULTURELLM_CACHE": str(paths.cache()), "PYTHONPATH": str(place),
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    environment.pop("CULTURELLM_OUTPUTS", None)
    done = subprocess.run(["snakemake", str(place / TARGET), *arguments, "--config", "study=smoke"], cwd=place,
                          env=environment, capture_output=True, text=True, timeout=3600)
    logs = "".join(path.read_text()[-3000:] for path in (place / ".snakemake" / "slurm_logs").rglob("*.log"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + logs


def cancel_first(slurm: Slurm, rule: str, cancelled: list[int]) -> None:
    """Cancel the first job of a rule once it runs."""
    while not cancelled:
        time.sleep(0.5)
        cancelled += [job["id"] for job in slurm.jobs() if (job["rule"], job["state"]) == (rule, "RUNNING")][:1]
    slurm.ask("scancel", str(cancelled[0]))


@pytest.fixture(scope="module")
def runs(slurm, tmp_path_factory) -> dict[str, Path]:
    """The same run on this machine and by the profile for Slurm, where the first job of 01 is cancelled."""
    places = {name: checkout(tmp_path_factory.mktemp(name) / "checkout") for name in ("here", "cluster")}
    study(places["here"], os.environ, "--cores", "2")
    threading.Thread(target=cancel_first, args=(slurm, "seed_extraction", []), daemon=True).start()
    study(places["cluster"], slurm.environment, "--profile", "params/profiles/slurm",
          "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3",
          "--set-resources", "fine_tuning:gpu=1", "evaluation:gpu=1")
    return places


def test_the_files_are_those_of_a_run_without_a_cluster(runs):
    for name in FILES:
        here, cluster = [(place / TARGET).with_name(name).read_bytes() for place in (runs["here"], runs["cluster"])]
        assert here == cluster, name


def test_training_and_evaluation_alone_had_the_gpu(runs, slurm):
    done = [job for job in slurm.jobs() if job["state"] == "COMPLETED"]
    assert {job["rule"] for job in done if job["gpus"]} == {"fine_tuning", "evaluation"}
    assert {job["rule"] for job in done} >= {"seed_extraction", "augmentation", "filtering", "stand_in"}


def test_a_cancelled_job_was_tried_again_with_more_memory_and_time(runs, slurm):
    tries = [job for job in slurm.jobs() if job["rule"] == "seed_extraction"]
    first = next(job for job in tries if job["state"] == "CANCELLED")
    assert (first["memory"], first["limit"]) == ("4000M", "01:00:00")
    assert ("COMPLETED", "8000M", "02:00:00") in [(job["state"], job["memory"], job["limit"]) for job in tries]
