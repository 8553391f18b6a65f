"""The one owner of paths: where parameters, notebooks, shipped data, outputs and the cache lie.

>>> stage_dir("laptop", "korean")          # outputs/laptop/main/korean
"""

import os
from pathlib import Path

from culturellm_utils.errors import UserError

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
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def given(text: Path | str) -> Path:
    """A file or folder that a user named: ``~`` is their home, and what is relative starts at the repository.

    Raises UserError for what no file can be called.
    """
    try:
        path = ROOT / Path(text).expanduser()
        path.exists()
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
