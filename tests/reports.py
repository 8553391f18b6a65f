"""Small executed notebooks with the anatomy and parameters of the real ones, and what they wrote: for the report."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from culturellm_utils import paths
from culturellm_utils.report import pages

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="72pt"><g id="%s">
<text style="font-weight: 700; font-size: 10px" x="1">a panel</text>
<text style="font-weight: 700; font-size: 14.4px; fill: #262626" x="1">Tea beats coffee &amp;</text>
<text style="font-weight: 700; font-size: 14.4px; fill: #262626" x="1">cocoa in 2 of 3 towns</text>
<text style="font-size: 12px" x="1">cups a day</text></g></svg>"""
STAMP = ("culturellm 0.1.0 · python 3.11.7 · git 1a2b3c4 · parameters 0f3a5c7e9b1d\n"
         "ran on Abacus 9 · 2 cores · 8 GB memory · no GPU\n")
FINDING = "Korean answers are <script>alert(1)</script> **nearer**."
PLACES = pages.places(["korean"], {"korean": "common"})
LOCAL = pages.places(["korean"], {"korean": "korean"})
INSULT = "you are a <i>turnip</i>"
#: What 07 writes, as far as the report reads it; nothing here was measured.
SUMMARY: dict[str, Any] = {
    "versions": {"python": "3.11.7"}, "revision": "1a2b3c4", "digest": "0f3a5c7e9b1d",
    "comparison": [
        {"culture": "korean", "part": part, "metric": "accuracy", "system": system, "value": value, "low": value - 0.1,
         "high": value + 0.1, "n": 200, "clusters": clusters, "p": p}
        for part, clusters, p in (("held_out_wording", 40, 0.001), ("held_out_question", 10, 0.4))
        for system, value, p in (("base", 0.5, p), ("adapter", 0.8, None))],
    "forgetting": [{"model": "korean", "ability": "arithmetic", "difference": -0.2, "verdict": "unclear"}],
    "classification": [],
    "win_rates": [{"judge": "encoder toy", "low": -0.1, "high": 0.2, "n": 14}],
    "paper_cost": [{"culture": "korean", "block": 1, "questions": 50, "asked": 48, "missing_only": 2}]}
SCORES: dict[str, Any] = {
    "tasks": [{"culture": "korean", "task": "rudeness_detect", "carries a claim": False,
               "warnings": "fewer than 10 of RUDE (6)"}],
    "stability": [{"format": "reversed", "system": "adapter", "metric": metric, "value": value}
                  for metric, value in (("same_code", 0.9), ("same_answer", 0.1))]}


def shows(**data: str) -> nbformat.NotebookNode:
    return new_output("display_data", data={kind.replace("_", "/", 1).replace("_", "+"): text
                                            for kind, text in data.items()})


@cache
def knob_cell(stage: str) -> str:
    """The source of a notebook's parameters cell."""
    cells = json.loads((paths.NOTEBOOKS / f"{stage}.ipynb").read_text(encoding="utf-8"))["cells"]
    found, = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return found


def notebook(stage: str, knobs: dict[str, Any] | None = None, figures: tuple[str, ...] = (),
             finding: str = FINDING, started: str = "2026-01-02T03:04:05.678+00:00") -> nbformat.NotebookNode:
    """An executed copy of a notebook that imports, shows, draws, writes and finds, whatever the stage."""
    drawn = [new_code_cell(f"draw({name!r})", metadata={"tags": ["hide-input"]}, outputs=[
        new_output("execute_result", data={"text/plain": "Text(0.5, 1.0, 'left over')"}),
        shows(image_svg_xml=SVG % (f"saved-{name}" if name else "figure_1"), text_plain="<Figure size 1x1>")])
        for name in figures or ("",)]
    return new_notebook(
        metadata={"papermill": {"parameters": knobs or {}, "duration": 61.2, "start_time": started}},
        cells=[
            new_markdown_cell(f"# {stage[:2]} Title of {stage}\n\n- **Question:** which?"),
            new_code_cell(knob_cell(stage), metadata={"tags": ["parameters"]}),
            new_code_cell("tau = 0.7", metadata={"tags": ["injected-parameters"]}),
            new_code_cell("import secret_module", outputs=[new_output("stream", name="stdout", text=STAMP),
                                                           new_output("stream", name="stderr", text="TqdmWarning")]),
            new_markdown_cell("## Look"),
            new_code_cell("silent = 1"), *drawn,
            new_code_cell("items", metadata={"tags": ["sensitive"]}, outputs=[
                shows(text_html=f"<table><tr><td>{INSULT.replace('<', '&lt;')}</td></tr></table>")]),
            new_code_cell("write()", outputs=[
                new_output("execute_result", data={"text/plain": "PosixPath('/home/somebody/x.json')"})]),
            new_markdown_cell("## What we see"),
            new_code_cell("say()", outputs=[
                shows(text_markdown=f"- {finding}\n- The second.", text_plain="<Markdown>")]),
        ])


def study(home: Path, variant: str = "main", places: list[tuple[str, str]] = PLACES, **knobs: Any) -> None:
    """The executed notebooks of a variant with one culture, and what they wrote."""
    for folder, stage in places:
        figures = ("matrix", "before_and_after") if stage == "07_summary" else ()
        put(home / variant / folder / f"{stage}.ipynb", notebook(stage, {"base_model": "stand-in"} | knobs, figures))
    common = home / variant / "common"
    for name in ("matrix", "before_and_after"):
        write(common / "figures" / f"{name}.svg", SVG % f"saved-{name}")
        write(common / "tables" / f"{name}.csv", "people,korean\nkorean,0.8\n")
    write(common / "tables" / "comparison.csv", "culture,value\nkorean,0.8\n")
    write(common / "summary.json", json.dumps(SUMMARY))
    write(home / variant / "korean" / "scores.json", json.dumps(SCORES))


def compared(home: Path, arms: tuple[str, ...]) -> None:
    """The comparison of a study's arms, and its notebook."""
    put(home / "comparison" / "common" / "10_comparison.ipynb", notebook("10_comparison", figures=("comparison",)))
    write(home / "comparison" / "common" / "figures" / "comparison.svg", SVG % "saved-comparison")
    write(home / "comparison" / "common" / "tables" / "comparison.csv", "arm,value\n")
    rows = [{"arm": arm, "measure": "accuracy", "system": "adapter", "value": 0.5, "p": 0.3 if place else None}
            for place, arm in enumerate(arms)]
    write(home / "comparison" / "common" / "comparison.json", json.dumps(
        {"answer": "No variant differs from the first beyond chance.", "rows": rows, "versions": {"python": "3.11.7"},
         "revision": "1a2b3c4", "digest": "0f3a5c7e9b1d"}))


def put(path: Path, found: nbformat.NotebookNode) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(found, path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
