"""One executed notebook: what ran it, what it found, and a copy that people who know no Python can read.

>>> notebook = read(paths.outputs() / "laptop/main/korean/05_evaluation.ipynb", "run it")
>>> sentences(notebook)
["Held-out wordings, as most people answered: ...", ...]
>>> settings(notebook)["epochs"]
Setting(value=2, default=8, meaning="passes over the training rows, 1 to 1000")
"""

import ast
import html
import io
import re
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from culturellm_utils import paths
from culturellm_utils.errors import UserError
from culturellm_utils.figures import harmless, one_line, saved_as

#: What a page can show without a network. Widgets and LaTeX need scripts from elsewhere.
SHOWN = ("text/html", "text/markdown", "text/plain", "image/svg+xml", "image/png", "image/jpeg")
WIDGETS = ("application/vnd.jupyter.widget-view+json", "application/javascript")
FINDINGS = "## What we see"
STAMP = re.compile(r"git (\S+) · parameters ([0-9a-f]+)(?:\nran on (.+))?")
#: Cells whose tables hold texts that may offend: labelled sentences of hate and abuse among them.
SENSITIVE = "sensitive"
NOTICE = "Notice: this shows texts that may offend or hurt. Open it to read them."
SVG = "image/svg+xml"


class Setting(NamedTuple):
    """A knob as the run had it, its default in the notebook, and what the notebook says it means."""

    value: Any
    default: Any
    meaning: str


class Stamp(NamedTuple):
    """When a notebook ran (UTC, to the second), how long (seconds), at which revision, with which parameters, and on
    what kind of machine."""

    started: str
    seconds: float | None
    revision: str
    digest: str
    machine: str


def read(path: Path, remedy: str) -> NotebookNode:
    """An executed notebook. Raises UserError, ending in ``remedy``, when it is missing, broken, never ran or failed."""
    if not path.is_file():
        raise UserError(f"{paths.shown(path)} is missing: {remedy}")
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)  # reading only warns of what is wrong
        settings(notebook)
        stamp(notebook)
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError, SyntaxError, tokenize.TokenError,
            nbformat.ValidationError):
        raise UserError(f"{paths.shown(path)} is not a notebook: {remedy}") from None
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not any(cell.outputs for cell in code):
        raise UserError(f"{paths.shown(path)} was never run: {remedy}")
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        raise UserError(f"{paths.shown(path)} stopped with an error: {remedy}")
    return notebook


def tagged(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def settings(notebook: NotebookNode) -> dict[str, Setting]:
    """The knobs of the run: the literals of the cell tagged ``parameters``, and what papermill put in their place."""
    source = "\n".join(cell.source for cell in notebook.cells if tagged(cell, "parameters"))
    comments = {token.start[0]: token.string.lstrip("# ") for token in
                tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT}
    injected = notebook.metadata.get("papermill", {}).get("parameters", {})
    found = {}
    for line in ast.parse(source).body:
        if isinstance(line, ast.AnnAssign) and line.value is not None:
            name, default = ast.unparse(line.target), ast.literal_eval(line.value)
            found[name] = Setting(injected.get(name, default), default, comments.get(line.lineno, ""))
    return found


def stamp(notebook: NotebookNode) -> Stamp:
    """What papermill and the notebook's own stamp say about the run; ``–`` where they say nothing."""
    run = notebook.metadata.get("papermill", {})
    printed = "".join(output.text for cell in notebook.cells if cell.cell_type == "code"
                      for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")
    revision, digest, machine = next(iter(STAMP.findall(printed)), ("–", "–", ""))
    return Stamp((run.get("start_time") or "–")[:19].replace("T", " "), run.get("duration"), revision, digest,
                 machine or "–")


def sentences(notebook: NotebookNode) -> list[str]:
    """The sentences of "What we see", as Markdown; none when the notebook shows none."""
    shown = [output.data["text/markdown"] for cell in _section(notebook.cells, FINDINGS)
             if cell.cell_type == "code" for output in cell.outputs if "text/markdown" in output.get("data", {})]
    return [one_line(line.removeprefix("- ")) for text in shown for line in text.splitlines() if line.strip()]


def title(notebook: NotebookNode) -> str:
    """The notebook's own title."""
    first = notebook.cells[0].source.partition("\n")[0]
    return first.removeprefix("# ")


def saved_figures(notebook: NotebookNode) -> list[str]:
    """Names of the figures that the notebook saved, in the order in which it shows them."""
    return [name for cell in notebook.cells if cell.cell_type == "code" for name in _saved(cell.outputs)]


def _saved(outputs: list[NotebookNode]) -> list[str]:
    names = [saved_as(output.data[SVG]) for output in outputs if SVG in output.get("data", {})]
    return [name for name in names if name]


def figure_title(svg: str) -> str:
    """A figure's own title: the largest bold text of a matplotlib SVG, its lines joined; else ``Figure``."""
    bold = re.findall(r'<text style="font(?:-weight)?: (?:bold|700)\D[^>]*?([\d.]+)px[^>]*>([^<]+)</text>', svg)
    largest = max((float(size) for size, _ in bold), default=0)
    return html.unescape(" ".join(line.strip() for size, line in bold if float(size) == largest)) or "Figure"


def for_readers(notebook: NotebookNode, name: str, anchors: Mapping[str, str], data: Mapping[str, str]) -> NotebookNode:
    """A copy to be rendered: ``name`` before the title, findings first, code folded, settings as a table, no leftovers.

    Code that shows nothing joins the next code cell, so that one "Show code" stands above what it made; a step that
    shows nothing at all says so. A saved figure's cell is an anchor, and below it stands a link to its ``data``. What
    cells tagged ``sensitive`` show is folded behind a notice.
    """
    cells: list[NotebookNode] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cells.append(new_markdown_cell(cell.source))
        elif tagged(cell, "parameters"):
            cells.append(_code(cell.source, "remove-input", [_html(_settings_table(settings(notebook)))]))
        elif cell.cell_type == "code" and not tagged(cell, "injected-parameters"):
            source = cell.source
            if cells and tagged(cells[-1], "hide-input") and not cells[-1].outputs:
                source = f"{cells.pop().source}\n\n{source}"
            outputs = [_shown(output) for output in cell.outputs if not _leftover(output, cell)]
            made = _saved(cell.outputs)
            if made:
                cells.append(new_markdown_cell("\n".join(f"({anchors[figure]})=" for figure in made)))
            cells.append(_code(source, "hide-input", _folded(outputs) if tagged(cell, SENSITIVE) else outputs))
            links = [f"[{figure}.csv]({data[figure]})" for figure in made if figure in data]
            if links:
                cells.append(new_markdown_cell(f"Data of this figure: {', '.join(links)}"))
    for cell in cells:
        if tagged(cell, "hide-input") and not cell.outputs:
            cell.outputs = [_html('<p class="silent">This step ran without error and has nothing to show.</p>')]
    found = _section(cells, FINDINGS)
    steps = [cell for cell in cells if not any(cell is other for other in found)]
    first = next((place for place, cell in enumerate(steps) if cell.source.startswith("## ")), len(steps))
    steps[first:first] = found
    if name:
        steps[0].source = re.sub(r"^# ", f"# {name} · ", steps[0].source, count=1)
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    return new_notebook(cells=steps, metadata=python)


def _section(cells: list[NotebookNode], heading: str) -> list[NotebookNode]:
    """The cells from ``heading`` to the next heading."""
    found: list[NotebookNode] = []
    for cell in cells:
        opens = cell.cell_type == "markdown" and cell.source.startswith("#")
        if opens and found:
            break
        if found or (opens and cell.source.startswith(heading)):
            found.append(cell)
    return found


def _code(source: str, tag: str, outputs: list[NotebookNode]) -> NotebookNode:
    """A code cell; its figures have their titles as alternative text."""
    figures = [output.data[SVG] for output in outputs if SVG in output.get("data", {})]
    return new_code_cell(source, outputs=outputs, metadata={
        "tags": [tag], "mystnb": {"image": {"alt": "; ".join(map(figure_title, figures)) or "Figure"}}})


def _html(text: str) -> NotebookNode:
    return new_output("display_data", data={"text/html": text})


def _folded(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Tables behind a notice."""
    return [_html(f'<details class="notice"><summary>{NOTICE}</summary>{output.data["text/html"]}</details>')
            if "text/html" in output.get("data", {}) else output for output in outputs]


def _leftover(output: NotebookNode, cell: NotebookNode) -> bool:
    """Whether an output is not meant for a reader: warnings, widgets, and the bare value of a cell's last line when
    it is an address, a path, or what a plotting call happened to return."""
    if output.output_type == "stream":
        return output.name == "stderr"
    kinds = output.get("data", {}).keys()
    if any(kind in kinds for kind in WIDGETS) or not any(kind in kinds for kind in SHOWN):
        return True
    bare = output.output_type == "execute_result" and not any(kind in kinds for kind in SHOWN if kind != "text/plain")
    plots = any(kind.startswith("image/") for other in cell.outputs for kind in other.get("data", {}))
    return bare and (plots or bool(re.search(r" at 0x[0-9a-f]+>|^\w*Path\(", output.data["text/plain"])))


def _shown(output: NotebookNode) -> NotebookNode:
    """The output as the page takes it: what needs no network, and no HTML inside Markdown."""
    if output.output_type == "stream":
        return new_output("stream", name=output.name, text=output.text)
    data = {kind: value for kind, value in output.data.items() if kind in SHOWN}
    if "text/markdown" in data:
        data["text/markdown"] = harmless(data["text/markdown"])
    return new_output("display_data", data=data)


def _settings_table(knobs: dict[str, Setting]) -> str:
    """The knobs as a folded table, those that differ from the notebook's default first and marked."""
    changed = [name for name, knob in knobs.items() if knob.value != knob.default]
    rows = []
    for name in [*changed, *(name for name in knobs if name not in changed)]:
        value, default, meaning = knobs[name]
        shown = f"<strong>{_cell(value)}</strong> (default {_cell(default)})" if name in changed else _cell(value)
        rows.append(f"<tr><td><code>{_cell(name)}</code></td><td>{shown}</td><td>{_cell(meaning)}</td></tr>")
    return (f'<details class="settings"><summary>Settings of this run: {len(changed)} of {len(knobs)} differ from the '
            "notebook's defaults</summary><div class=\"scroll\"><table><thead><tr><th>setting</th><th>value</th>"
            f"<th>meaning</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return html.escape(str(value)) if value != "" else "(empty)"
