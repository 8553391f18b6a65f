"""The report: pages, folded code, figures with titles and data, no request to a network, and what bad input gets."""

import re
import shutil
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
import reports
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from reports import LOCAL, PLACES

from culturellm_utils import paths, report
from culturellm_utils.errors import UserError
from culturellm_utils.report import __main__ as command
from culturellm_utils.report import executed, finishing, pages

PARAMETERS = '''study: str = "laptop"   # name of the study
base_model: str = "stand-in"  # what is fine-tuned
cultures: list = [      # who takes part
    "korean", "german",
]
tau: float = 0.8        # similarity that is asked for, 0 to 1'''
TITLE = "Tea beats coffee & cocoa in 2 of 3 towns"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of a built report."""
    outputs = tmp_path_factory.mktemp("outputs")
    reports.study(outputs / "laptop", base_model="stand-in-tiny", tau=0.7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CULTURELLM_OUTPUTS", str(outputs))
        assert report.build("laptop", ["korean"]) == outputs / "laptop" / "report" / "index.html"
    return outputs / "laptop" / "report"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Writes ``params/studies/toy.yaml`` into a copy of ``params``."""
    def write(text: str) -> None:
        if not (tmp_path / "params").exists():
            shutil.copytree(paths.PARAMS, tmp_path / "params")
        (tmp_path / "params" / "studies" / "toy.yaml").write_text(f"title: Toy\ncultures: [korean]\n{text}")
        monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")
    return write


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
    for name in ("methods", "limits", "provenance"):
        assert f'href="{name}.html"' in index
    assert re.findall(r'caption-text">([^<]+)', index)[:4] == ["This study", "Across cultures", "Korean",
                                                              "CultureLLM-One"]


def test_the_index_opens_on_question_answer_and_figures(built):
    page = Page(built / "index.html")
    order = [page.text.index(part) for part in (
        "CultureLLM on a laptop", "The question.", "figures of a toy model", "The answer", "Korean answers are",
        "Before and after", "Who speaks for whom", "What this is", "What could not be claimed", "Every page")]
    assert order == sorted(order)
    assert page.alts == [TITLE, TITLE]
    links = re.findall(r'href="(_downloads/[^"]+\.csv)"', (built / "index.html").read_text())
    assert [Path(link).name for link in links] == ["before_and_after.csv", "matrix.csv", "comparison.csv"]
    assert all((built / link).is_file() for link in links)


def test_a_figure_leads_to_the_cell_that_made_it(built):
    index = (built / "index.html").read_text()
    assert 'href="main/common/07_summary.html#main-common-07-summary-matrix"' in index
    source = (built / "main/common/07_summary.html").read_text()
    anchor = source.index('id="main-common-07-summary-matrix"')
    assert source.index("draw") > anchor                     # the code, folded, then the picture, then its data
    assert "matrix.csv" in source[anchor:source.index('id="main-common-07-summary-before-and-after"')]


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
    assert page.folded == 7    # settings, imports, drawing with what led to it, items, their notice, writing, findings
    assert page.text.index("What we see") < page.text.index("Look")
    assert "Korean · 05 Title of 05_evaluation" in page.text
    assert page.alts == [TITLE]


def test_texts_that_may_offend_are_folded_behind_a_notice_and_stay_text(built):
    page = Page(built / "main" / "korean" / "05_evaluation.html")
    assert "turnip" not in page.text
    assert f'<summary>{executed.NOTICE}</summary><table><tr><td>you are a &lt;i>turnip' in page.path.read_text()


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


def test_icons_are_pictures_and_their_library_is_gone(built):
    source = (built / "index.html").read_text()
    assert not (built / finishing.ICONS).exists()
    assert "fontawesome" not in source
    assert "fa-solid" not in source
    assert len(re.findall(r'<svg class="[^"]*svg-inline--fa[^"]*"[^>]*viewBox="0 0 \d+ 512"', source)) >= 8


def test_several_variants_are_told_apart(outputs, toy):
    toy("variants: {first: {}, second: {epochs: 3}}")
    for name in ("first", "second"):
        reports.study(outputs / "toy", name, epochs=4 if name == "first" else 3)
    index = (report.build("toy").parent / "index.html").read_text()
    assert re.findall(r"<h2>(The answer[^<]*|What we found[^<]*)<", index) == [
        "The answer (first)", "What we found (second)"]
    assert "Korean (second)" in re.findall(r'caption-text">([^<]+)', index)
    assert "one culture (Korean)" in index


def test_a_study_that_compares_opens_on_the_comparison_and_shows_no_page_twice(outputs, toy):
    toy("question: Do epochs matter?\ncompare: epochs\nvariants: {few: {epochs: 1}, many: {epochs: 2}}")
    reports.study(outputs / "toy", "few", epochs=1)
    reports.study(outputs / "toy", "many", [("korean", stage) for stage in pages.OF_CULTURE], epochs=2)
    reports.compared(outputs / "toy", ("few", "many"))
    built = report.build("toy").parent
    page = Page(built / "index.html")
    order = [page.text.index(part) for part in (
        "Do epochs matter?", "The answer", "No variant differs", "Variant by variant", "What this is")]
    assert order == sorted(order)
    captions = re.findall(r'caption-text">([^<]+)', page.path.read_text())
    assert captions[:3] == ["This study", "The comparison", "Across cultures (few)"]
    assert captions[-1] == "Variant many"
    assert (built / "many/korean/04_fine_tuning.html").is_file()
    assert not (built / "many/korean/01_seed_extraction.html").exists()     # the same as in the first


def test_wordings_have_their_pages_where_they_lie_in_the_order_of_the_notebooks():
    own, one = [["01_seed_extraction", "04_fine_tuning", "05_evaluation"], ["04_fine_tuning", "05_evaluation"]]
    shared = ["02_augmentation", "03_filtering", "06_human_study"]
    across = ["07_summary", "08_transfer", "09_open_answers"]
    cultures = ["turkish", "german"]

    def grouped(found):
        return [(folder, [stage for _, stage in group]) for folder, group in groupby(found, key=lambda place: place[0])]

    assert grouped(pages.places(cultures, dict.fromkeys(cultures, "common"))) == [
        ("common", [*shared, *across]), ("turkish", own), ("german", own), ("one", one)]
    assert grouped(pages.places(cultures, {name: name for name in cultures})) == [
        ("common", across), *((name, sorted([*own, *shared])) for name in cultures), ("one", one)]


def test_a_report_looks_for_wordings_where_the_language_of_each_variant_puts_them(outputs, toy):
    toy("variants:\n  main: {}\n  own: {language: local}\n")
    reports.study(outputs / "toy")
    reports.study(outputs / "toy", "own", LOCAL)
    (outputs / "toy/own/korean/03_filtering.ipynb").unlink()
    with pytest.raises(UserError, match=r"toy/own/korean/03_filtering.ipynb is missing: run .* with culture korean"):
        report.build("toy")
    (outputs / "toy/main/common/03_filtering.ipynb").unlink()
    with pytest.raises(UserError, match=r"toy/main/common/03_filtering.ipynb is missing"):
        report.build("toy")


def test_a_missing_notebook_says_which_to_run(outputs):
    reports.study(outputs / "laptop")
    (outputs / "laptop/main/korean/05_evaluation.ipynb").unlink()
    with pytest.raises(UserError, match=r"korean/05_evaluation.ipynb is missing: run `make report STUDY=laptop`, or "
                                        r"notebooks/05_evaluation.ipynb with culture korean"):
        report.build("laptop", ["korean"])
    assert sorted(path.name for path in (outputs / "laptop").iterdir()) == ["main"]


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
    reports.study(outputs / "laptop")
    harm(outputs / "laptop/main/one/04_fine_tuning.ipynb")
    with pytest.raises(UserError, match=f"one/04_fine_tuning.ipynb {sentence}"):
        report.build("laptop", ["korean"])


def test_a_page_with_a_warning_fails_and_the_old_report_stays(built, outputs):
    shutil.copytree(built.parent, outputs / "laptop")
    before = [(outputs / "laptop" / name).read_bytes() for name in ("report/index.html", "headline.json")]
    found = reports.notebook("03_filtering")
    found.cells[0] = new_markdown_cell("# 03 Title\n\n[nowhere](missing.md)")
    reports.put(outputs / "laptop/main/common/03_filtering.ipynb", found)
    with pytest.raises(UserError, match=r"main/common/03_filtering\.ipynb.*missing\.md"):
        report.build("laptop", ["korean"])
    assert [(outputs / "laptop" / name).read_bytes() for name in ("report/index.html", "headline.json")] == before
    assert sorted(path.name for path in (outputs / "laptop").iterdir()) == ["headline.json", "main", "report"]


def test_the_command_line_says_one_sentence(outputs, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["report", "laptop", "atlantis"])
    assert command.main() == 1
    assert capsys.readouterr().err.startswith("Error: there is no culture 'atlantis'")


@pytest.fixture
def small() -> nbformat.NotebookNode:
    found = reports.notebook("03_filtering", {"study": "smoke", "tau": 0.7}, finding="1 < 2")
    found.cells[1].source = PARAMETERS
    return found


def test_settings_stamp_findings_and_titles_are_read_from_a_notebook(small):
    assert executed.settings(small)["tau"] == (0.7, 0.8, "similarity that is asked for, 0 to 1")
    assert executed.settings(small)["cultures"] == (["korean", "german"], ["korean", "german"], "who takes part")
    assert executed.stamp(small) == ("2026-01-02 03:04:05", 61.2, "1a2b3c4", "0f3a5c7e9b1d",
                                     "Abacus 9 · 2 cores · 8 GB memory · no GPU")
    assert executed.sentences(small) == ["1 &lt; 2", "The second."]
    assert executed.title(small) == "03 Title of 03_filtering"
    assert executed.figure_title(reports.SVG) == TITLE
    assert executed.figure_title("<svg></svg>") == "Figure"


def test_settings_are_a_table_that_marks_what_was_changed(small):
    table = executed.for_readers(small, "", {}, {}).cells[1].outputs[0].data["text/html"]
    assert "2 of 4 differ" in table
    assert "<strong>0.7</strong> (default 0.8)" in table
    assert "similarity that is asked for, 0 to 1" in table


def test_a_notebook_run_by_hand_has_no_papermill_metadata(small):
    del small.metadata["papermill"]
    assert executed.settings(small)["tau"].value == 0.8
    assert executed.stamp(small)[:4] == ("–", None, "1a2b3c4", "0f3a5c7e9b1d")


def test_saved_figures_are_found_in_the_order_in_which_they_are_shown():
    assert executed.saved_figures(reports.notebook("07_summary", figures=("b", "a"))) == ["b", "a"]
    assert executed.saved_figures(reports.notebook("07_summary")) == []


@pytest.mark.parametrize("name", paths.NOTEBOOK_NAMES)
def test_every_figure_that_a_notebook_draws_is_saved_with_its_data(name):
    cells = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    drawing = [cell.source for cell in cells if cell.cell_type == "code"
               and re.search(r"figures\.axes\(|plt\.subplots\(|arm_figures\.draw", cell.source)]
    assert [source[:80] for source in drawing if "figures.save(" not in source] == []
    assert drawing
