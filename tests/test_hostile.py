"""Text from outside stays text: in tables, sentences, figures, the report, the rating form, CSV and a terminal."""

import csv
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import nbformat
import pandas as pd
import pytest
import reports
from browser import Browser, needs_chromium
from hostile import ELSEWHERE, EVERY, FORMULAS, MARKUP
from hypothesis import given
from hypothesis import strategies as st
from IPython.display import HTML, Markdown
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_role import myst_role_plugin
from nbformat.v4 import new_code_cell, new_output

from culturellm_utils import errors, figures, imports, open_answers, paths, ratings, records, report, serving
from culturellm_utils.errors import UserError
from culturellm_utils.records import Pair

#: Pieces of which texts are made that try to be something else.
TEXTS = st.lists(st.sampled_from([*"=+-@'\"\t\r\n,;<>[]()!{}$`\\*_#|:% ab1", "](", "{x}`", "<b>", "$$", "```", "\ufeff",
                                  "javascript:"]), max_size=12).map("".join)


# CSV files

def cells_anywhere(text: str) -> list[str]:
    """The cells of a CSV file as the most willing spreadsheet finds them: any break outside quotes begins a row."""
    found, cell, quoted = [], "", False
    for sign in text:
        quoted ^= sign == '"'
        if sign in ",\r\n" and not quoted:
            found.append(cell)
            cell = ""
        else:
            cell += sign
    return [re.sub('""', '"', re.sub(r'^"|"$', "", cell)) for cell in [*found, cell]]


def is_formula(cell: str) -> bool:
    return bool(re.match(r"[\t\r\n]|[\s\0\ufeff]*[=+\-@＝＋－＠]", cell))


@given(st.lists(TEXTS | st.sampled_from(EVERY), min_size=1, max_size=4), TEXTS)
def test_no_cell_of_a_table_is_a_formula_and_text_comes_back(texts, name):
    with tempfile.TemporaryDirectory() as folder, patch("os.fsync"):
        path = records.write_table(Path(folder, "table.csv"), pd.DataFrame({name: texts, "value": -0.25}))
        text = path.read_bytes().decode()
    assert not [cell for cell in cells_anywhere(text) if is_formula(cell) and cell != "-0.25"]
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header[1] == "value"
    for (cell, value), wrote in zip(rows, texts, strict=True):
        assert value == "-0.25"
        assert ratings.undo(cell) == re.sub("\r\n?", "\n", wrote)


def test_numbers_stay_numbers_whatever_stands_beside_them(tmp_path):
    frame = pd.DataFrame({"mixed": [-1, "-1", None], "whole": [-3, 2, 1], "share": [-0.123456789, float("nan"), 1e-9],
                          "yes": [True, False, True], "kind": pd.Categorical(["=a", "b", "b"])})
    text = records.write_table(tmp_path / "x.csv", frame).read_text()
    assert text == "mixed,whole,share,yes,kind\n-1,-3,-0.123457,True,'=a\n'-1,2,,False,b\n,1,1e-09,True,b\n"
    assert records.write_table(tmp_path / "x.csv", frame.iloc[:0]).read_text() == "mixed,whole,share,yes,kind\n"
    twice = pd.DataFrame([["=a", "=b"]], columns=["same", "same"])
    assert records.write_table(tmp_path / "x.csv", twice).read_text() == "same,same\n'=a,'=b\n"


@pytest.mark.parametrize("text", EVERY)
def test_pairs_and_the_tasks_for_label_studio_carry_it_as_text(tmp_path, text):
    pair = Pair(pair_id="p1", seed=text, text=text)
    ratings.write_csv(tmp_path / "pairs.csv", tuple(Pair.model_fields), [pair])
    written = (tmp_path / "pairs.csv").read_bytes().decode()
    assert not any(map(is_formula, cells_anywhere(written)))
    _, read = csv.reader(io.StringIO(written, newline=""))
    assert [ratings.undo(cell) for cell in read] == ["p1", text, text]
    imports.write_label_studio(tmp_path, [pair], "en")
    task, = json.loads((tmp_path / "label_studio_tasks.json").read_text())
    assert task["data"]["text"] == text
    assert "hacked" not in (tmp_path / "label_studio_config.xml").read_text()


@pytest.mark.parametrize("text", FORMULAS)
def test_a_rater_is_not_called_so(text):
    with pytest.raises(UserError, match="rater_id"):
        ratings.rating({"rater_id": text, "pair_id": "p1", "rating": "5"}, "x line 1")


def test_every_table_is_written_by_the_function_that_disarms():
    sources = {path: path.read_text() for path in paths.PACKAGE.rglob("*.py")}
    sources |= {path: "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
                for path in paths.NOTEBOOKS.glob("*.ipynb")}
    writers = {path.name for path, source in sources.items() if re.search(r"\.to_csv\(|csv\.(Dict)?[wW]riter", source)}
    assert writers == {"records.py", "ratings.py"}
    assert not [path for path, source in sources.items() if re.search(r"\.to_excel\(|escape=False", source)]


# sentences and tables

READERS = [MarkdownIt("commonmark", {"html": True}),
           MarkdownIt("gfm-like", {"html": True, "linkify": False}).use(myst_role_plugin).use(dollarmath_plugin)]


def kinds(markdown: str, reader: MarkdownIt) -> set[str]:
    """What a Markdown text is made of."""
    found = set()
    for token in reader.parse(markdown):
        found |= {token.type, *(inner.type for inner in token.children or [])}
    return found


@given(TEXTS | st.sampled_from(EVERY))
def test_a_sentence_is_one_line_of_text_whatever_it_quotes(text):
    shown = figures.one_line(text)
    for reader in READERS:
        found = kinds(f"- {shown}\n- {figures.one_line('It says: ' + text)}", reader)
        assert not found & {"link_open", "image", "html_inline", "html_block", "heading_open", "math_inline",
                            "math_inline_double", "math_block", "myst_role", "fence", "code_block", "hr", "table_open"}
    assert "\n" not in shown
    assert figures.one_line(shown) == shown
    assert figures.harmless(figures.harmless(text)) == figures.harmless(text)


def test_emphasis_code_and_figures_of_a_sentence_stay():
    sentence = "**2 of 3** are kept (`tau`, 0.50 [0.40, 0.60]), which is 10 * 2 and *more*."
    assert figures.one_line(sentence) == sentence
    html = READERS[0].render(figures.one_line("From $5 to $6, [a](b) {x}`y`, 1 < 2"))
    assert html == "<p>From $5 to $6, [a](b) {x}<code>y</code>, 1 &lt; 2</p>\n"


def outputs_of_every_text() -> list[nbformat.NotebookNode]:
    """What cells show that put every text where the notebooks put text."""
    frame, found = pd.DataFrame({"text": EVERY, **dict.fromkeys(MARKUP, 0.5)}), []

    def display(shown: HTML | Markdown, **_: object) -> None:
        kind = "text/html" if isinstance(shown, HTML) else "text/markdown"
        found.append(new_output("display_data", data={kind: shown.data}))

    with patch.object(figures, "display", display):
        figures.table(frame, " ".join(EVERY))
        figures.say(*EVERY, *(f"It says: {text}." for text in EVERY))
        show = figures.progress()
        for text in EVERY:
            show(text)
    rows = [{"system": text, "answer": text} for text in EVERY]
    assert len(found) == 2 + len(EVERY)
    return [*found, new_output("display_data", data={"text/html": open_answers.folded(MARKUP[0], rows)}),
            new_output("stream", name="stdout", text="\n".join(EVERY))]


def test_a_figure_shows_dollars_and_markup_as_text(tmp_path):
    figures.style()
    title = "$5 or $6? " + MARKUP[0] + MARKUP[7]
    ax = figures.axes(title, "$\\href{x}", "<script>")
    ax.plot([1, 2], label=MARKUP[1])
    figures.legend_below(ax)
    figures.save(ax, tmp_path, "picture", pd.DataFrame({"=x": ["=1"]}))
    svg = (tmp_path / "figures" / "picture.svg").read_text()
    assert "$5 or $6? &lt;script&gt;" in svg
    assert not re.search("<script|<img|<foreignObject|xlink:href=\"(?!#)", svg)
    assert (tmp_path / "tables" / "picture.csv").read_text() == "'=x\n'=1\n"


# the report

#: Knobs that hold free text.
KNOBS = dict.fromkeys(("prompt_name", "culture_context", "culture_language", "chat_model", "base_url", "wvs_path",
                       "questions_path", "encoder", "nli_model", "base_model", "perplexity_model", "data_path",
                       "consent_path", "translations_path"), " ".join(MARKUP))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Iterator[Path]:
    """A report of notebooks that were given every text, wherever they take one."""
    home = tmp_path_factory.mktemp("hostile")
    reports.study(home / "outputs" / "toy", **KNOBS)
    cells = [new_code_cell("show(everything)", outputs=outputs_of_every_text()),
             new_code_cell("items", metadata={"tags": ["sensitive"]}, outputs=outputs_of_every_text())]
    for path in (home / "outputs" / "toy").rglob("*.ipynb"):
        found = nbformat.read(path, 4)
        found.cells[-1].outputs += outputs_of_every_text()[1:2]            # among "What we see"
        found.cells[5:5] = cells
        nbformat.write(found, path)
    text = " ".join(MARKUP)
    common = home / "outputs" / "toy" / "main" / "common"
    with pytest.MonkeyPatch.context() as patch:
        figures.style()
        for name in ("matrix", "before_and_after"):
            ax = figures.axes(text, text, text)
            figures.save(ax, common, name, pd.DataFrame({text: EVERY}))
        records.write_json(common / "summary.json", reports.SUMMARY | {
            "versions": {text: text}, "revision": text,
            "forgetting": [{"model": text, "ability": text, "difference": -0.2, "verdict": "unclear"}],
            "paper_cost": [{"culture": text, "block": 1, "questions": 50, "asked": 48, "missing_only": 2}],
            "win_rates": [{"judge": f"encoder {text}", "low": -0.1, "high": 0.2, "n": 14}]})
        records.write_json(common.parent / "korean" / "scores.json", reports.SCORES | {"tasks": [
            {"culture": text, "task": text, "carries a claim": False, "warnings": text}]})
        shutil.copytree(paths.PARAMS, home / "params")
        plan = {"title": text, "question": text, "cultures": ["korean"]}
        (home / "params" / "studies" / "toy.yaml").write_text(json.dumps(plan))
        patch.setattr(paths, "PARAMS", home / "params")
        patch.setenv("CULTURELLM_OUTPUTS", str(home / "outputs"))
        yield report.build("toy", ["korean"]).parent


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    pytest.importorskip("websocket")
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def nothing_happened(browser: Browser) -> None:
    """No script of a text ran, no element of one is there, nothing outside was asked for."""
    browser.evaluate("document.querySelectorAll('details').forEach(found => found.open = true)")
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate("document.querySelectorAll('.injected, mjx-container, .math').length") == 0
    # the script that leaves no trace: links by themselves do nothing, but no link may run one
    assert browser.evaluate("[...document.querySelectorAll('[href], [src]')].map(e => e.getAttribute('href') || "
                            "e.getAttribute('src')).filter(to => /^\\s*(javascript|vbscript):|asked/i.test(to))") == []
    assert [address for address in browser.requests if ELSEWHERE in address] == []


@needs_chromium
def test_no_page_of_the_report_runs_asks_or_breaks(built, browser):
    pages = [page for page in built.rglob("*.html") if "_static" not in page.parts]
    assert len(pages) > 10
    for page in pages:
        browser.open(page)
        nothing_happened(browser)
        outside = [address for address in browser.requests if not address.startswith((built.as_uri(), "data:"))]
        assert outside == []
    assert not list(built.rglob("conf.py"))


@needs_chromium
def test_the_texts_are_there_to_be_read(built, browser):
    browser.open(built / "main/korean/05_evaluation.html")
    shown = browser.evaluate("document.querySelector('article').textContent")
    for text in MARKUP:
        assert " ".join(text.split()) in " ".join(shown.split())
    browser.open(built / "index.html")
    assert "It says: <script>window.hacked = 1</script>." in browser.evaluate("document.body.textContent")


@needs_chromium
def test_a_figure_opened_alone_runs_nothing(built, browser):
    for picture in built.rglob("*.svg"):
        browser.open(picture)
        assert browser.evaluate("[window.hacked, document.querySelectorAll('script, .injected').length].join()") == ",0"
        assert [address for address in browser.requests if ELSEWHERE in address] == []


def test_what_may_offend_is_folded_behind_a_notice(built):
    page = (built / "main" / "korean" / "05_evaluation.html").read_text()
    folded = re.findall(r'<details class="notice"><summary>Notice: this shows texts that may offend.*?</summary>', page)
    assert len(folded) >= 2
    assert "<details open" not in page


@pytest.mark.parametrize(("stage", "marks"), [
    ("03_filtering", ["Up to three of each outcome"]),                        # rejected texts
    ("05_evaluation", ["One item of each part", "enumerate(chosen[:2])"]),    # task texts; open answers
])
def test_cells_that_show_texts_of_others_are_marked(stage, marks):
    cells = nbformat.read(paths.NOTEBOOKS / f"{stage}.ipynb", 4).cells
    for mark in marks:
        cell, = [cell for cell in cells if mark in cell.source]
        assert "sensitive" in cell.metadata.get("tags", []), mark


def test_open_answers_are_shown_folded_alone():
    """09 shows answers through ``folded``; whole rows of text never enter a plain table."""
    for cell in nbformat.read(paths.NOTEBOOKS / "09_open_answers.ipynb", 4).cells:
        if cell.cell_type == "code" and re.search(r"row\.text|side_by_side|model_dump", cell.source):
            assert "figures.table" not in cell.source
            assert "open_answers.folded" in cell.source or "open_answers.side_by_side" in cell.source


# the rating form

@needs_chromium
def test_the_rating_form_shows_every_text_as_it_is(browser, tmp_path):
    from culturellm_utils import rating_form

    consent = tmp_path / "consent.txt"
    consent.write_text("\n\n".join(MARKUP))
    pairs = [Pair(pair_id=f"h{place}", seed=text, text=text) for place, text in enumerate(EVERY)]
    path = tmp_path / "form.html"
    path.write_text(rating_form.page(pairs, consent_path=str(consent)), encoding="utf-8")
    browser.open(path)
    nothing_happened(browser)
    browser.evaluate('byId("consent").checked = true; byId("rater").value = "r1"; byId("begin").requestSubmit()')
    seen = set()
    for _ in pairs:
        seen.add(browser.evaluate('byId("second").textContent'))
        browser.evaluate('document.querySelector("input[name=rating]").click()')
        browser.press("ArrowRight", 39)
    nothing_happened(browser)
    assert seen == {pair.text for pair in pairs}
    assert browser.requests == [path.as_uri()]


# a terminal

def test_an_error_moves_no_cursor_and_turns_no_text_round(capsys):
    hostile = "\x1b[2J\x1b]0;x\x07\u202e\x9b1m\rp\x00"
    for error in (UserError(f"there is no pair '{hostile}', naïve 한국어"), OSError(f"{hostile}.csv is missing")):
        @errors.command_line
        def main(error: Exception = error) -> int:
            raise error

        assert main() == 1
        said = capsys.readouterr().err
        assert said.startswith("Error: ")
        assert said[:-1].isprintable()
    answer = serving.Answer("Korean", "toy", "You are a chatbot.", f"Yes.\nNo.{hostile}")
    assert serving.described([answer]).splitlines()[1:] == ["    Yes.", "    No.�[2J�]0;x���1m�    p�"]
