"""The pages of a study: which executed notebooks they are, whose, and where they stand in the report.

>>> Page("main", "korean", "05_evaluation", notebook).name
'main/korean/05_evaluation'
>>> study = Study("laptop", plan, home, pages)
>>> study.of("05_evaluation")[0].file("scores.json")["figures"]
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from culturellm_utils.parameters import COMMON, COMPARISON, ONE
from culturellm_utils.records import read_json
from culturellm_utils.report import executed
from culturellm_utils.report.executed import Setting

COMPARED = "10_comparison"
SUMMARY = "07_summary"
#: What all cultures share, in the order of the navigation.
ACROSS = (SUMMARY, "08_transfer", "09_open_answers")
OF_WORDINGS = ("02_augmentation", "03_filtering", "06_human_study")
OF_CULTURE = ("01_seed_extraction", "04_fine_tuning", "05_evaluation")
OF_ONE = ("04_fine_tuning", "05_evaluation")
#: What a variant that is only compared runs, besides what it shares with an earlier one.
OF_ARM = ("01_seed_extraction", "02_augmentation", "03_filtering", "04_fine_tuning", "05_evaluation")


@dataclass(frozen=True)
class Page:
    """One executed notebook of the study: a page of the report. ``arm`` tells several variants apart, ``gathered``
    pages stand together under their variant's name, and ``home`` is the folder of the study."""

    variant: str
    folder: str
    stage: str
    notebook: NotebookNode
    arm: str = ""
    gathered: bool = False
    home: Path = field(default=Path(), repr=False)

    @property
    def name(self) -> str:
        """The page's place in the report."""
        return f"{self.variant}/{self.folder}/{self.stage}"

    @property
    def whose(self) -> str:
        """Whom the page is about, for people, whatever the variant."""
        known = {COMMON: "The comparison" if self.variant == COMPARISON else "Across cultures", ONE: "CultureLLM-One"}
        return known.get(self.folder, re.sub("[_-]", " ", self.folder).capitalize())

    @property
    def whom(self) -> str:
        """Whom the page is about, for people."""
        return self.whose + self.arm

    @property
    def group(self) -> str:
        """The caption under which the navigation has the page."""
        return f"Variant {self.variant}" if self.gathered else self.whom

    @property
    def entry(self) -> str:
        """What the navigation calls the page under its caption."""
        return f"{self.whose}: {self.step}" if self.gathered else self.step

    @property
    def prefix(self) -> str:
        """What the page's title begins with; empty when the notebook's own title says it all."""
        return self.whom if self.folder != COMMON or self.arm else ""

    @property
    def step(self) -> str:
        """``04 Fine tuning``."""
        number, _, words = self.stage.partition("_")
        return f"{number} {words.replace('_', ' ').capitalize()}"

    @property
    def link(self) -> str:
        """A link to the page."""
        return f"[{self.step}](/{self.name}.ipynb)"

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """The knobs of the run."""
        return executed.settings(self.notebook)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The knobs' values alone."""
        return {name: knob.value for name, knob in self.settings.items()}

    @property
    def place(self) -> Path:
        """Where the notebook lies, and what it wrote."""
        return self.home / self.variant / self.folder

    @property
    def data(self) -> dict[str, str]:
        """Where the report has the data of each figure that the notebook's folder holds."""
        return {path.stem: f"/tables/{self.variant}/{self.folder}/{path.name}"
                for path in sorted((self.place / "tables").glob("*.csv"))}

    @property
    def figures(self) -> list[str]:
        """Names of the saved figures that the page shows, in its order."""
        return executed.saved_figures(self.notebook)

    def anchor(self, figure: str) -> str:
        """The name of the place on the page where a saved figure stands."""
        return re.sub(r"[^\w-]", "-", f"{self.name}-{figure}").lower()

    def file(self, name: str) -> dict[str, Any]:
        """A JSON file that the notebook wrote; empty where it wrote none."""
        path = self.place / name
        return read_json(path) if path.is_file() else {}


@dataclass(frozen=True)
class Study:
    """What the report is made of: the study's name and plan (``studies.study``), its folder, and its pages."""

    name: str
    plan: Mapping[str, Any]
    home: Path
    pages: Sequence[Page]

    @property
    def compares(self) -> bool:
        """Whether the study holds its variants against each other."""
        return bool(self.plan["compare"])

    @property
    def leading(self) -> str:
        """The first variant."""
        return next(page.variant for page in self.pages if page.variant != COMPARISON)

    def of(self, *stages: str, variant: str = "") -> list[Page]:
        """The pages of some notebooks, of one variant or of all."""
        return [page for page in self.pages if page.stage in stages and variant in ("", page.variant)]


def places(cultures: Sequence[str], worded: Mapping[str, str]) -> list[tuple[str, str]]:
    """Folder and stage of every page of a variant, in the order of the navigation. ``worded`` says whose folder holds
    a culture's wordings (``studies.place``)."""
    folders = {COMMON: ACROSS, **dict.fromkeys(cultures, OF_CULTURE), ONE: OF_ONE}
    for folder in set(worded.values()):
        folders[folder] = tuple(sorted((*folders[folder], *OF_WORDINGS)))
    return [(folder, stage) for folder, stages in folders.items() for stage in stages]


def toctree(caption: str, entries: Sequence[str]) -> str:
    """A part of the navigation."""
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>$|#~])", r"\\\1", " ".join(text.split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def between(numbers: Sequence[int]) -> str:
    """One number, or the least and the most.

    >>> between([3, 3]), between([6, 10, 8])
    ('3', '6 to 10')
    """
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names in a row, of many the first few."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
