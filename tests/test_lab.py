"""The notebooks as a person meets them: stepped through with Shift+Enter in JupyterLab, in a real browser.

Takes minutes, so it is run when asked for: ``pytest -m slow tests/test_lab.py``; with ``PICTURES=folder`` it keeps
pictures of what a person sees at the end of each.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browser import Browser, needs_chromium

from culturellm_utils import paths

pytestmark = [pytest.mark.slow, needs_chromium]
#: A notebook is to run within this many seconds.
LIMIT = 120
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
STATUS = f"document.querySelector('{PANEL} .jp-Notebook-ExecutionIndicator')?.dataset.status"
SHIFT, CONTROL = 8, 2
#: Knobs that a person turns after the first pass; what is then shown must be something else.
TURNED = {
    "01_seed_extraction": ('label_rule: str = "mode"', 'label_rule: str = "mean"'),
    "03_filtering": ("tau: float = 0.66", "tau: float = 0.9"),
    "07_summary": ("bootstrap_samples: int = 2000", "bootstrap_samples: int = 200"),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the repository without outputs; the stand-in is taken from the cache when it was built before."""
    place = tmp_path_factory.mktemp("lab")
    for name in ("notebooks", "culturellm_utils", "params"):
        shutil.copytree(paths.ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.fixture(scope="module")
def lab(checkout) -> Iterator[str]:
    """The address of a notebook in a JupyterLab that serves the copy, with a gap for the notebook's name."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "CULTURELLM_CACHE": str(paths.cache()),
                                "CULTURELLM_OUTPUTS": str(checkout / "outputs"),
                                "JUPYTER_RUNTIME_DIR": str(checkout / "run")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", "--allow-root",
               f"--ServerApp.root_dir={checkout}", "--LabApp.news_url=None",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = checkout / "lab.log"
    with log.open("w") as lines, subprocess.Popen(command, env=environment, stdout=lines, stderr=lines,
                                                  cwd=checkout) as server:
        try:
            deadline = time.monotonic() + 60
            while not (found := list((checkout / "run").glob("jpserver-*.json"))):
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.2)
            about = json.loads(found[0].read_text())
            yield f"{about['url']}lab/tree/notebooks/{{}}?token={about['token']}&reset"
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def wait(browser: Browser, expression: str, seconds: float) -> None:
    """Until a JavaScript expression is true."""
    deadline = time.monotonic() + seconds
    while not browser.evaluate(expression):
        assert time.monotonic() < deadline, f"not so after {seconds} s: {expression}"
        time.sleep(0.3)


def press(browser: Browser, key: str, code: int, modifiers: int = 0) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                     modifiers=modifiers)


def click(browser: Browser, selector: str) -> None:
    """On the middle of the top of an element."""
    browser.evaluate(f"document.querySelector('{selector}').scrollIntoView({{block: 'start'}})")
    x, y = browser.evaluate(f"(r => [r.x + r.width / 2, r.y + 12])"
                            f"(document.querySelector('{selector}').getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def step_through(browser: Browser, path: Path) -> tuple[nbformat.NotebookNode, float]:
    """Shift+Enter through the open notebook, wait, save; the saved notebook and the seconds that it took."""
    press(browser, "Escape", 27)
    press(browser, "Home", 36, CONTROL)
    click(browser, f"{PANEL} .jp-MarkdownCell")
    began = time.monotonic()
    for _ in nbformat.read(path, 4).cells:
        press(browser, "Enter", 13, SHIFT)
        time.sleep(0.2)  # JupyterLab moves on to the next cell before long; a press before that is lost
    time.sleep(1)
    wait(browser, f"{STATUS} === 'idle'", 2 * LIMIT)
    took = time.monotonic() - began
    press(browser, "Escape", 27)
    before = path.stat().st_mtime_ns
    press(browser, "s", 83, CONTROL)
    deadline = time.monotonic() + 10
    while path.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline, "not saved"
        time.sleep(0.1)
    time.sleep(1)  # the file is not written at once
    return nbformat.read(path, 4), took


def said(notebook: nbformat.NotebookNode) -> str:
    """Everything that the cells show, as text; no cell may have failed or been passed over."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source]
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output.evalue for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert not [number for number, cell in enumerate(code) if not cell.execution_count], "cells were passed over"
    return "\n".join(output.get("text", "") + "".join(map(str, output.get("data", {}).values())) for output in outputs)


@pytest.mark.parametrize("name", paths.NOTEBOOK_NAMES[:-1])
def test_a_person_steps_through(lab, browser, checkout, name):
    """In order, as a newcomer does; 10 alone needs a study of several variants, which takes longer than stepping."""
    path = checkout / "notebooks" / f"{name}.ipynb"
    browser.open(lab.format(path.name))
    wait(browser, f"{STATUS} === 'idle' && !!document.querySelector('{PANEL} .jp-MarkdownCell')", 60)
    notebook, seconds = step_through(browser, path)
    first = said(notebook)
    print(f"{name}: {seconds:.0f} s")
    if os.environ.get("PICTURES"):
        browser.picture(Path(os.environ["PICTURES"], f"{name}.png"))
    assert seconds < LIMIT
    assert notebook.cells[-1].source.startswith("**Try:**") or notebook.cells[-2].source.startswith("**Try:**")
    if name in TURNED:
        old, new = TURNED[name]
        knobs = notebook.cells[1].source
        assert knobs.count(old) == 1
        click(browser, f"{PANEL} .jp-CodeCell .cm-content")
        press(browser, "a", 65, CONTROL)
        browser.call("Input.insertText", text=knobs.replace(old, new))
        again, _ = step_through(browser, path)
        assert new in again.cells[1].source
        assert said(again) != first
