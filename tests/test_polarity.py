import doctest
import json
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import comparisons, paths, polarity, records, stance_words
from culturellm_utils import damage as damage_module
from culturellm_utils.comparisons import compare
from culturellm_utils.damage import damage
from culturellm_utils.polarity import stance_change
from culturellm_utils.stance_words import LISTS, parse, stem, stems

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "data" / "stance_pairs.jsonl").open(encoding="utf-8")]
SEEDS = {q.question_id: q.question for q in records.read_rows(paths.DATA / "questions.jsonl", records.Question)}
RELEASED = Path(__file__).parents[2] / "shared" / "reference" / "paraphrases" / "new_WVQ_500.jsonl"

# The main verb of every seed question, and its denial.
DENIALS = {
    "Q27": ("is one", "is not one"), "Q28": ("are harmed", "are not harmed"),
    "Q29": ("are better", "are not better"), "Q30": ("matters more", "does not matter more"),
    "Q31": ("are better", "are not better"), "Q32": ("is every", "is not every"),
    "Q33": ("should have", "should not have"), "Q34": ("should put", "should not put"),
    "Q35": ("will almost certainly", "will almost certainly not"), "Q36": ("are just as", "are not as"),
    "Q37": ("people owe", "people do not owe"), "Q38": ("are obliged", "are not obliged"),
    "Q39": ("makes", "does not make"), "Q40": ("people owe", "people do not owe"),
    "Q41": ("ought to", "ought not to"), "Q122": ("helps", "does not help"),
    "Q123": ("makes", "does not make"), "Q124": ("drives", "does not drive"),
    "Q125": ("gives", "does not give"), "Q126": ("raises", "does not raise"),
    "Q127": ("offers", "does not offer"), "Q128": ("pushes", "does not push"),
    "Q129": ("leads", "does not lead"), "Q132": ("are there", "are there not"),
    "Q133": ("people drink", "people not drink"), "Q134": ("interfere", "not interfere"),
    "Q135": ("happen", "not happen"), "Q136": ("sold", "not sold"), "Q137": ("break", "not break"),
    "Q138": ("happen", "not happen"), "Q158": ("are becoming", "are not becoming"),
    "Q159": ("will have", "will not have"), "Q160": ("rely", "do not rely"),
    "Q161": ("wears", "does not wear"), "Q162": ("is not important", "is important"),
    "Q169": ("is always", "is not always"), "Q170": ("is the only", "is not the only"),
    "Q196": ("have the right", "not have the right"), "Q197": ("have the right", "not have the right"),
    "Q198": ("have the right", "not have the right"), "Q224": ("counted", "not counted"),
    "Q225": ("kept", "not kept"), "Q226": ("favor", "not favor"), "Q227": ("bribed", "not bribed"),
    "Q228": ("cover", "not cover"), "Q229": ("fair", "not fair"), "Q230": ("buy", "not buy"),
    "Q231": ("threatened", "not threatened"), "Q232": ("offered", "not offered"),
    "Q233": ("have an", "not have an"),
}


@pytest.mark.parametrize(("seed", "text"), [
    ("Politics is not important in my life.", "Politics is unimportant in my life."),
    ("Politics is not important in my life.", "Politics is of little importance in my life."),
    ("When there are not enough jobs, firms should hire locals.", "When jobs are scarce, firms should hire locals."),
    ("Not working makes people lazy.", "People who do not work become lazy."),
    ("Not working makes people lazy.", "Without work people become lazy."),
    ("We rely too much on experts and too little on luck.", "We rely on luck too little and on experts too much."),
    ("How often are women kept from joining clubs?", "How often are women not allowed to join clubs?"),
    ("How often are women kept from joining clubs?", "How often are women barred from joining clubs?"),
    ("Men are better drivers than women.", "Women are worse drivers than men."),
    ("Men are better drivers than women.", "As drivers, women are surpassed by men."),
    ("Men are as careful as women.", "Men are no less careful than women."),
    ("Coal is more dangerous than wind.", "Wind is safer than coal."),
    ("The law is always right.", "The law is never wrong."),
    ("Our town is the only one that is safe.", "No town other than ours is safe."),
    ("Family is the most important thing to me.", "Few things are more important to me than family."),
    ("Parents should never hit a child.", "Parents shouldn't ever hit a child."),
    ("Could anyone be fairer than a judge?", "Could you say whether anyone could be fairer than a judge?"),
])
def test_paraphrases_keep_their_stance(seed, text):
    assert stance_change(seed, text) == ""


@pytest.mark.parametrize(("seed", "text", "reason"), [
    ("Taxes raise prices.", "Taxes do not raise prices.", "direction flipped (more / less)"),
    ("Taxes raise prices.", "Taxes lower prices.", "direction flipped (more / less)"),
    ("Dogs bark.", "Dogs don't bark.", "negated"),
    ("Not working makes people lazy.", "Working makes people lazy.", "negated"),
    ("Courts are fair.", "Courts are unfair.", "fairness flipped (fair / unfair)"),
    ("Men are better drivers than women.", "Women are better drivers than men.", "comparison reversed"),
    ("Men are better drivers than women.", "Men are no better drivers than women.", "comparison reversed"),
    ("Men are better drivers than women.", "Women are not worse drivers than men.", "comparison reversed"),
    ("Men are as careful as women.", "Men are less careful than women.", "comparison reversed"),
    ("We rely too much on experts and too little on luck.", "We rely too much on luck and too little on experts.",
     "exchanged who or what is meant"),
    ("Children owe their parents respect.", "Parents owe their children respect.", "exchanged who or what is meant"),
    ("How often do trains stop here?", "How rarely do trains stop here?", "frequency flipped (rarely)"),
    ("Work makes people happy.", "Work might make people happy.", "hedged (might)"),
    ("Work makes people happy.", "Work makes some people happy.", "hedged (some)"),
    ("Work makes people happy.", "Work makes most people happy.", "hedged (most)"),
    ("Bribes are always wrong.", "Bribes are wrong.", "weakened (always is gone)"),
])
def test_changes_of_stance_are_named(seed, text, reason):
    assert stance_change(seed, text) == reason


@pytest.mark.parametrize("question_id", SEEDS)
def test_denied_seed_is_caught(question_id):
    old, new = DENIALS[question_id]
    assert old in SEEDS[question_id]
    assert stance_change(SEEDS[question_id], SEEDS[question_id].replace(old, new, 1))


@pytest.mark.parametrize("hedge", ["perhaps", "in some cases", "arguably"])
@pytest.mark.parametrize("question_id", SEEDS)
def test_hedged_seed_is_caught(question_id, hedge):
    first, _, rest = SEEDS[question_id].partition(" ")
    assert stance_change(SEEDS[question_id], f"{first} {hedge} {rest}") == f"hedged ({hedge})"


@pytest.mark.parametrize(("seed", "text", "reason"), [
    ("Making my parents proud is a goal.", "Making my parents is a goal.", "lost (proud)"),
    ("Owning a gun makes a home safer.", "Owning a makes a home safer.", "lost (gun)"),
    ("Owning a gun makes a home safer.", "Owning an gun makes a home safer.", "broken grammar (an gun)"),
    ("How often do you talk about sports with friends?", "How often do you talk about with friends?", "lost (sports)"),
    ("Men are better drivers than women.", "Men are better drivers.", "lost (women)"),
    ("Men are better drivers than women.", "Men are drivers than women.", "lost (better)"),
    ("It is a duty to have children.", "It is is a duty to have children.", "broken grammar (is is)"),
    ("A gift should be shared.", "A gift should shared.", "broken grammar (should shared)"),
    ("A mother should be home at night.", "A father should be home at night.", "changed subject (mother / father)"),
    ("Teachers earn too little.", "Tenants earn too little.", "changed subject (teachers / tenants)"),
    ("Law makes people lazy.", "Law makes people laziness.", "broken grammar (laziness for lazy)"),
    ("How often does it favor the rich?", "How often does it favors the rich?", "broken grammar (favors for favor)"),
    ("Work comes first.", "work comes first.", "broken grammar (begins in lower case)"),
    ("Work comes first.", "Work comes  first.", "broken grammar (gap)"),
    ("Work comes first.", "", "lost (everything)"),
    ("An hour of work is a unit of effort.", "A unit of effort is an hour of work.", ""),
    ("The mother of a child has a job.", "A child's mother has a job.", ""),
])
def test_damage_is_named(seed, text, reason):
    assert damage(seed, text) == reason


def test_comparison_accounts_for_its_words():
    men, women = parse("Men are better than women."), parse("Women are worse than men.")
    assert compare(men, women) == (False, frozenset({2}), frozenset({2}))
    assert compare(men, parse("Women are better than men."))[0]
    assert compare(men, parse("Dogs are fun.")) == (False, frozenset(), frozenset())


def test_stems_join_inflections():
    assert len(stems("raise raises raised raising")) == 1
    assert stem("policies") == stem("policy")
    assert stem("women") == "woman"
    assert stem("news") == "news"
    assert stem("caused") != stem("because")


def test_no_word_stands_on_two_axes():
    axes = [(name, pole, word.rstrip("!")) for name, poles in LISTS["axes"].items() for pole in ("plus", "minus")
            for word in poles[pole].split()]
    axes += [(line, str(number), word) for line in LISTS["opposites"]
             for number, pole in enumerate(line.split("|")) for word in pole.split()]
    places = {}
    for name, pole, word in axes:
        places.setdefault(tuple(stem(part) for part in word.split("_")), set()).add((name, pole))
    assert {word: found for word, found in places.items() if len(found) > 1} == {}


@given(st.text(max_size=80))
def test_a_text_agrees_with_itself(text):
    assert stance_change(text, text) == ""
    assert damage(text, text) == ""


WORDS = [*sorted({word for pair in PAIRS for word in pair["text"].split()}), ",", "?", "'", "", "\u2019s", "ÄÖ"]


@given(st.lists(st.sampled_from(WORDS), max_size=14), st.lists(st.sampled_from(WORDS), max_size=14))
def test_any_text_gets_a_short_answer(seed, text):
    for check in (stance_change, damage):
        assert len(check(" ".join(seed), " ".join(text))) < 200


@pytest.mark.parametrize("module", [comparisons, damage_module, polarity, stance_words])
def test_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_pairs_file():
    assert Counter(pair["label"] for pair in PAIRS) == {"same": 103, "flipped": 115, "hedged": 64, "damaged": 96}
    assert len({pair["pair_id"] for pair in PAIRS}) == len({(p["seed"], p["text"]) for p in PAIRS}) == len(PAIRS)
    assert all(set(p) == {"pair_id", "seed", "text", "label", "split", "note"} for p in PAIRS)
    splits = {split: {p["seed"] for p in PAIRS if p["split"] == split} for split in ("dev", "test")}
    assert not splits["dev"] & splits["test"]  # no seed of the rules' making is measured on
    assert len((splits["dev"] | splits["test"]) - set(SEEDS.values())) >= 30


# "test" was written before any rule and its rows were not looked at while the rules were written on "dev" and other
# sentences. It was measured twice: flipped 50 of 50 rejected, hedged 30 of 30, damaged 37 of 42 both times, same kept
# 38 of 48, then 42 (precision 0.951, recall 0.959). On dev: 65 of 65, 34 of 34, 54 of 54, same kept 52 of 55.
@pytest.mark.parametrize(("label", "floor"), [("flipped", 0.95), ("hedged", 0.95), ("damaged", 0.85), ("same", 0.83)])
def test_measured_floors(label, floor):
    rows = [pair for pair in PAIRS if pair["split"] == "test" and pair["label"] == label]
    rejected = sum(bool(stance_change(p["seed"], p["text"]) or damage(p["seed"], p["text"])) for p in rows)
    right = len(rows) - rejected if label == "same" else rejected
    assert right / len(rows) >= floor


def test_shipped_templates_pass():
    """Measured: 0 of 360 rejected on questions that the rules were written on, 14 of 240 on the others."""
    templates = []
    for line in (paths.DATA / "recordings.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        if row["purpose"] == "templates":
            templates += [(SEEDS[row["question_id"]], text) for text in json.loads(row["reply"])["templates"]]
    rejected = [pair for pair in templates if stance_change(*pair) or damage(*pair)]
    assert len(rejected) / len(templates) < 0.04


def test_released_samples():
    """150 of the 500 released samples are rejected; about two in three of these are changed or broken by eye."""
    if not RELEASED.is_file():
        pytest.skip("the released paraphrases are not at hand")
    rows = [json.loads(line) for line in RELEASED.read_text(encoding="utf-8").splitlines() if line.strip()]
    pairs = [(row["ori_content"], row["q_content"]) for row in rows]
    rejected = sum(bool(stance_change(*pair) or damage(*pair)) for pair in pairs)
    assert 0.2 < rejected / len(pairs) < 0.4


def test_speed():
    """0.1 ms a pair for the stance and half of that for damage; the bound leaves room for busy machines."""
    pairs = [(pair["seed"], pair["text"] + " " * n) for pair in PAIRS for n in range(3)]
    start = time.process_time()
    for seed, text in pairs:
        stance_change(seed, text)
        damage(seed, text)
    assert (time.process_time() - start) / len(pairs) < 1e-3
