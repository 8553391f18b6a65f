"""Parts: what is written beside its place and takes it when it is whole, so that nobody sees half a file or folder.

>>> with replacing(Path("outputs/laptop/main/korean/seeds.jsonl")) as beside: ...  # .seeds.jsonl.4711-5f0a1c.x3k2v.part

A run that is killed leaves its part behind. Its name tells whose it was (the process, and a hash of the machine's
name, as clusters share folders): the next writer of the same place there removes it.
"""

import glob
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from culturellm_utils import paths

_mine: set[Path] = set()  # what threads of this process are writing


@contextmanager
def scratch(place: Path, folder: bool = False) -> Iterator[Path]:
    """An empty file or folder beside ``place``, gone at the end unless it was renamed. Parts of ``place`` that killed
    runs on this machine left are removed first. Raises UserError when the disk is full or forbidden."""
    with paths.writing(place), _beside(place, folder) as beside:
        yield beside


@contextmanager
def _beside(place: Path, folder: bool) -> Iterator[Path]:
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(f".{glob.escape(place.name)}.*.part"):
        if _abandoned(left):
            remove(left)
    begins, ends = f".{place.name}.{os.getpid()}-{_here()}.", ".part"
    if folder:
        beside = Path(tempfile.mkdtemp(ends, begins, place.parent))
    else:
        handle, name = tempfile.mkstemp(ends, begins, place.parent)
        os.close(handle)
        beside = Path(name)
    _mine.add(beside)
    try:
        beside.chmod(0o755 if folder else 0o644)  # made for this user alone
        yield beside
    finally:
        remove(beside)
        _mine.discard(beside)


@contextmanager
def replacing(place: Path, folder: bool = False) -> Iterator[Path]:
    """An empty file or folder to be written, which takes the place of ``place`` at the end; not when an error comes."""
    with scratch(place, folder) as beside:
        yield beside
        put(beside, place)


def put(new: Path, place: Path) -> None:
    """Put ``new`` where ``place`` is; a file takes no folder's place. A folder that is replaced by one is moved away
    first: that cannot be done in one step, and one that is being deleted is half a folder."""
    if not (new.is_dir() and place.is_dir()):
        os.replace(new, place)
        return
    with scratch(place, folder=True) as away:
        os.replace(place, away / "old")
        try:
            os.replace(new, place)
        except OSError:
            os.replace(away / "old", place)
            raise


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _here() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _abandoned(part: Path) -> bool:
    """Whether the process that wrote a part is no more."""
    import psutil

    number, _, where = part.name.split(".")[-3].partition("-")
    if where != _here():
        return False
    if number == str(os.getpid()):  # in a container the killed run may have had the number of this one
        return part not in _mine
    try:
        return psutil.Process(int(number)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.Error):  # not a part's name, or nothing to be known: it stays
        return False
