"""The report as a browser shows it: accessible by axe-core's rules, narrow and wide, by keyboard, on paper, light."""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import reports
from browser import Browser, needs_chromium

from culturellm_utils import report

pytestmark = needs_chromium
#: One page of each kind.
PAGES = ("index", "methods", "limits", "provenance", "main/common/07_summary", "main/korean/05_evaluation", "search")
#: The checker's script, where it is installed.
AXE = (spec := find_spec("axe_core_python")) and Path(spec.origin).with_name("axe.min.js")
#: What the first page may weigh, everything that it fetches included.
MOST_BYTES = 1_500_000


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    reports.study(outputs / "laptop", base_model="stand-in-tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CULTURELLM_OUTPUTS", str(outputs))
        return report.build("laptop", ["korean"]).parent


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def look(browser: Browser, page: Path, width: int = 1300, colors: str = "light") -> None:
    """Open a page and wait until nothing moves."""
    browser.call("Emulation.setEmulatedMedia", media="", features=[
        {"name": "prefers-color-scheme", "value": colors}, {"name": "prefers-reduced-motion", "value": "reduce"}])
    browser.open(page, width)
    browser.evaluate("new Promise(done => setTimeout(done, 300))")


#: A phone in daylight, and a desk at night.
@pytest.mark.parametrize(("width", "colors"), [(400, "light"), (1300, "dark")])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole_for_everybody(built, browser, page, width, colors):
    look(browser, built / f"{page}.html", width, colors)
    assert browser.evaluate("document.documentElement.dataset.theme") == colors
    levels = browser.evaluate("[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]"
                              ".filter(heading => heading.checkVisibility()).map(heading => +heading.tagName[1])")
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels)), levels
    unnamed = browser.evaluate("[...document.images].filter(image => !image.alt.trim()).map(image => image.src)")
    assert unnamed == []
    browser.evaluate("document.querySelectorAll('details').forEach(found => found.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    if not AXE:
        pytest.skip("axe-core-python is not installed")
    browser.evaluate(AXE.read_text(encoding="utf-8") + ";0")
    found = browser.evaluate("axe.run().then(found => found.violations.map("
                             "rule => [rule.id, rule.nodes[0].html, rule.nodes[0].failureSummary]))")
    assert found == []


def test_nothing_is_fetched_from_elsewhere_and_the_first_page_is_light(built, browser):
    look(browser, built / "index.html")
    fetched = set(browser.requests)
    assert len(fetched) > 5
    assert [address for address in fetched if not address.startswith((built.as_uri(), "data:"))] == []
    files = {Path(address.removeprefix("file://").split("?")[0]) for address in fetched if address.startswith("file:")}
    assert sum(file.stat().st_size for file in files) < MOST_BYTES


def test_the_keyboard_reaches_everything_and_shows_where_it_is(built, browser):
    look(browser, built / "main/korean/05_evaluation.html")
    reached = []
    for _ in range(120):
        browser.press("Tab", 9)
        reached.append(browser.evaluate(
            "(() => { const at = document.activeElement, style = getComputedStyle(at);"
            " return [at.tagName, at.textContent.trim().slice(0, 40),"
            " style.outlineStyle !== 'none' || style.boxShadow !== 'none']; })()"))
    assert reached[0][:2] == ["A", "Skip to main content"]
    words = [text for _, text, _ in reached]
    assert sum(text.startswith("Show code") for text in words) >= 4
    assert any(text.startswith("Settings of this run") for text in words)
    assert any(text.startswith("Notice: this shows texts") for text in words)
    assert [place for place in reached if place[0] != "BODY" and not place[2]] == []


def test_a_fold_opens_by_keyboard(built, browser):
    look(browser, built / "main/korean/05_evaluation.html")
    shown = "document.querySelector('details.notice table').checkVisibility({contentVisibilityAuto: true})"
    assert browser.evaluate(shown) is False
    browser.evaluate("document.querySelector('details.notice > summary').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate(shown) is True


def test_on_paper_there_is_no_code_and_links_say_where_they_lead(built, browser):
    look(browser, built / "index.html")
    browser.call("Emulation.setEmulatedMedia", media="print")
    content = "getComputedStyle(document.querySelector('.bd-article a.reference.external'), '::after').content"
    assert browser.evaluate(content) == '" (https://arxiv.org/abs/2402.10946)"'
    look(browser, built / "main/korean/05_evaluation.html")
    shown = "[...document.querySelectorAll('%s')].filter(found => found.checkVisibility()).length"
    assert browser.evaluate(shown % "div.cell details.hide") == 5
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(shown % "div.cell details.hide") == 0
    assert browser.evaluate(shown % ".bd-sidebar-primary, .bd-sidebar-secondary, .prev-next-area") == 0
    assert browser.evaluate("getComputedStyle(document.querySelector('.bd-article img')).breakInside") == "avoid"


def test_it_prints_as_a_pdf(built, browser, tmp_path):
    look(browser, built / "index.html")
    pdf = browser.printed(tmp_path / "index.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
