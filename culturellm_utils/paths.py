"""The one owner of paths: where parameters, notebooks, shipped data, outputs and the cache lie.

>>> stage_dir("laptop", "korean")          # outputs/laptop/main/korean
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from culturellm_utils.errors import UserError, remedy

PACKAGE = Path(__file__).resolve().parent
DATA = PACKAGE / "data"

#: The repository: beside the package when it is installed in place, otherwise the working directory.
ROOT = PACKAGE.parent if (PACKAGE.parent / "notebooks").is_dir() else Path.cwd()
NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "params"
REPORT_SOURCES = PACKAGE / "report"

#: Notebooks in running order.
NOTEBOOK_NAMES = (
    "01_seed_extraction",
    "02_augmentation",
    "03_filtering",
    "04_fine_tuning",
    "05_evaluation",
    "06_human_study",
    "07_summary",
    "08_transfer",
    "09_open_answers",
    "10_comparison",
)


def outputs() -> Path:
    """Where runs write; ``CULTURELLM_OUTPUTS`` moves it (tests do)."""
    return Path(os.environ.get("CULTURELLM_OUTPUTS", ROOT / "outputs"))


def cache() -> Path:
    """What can be rebuilt (chat replies, the stand-in model, embeddings); ``CULTURELLM_CACHE`` moves it."""
    return Path(os.environ.get("CULTURELLM_CACHE", ROOT / "outputs" / "cache"))


def stage_dir(study: str, culture: str, variant: str = "main") -> Path:
    """The folder of one culture (or ``common``) in one variant of a study; made when missing."""
    folder = outputs() / study / variant / culture
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def writing(place: Path | str) -> Iterator[None]:
    """What is done inside writes ``place``: a disk that is full, forbidden or broken becomes a UserError that names it.

    Only the text of an error is asked where it is no OSError: safetensors, tokenizers and torch have none of their own.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        helps = remedy(error)
        if not helps and (not isinstance(error, OSError) or isinstance(error, FileNotFoundError)):
            raise
        homes = {"CULTURELLM_CACHE": cache(), "CULTURELLM_OUTPUTS": outputs()}
        moved = next((name for name, home in homes.items() if Path(place).is_relative_to(home)), "")
        raise UserError(f"{shown(place)} cannot be written ({reason(error)}): {helps or 'mend that and rerun'}"
                        f"{moved and f', or set {moved} to another folder'}") from None


@contextmanager
def reading(place: Path | str) -> Iterator[None]:
    """What is done inside reads ``place``: a file that is forbidden or broken becomes a UserError that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{shown(place)} cannot be read ({reason(error)}): allow that, or name another file, and rerun"
                        ) from None


def reason(error: Exception) -> str:
    """What an error says, without the place, in which a temporary name would puzzle."""
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return (error.strerror or text) if isinstance(error, OSError) else text


def given(text: Path | str) -> Path:
    """A file or folder that a user named: ``~`` is their home, and what is relative starts at the repository.

    Raises UserError for what no file can be called, and for a file that may not be read.
    """
    try:
        path = ROOT / Path(text).expanduser()
        if path.is_file():
            path.open("rb").close()
    except PermissionError as error:
        raise UserError(f"{shown(path)} cannot be read ({reason(error)}): allow that, or name another file, and rerun"
                        ) from None
    except (RuntimeError, OSError, ValueError) as error:  # a home that is not known, a name too long, a NUL in it
        raise UserError(f"'{text}' cannot be the name of a file or folder ({error}); write another path") from None
    return path


def shown(path: Path | str) -> str:
    """A path as a reader should see it: relative to the repository where it lies inside it."""
    path = Path(path)
    for base in (outputs().parent, ROOT):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return path.name if path.is_absolute() else str(path)
