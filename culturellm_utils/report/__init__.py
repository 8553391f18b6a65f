"""The report of a study: its executed notebooks as web pages that need no network and no Python to be read.

>>> report.build("laptop")                    # outputs/laptop/report/index.html
>>> report.build("smoke", ["korean"])

Sphinx with MyST-NB renders copies of the notebooks (see ``executed``) and two pages of its own (see ``pages``) in a
temporary folder beside the report, which then takes the old report's place: nobody sees half a report.
"""

import io
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat

from culturellm_utils import paths, studies
from culturellm_utils.errors import UserError
from culturellm_utils.records import write_text
from culturellm_utils.report import executed, pages
from culturellm_utils.report.pages import Page


def build(study: str, cultures: Sequence[str] = (), variants: Sequence[str] = ()) -> Path:
    """Build ``outputs/<study>/report`` and return its ``index.html``. Without ``cultures`` or ``variants``: all that
    the study names.

    Raises UserError, and leaves an earlier report as it was, when a notebook is missing, broken, never ran or failed,
    or when a page cannot be rendered without a warning.
    """
    plan = studies.study(study)
    cultures = list(cultures) or plan["cultures"]
    for name in cultures:
        studies.culture(name)
    variants = list(variants) or list(plan["variants"])
    found = [_page(study, variant, *place, arm=f" ({variant})" if len(variants) > 1 else "")
             for variant in variants
             for place in pages.places(cultures, {name: studies.place(study, name, variant) for name in cultures})]
    home = paths.outputs() / study
    with tempfile.TemporaryDirectory(dir=home, prefix=".report-") as folder:
        source, html = Path(folder, "source"), Path(folder, "html")
        for page in found:
            write_text(source / f"{page.name}.ipynb", nbformat.writes(executed.for_readers(page.notebook, page.prefix)))
        for variant in variants:
            for kind in ("figures", "tables"):
                made = home / variant / "common" / kind
                if made.is_dir():
                    shutil.copytree(made, source / kind / variant)
        write_text(source / "index.md", pages.index(plan["title"], found, source))
        write_text(source / "provenance.md", pages.provenance(study, found, home))
        _render(source, html, f"CultureLLM: {study}")
        _slim(html)
        _replace(home / "report", html, Path(folder, "old"))
    return home / "report" / "index.html"


def _page(study: str, variant: str, folder: str, stage: str, arm: str) -> Page:
    """One executed notebook of a study."""
    whose = "" if folder == pages.COMMON else f" with culture {folder}"
    remedy = f"run `make report STUDY={study}`, or notebooks/{stage}.ipynb{whose}, then build the report again"
    path = paths.outputs() / study / variant / folder / f"{stage}.ipynb"
    return Page(variant, folder, stage, executed.read(path, remedy), arm)


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


def _slim(html: Path) -> None:
    """Remove what only developers of the theme need: four of six megabytes."""
    for path in [*html.rglob("*.map"), *html.glob("_static/*.html"), html / ".buildinfo", html / "objects.inv"]:
        path.unlink(missing_ok=True)
    for folder in (html / "_sources", html / "_static" / "locales"):
        shutil.rmtree(folder, ignore_errors=True)
    for path in [*html.rglob("*.js"), *html.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        if "sourceMappingURL" in text:
            path.write_text(re.sub(r"(//|/\*)# sourceMappingURL=\S+( ?\*/)?", "", text), encoding="utf-8")


def _replace(place: Path, new: Path, old: Path) -> None:
    """Put the folder ``new`` where ``place`` is, and what was there at ``old``."""
    if place.exists():
        os.replace(place, old)
    try:
        os.replace(new, place)
    except OSError:
        if old.exists():
            os.replace(old, place)
        raise
