import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import paths, records
from culturellm_utils.comparisons import compare
from culturellm_utils.damage import damage
from culturellm_utils.polarity import stance_change
from culturellm_utils.stance_words import ENTRIES, LISTS, parse, stem

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "data" / "stance_pairs.jsonl").open(encoding="utf-8")]
SEEDS = {q.question_id: q.question for q in records.read_rows(paths.DATA / "questions.jsonl", records.Question)}

# The main verb of every seed question, and its denial.
DENIALS = {
    "Q27": ("is one", "is not one"), "Q28": ("are harmed", "are not harmed"), "Q29": ("are better", "are not better"),
    "Q30": ("matters more", "does not matter more"), "Q31": ("are better", "are not better"), "Q32": ("is every", "is not every"),
    "Q33": ("should have", "should not have"), "Q34": ("should put", "should not put"),
    "Q35": ("will almost certainly", "will almost certainly not"), "Q36": ("are just as", "are not as"),
    "Q37": ("people owe", "people do not owe"), "Q38": ("are obliged", "are not obliged"), "Q39": ("makes", "does not make"),
    "Q40": ("people owe", "people do not owe"), "Q41": ("ought to", "ought not to"), "Q122": ("helps", "does not help"),
    "Q123": ("makes", "does not make"), "Q124": ("drives", "does not drive"), "Q125": ("gives", "does not give"),
    "Q126": ("raises", "does not raise"), "Q127": ("offers", "does not offer"), "Q128": ("pushes", "does not push"),
    "Q129": ("leads", "does not lead"), "Q132": ("are there", "are there not"), "Q133": ("people drink", "people not drink"),
    "Q134": ("interfere", "not interfere"), "Q135": ("happen", "not happen"), "Q136": ("sold", "not sold"),
    "Q137": ("break", "not break"), "Q138": ("happen", "not happen"), "Q158": ("are becoming", "are not becoming"),
    "Q159": ("will have", "will not have"), "Q160": ("rely", "do not rely"), "Q161": ("wears", "does not wear"),
    "Q162": ("is not important", "is important"), "Q169": ("is always", "is not always"), "Q170": ("is the only", "is not the only"),
    "Q196": ("have the right", "not have the right"), "Q197": ("have the right", "not have the right"),
    "Q198": ("have the right", "not have the right"), "Q224": ("counted", "not counted"), "Q225": ("kept", "not kept"),
    "Q226": ("favor", "not favor"), "Q227": ("bribed", "not bribed"), "Q228": ("cover", "not cover"), "Q229": ("fair", "not fair"),
    "Q230": ("buy", "not buy"), "Q231": ("threatened", "not threatened"), "Q232": ("offered", "not offered"),
    "Q233": ("have an", "not have an"),
}


@pytest.mark.parametrize("question_id", SEEDS)
def test_denied_seed_is_caught(question_id):
    old, new = DENIALS[question_id]
    assert old in SEEDS[question_id]
    assert stance_change(SEEDS[question_id], SEEDS[question_id].replace(old, new, 1))
