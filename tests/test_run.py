"""One notebook by papermill: how its kernel is reached, and what is said when it is lost."""

import os
from pathlib import Path

import nbformat
import papermill
import pytest

from culturellm_utils import parameters, paths, run
from culturellm_utils.errors import UserError


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


def test_a_kernel_that_is_killed_is_explained(tmp_path, monkeypatch):
    cell = nbformat.v4.new_code_cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "greedy.ipynb")
    monkeypatch.setattr(parameters, "names", lambda _: set())
    with pytest.raises(UserError, match=r"^greedy stopped: its kernel was killed, most often for want of m"):
        run.run(tmp_path / "greedy.ipynb", tmp_path / "out.ipynb", tmp_path / "log" / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()


@pytest.mark.parametrize(("command", "said"), [
    (["false"], "its kernel did not start .Kernel died before replying to kernel_info.: rerun"),
    (None, "its kernel did not start .No such kernel named python3.: "),
])
def test_a_kernel_that_does_not_start_is_explained(command, said, tmp_path, monkeypatch):
    from jupyter_client import kernelspec

    def found(_, name):
        if command is None:
            raise kernelspec.NoSuchKernel(name)
        return kernelspec.KernelSpec(argv=command, language="python")

    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", found)
    with pytest.raises(UserError, match=rf"^01_seed_extraction stopped: {said}"):
        run.run(paths.NOTEBOOKS / "01_seed_extraction.ipynb", tmp_path / "a.ipynb", tmp_path / "log" / "a.ipynb", {})
    assert not (tmp_path / "a.ipynb").exists()
