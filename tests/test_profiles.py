"""What each rule asks of a cluster, and the profiles for Slurm and Kubernetes (whose API a loopback server plays)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kubernetes_api import Cluster
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings

from culturellm_utils import paths, records

PROFILES = paths.PARAMS / "profiles"
CLUSTERS = ("slurm", "kubernetes")
SNAKEFILE = (paths.ROOT / "Snakefile").read_text()
STUDY = """
title: x
cultures: [korean, german]
parameters: {base_model: some/model, perplexity_model: ""}
variants:
  main: {}
  launched: {launch: ddp}
  toy: {base_model: stand-in-tiny}
  remote: {model_backend: openai, price_training: 1.0, budget_money: 1.0}
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> dict[tuple[str, str, int], dict]:
    """What each rule asks for in a variant and at an attempt, of a study whose variants load a model here, load it in
    two processes, take the stand-in, or none."""
    place = tmp_path_factory.mktemp("profiles")
    shutil.copytree(paths.PARAMS, place / "params")
    (place / "params" / "studies" / "mine.yaml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch, SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        patch.setattr(paths, "PARAMS", place / "params")
        patch.setenv("CULTURELLM_OUTPUTS", str(place / "outputs"))
        patch.chdir(paths.ROOT)
        planned = api.workflow(ResourceSettings(cores=1), ConfigSettings(config={"study": "mine"}),
                               snakefile=paths.ROOT / "Snakefile").dag()
        planned.execute_workflow(executor="dryrun")
        found = {}
        for job in planned.workflow_api._workflow.dag.jobs:
            for attempt in (1, 3):
                job.attempt, job._resources = attempt, None
                key = (job.rule.name, job.wildcards_dict.get("variant", ""), attempt)
                resources = dict(job.resources)
                assert found.setdefault(key, resources) == resources  # the same for every culture
        return found


@pytest.mark.parametrize(("variant", "training", "answering"), [
    ("main", 1, 1), ("launched", 2, 1), ("toy", None, None), ("remote", None, None)])
def test_gpus_are_asked_for_by_a_model_that_is_loaded_here(asked, variant, training, answering):
    assert asked["fine_tuning", variant, 1].get("gpu") == training
    assert asked["evaluation", variant, 1].get("gpu") == answering


def test_only_training_and_evaluation_ask_for_a_gpu(asked):
    assert {rule for (rule, *_), resources in asked.items() if "gpu" in resources} == {"fine_tuning", "evaluation"}
    assert {rule for rule, *_ in asked} == {*re.findall(r"^rule (\w+):", SNAKEFILE, re.M)} - {"comparison"}


@pytest.mark.parametrize(("rule", "resource", "first"), [
    ("augmentation", "runtime", 240), ("fine_tuning", "mem_mb", 8000), ("fine_tuning", "runtime", 240),
    ("evaluation", "mem_mb", 8000), ("evaluation", "runtime", 240)])
def test_a_job_that_is_tried_again_gets_more(asked, rule, resource, first):
    assert [asked[rule, "main", attempt][resource] for attempt in (1, 3)] == [first, 3 * first]


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_profile_says_what_the_other_rules_get_and_tries_again(name):
    found = yaml.safe_load((PROFILES / name / "config.yaml").read_text())
    assert found["retries"] >= 1
    assert "attempt" in found["default-resources"]["mem_mb"]
    assert "gpu" not in found["default-resources"]


def test_profiles_of_clusters_are_no_choice_for_launch():
    assert {path.stem for path in PROFILES.glob("*.yaml")} == {"ddp", "fsdp"}
    assert set(CLUSTERS) == {path.name for path in PROFILES.iterdir() if path.is_dir()}


def test_the_lines_to_be_uncommented_name_rules_of_the_snakefile():
    for name in CLUSTERS:
        lines = (PROFILES / name / "config.yaml").read_text().partition("executor: ")[2].splitlines()
        found = yaml.safe_load("\n".join(["executor: x", *(
            line.removeprefix("#") for line in lines[1:] if not re.match(r"# \w", line))]))
        rules = {*found["set-resources"], *found["set-threads"]}
        assert rules
        assert all(f"\nrule {rule}:\n" in SNAKEFILE for rule in rules)


def snakemake(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Snakemake in a checkout of its own."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, "--config", "study=smoke"], cwd=place, text=True,
        capture_output=True, timeout=3000, env=os.environ | environment)


def checkout(place: Path) -> Path:
    """A copy of what runs a study, and its own outputs."""
    for name in ("notebooks", "culturellm_utils", "params"):
        shutil.copytree(paths.ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(paths.ROOT / "Snakefile", place / "Snakefile")
    return place


@pytest.mark.slow
def test_kubernetes_is_asked_for_each_job_and_again_for_a_killed_one_with_more_memory(tmp_path, monkeypatch):
    pytest.importorskip("snakemake_executor_plugin_kubernetes", reason="needs pip install -e '.[cluster]'")
    place = checkout(tmp_path / "checkout")
    monkeypatch.delenv("CULTURELLM_OUTPUTS")
    seeds = place / "outputs" / "smoke" / "main" / "korean" / "seeds.jsonl"
    with Cluster(tmp_path, killed=1) as cluster:
        done = snakemake(
            place, str(seeds), "--profile", "params/profiles/kubernetes", "--seconds-between-status-checks", "1",
            "--kubernetes-volume-persistent-volumes", f"claim:{place}", "--set-resources", "seed_extraction:gpu=1",
            "--envvars", "CULTURELLM_CACHE", "--latency-wait", "5",
            KUBECONFIG=str(cluster.kubeconfig), PYTHONPATH=f"{place}/params/profiles/kubernetes:{place}",
            CULTURELLM_CACHE=str(tmp_path / "cache"))
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + logs[-3000:]
    assert len(records.read_rows(seeds, records.Seed)) == 50
    memory = []
    for job in cluster.jobs:
        pod = job["spec"]["template"]["spec"]
        container, = pod["containers"]
        assert container["image"] == "python:3.11"
        assert {"name": "claim", "mountPath": str(place)} in container["volumeMounts"]
        assert {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}} in pod["volumes"]
        assert [entry["name"] for entry in container["env"]] == ["CULTURELLM_CACHE"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        memory.append(container["resources"]["limits"]["memory"])
    assert memory == ["4000M", "8000M"]
    assert {kind for kind, _ in cluster.deleted} == {"jobs", "pods", "secrets"}

