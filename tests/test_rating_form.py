"""The rating form as text, and as a rater meets it: keys, reload, right to left, a phone, hostile texts."""

import json
import re
import string
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, needs_chromium

from culturellm_utils import human_study, rating_form
from culturellm_utils.errors import UserError
from culturellm_utils.records import Pair

HOSTILE = '</script><img src=x onerror="document.title=1"><!-- <script> ]]> \u2028 &lt;b&gt; ${x} {n} __DATA__'
PAIRS = [Pair(pair_id=f"p{i}", seed=f"Seed {i}.", text=f"Text {i}.") for i in range(3)]
LANGUAGES = rating_form.languages()


def strings(block, where="") -> Iterator[tuple[str, str]]:
    """Every text of a language with its place."""
    if isinstance(block, str):
        yield where, block
    elif isinstance(block, dict | list):
        for name, value in (block.items() if isinstance(block, dict) else enumerate(block)):
            yield from strings(value, f"{where}.{name}")


# the page as text

def test_hostile_text_stays_text_in_the_form():
    page = rating_form.page([Pair(pair_id="p1", seed=HOSTILE, text=HOSTILE)])
    harmless = rating_form.page([Pair(pair_id="p1", seed="a", text="b")])
    for tag in ("<script", "</script", "<img", "<!--", "onerror=\""):
        assert page.count(tag) == harmless.count(tag)
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data)["pairs"][0]["text"] == HOSTILE


def test_the_form_asks_nothing_of_a_network_and_never_parses_text_as_markup():
    page = rating_form.page(PAIRS)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(|stylesheet|<script[^>]+src|fetch\(|XMLHttp", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", page)
    assert not re.search(r"__[A-Z_]+__", page)


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_says_everything(code):
    english, own = dict(strings(LANGUAGES["en"])), dict(strings(LANGUAGES[code]))
    assert list(own) == list(english)
    for where, text in own.items():
        assert text.strip()
        fields = {field for _, field, _, _ in string.Formatter().parse(text) if field}
        assert fields == {field for _, field, _, _ in string.Formatter().parse(english[where]) if field}, where
        if code != "en" and where not in (".direction", ".name"):
            assert text != english[where], where
    assert list(LANGUAGES[code]["rubric"]) == [1, 2, 3, 4, 5]
    assert [example["rating"] for example in LANGUAGES[code]["worked"]] == [5, 3]
    page = rating_form.page(PAIRS, code)
    assert f'<html lang="{code}" dir="{"rtl" if code == "ar" else "ltr"}">' in page


def test_the_languages_of_the_cultures_and_greek_are_there():
    assert set(LANGUAGES) == {"en", "ar", "bn", "zh", "de", "ko", "pt", "es", "tr", "el"}


def test_a_language_that_has_no_texts_is_refused():
    with pytest.raises(UserError, match=r"form_language 'xx': the rating form speaks en \(English\), ar \(Arabic\)"):
        rating_form.page(PAIRS, "xx")


def test_the_consent_text_comes_from_a_file(tmp_path):
    path = tmp_path / "consent.txt"
    path.write_text("\ufeffWe are <b>we</b>,\nof a university.\n\n \nWrite to us.\n")
    assert rating_form.consent("de", str(path)) == ["We are <b>we</b>, of a university.", "Write to us."]
    data = re.search(r'id="data">(.*?)</script>', rating_form.page(PAIRS, "de", str(path)), re.DOTALL)[1]
    assert json.loads(data)["consent"] == rating_form.consent("de", str(path))
    assert json.loads(data)["notices"] == []
    path.write_text(" \n")
    with pytest.raises(UserError, match=r"consent\.txt is empty"):
        rating_form.page(PAIRS, consent_path=str(path))
    with pytest.raises(UserError, match=r"none\.txt cannot be read"):
        rating_form.page(PAIRS, consent_path=str(tmp_path / "none.txt"))


def test_the_researcher_is_told_of_unchecked_texts_and_the_gap():
    assert len(rating_form.notices("en", "consent.txt")) == 0
    assert "no native speaker" in rating_form.notices("ko", "consent.txt")[0]
    assert "consent_path" in rating_form.notices("en")[0]
    assert "[Researchers:" in rating_form.consent()[-1]


@pytest.mark.parametrize("link", ["javascript:alert(1)", "http://a.example/x", "https://a b", 'https://a"><script>'])
def test_a_link_that_is_none_is_refused(link):
    with pytest.raises(UserError, match="completion_url"):
        rating_form.page(PAIRS, completion_url=link)


# the page in a browser

@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("websocket")
    home = tmp_path_factory.mktemp("browser")
    with Browser(home) as found:
        found.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(home / "ratings"))
        yield found


def write(folder: Path, pairs, *arguments, **named) -> Path:
    path = folder / "form.html"
    path.write_text(rating_form.page(pairs, *arguments, **named), encoding="utf-8")
    return path


def press(browser, *keys):
    for key in keys:
        codes = {"ArrowRight": 39, "ArrowLeft": 37, "Tab": 9, "Enter": 13, " ": 32}
        browser.press(key, codes.get(key, ord(key[0].upper())), {"Enter": "\r"}.get(key, key if len(key) == 1 else ""))


def begin(browser, rater="r-07"):
    browser.evaluate(f'byId("consent").checked = true; byId("rater").value = "{rater}"; byId("begin").requestSubmit()')


def own_pairs(name, count=3):
    """Pairs of a test's own: what a browser kept of one form is never another's."""
    return [Pair(pair_id=f"p{i}", seed=f"{name} seed {i}.", text=f"{name} text {i}.") for i in range(count)]


@needs_chromium
def test_a_rater_with_a_keyboard_gives_back_a_file_that_is_read(browser, tmp_path):
    pairs = [*own_pairs("keys", 4), Pair(pair_id="p4", seed="a", text=HOSTILE)]
    browser.open(write(tmp_path, pairs))
    press(browser, "Tab", " ", "Tab", *"r7", "Enter")                    # agree, name oneself, start: no mouse
    seen = []
    time.sleep(0.3)
    press(browser, "ArrowRight")                                         # not rated yet: must stay
    assert "Choose a rating" in browser.evaluate('byId("status").textContent')
    for key in "5134":
        seen.append(browser.evaluate('byId("second").textContent'))
        press(browser, key, "ArrowRight")
    seen.append(browser.evaluate('byId("second").textContent'))
    assert sorted(seen) == sorted(pair.text for pair in pairs)
    press(browser, "ArrowLeft", "2", "ArrowRight")                       # the fourth is a 2 after all
    assert browser.evaluate('byId("heading").textContent + byId("rated").textContent') == "Pair 5 of 54 rated"

    browser.open(tmp_path / "form.html")                                 # closed and opened again
    assert browser.evaluate('byId("status").textContent') == "Welcome back, r7: your ratings are still here."
    assert browser.evaluate('byId("heading").textContent') == "Pair 5 of 5"
    assert browser.evaluate('byId("second").textContent') == seen[4]
    press(browser, "4", "Enter")
    assert browser.evaluate('byId("thanks").textContent') == "Thank you. You rated 5 of 5 pairs."
    assert browser.evaluate("[document.title, document.images.length].join()") == LANGUAGES["en"]["title"] + ",0"
    assert browser.requests == [(tmp_path / "form.html").as_uri()]

    browser.evaluate('document.querySelector("#end .download").click()')
    file = browser.home / "ratings" / "ratings_r7.csv"
    for _ in range(100):
        if file.is_file():
            break
        time.sleep(0.1)
    read = human_study.read_ratings(browser.home, pairs)
    file.unlink()
    texts = {pair.pair_id: pair.text for pair in pairs}
    assert [(rating.position, texts[rating.pair_id], rating.rating) for rating in read] == [
        (1, seen[0], 5), (2, seen[1], 1), (3, seen[2], 3), (4, seen[3], 2), (5, seen[4], 4)]
    assert {rating.rater_id for rating in read} == {"r7"}
    assert 0.3 <= read[0].seconds < 60
    assert all(rating.seconds is not None for rating in read)


@needs_chromium
def test_each_rater_has_an_order_that_stays(browser, tmp_path):
    browser.open(write(tmp_path, own_pairs("order", 8)))
    ids = 'shuffled("{}").map((pair) => pair.pair_id).join()'
    orders = {rater: browser.evaluate(ids.format(rater)) for rater in ("r1", "r2", "r3", "anna")}
    assert len(set(orders.values())) == 4
    assert all(sorted(order.split(",")) == [f"p{i}" for i in range(8)] for order in orders.values())
    browser.open(tmp_path / "form.html")
    assert {rater: browser.evaluate(ids.format(rater)) for rater in orders} == orders
    # over 4,000 raters each pair comes to each place 500 times, give or take 5 standard deviations of 21
    counts = browser.evaluate("""(() => {
        const counts = Array.from({ length: 8 }, () => Array(8).fill(0));
        for (let n = 0; n < 4000; n++) shuffled("r" + n).forEach((pair, at) => counts[Number(pair.pair_id[1])][at]++);
        return counts.flat();
    })()""")
    assert len(counts) == 64
    assert all(abs(count - 500) < 105 for count in counts)


@needs_chromium
def test_right_to_left(browser, tmp_path):
    browser.open(write(tmp_path, own_pairs("rtl"), "ar"))
    begin(browser)
    press(browser, "٤", "ArrowLeft")                                     # an Arabic keyboard's 4; forward is leftwards
    assert browser.evaluate('byId("heading").textContent') == "الزوج 2 من 3"
    press(browser, "ArrowRight")
    assert browser.evaluate('byId("heading").textContent') == "الزوج 1 من 3"
    assert browser.evaluate('document.querySelector("input[name=rating]:checked").value') == "4"
    assert browser.evaluate('getComputedStyle(byId("first")).direction') == "ltr"       # an English text stays so
    back, onwards = (browser.evaluate(f'document.querySelector("{name}").getBoundingClientRect().left')
                     for name in ("#back", "#rating button.main"))
    assert onwards < back


@needs_chromium
def test_who_comes_from_prolific_is_known_and_gets_the_link_when_done(browser, tmp_path):
    link = "https://app.prolific.com/submissions/complete?cc=C1"
    page = write(tmp_path, own_pairs("prolific"), completion_url=link).as_uri()
    browser.open(f"{page}?PROLIFIC_PID=5e9088a8a4b6ed018b45ba7b&STUDY_ID=1")
    assert browser.evaluate('[byId("rater").value, byId("rater").readOnly].join()') == "5e9088a8a4b6ed018b45ba7b,true"
    browser.evaluate('byId("consent").checked = true; byId("begin").requestSubmit()')
    for _ in range(3):
        press(browser, "3", "ArrowRight")
    assert not browser.evaluate('byId("finish").checkVisibility()')
    browser.evaluate('document.querySelector("#end .download").click()')
    assert browser.evaluate('[byId("finish").checkVisibility(), byId("finish").href].join()') == f"true,{link}"
    assert len(browser.evaluate("csvText()").splitlines()) == 4
    browser.open(f"{page}?PROLIFIC_PID=another")                         # the next person on this device starts anew
    assert browser.evaluate('[byId("start").hidden, byId("rater").value].join()') == "false,another"
    browser.open(f"{page}?PROLIFIC_PID=%3D1%2B1%3Cb%3E")
    assert browser.evaluate('[byId("rater").value, byId("rater").readOnly].join()') == ",false"


@needs_chromium
def test_nobody_starts_without_consent_or_a_proper_id(browser, tmp_path):
    browser.open(write(tmp_path, own_pairs("consent")))
    browser.evaluate('byId("rater").value = "r1"; byId("begin").requestSubmit()')
    assert "Tick the box" in browser.evaluate('byId("status").textContent')
    for wrong in ("", "=1+1", "a,b", "a b", "x" * 41):
        begin(browser, wrong)
        assert "Enter your rater ID" in browser.evaluate('byId("status").textContent')
        assert browser.evaluate('byId("rate").hidden')


@needs_chromium
@pytest.mark.parametrize("code", LANGUAGES)
def test_on_a_phone_nothing_runs_over_and_everything_can_be_touched(browser, tmp_path, code):
    long = "Donaudampfschifffahrtsgesellschaftskapitänswitwenrente " * 3
    pair = Pair(pair_id="p0", seed=f"{code} {long}", text="短" * 60)
    browser.open(write(tmp_path, [pair], code), width=360, height=740)
    wide = "document.documentElement.scrollWidth <= 360"                 # innerWidth grows with what runs over
    assert browser.evaluate(wide)
    assert not browser.evaluate('byId("notice").hidden')
    begin(browser)
    assert browser.evaluate(wide)
    sizes = browser.evaluate('[...document.querySelectorAll(".choice, button, input[type=text]")]'
                             ".map((one) => one.getBoundingClientRect().height).filter((height) => height > 0)")
    assert len(sizes) == 8
    assert min(sizes) >= 44                                              # WCAG 2.2, target size (enhanced)
    unnamed = browser.evaluate('[...document.querySelectorAll("button, a, h1, h2, legend, label")]'
                               '.filter((one) => one.checkVisibility() && !one.textContent.trim()).length')
    assert unnamed == 0
    assert browser.evaluate('[...document.querySelectorAll("h1")].filter((one) => one.checkVisibility()).length') == 1
