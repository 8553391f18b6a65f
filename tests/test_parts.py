"""Parts of files and folders: put in place whole, and removed when the run that wrote them was killed."""

import os
import subprocess
import sys

import pytest

from culturellm_utils import parts, paths
from culturellm_utils.errors import UserError

#: Begins to write the file and the folder that are named, says so, and is killed there.
KILLED = """
import os, signal, sys
from pathlib import Path
from culturellm_utils import parts
with parts.replacing(Path(sys.argv[1])) as file, parts.replacing(Path(sys.argv[2]), folder=True) as folder:
    file.write_text("ha"), (folder / "a").write_text("lf")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_a_folder_take_their_places_whole(tmp_path):
    with parts.replacing(tmp_path / "new" / "a.txt") as beside:
        beside.write_text("one")
        assert beside.parent == tmp_path / "new"
        assert beside.name.startswith(f".a.txt.{os.getpid()}-")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text() == "one"
    assert (tmp_path / "new" / "a.txt").stat().st_mode & 0o777 == 0o644
    for text in ("one", "two"):
        with parts.replacing(tmp_path / "model", folder=True) as beside:
            (beside / text).touch()
        assert names(tmp_path / "model") == [text]
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755
    assert names(tmp_path) == ["model", "new"]


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_what_was_there(tmp_path, folder):
    place = tmp_path / "a"
    with parts.replacing(place, folder):
        pass
    before = place.stat().st_ino
    with pytest.raises(RuntimeError), parts.replacing(place, folder):
        raise RuntimeError
    assert (names(tmp_path), place.stat().st_ino) == (["a"], before)


def test_a_folder_that_cannot_be_put_leaves_the_one_that_is_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    with pytest.raises(FileNotFoundError):
        parts.put(tmp_path / "nothing", tmp_path / "a")
    assert (names(tmp_path), names(tmp_path / "a")) == (["a"], ["old"])


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="directory"), parts.replacing(tmp_path / "a"):
        pass
    assert (names(tmp_path), (tmp_path / "a").is_dir()) == (["a"], True)


def test_what_another_machine_writes_is_left_alone(tmp_path):
    gone = tmp_path / ".a.999999999-abcdef.x.part"
    gone.touch()
    with parts.replacing(tmp_path / "a"):
        pass
    assert names(tmp_path) == [gone.name, "a"]


def test_what_a_killed_run_left_is_removed_by_the_next_writer_of_the_same_place(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a[1]", tmp_path / "model"], cwd=paths.ROOT,
                            check=False)
    assert killed.returncode == -9
    (file, folder) = names(tmp_path)
    assert (file[:6], folder[:7]) == (".a[1].", ".model.")
    with parts.replacing(tmp_path / "a") as beside:
        beside.write_text("another file's part is not ours")
    with parts.replacing(tmp_path / "a[1]"):
        assert file not in names(tmp_path)
    assert names(tmp_path) == [folder, "a", "a[1]"]
    with parts.replacing(tmp_path / "model", folder=True):
        pass
    assert names(tmp_path) == ["a", "a[1]", "model"]


def test_a_part_that_is_being_written_stays(tmp_path):
    here = parts._here()
    init = tmp_path / f".a.1-{here}.abcdefgh.part"  # by a process that lives
    own = tmp_path / f".a.{os.getpid()}-{here}.abcdefgh.part"  # by a killed one, whose number this process has now
    odd = tmp_path / ".a.x.part"
    for path in (init, own, odd):
        path.touch()
    with parts.replacing(tmp_path / "a") as one, parts.replacing(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"  # put last
    assert names(tmp_path) == [init.name, odd.name, "a"]
