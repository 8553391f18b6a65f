"""Locks of a killed Snakemake are removed; those of one that works are not."""

import subprocess
import sys

import pytest

from culturellm_utils import unlocking


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / unlocking.LOCKS / "0.output.lock"
    path.parent.mkdir(parents=True)
    path.write_text("outputs/a.txt\n")
    return path


def start(folder, name):
    """A process that is called so and works in a folder."""
    program = folder / name
    program.write_text("print('on', flush=True)\nimport time\ntime.sleep(60)\n")
    running = subprocess.Popen([sys.executable, str(program)], cwd=folder, stdout=subprocess.PIPE)
    running.stdout.readline()
    return running


def test_a_lock_that_nobody_holds_is_removed_once(lock, tmp_path):
    assert unlocking.unlock(tmp_path)
    assert not lock.exists()
    assert not unlocking.unlock(tmp_path)
    assert not unlocking.unlock(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["snakemake", "culturellm_utils.run"])
def test_the_lock_of_a_run_that_goes_on_stays(lock, tmp_path, name):
    with start(tmp_path, name) as running:
        assert not unlocking.unlock(tmp_path)
        running.kill()
    assert unlocking.unlock(tmp_path)


def test_a_run_in_another_folder_is_no_matter(lock, tmp_path):
    (tmp_path / "other").mkdir()
    with start(tmp_path / "other", "snakemake") as running:
        assert unlocking.unlock(tmp_path)
        running.kill()


def test_the_command_says_what_it_did(lock, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert [unlocking.main(), unlocking.main()] == [0, 0]
    assert capsys.readouterr().out == "an earlier run was killed: what it did not finish is done again\n"
