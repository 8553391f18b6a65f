"""The human study: pairs, the form, ratings files and agreement, on toy texts and published worked examples."""

import json
import re
import shutil
import subprocess

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culturellm_utils import agreement, human_study
from culturellm_utils.errors import UserError
from culturellm_utils.human_study import PairKey, Rating
from culturellm_utils.records import Augmented, Pair, Question

HOSTILE = '</script><img src=x onerror="document.title=1"><!-- <script> ]]> \u2028 &lt;b&gt; ${x} __DATA__'
TOPICS = {"Q1": "Work", "Q2": "Work", "Q3": "Trust", "Q4": "Trust"}
QUESTIONS = [Question(question_id=name, topic=topic, question=f"Seed {name} on {topic}.",
                      options={"1": "Yes", "2": "No"}) for name, topic in TOPICS.items()]
# Krippendorff (2011), four observers and twelve units: nominal .743, ordinal .815, interval .849, ratio .797.
N = float("nan")
PUBLISHED = np.array([[1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
                      [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
                      [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
                      [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N]])


def row(name: str, question: str, stage: int = 2, text: str = "") -> Augmented:
    return Augmented(candidate_id=name, question_id=question, stage=stage, template_id=name, substitutions=[],
                     text=text or f"Text {name}.", source="recorded", similarity=0.9)


AUGMENTED = [row(f"{question}-s{i}", question) for question in TOPICS for i in range(6)]
PAIRS = [Pair(pair_id=f"p{i}", seed=f"Seed {i}.", text=f"Text {i}.") for i in range(3)]
KEY = {"p0": PairKey(question_id="Q1", candidate_id="c0", check=""),
       "p1": PairKey(question_id="Q2", candidate_id="c1", check=""),
       "same": PairKey(question_id="Q1", candidate_id="", check="same"),
       "other": PairKey(question_id="Q1", candidate_id="c9", check="different")}


def ratings(rater: str, **values: int) -> list[Rating]:
    return [Rating(rater_id=rater, pair_id=name, rating=value) for name, value in values.items()]


# pairs

def test_pairs_are_spread_over_questions_and_checks_are_what_they_say():
    pairs, key = human_study.sample_pairs(AUGMENTED, QUESTIONS, pairs=10, attention_checks=5, seed=3)
    assert list(key) == [pair.pair_id for pair in pairs]
    assert len(pairs) == len(set(key)) == 15
    seeds = {question.question_id: question for question in QUESTIONS}
    real, same, different = ([pair for pair in pairs if key[pair.pair_id].check == check]
                             for check in ("", "same", "different"))
    counts = [sum(key[pair.pair_id].question_id == name for pair in real) for name in TOPICS]
    assert sorted(counts) == [2, 2, 3, 3]
    assert (len(same), len(different)) == (2, 3)
    assert all(pair.seed == pair.text for pair in same)
    for pair in different:
        entry = key[pair.pair_id]
        assert pair.seed == seeds[entry.question_id].question
        assert TOPICS[entry.candidate_id[:2]] != TOPICS[entry.question_id]
    for pair in real:
        entry = key[pair.pair_id]
        assert (pair.seed, pair.text) == (seeds[entry.question_id].question, f"Text {entry.candidate_id}.")


def test_pairs_do_not_depend_on_the_order_of_rows_and_change_with_the_seed():
    first = human_study.sample_pairs(AUGMENTED, QUESTIONS, 8, 4, seed=0)
    assert human_study.sample_pairs(AUGMENTED[::-1], QUESTIONS[::-1], 8, 4, seed=0) == first
    assert human_study.sample_pairs(AUGMENTED, QUESTIONS, 8, 4, seed=1) != first


def test_pairs_skip_templates_copies_and_samples_equal_to_a_seed():
    rows = [row("a", "Q1", stage=1), row("b", "Q1", text="Same."), row("c", "Q1", text="Same."),
            row("d", "Q2", text="Seed Q2 on Work."), row("e", "Q3")]
    _, key = human_study.sample_pairs(rows, QUESTIONS, pairs=10, attention_checks=0)
    assert {entry.candidate_id for entry in key.values()} == {"b", "e"}


def test_pair_files_are_blind(tmp_path):
    pairs, key = human_study.sample_pairs(AUGMENTED, QUESTIONS, 6, 4)
    human_study.write_pairs(tmp_path, pairs, key)
    assert (tmp_path / "pairs.csv").read_text().splitlines()[0] == "pair_id,seed,text"
    assert all(re.fullmatch("p[0-9a-f]{12}", pair.pair_id) for pair in pairs)
    form = (tmp_path / "rating_form.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', form, re.DOTALL)[1])
    assert data["pairs"] == [pair.model_dump() for pair in pairs]
    assert set(data) == {"form", "pairs", "rubric"}
    assert human_study.read_pairs(tmp_path) == (pairs, key)


@pytest.mark.parametrize(("rows", "checks", "words"), [
    ([row("x", "Q9")], 0, "Q9"),
    ([], 0, "no wordings but the seeds'"),
    ([row("x", "Q1"), row("y", "Q2")], 2, "ask for fewer"),          # one topic only
    ([row("x", "Q1"), row("y", "Q3")], 9, "ask for fewer"),
])
def test_pairs_that_cannot_be_made(rows, checks, words):
    with pytest.raises(UserError, match=words):
        human_study.sample_pairs(rows, QUESTIONS, 5, checks)


def test_where_no_samples_are_templates_are_rated():
    template, sample = row("x", "Q1", stage=1), row("y", "Q1")
    assert [pair.text for pair in human_study.sample_pairs([template], QUESTIONS, 5, 0)[0]] == [template.text]
    assert [pair.text for pair in human_study.sample_pairs([template, sample], QUESTIONS, 5, 0)[0]] == [sample.text]


def test_pairs_stay_once_people_have_rated(tmp_path):
    pairs, key = human_study.sample_pairs(AUGMENTED, QUESTIONS, 6, 2, seed=0)
    human_study.write_pairs(tmp_path, pairs, key)
    human_study.write_automatic(tmp_path, human_study.rate("word overlap", pairs, human_study.overlaps(pairs)))
    new = human_study.pairs_of(tmp_path, AUGMENTED, QUESTIONS, 6, 2, seed=5)
    assert new[0] != pairs
    assert not new[2]
    (tmp_path / "ratings" / "anna.csv").write_text(f"rater_id,pair_id,rating,seconds\nanna,{pairs[0].pair_id},4,2.0\n")
    assert human_study.pairs_of(tmp_path, AUGMENTED, QUESTIONS, 6, 2, seed=5) == (pairs, key, True)
    (tmp_path / "pairs_key.json").write_text("{}")
    with pytest.raises(UserError, match="put back"):
        human_study.pairs_of(tmp_path, AUGMENTED, QUESTIONS, 6, 2, seed=5)


# files

@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1", "'=1"])
def test_no_cell_is_a_formula(tmp_path, text):
    human_study.write_pairs(tmp_path, [Pair(pair_id="p1", seed=text, text="a")], {"p1": KEY["p0"]})
    line = (tmp_path / "pairs.csv").read_text().splitlines()[1]
    assert line.split(",")[1].strip('"').startswith("'")
    assert human_study.read_pairs(tmp_path)[0][0].seed == text


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("'=+-@\t\r\n\",; "), st.characters(exclude_categories=["Cs"]))))
def test_any_text_survives_the_pairs_file(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("pairs")
    human_study.write_pairs(folder, [Pair(pair_id="p1", seed=text, text="a")], {"p1": KEY["p0"]})
    assert human_study.read_pairs(folder)[0] == [Pair(pair_id="p1", seed=text, text="a")]


def put(folder, text, name="anna.csv"):
    (folder / "ratings").mkdir(exist_ok=True)
    (folder / "ratings" / name).write_bytes(text if isinstance(text, bytes) else text.encode())


HEADER = "rater_id,pair_id,rating,seconds\n"


def test_a_persons_file_is_read(tmp_path):
    put(tmp_path, "\ufeff" + HEADER + "anna,p0,5,2.5\r\nanna,p1, 1 ,\r\n\r\n")
    put(tmp_path, "rating,seconds,rater_id,pair_id\n3,0,Žaneta_2,p0\n", "b.csv")
    assert human_study.read_ratings(tmp_path, PAIRS) == [
        Rating(rater_id="anna", pair_id="p0", rating=5, seconds=2.5),
        Rating(rater_id="anna", pair_id="p1", rating=1, seconds=None),
        Rating(rater_id="Žaneta_2", pair_id="p0", rating=3, seconds=0.0),
    ]


@pytest.mark.parametrize(("text", "words"), [
    (HEADER + "anna,p9,5,1\n", "anna.csv line 2: there is no pair 'p9'"),
    (HEADER + "anna,p0,5,1\nanna,p1,6,1\n", "anna.csv line 3: rating '6'"),
    (HEADER + "anna,p0,0,1\n", "rating '0'"),
    (HEADER + "anna,p0,4.5,1\n", "rating '4.5'"),
    (HEADER + "anna,p0,four,1\n", "rating 'four'"),
    (HEADER + "anna,p0,٤,1\n", "rating"),
    (HEADER + "anna,p0,,1\n", "rating ''"),
    (HEADER + "anna,p0,4,-1\n", "seconds '-1'"),
    (HEADER + "anna,p0,4,nan\n", "seconds 'nan'"),
    (HEADER + "anna,p0,4,soon\n", "seconds 'soon'"),
    (HEADER + ",p0,4,1\n", "rater_id ''"),
    (HEADER + "=cmd(),p0,4,1\n", "rater_id '=cmd"),
    (HEADER + "anna,p0,4,1\nanna,p0,4,1\n", "line 3: rater 'anna' has rated p0 before"),
    (HEADER + "automatic: me,p0,4,1\n", "wrong file"),
    (HEADER + "anna,p0,4\n", "line 2: 3 cells"),
    (HEADER + 'anna,"p0,4,1\n', "cannot be read"),
    ("rater_id,pair_id\nanna,p0\n", "line 1: the columns must be those of a ratings file (rater_id,pair_id,rating"),
    ("rater_id,pair_id,rating,second\nanna,p0,4,1\n", "line 1: the columns must be"),
    ("rater_id,pair_id,rating,rating\nanna,p0,4,1\n", "named twice"),
    ("rater_id,pair_id,rating,position\nanna,p0,4,0\n", "position '0'"),
    ("rater_id;pair_id;rating;seconds\nanna;p0;4;1\n", "commas"),
    ("", "line 1"),
    (b"rater_id,pair_id,rating,seconds\n\xe9,p0,4,1\n", "UTF-8"),
])
def test_a_wrong_ratings_file_is_refused_by_name_and_line(tmp_path, text, words):
    put(tmp_path, text)
    with pytest.raises(UserError) as error:
        human_study.read_ratings(tmp_path, PAIRS)
    assert words in str(error.value)
    assert "anna.csv" in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=80),
                 st.text(alphabet="anp019,.;\"'\n\r -=", max_size=60).map(lambda text: (HEADER + text).encode())))
def test_any_ratings_file_is_read_or_refused_with_a_sentence(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("ratings")
    put(folder, content)
    try:
        found = human_study.read_ratings(folder, PAIRS)
    except UserError:
        return
    assert all(1 <= rating.rating <= 5 and rating.pair_id in {"p0", "p1", "p2"} for rating in found)


def test_automatic_files_are_replaced_and_peoples_files_are_not(tmp_path):
    put(tmp_path, HEADER + "anna,p0,5,2.5\n")
    put(tmp_path, HEADER + "automatic: old,p7,5,\n", "automatic_old.csv")
    made = human_study.rate("word overlap", PAIRS, human_study.overlaps(PAIRS))
    human_study.write_automatic(tmp_path, made)
    assert sorted(path.name for path in (tmp_path / "ratings").iterdir()) == ["anna.csv", "automatic_word_overlap.csv"]
    assert human_study.read_ratings(tmp_path, PAIRS)[1:] == made
    put(tmp_path, HEADER + "ben,p0,5,2.5\n", "automatic_ben.csv")
    with pytest.raises(UserError, match="person"):
        human_study.write_automatic(tmp_path, made)
    assert (tmp_path / "ratings" / "automatic_ben.csv").is_file()


# automatic raters

def test_scores_are_laid_on_the_scale_by_a_fixed_rule():
    scores = [-0.3, 0, 0.12, 0.125, 0.374, 0.375, 0.624, 0.625, 0.874, 0.875, 1, 1.0000001]
    pairs = [Pair(pair_id=f"p{i}", seed="a", text="b") for i in range(len(scores))]
    made = human_study.rate("toy", pairs, np.array(scores))
    assert [rating.rating for rating in made] == [1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]
    assert {rating.rater_id for rating in made} == {"automatic: toy"}


def test_cosines_and_overlaps_by_hand():
    vectors = {"a": [1, 0], "b": [0.6, 0.8], "c": [0, 1]}
    pairs = [Pair(pair_id="x", seed="a", text="b"), Pair(pair_id="y", seed="a", text="c")]
    found = human_study.cosines(pairs, lambda texts: np.array([vectors[text] for text in texts], dtype=np.float32))
    assert found == pytest.approx([0.6, 0.0])
    # {men, lead, better} and {men, lead, badly, too}: two shared of five
    assert human_study.overlaps([Pair(pair_id="x", seed="Men lead better.", text="men lead: badly, too"),
                                 Pair(pair_id="y", seed="...", text="?")]) == pytest.approx([0.4, 0.0])


# agreement

def test_alpha_of_the_published_example():
    assert agreement.alpha(PUBLISHED) == pytest.approx(0.815, abs=5e-4)
    for level, value in {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849, "ratio": 0.797}.items():
        assert krippendorff.alpha(PUBLISHED, level_of_measurement=level) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("table", [[[1, 2, 3]], [[1, N], [N, 2]], [[3, 3], [3, 3]], [[3, 1], [3, N]]])
def test_alpha_is_none_where_it_is_not_defined(table):
    assert agreement.alpha(np.array(table, dtype=float)) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from([1, 2, 3, 4, 5, N]), min_size=6, max_size=6), min_size=2, max_size=5),
       st.randoms())
def test_alpha_does_not_depend_on_the_order_of_raters_and_is_one_for_copies(rows, chance):
    table = np.array(rows, dtype=float)
    value = agreement.alpha(table)
    shuffled = chance.sample(rows, len(rows))
    assert value is None or agreement.alpha(np.array(shuffled, dtype=float)) == pytest.approx(value)
    if len(np.unique(table[0][~np.isnan(table[0])])) > 1:
        assert agreement.alpha(np.array([rows[0], rows[0]], dtype=float)) == pytest.approx(1.0)


def test_means_by_hand():
    found = agreement.analysis([*ratings("a", p0=5, p1=2, same=5, other=1), *ratings("b", p0=4, same=4, other=2),
                                *ratings("automatic: x", p0=1, p1=1, same=1, other=5)], KEY)
    human = found["human"]
    assert (human["raters"], human["pairs"], human["ratings"]) == (2, 2, 3)
    assert human["mean"]["value"] == pytest.approx(11 / 3)                 # 5, 2, 4; checks do not count
    assert human["pass_rate"]["value"] == pytest.approx(2 / 3)
    # with two pairs a replicate is p0 twice (4.5), p1 twice (2) or both (11 / 3)
    assert (human["mean"]["low"], human["mean"]["high"]) == (2.0, 4.5)
    hardest = [(pair["pair_id"], pair["mean"], pair["ratings"]) for pair in human["hardest"]]
    assert hardest == [("p1", 2, 1), ("p0", 4.5, 2)]
    automatic = found["automatic"]
    assert automatic["mean"]["value"] == 1
    assert automatic["alpha"] is None
    assert found["raters"][1]["rater_id"] == "automatic: x"
    assert (found["raters"][1]["checks_failed"], found["raters"][1]["excluded"]) == (2, False)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(("same", "other", "left_out"), [(4, 2, False), (3, 2, True), (4, 3, True), (5, 1, False)])
def test_people_who_fail_a_check_are_left_out(same, other, left_out):
    found = agreement.analysis([*ratings("a", p0=5, p1=5, same=5, other=1),
                                *ratings("b", p0=1, p1=1, same=same, other=other)], KEY)
    assert [rater["excluded"] for rater in found["raters"]] == [False, left_out]
    assert found["human"]["mean"]["value"] == (5 if left_out else 3)


def test_no_human_rating_is_made_up():
    found = agreement.analysis(ratings("automatic: x", p0=4, p1=5), KEY)
    assert found["human"] is None
    assert found["human_note"] == agreement.NO_HUMANS
    assert agreement.analysis([], KEY)["automatic"] is None
    found = agreement.analysis(ratings("a", p0=5, same=1), KEY)
    assert found["human"] is None
    assert "leaves out 1 of 1" in found["human_note"]


def test_sentences_say_what_was_found():
    made = ratings("automatic: x", p0=4, p1=1, other=3)
    assert agreement.sentences(agreement.analysis(made, KEY)) == [
        agreement.NO_HUMANS,
        "'automatic: x' rates 50% of 2 pairs 4 or more and fails 1 of 1 checks.",
        "Among automatic raters, alpha is not defined: it needs two raters of the same pairs, and ratings that differ.",
    ]
    people = [*ratings("a", p0=5, p1=2), *ratings("b", p0=5, p1=2), *ratings("c", p0=1, other=5)]
    assert agreement.sentences(agreement.analysis(people, KEY)) == [
        "2 people rated 2 pairs: the mean is 3.50 (2.00 to 5.00), and a share of 0.50 (0.00 to 1.00) of ratings is "
        "4 or more.",
        "Among people, ordinal alpha is 1.00: high enough to rely on.",
        "The rule on attention checks left out 1 of 3 people.",
    ]


def test_agreement_is_the_same_twice():
    made = [*ratings("a", p0=5, p1=2), *ratings("b", p0=4, p1=1)]
    assert agreement.analysis(made, KEY, seed=4) == agreement.analysis(made, KEY, seed=4)


# the form

def test_hostile_text_stays_text_in_the_form():
    page = human_study.rating_form([Pair(pair_id="p1", seed=HOSTILE, text=HOSTILE)])
    harmless = human_study.rating_form([Pair(pair_id="p1", seed="a", text="b")])
    for tag in ("<script", "</script", "<img", "<!--", "onerror=\""):
        assert page.count(tag) == harmless.count(tag)
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data)["pairs"][0]["text"] == HOSTILE


def test_the_form_asks_nothing_of_a_network_and_never_parses_text_as_markup():
    page = human_study.rating_form(PAIRS)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(|stylesheet|<script[^>]+src|fetch\(|XMLHttp", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", page)


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = """<script>
byId("consent").checked = true; byId("rater").value = "r-07"; byId("begin").requestSubmit();
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
press("ArrowRight");                                   // not rated yet: must stay
const seen = [];
for (const key of ["5", "1", "3"]) { seen.push(byId("second").textContent); press(key); press("ArrowRight"); }
byId("again").click(); press("ArrowRight"); press("4"); press("ArrowLeft");
add(document.body, "pre", JSON.stringify({ seen, csv: csvText(), title: document.title, images: document.images.length,
  kept: JSON.parse(localStorage.getItem(KEY)).ratings, at: byId("heading").textContent })).id = "result";
</script></body>"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_a_rater_in_a_browser_gives_back_a_file_that_is_read(tmp_path):
    pairs = [PAIRS[0], Pair(pair_id="p1", seed="a", text=HOSTILE), PAIRS[2]]
    (tmp_path / "form.html").write_text(human_study.rating_form(pairs).replace("</body>", DRIVER))
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                           "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
                           (tmp_path / "form.html").as_uri()], capture_output=True, text=True, timeout=120, check=True)
    if "Taking part" not in done.stdout:
        pytest.skip("Chromium may not open files of this folder")
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)[1]
    for escaped, sign in {"&lt;": "<", "&gt;": ">", "&amp;": "&"}.items():
        found = found.replace(escaped, sign)
    result = json.loads(found)
    assert result["seen"] == ["Text 0.", HOSTILE, "Text 2."]
    assert result["title"] == "Do these two texts mean the same?"
    assert result["images"] == 0
    assert result["kept"] == {"p0": 5, "p1": 4, "p2": 3}
    assert result["at"] == "Pair 1 of 3"
    put(tmp_path, result["csv"], "ratings_r-07.csv")
    read = human_study.read_ratings(tmp_path, pairs)
    assert [(rating.rater_id, rating.pair_id, rating.rating) for rating in read] == [
        ("r-07", "p0", 5), ("r-07", "p1", 4), ("r-07", "p2", 3)]
