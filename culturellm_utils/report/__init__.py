"""The report of a study: its executed notebooks as web pages that need no network and no Python to be read.

>>> report.build("laptop")                    # outputs/laptop/report/index.html
>>> report.build("smoke", ["korean"])

Sphinx with MyST-NB renders copies of the notebooks (see ``executed``) and pages of its own (``index``, ``methods``,
``limits``, ``provenance``) in a temporary folder beside the report, which then takes the old report's place: nobody
sees half a report. The headline figures of the run before are kept beside it (``headline``).
"""

import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat

from culturellm_utils import parts, paths, studies
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import COMMON, COMPARISON
from culturellm_utils.records import write_text
from culturellm_utils.report import executed, finishing, headline, index, limits, methods, pages, provenance
from culturellm_utils.report.pages import Page, Study


def build(study: str, cultures: Sequence[str] = ()) -> Path:
    """Build ``outputs/<study>/report`` and return its ``index.html``. Without ``cultures``: all that the study names.

    Raises UserError, and leaves an earlier report as it was, when a notebook is missing, broken, never ran or failed,
    or when a page cannot be rendered without a warning.
    """
    whole = read(study, cultures)
    home = whole.home
    now = headline.of(whole)
    before = headline.remember(home, now)
    with parts.scratch(home / "report", folder=True) as folder:
        source, html = folder / "source", folder / "html"
        _write_sources(whole, source, headline.section(now, before))
        _render(source, html, f"CultureLLM: {study}")
        finishing.finish(html)
        parts.put(html, home / "report")
    headline.keep(home, now, before)
    return home / "report" / "index.html"


def read(study: str, cultures: Sequence[str] = ()) -> Study:
    """The executed notebooks of a study. Raises UserError when one is missing, broken, never ran or failed."""
    plan = studies.study(study)
    cultures = list(cultures) or plan["cultures"]
    for name in cultures:
        studies.culture(name)
    return Study(study, plan, paths.outputs() / study, list(_pages(study, plan, cultures)))


def _write_sources(study: Study, source: Path, changes: str) -> None:
    """Everything that Sphinx reads: the pages, and the figures and tables beside the notebooks."""
    for page in study.pages:
        anchors = {figure: page.anchor(figure) for figure in page.figures}
        copy = executed.for_readers(page.notebook, page.prefix, anchors, page.data)
        write_text(source / f"{page.name}.ipynb", nbformat.writes(copy))
    for place in dict.fromkeys(page.place for page in study.pages):
        for kind in ("figures", "tables"):
            if (place / kind).is_dir():
                shutil.copytree(place / kind, source / kind / place.relative_to(study.home))
    unclaimed = limits.found(study)
    write_text(source / "index.md", index.page(study, len(unclaimed), changes))
    write_text(source / "methods.md", methods.page(study))
    write_text(source / "limits.md", limits.page(unclaimed))
    write_text(source / "provenance.md", provenance.page(study))


def _pages(study: str, plan: dict, cultures: list[str]) -> Iterator[Page]:
    """Every page of a study, in the order of the navigation.

    In a study that compares, a variant other than the first has the pages of what it ran itself: what it shares with an
    earlier variant is shown there.
    """
    whole, homes = studies.whole(plan), studies.homes(study, cultures)
    several = len(plan["variants"]) > 1
    if plan["compare"]:
        yield _page(study, COMPARISON, COMMON, pages.COMPARED)
    for variant in plan["variants"]:
        worded = {name: studies.place(study, name, variant) for name in cultures}
        found = pages.places(cultures, worded)
        if variant not in whole:
            models = [*studies.models(plan, variant, cultures), COMMON]
            found = [(folder, stage) for folder, stage in found if folder in models and stage in pages.OF_ARM
                     and homes.get((stage, folder, variant), variant) == variant]
        for folder, stage in found:
            yield _page(study, variant, folder, stage, f" ({variant})" if several else "", variant not in whole)


def _page(study: str, variant: str, folder: str, stage: str, arm: str = "", gathered: bool = False) -> Page:
    """One executed notebook of a study."""
    whose = "" if folder == COMMON else f" with culture {folder}"
    remedy = f"run `make report STUDY={study}`, or notebooks/{stage}.ipynb{whose}, then build the report again"
    home = paths.outputs() / study
    notebook = executed.read(home / variant / folder / f"{stage}.ipynb", remedy)
    return Page(variant, folder, stage, notebook, arm, gathered, home)


def _render(source: Path, html: Path, title: str) -> None:
    """Run Sphinx. Raises UserError with its first warning, which names the page."""
    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    warnings = io.StringIO()
    names = {"project": title, "html_title": title}
    try:
        with patch_docutils(), docutils_namespace():
            Sphinx(source, paths.REPORT_SOURCES, html, source.parent / "doctrees", "html", names, status=None,
                   warning=warnings, freshenv=True).build()
    except SphinxError as error:
        raise UserError(f"the report cannot be built: {error}") from None
    said = re.sub(r"\x1b\[[0-9;]*m", "", warnings.getvalue()).replace(f"{source}{os.sep}", "").strip()
    if said:
        raise UserError(f"the report cannot be built, Sphinx says of a page: {said.splitlines()[0]}")
