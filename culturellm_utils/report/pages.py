"""The report's own pages, as MyST Markdown: the index, which opens on findings and figures, and the provenance.

>>> Page("main", "korean", "05_evaluation", notebook).name
'main/korean/05_evaluation'
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from nbformat import NotebookNode

from culturellm_utils.parameters import ONE
from culturellm_utils.records import read_json
from culturellm_utils.report import executed

COMMON = "common"
SUMMARY = "07_summary"
ACROSS = ("02_augmentation", "03_filtering", "06_human_study", SUMMARY)
OF_CULTURE = ("01_seed_extraction", "04_fine_tuning", "05_evaluation")
OF_ONE = ("04_fine_tuning", "05_evaluation")

#: Figures of 07 that open the report, in this order, and their headings; any others follow under their file name.
FIGURES = {
    "before_and_after": "Before and after fine-tuning",
    "matrix": "Who speaks for whom",
    "specific_or_one": "One model for each culture, or one for all",
    "held_out_questions": "Questions never trained on",
    "paper_labels": "What the paper's labels cost",
    "arithmetic": "What it did to arithmetic",
}

TOY = """:::{important}
**These are the figures of a toy model.** The base model, `%s`, is a stand-in of about a million weights that this \
project builds by itself, so that everything runs on a laptop. The figures show that the method runs, on real survey \
answers. They say nothing about any model in use, and are not to be compared with the paper's.
:::"""

ABOUT = """Language models answer questions about values much as some people do, and unlike others. \
This study takes what people of %s answered in the World Values Survey, says each question in many other ways, \
fine-tunes a language model on the answers (CultureLLM, [arXiv 2402.10946](https://arxiv.org/abs/2402.10946)), and \
measures whether it then answers more like those people. Every figure below is computed from the study's files. \
The code behind it is folded under "Show code"."""


@dataclass(frozen=True)
class Page:
    """One executed notebook of the study: a page of the report."""

    variant: str
    folder: str
    stage: str
    notebook: NotebookNode

    @property
    def name(self) -> str:
        """The page's place in the report."""
        return f"{self.variant}/{self.folder}/{self.stage}"

    @property
    def label(self) -> str:
        """Whom the page is about, for people."""
        return whom(self.folder)

    @property
    def step(self) -> str:
        """``04 Fine tuning``."""
        number, _, words = self.stage.partition("_")
        return f"{number} {words.replace('_', ' ').capitalize()}"


def plan(variant: str, cultures: Sequence[str]) -> list[tuple[str, str, str]]:
    """Variant, folder and stage of every page of a variant, in the order of the navigation."""
    folders = {COMMON: ACROSS, **dict.fromkeys(cultures, OF_CULTURE), ONE: OF_ONE}
    return [(variant, folder, stage) for folder, stages in folders.items() for stage in stages]


def whom(folder: str) -> str:
    """A folder's name for people."""
    known = {COMMON: "Across cultures", ONE: "CultureLLM-One"}
    return known.get(folder, re.sub("[_-]", " ", folder).capitalize())


def index(title: str, pages: Sequence[Page], source: Path) -> str:
    """The first page. ``source`` holds copies of ``figures/<variant>`` and ``tables/<variant>``."""
    cultures = [page.label for page in pages if page.stage == OF_CULTURE[0] and page.variant == pages[0].variant]
    parts = [f"# {title}", ABOUT % f"{len(cultures)} culture{'s' * (len(cultures) > 1)} ({', '.join(cultures)})"]
    models = {str(executed.settings(page.notebook)["base_model"].value) for page in pages if page.stage == OF_ONE[0]}
    toys = sorted(model for model in models if model in ("stand-in", "stand-in-tiny"))
    parts += [TOY % "`, `".join(toys)] if toys else []
    parts += [f"Base model: {', '.join(f'`{model}`' for model in sorted(models.difference(toys)))}."] * (models != set(toys))
    variants = {name: list(group) for name, group in groupby(pages, key=lambda page: page.variant)}
    for variant, members in variants.items():
        arm = f" ({variant})" if len(variants) > 1 else ""
        parts += [f"## What we found{arm}", executed.findings(next(p for p in members if p.stage == SUMMARY).notebook)]
        parts += _figures(variant, arm, source)
    parts += ["## Every page"]
    parts += [_links(variant if len(variants) > 1 else "", members) for variant, members in variants.items()]
    parts += ["Versions, revision and running times are on the page [](provenance.md)."]
    for variant, members in variants.items():
        for folder, group in groupby(members, key=lambda page: page.folder):
            caption = whom(folder) + (f" ({variant})" if len(variants) > 1 else "")
            parts.append(_toctree(caption, [f"{page.step} <{page.name}>" for page in group]))
    parts.append(_toctree("About", ["provenance"]))
    return "\n\n".join(parts) + "\n"


def _figures(variant: str, arm: str, source: Path) -> list[str]:
    """Each figure of a variant under a heading, with a link to its data."""
    there = {path.stem: path for path in sorted((source / "figures" / variant).glob("*.svg"))}
    parts = []
    for name in [*(name for name in FIGURES if name in there), *(name for name in there if name not in FIGURES)]:
        alt = escaped(executed.figure_title(there[name].read_text(encoding="utf-8")))
        parts += [f"## {FIGURES.get(name, name.replace('_', ' ').capitalize())}{arm}", f"![{alt}](figures/{variant}/{name}.svg)"]
        if (source / "tables" / variant / f"{name}.csv").is_file():
            parts.append(f"Data of this figure: [{name}.csv](tables/{variant}/{name}.csv)")
    others = sorted(path.name for path in (source / "tables" / variant).glob("*.csv") if path.stem not in there)
    if others:
        parts.append("More tables: " + ", ".join(f"[{name}](tables/{variant}/{name})" for name in others))
    return parts


def _links(variant: str, pages: Sequence[Page]) -> str:
    """A table of links: a row for each culture."""
    rows = [f"| {variant or 'about'} | pages |", "| --- | --- |"]
    for folder, group in groupby(pages, key=lambda page: page.folder):
        rows.append(f"| {whom(folder)} | " + " · ".join(f"[{page.step}]({page.name}.ipynb)" for page in group) + " |")
    return "\n".join(rows)


def _toctree(caption: str, entries: Sequence[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>$|#])", r"\\\1", text)


def provenance(study: str, pages: Sequence[Page], home: Path) -> str:
    """The page that says what ran when, on what."""
    stamps = [executed.stamp(page.notebook) for page in pages]
    parts = ["# How these pages were made",
             f"The study is `params/studies/{study}.yaml`. `make report STUDY={study}` makes it again: notebooks that "
             "nothing changed are not run twice."]
    revisions = sorted({found.revision for found in stamps})
    if len(revisions) > 1:
        parts.append(f"The notebooks ran at different revisions of the code ({', '.join(revisions)}).")
    if any(revision.endswith("+") for revision in revisions):
        parts.append("A revision that ends in + had changes that were not committed.")
    for variant in dict.fromkeys(page.variant for page in pages):
        made = read_json(home / variant / COMMON / "summary.json")
        rows = [("revision", made["revision"]), ("parameters of the summary", made["digest"]), *made["versions"].items()]
        parts += [f"## Versions{f' ({variant})' if variant != 'main' else ''}",
                  "\n".join(["| what | version |", "| --- | --- |", *(f"| {escaped(str(a))} | {escaped(str(b))} |" for a, b in rows)])]
    rows = ["| page | ran at (UTC) | seconds | revision | parameters |", "| --- | --- | --: | --- | --- |"]
    for page, found in zip(pages, stamps, strict=True):
        seconds = "–" if found.seconds is None else f"{found.seconds:.0f}"
        rows.append(f"| [{page.label} · {page.step}]({page.name}.ipynb) | {found.started} | {seconds} | {found.revision} | "
                    f"`{found.digest}` |")
    total = sum(found.seconds or 0 for found in stamps)
    parts += ["## Running times", f"{len(pages)} notebooks, {total / 60:.1f} minutes of work in all; several run at a time.",
              "\n".join(rows)]
    return "\n\n".join(parts) + "\n"
