"""What a run ran on: the machine's kind, and never its name."""

import platform
import subprocess
from pathlib import Path

import pytest

from culturellm_utils import figures, parameters, provenance


@pytest.fixture
def machine(monkeypatch):
    """Says what the driver's tool answers; None for a machine without one."""
    def has(answer: str | None) -> None:
        def run(command, **settings):
            if answer is None:
                raise FileNotFoundError(command[0])
            return subprocess.CompletedProcess(command, 0, answer)
        provenance.hardware.cache_clear()
        monkeypatch.setattr(provenance, "subprocess", type("fake", (), {
            "run": staticmethod(run), "SubprocessError": subprocess.SubprocessError,
            "CalledProcessError": subprocess.CalledProcessError}))
    yield has
    provenance.hardware.cache_clear()


def test_hardware_says_what_the_machine_can_do_and_not_which_it_is(machine):
    machine(None)
    found = provenance.hardware()
    assert set(found) == {"processor", "cores", "memory_gb", "gpu"}
    assert found["gpu"] == "none"
    assert found["cores"] >= 1
    assert found["memory_gb"] > 0.1
    assert platform.node() not in str(found)


def test_every_gpu_is_named(machine):
    machine("NVIDIA H100\nNVIDIA H100\n")
    assert provenance.hardware()["gpu"] == "NVIDIA H100, NVIDIA H100"


def test_the_stamp_has_a_line_on_the_machine(machine):
    machine("NVIDIA H100\n")
    knobs = parameters.Knobs(study="laptop", variant="main", random_seed=0)
    first, second = provenance.stamp(knobs).splitlines()
    assert first.endswith(f"parameters {knobs.digest}")
    assert second.startswith("ran on ")
    assert second.endswith(" · GPU NVIDIA H100")
    assert provenance.record(knobs)["hardware"]["gpu"] == "NVIDIA H100"


def test_a_saved_figure_carries_its_name(tmp_path: Path):
    import pandas as pd

    ax = figures.axes("Two of three", "cups a day", "")
    figures.save(ax, tmp_path, "tea-and_coffee", pd.DataFrame({"cups": [2, 3]}))
    assert figures.saved_as((tmp_path / "figures" / "tea-and_coffee.svg").read_text()) == "tea-and_coffee"
    assert (tmp_path / "tables" / "tea-and_coffee.csv").read_text() == "cups\n2\n3\n"
    assert figures.saved_as("<svg><g id=\"figure_1\"></g></svg>") == ""
