"""The report: pages, folded code, figures with titles, no request to a network, and what bad input gets."""

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from culturellm_utils import paths, report
from culturellm_utils.errors import UserError
from culturellm_utils.report import __main__ as command
from culturellm_utils.report import executed, pages

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="72pt">
<text style="font-weight: 700; font-size: 10px" x="1">a panel</text>
<text style="font-weight: 700; font-size: 14.4px; fill: #262626" x="1">Tea beats coffee &amp;</text>
<text style="font-weight: 700; font-size: 14.4px; fill: #262626" x="1">cocoa in 2 of 3 towns</text>
<text style="font-size: 12px" x="1">cups a day</text></svg>"""
PARAMETERS = '''study: str = "laptop"   # name of the study
base_model: str = "stand-in"  # what is fine-tuned
cultures: list = [      # who takes part
    "korean", "german",
]
tau: float = 0.8        # similarity that is asked for, 0 to 1'''
PLACES = pages.places(["korean"], {"korean": "common"})
LOCAL = pages.places(["korean"], {"korean": "korean"})
FINDING = "Korean answers are <script>alert(1)</script> **nearer**."
STAMP = "culturellm 0.1.0 · python 3.11.7 · git 1a2b3c4 · parameters 0f3a5c7e9b1d\n"


def shows(**data: str):
    return new_output("display_data", data={kind.replace("_", "/", 1).replace("_", "+"): text
                                            for kind, text in data.items()})


def fake(title: str, finding: str = "Seen.") -> nbformat.NotebookNode:
    """A small executed notebook with the anatomy of the real ones."""
    return new_notebook(
        metadata={"papermill": {"parameters": {"study": "smoke", "tau": 0.7}, "duration": 61.2,
                                "start_time": "2026-01-02T03:04:05.678+00:00"}},
        cells=[
            new_markdown_cell(f"# {title}\n\n- **Question:** which?"),
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new_code_cell('tau = 0.7', metadata={"tags": ["injected-parameters"]}),
            new_code_cell("import secret_module", outputs=[new_output("stream", name="stdout", text=STAMP),
                                                           new_output("stream", name="stderr", text="TqdmWarning")]),
            new_markdown_cell("## Look"),
            new_code_cell("silent = 1"),
            new_code_cell("draw(silent)", metadata={"tags": ["hide-input"]}, outputs=[
                new_output("execute_result", data={"text/plain": "Text(0.5, 1.0, 'left over')"}),
                shows(image_svg_xml=SVG, text_plain="<Figure size 1x1>")]),
            new_code_cell("write()", outputs=[
                new_output("execute_result", data={"text/plain": "PosixPath('/home/somebody/x.json')"})]),
            new_markdown_cell("## What we see"),
            new_code_cell("say()", outputs=[shows(text_markdown=f"- {finding}", text_plain="<Markdown>")]),
        ])


def study(home: Path, variant: str = "main", places: list[tuple[str, str]] = PLACES) -> None:
    """The executed notebooks and the summary of a study of one culture."""
    for folder, stage in places:
        path = home / variant / folder / f"{stage}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(fake(f"{stage[:2]} Title of {stage}", FINDING), path)
    common = home / variant / "common"
    for kind, text in (("figures/matrix.svg", SVG), ("tables/matrix.csv", "people,korean\nkorean,0.8\n"),
                       ("tables/comparison.csv", "culture,value\nkorean,0.8\n")):
        (common / kind).parent.mkdir(exist_ok=True)
        (common / kind).write_text(text)
    (common / "summary.json").write_text(json.dumps(
        {"versions": {"python": "3.11.7"}, "revision": "1a2b3c4", "digest": "0f3a5c7e9b1d"}))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of a built report."""
    outputs = tmp_path_factory.mktemp("outputs")
    study(outputs / "smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CULTURELLM_OUTPUTS", str(outputs))
        assert report.build("smoke", ["korean"]) == outputs / "smoke" / "report" / "index.html"
    return outputs / "smoke" / "report"


class Page(HTMLParser):
    """What a browser would fetch for a page, its images' alternative texts, and the text that its article shows when
    nothing is unfolded."""

    def __init__(self, path: Path):
        super().__init__()
        self.fetched, self.alts, self.text, self.folded, self.path = [], [], "", 0, path
        self._inside, self._article = [], False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.fetched += [attrs["src"]] if attrs.get("src") else []
        if tag == "link":
            self.fetched.append(attrs["href"])
        if tag == "img":
            self.alts.append(attrs.get("alt"))
        self.folded += tag == "details" and "open" not in attrs
        self._article |= tag == "article"
        if tag in ("script", "style", "details"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        self._article &= tag != "article"
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        if self._article and not self._inside:
            self.text += data


def test_every_stage_has_a_page_and_the_index_leads_to_it(built):
    index = (built / "index.html").read_text()
    for folder, stage in PLACES:
        assert (built / "main" / folder / f"{stage}.html").is_file()
        assert f'href="main/{folder}/{stage}.html"' in index
    assert re.findall(r'caption-text">([^<]+)', index)[:4] == ["Across cultures", "Korean", "CultureLLM-One", "About"]


def test_the_index_opens_on_findings_and_figures(built):
    page = Page(built / "index.html")
    order = [page.text.index(part) for part in ("Smoke test", "figures of a toy model", "What we found",
                                                "Korean answers are", "Who speaks for whom", "Every page")]
    assert order == sorted(order)
    assert page.alts == ["Tea beats coffee & cocoa in 2 of 3 towns"]
    links = re.findall(r'href="(_downloads/[^"]+\.csv)"', (built / "index.html").read_text())
    assert {Path(link).name for link in links} == {"matrix.csv", "comparison.csv"}
    assert all((built / link).is_file() for link in links)


def test_code_is_folded_and_nothing_is_left_over(built):
    page = Page(built / "main" / "korean" / "05_evaluation.html")
    source = page.path.read_text()
    assert "secret_module" in source
    for hidden in ("secret_module", "draw(", "tau = 0.7"):
        assert hidden not in page.text
    for gone in ("TqdmWarning", "left over", "somebody", "Figure size"):
        assert gone not in source
    assert "<script>alert" not in source
    assert "<script>alert(1)</script> nearer" in page.text
    assert page.folded == 5            # settings, imports, drawing with what led to it, writing, findings
    assert page.text.index("What we see") < page.text.index("Look")
    assert "Korean · 05 Title of 05_evaluation" in page.text
    assert page.alts == ["Tea beats coffee & cocoa in 2 of 3 towns"]


def test_settings_are_a_table_that_marks_what_was_changed(built):
    source = (built / "main" / "korean" / "04_fine_tuning.html").read_text()
    assert "2 of 4 differ" in source
    assert "<strong>0.7</strong> (default 0.8)" in source
    assert "similarity that is asked for, 0 to 1" in source


def test_provenance_says_what_ran_when(built):
    text = Page(built / "provenance.html").text
    assert "2026-01-02 03:04:05" in text
    assert "1a2b3c4" in text
    assert text.count("0f3a5c7e9b1d") == 10       # nine notebooks and the summary


def test_no_page_fetches_anything_from_a_network(built):
    for path in built.rglob("*.html"):
        for place in Page(path).fetched:
            assert not re.match(r"[a-z]+:|//", place), (path, place)
    for path in [*built.rglob("*.css"), *built.rglob("*.html")]:
        assert not re.search(r"""(@import|url\()\s*["']?(https?:|//)""", path.read_text()), path
    for path in built.rglob("*.js"):
        text = path.read_text()
        assert not re.search(r"""(fetch|import|importScripts|\.open)\(["'`](\w+["'],["'])?(https?:|//)""", text), path
        assert "sourceMappingURL" not in text
    assert not (built / "_static" / "mathjax").exists()


def test_several_variants_are_told_apart(outputs, monkeypatch):
    study(outputs / "smoke", "main")
    study(outputs / "smoke", "paper_labels")
    found = [pages.Page(variant, *place, fake("07 Title"), f" ({variant})")
             for variant in ("main", "paper_labels") for place in PLACES]
    text = pages.index("A study", found, outputs / "nowhere")
    assert "## What we found (main)" in text
    assert "## What we found (paper_labels)" in text
    assert ":caption: Korean (paper_labels)" in text
    assert "one culture (Korean)" in text


def test_wordings_have_their_pages_where_they_lie_in_the_order_of_the_notebooks():
    own, one = [["01_seed_extraction", "04_fine_tuning", "05_evaluation"], ["04_fine_tuning", "05_evaluation"]]
    shared = ["02_augmentation", "03_filtering", "06_human_study", "07_summary"]
    cultures = ["turkish", "german"]

    def grouped(found):
        return [(folder, [stage for _, stage in group]) for folder, group in groupby(found, key=lambda place: place[0])]

    assert grouped(pages.places(cultures, dict.fromkeys(cultures, "common"))) == [
        ("common", shared), ("turkish", own), ("german", own), ("one", one)]
    assert grouped(pages.places(cultures, {name: name for name in cultures})) == [
        ("common", ["07_summary"]), *((name, sorted([*own, *shared[:3]])) for name in cultures), ("one", one)]


def test_a_study_in_local_languages_has_the_wordings_of_a_culture_among_its_pages(outputs):
    found = [pages.Page("main", *place, fake("07 Title")) for place in LOCAL]
    text = pages.index("A study", found, outputs / "nowhere")
    line, = [line for line in text.splitlines() if line.startswith("| Korean | ")]
    assert re.findall(r"\(([^)]+)\.ipynb\)", line) == [f"main/korean/{stage}" for stage in (
        "01_seed_extraction", "02_augmentation", "03_filtering", "04_fine_tuning", "05_evaluation", "06_human_study")]
    assert "| Across cultures | [07 Summary](main/common/07_summary.ipynb) |" in text


def test_a_report_looks_for_wordings_where_the_language_of_each_variant_puts_them(outputs, monkeypatch, tmp_path):
    shutil.copytree(paths.PARAMS, tmp_path / "params")
    (tmp_path / "params" / "studies" / "toy.yaml").write_text(
        "title: Toy\ncultures: [korean]\nvariants:\n  main: {}\n  own: {language: local}\n")
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")
    study(outputs / "toy")
    study(outputs / "toy", "own", LOCAL)
    (outputs / "toy/own/korean/03_filtering.ipynb").unlink()
    with pytest.raises(UserError, match=r"toy/own/korean/03_filtering.ipynb is missing: run .* with culture korean"):
        report.build("toy")
    (outputs / "toy/main/common/03_filtering.ipynb").unlink()
    with pytest.raises(UserError, match=r"toy/main/common/03_filtering.ipynb is missing"):
        report.build("toy")


def test_a_missing_notebook_says_which_to_run(outputs):
    study(outputs / "smoke")
    (outputs / "smoke/main/korean/05_evaluation.ipynb").unlink()
    with pytest.raises(UserError, match=r"korean/05_evaluation.ipynb is missing: run `make report STUDY=smoke`, or "
                                        r"notebooks/05_evaluation.ipynb with culture korean"):
        report.build("smoke", ["korean"])
    assert sorted(path.name for path in (outputs / "smoke").iterdir()) == ["main"]


def broken(path: Path) -> None:
    path.write_text(path.read_text()[:200])


def never_run(path: Path) -> None:
    nbformat.write(new_notebook(cells=[new_code_cell("1 + 1")]), path)


def stopped(path: Path) -> None:
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0", outputs=[error])]), path)


@pytest.mark.parametrize(("harm", "sentence"), [(broken, "is not a notebook"), (never_run, "was never run"),
                                                (stopped, "stopped with an error")])
def test_a_harmed_notebook_is_named(outputs, harm, sentence):
    study(outputs / "smoke")
    harm(outputs / "smoke/main/one/04_fine_tuning.ipynb")
    with pytest.raises(UserError, match=f"one/04_fine_tuning.ipynb {sentence}"):
        report.build("smoke", ["korean"])


def test_a_page_with_a_warning_fails_and_the_old_report_stays(built, outputs):
    shutil.copytree(built.parent, outputs / "smoke")
    before = (outputs / "smoke/report/index.html").read_bytes()
    path = outputs / "smoke/main/common/03_filtering.ipynb"
    nbformat.write(fake("03 Title\n\n[nowhere](missing.md)"), path)
    with pytest.raises(UserError, match=r"main/common/03_filtering\.ipynb.*missing\.md"):
        report.build("smoke", ["korean"])
    assert (outputs / "smoke/report/index.html").read_bytes() == before
    assert sorted(path.name for path in (outputs / "smoke").iterdir()) == ["main", "report"]


def test_the_command_line_says_one_sentence(outputs, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["report", "smoke", "atlantis"])
    assert command.main() == 1
    assert capsys.readouterr().err.startswith("Error: there is no culture 'atlantis'")


def test_settings_stamp_findings_and_titles_are_read_from_a_notebook():
    notebook = fake("01 Title", "1 < 2")
    assert executed.settings(notebook)["tau"] == (0.7, 0.8, "similarity that is asked for, 0 to 1")
    assert executed.settings(notebook)["cultures"] == (["korean", "german"], ["korean", "german"], "who takes part")
    assert executed.stamp(notebook) == ("2026-01-02 03:04:05", 61.2, "1a2b3c4", "0f3a5c7e9b1d")
    assert executed.findings(notebook) == "- 1 &lt; 2"
    assert executed.figure_title(SVG) == "Tea beats coffee & cocoa in 2 of 3 towns"
    assert executed.figure_title("<svg></svg>") == "Figure"


def test_a_notebook_run_by_hand_has_no_papermill_metadata():
    notebook = fake("01 Title")
    del notebook.metadata["papermill"]
    assert executed.settings(notebook)["tau"].value == 0.8
    assert executed.stamp(notebook) == ("–", None, "1a2b3c4", "0f3a5c7e9b1d")
