"""One notebook by papermill: how its kernel is reached."""

import os
from pathlib import Path

import papermill
import pytest

from culturellm_utils import paths, run


@pytest.mark.skipif(os.name != "posix", reason="kernels listen at ports there")
def test_two_kernels_that_start_at_once_cannot_be_told_the_same_place(tmp_path, monkeypatch):
    told, notebook = [], paths.NOTEBOOKS / "01_seed_extraction.ipynb"

    def inner(*_, config, **__):
        told.append(config["KernelManager"])
        assert Path(told[-1]["ip"]).parent.is_dir()
        if len(told) == 1:
            run.run(notebook, tmp_path / "b.ipynb", tmp_path / "log" / "b.ipynb", {})

    monkeypatch.setattr(papermill, "execute_notebook", inner)
    run.run(notebook, tmp_path / "a.ipynb", tmp_path / "log" / "a.ipynb", {})
    assert [one["transport"] for one in told] == ["ipc", "ipc"]
    first, second = (Path(one["ip"]).parent for one in told)
    assert first != second
    assert not first.exists()
    assert not second.exists()
