"""The report's own pages, as MyST Markdown: the index, which opens on findings and figures, and the provenance.

>>> Page("main", "korean", "05_evaluation", notebook).name
'main/korean/05_evaluation'
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from nbformat import NotebookNode

from culturellm_utils.parameters import COMMON, ONE, STAND_INS
from culturellm_utils.records import read_json
from culturellm_utils.report import executed

SUMMARY = "07_summary"
OF_WORDINGS = ("02_augmentation", "03_filtering", "06_human_study")
OF_CULTURE = ("01_seed_extraction", "04_fine_tuning", "05_evaluation")
OF_ONE = ("04_fine_tuning", "05_evaluation")

#: Figures of 07 that open the report, in this order, and their headings; any others follow under their file name.
FIGURES = {
    "before_and_after": "Before and after fine-tuning",
    "what_each_part_adds": "What each part of the method adds",
    "matrix": "Who speaks for whom",
    "specific_or_one": "One model for each culture, or one for all",
    "held_out_questions": "Questions never trained on",
    "whole_distribution": "Near the most frequent answer, or near all answers",
    "classification": "What it did to classification",
    "forgetting": "What was forgotten",
    "paper_labels": "What the paper's labels cost",
}

TOY = """```{important}
**These are the figures of a toy model.** The base model, `%s`, is a stand-in of about a million weights that this \
project builds by itself, so that everything runs on a laptop. The figures show that the method runs, on real survey \
answers. They say nothing about any model in use, and are not to be compared with the paper's.
```"""

ABOUT = """Language models answer questions about values much as some people do, and unlike others. \
This study takes what people of %s answered in the World Values Survey, says each question in many other ways, \
fine-tunes a language model on the answers (CultureLLM, [arXiv 2402.10946](https://arxiv.org/abs/2402.10946)), and \
measures whether it then answers more like those people. Every figure below is computed from the study's files. \
The code behind it is folded under "Show code"."""


@dataclass(frozen=True)
class Page:
    """One executed notebook of the study: a page of the report. ``arm`` tells several variants apart."""

    variant: str
    folder: str
    stage: str
    notebook: NotebookNode
    arm: str = ""

    @property
    def name(self) -> str:
        """The page's place in the report."""
        return f"{self.variant}/{self.folder}/{self.stage}"

    @property
    def whom(self) -> str:
        """Whom the page is about, for people."""
        known = {COMMON: "Across cultures", ONE: "CultureLLM-One"}
        return known.get(self.folder, re.sub("[_-]", " ", self.folder).capitalize()) + self.arm

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
        return f"[{self.step}]({self.name}.ipynb)"


def places(cultures: Sequence[str], worded: Mapping[str, str]) -> list[tuple[str, str]]:
    """Folder and stage of every page of a variant, in the order of the navigation. ``worded`` says whose folder holds
    a culture's wordings (``studies.place``)."""
    folders = {COMMON: (SUMMARY,), **dict.fromkeys(cultures, OF_CULTURE), ONE: OF_ONE}
    for folder in set(worded.values()):
        folders[folder] = tuple(sorted((*folders[folder], *OF_WORDINGS)))
    return [(folder, stage) for folder, stages in folders.items() for stage in stages]


def index(title: str, pages: Sequence[Page], source: Path) -> str:
    """The first page. ``source`` holds copies of ``figures/<variant>`` and ``tables/<variant>``.

    It opens on the first variant: its findings and figures; then come the findings of the others.
    """
    first, *others = [page for page in pages if page.stage == SUMMARY]
    groups = {whom: list(group) for whom, group in groupby(pages, key=lambda page: page.whom)}
    parts = [f"# {title}", ABOUT % _cultures(pages), *_base_models(pages),
             f"## What we found{first.arm}", executed.findings(first.notebook), *_figures(first, source)]
    for page in others:
        parts += [f"## What we found{page.arm}", executed.findings(page.notebook), f"Figures: {page.link}"]
    parts += ["## Every page", _table(["about", "pages"], [
        (whom, " · ".join(page.link for page in members)) for whom, members in groups.items()])]
    parts += ["Versions, revisions and running times: [](provenance.md)."]
    parts += [_toctree(whom, [f"{page.step} <{page.name}>" for page in members]) for whom, members in groups.items()]
    return "\n\n".join([*parts, _toctree("About", ["provenance"])]) + "\n"


def _cultures(pages: Sequence[Page]) -> str:
    names = list(dict.fromkeys(page.whom.removesuffix(page.arm) for page in pages if page.stage == OF_CULTURE[0]))
    return f"one culture ({names[0]})" if len(names) == 1 else f"{len(names)} cultures ({', '.join(names)})"


def _base_models(pages: Sequence[Page]) -> list[str]:
    """What was fine-tuned, and that it is a toy where it is."""
    models = sorted({executed.settings(page.notebook)["base_model"].value for page in pages if page.stage == OF_ONE[0]})
    toys = [name for name in models if name in STAND_INS]
    real = [name for name in models if name not in STAND_INS]
    return [TOY % "`, `".join(toys)] * bool(toys) + [f"Fine-tuned: `{'`, `'.join(real)}`."] * bool(real)


def _figures(page: Page, source: Path) -> list[str]:
    """Each figure of a variant under a heading, with a link to its data."""
    figures, tables = source / "figures" / page.variant, source / "tables" / page.variant
    there = sorted(path.stem for path in figures.glob("*.svg"))
    parts = []
    for name in [*(name for name in FIGURES if name in there), *(name for name in there if name not in FIGURES)]:
        alt = escaped(executed.figure_title((figures / f"{name}.svg").read_text(encoding="utf-8")))
        parts += [f"## {FIGURES.get(name, name.replace('_', ' ').capitalize())}",
                  f"![{alt}](figures/{page.variant}/{name}.svg)"]
        if (tables / f"{name}.csv").is_file():
            parts.append(f"Data of this figure: [{name}.csv](tables/{page.variant}/{name}.csv)")
    others = sorted(path.name for path in tables.glob("*.csv") if path.stem not in there)
    if others:
        parts.append("More tables: " + ", ".join(f"[{name}](tables/{page.variant}/{name})" for name in others))
    return parts


def _toctree(caption: str, entries: Sequence[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>$|#])", r"\\\1", text)


def provenance(study: str, pages: Sequence[Page], home: Path) -> str:
    """The page that says what ran when, on what."""
    stamps = [executed.stamp(page.notebook) for page in pages]
    revisions = sorted({stamp.revision for stamp in stamps})
    minutes = sum(stamp.seconds or 0 for stamp in stamps) / 60
    parts = ["# How these pages were made",
             f"The study is `params/studies/{study}.yaml`; `make report STUDY={study}` makes it again, and runs only "
             "the notebooks that a change touches.",
             f"{len(pages)} notebooks ran for {minutes:.1f} minutes in all, several at a time."]
    if len(revisions) > 1:
        parts.append(f"They ran at different revisions of the code: {', '.join(revisions)}.")
    if any(revision.endswith("+") for revision in revisions):
        parts.append("A revision that ends in + had changes that were not committed.")
    for page in pages:
        if page.stage == SUMMARY:
            made = read_json(home / page.variant / COMMON / "summary.json")
            rows = {"revision": made["revision"], "parameters": made["digest"], **made["versions"]}
            parts += [f"## Versions at the summary{page.arm}", _table(["what", "version"], rows.items())]
    parts += ["## When each notebook ran", _table(["page", "ran at (UTC)", "seconds", "revision", "parameters"], [
        (f"{page.whom}: {page.link}", stamp.started, "–" if stamp.seconds is None else f"{stamp.seconds:.0f}",
         stamp.revision, f"`{stamp.digest}`") for page, stamp in zip(pages, stamps, strict=True)])]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
