"""The small labelled sets that ship, and the arithmetic that shows forgetting."""

import re
import unicodedata
from collections import Counter

import pytest

from culturellm_utils import ability, paths, studies, tasks
from culturellm_utils.errors import UserError
from culturellm_utils.records import TaskItem, read_rows

CULTURES = studies.study("laptop")["cultures"]
EVERY = tasks.bundled("train") + tasks.bundled("test")
# The script in which a culture's sentences are written; Latin when none is named.
SCRIPTS = {"arabic": "ARABIC", "bengali": "BENGALI", "chinese": "CJK", "korean": "HANGUL"}


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_every_culture_has_a_balanced_set():
    counts = Counter((item.culture, item.split, item.label) for item in EVERY)
    assert {culture for culture, _, _ in counts} == set(CULTURES)
    for culture in CULTURES:
        for split, least in (("train", 12), ("test", 6)):
            share = {label: counts[culture, split, label] for label in tasks.LABELS}
            assert min(share.values()) >= least, f"{culture} {split}"
            assert len(set(share.values())) == 1, f"{culture} {split}"
    assert set(Counter(item.label for item in EVERY)) == set(tasks.LABELS)


def test_a_culture_without_a_set_has_none():
    assert tasks.bundled("test", "one") == tasks.bundled("test", "klingon") == []
    german = tasks.bundled("test", "german")
    assert german == [item for item in tasks.bundled("test") if item.culture == "german"]
    assert tasks.bundled("dev") == []


def test_ids_say_culture_and_split_and_are_unique():
    assert len({item.item_id for item in EVERY}) == len(EVERY)
    for item in EVERY:
        assert re.fullmatch(rf"{item.culture}-{item.split}-\d\d", item.item_id)


def test_no_test_sentence_was_seen_in_training():
    assert len({words(item.text) for item in EVERY}) == len(EVERY)
    for culture in CULTURES:
        seen = {words(item.english) for item in tasks.bundled("train", culture)}
        assert not seen & {words(item.english) for item in tasks.bundled("test", culture)}


@pytest.mark.parametrize("culture", CULTURES)
def test_sentences_are_in_the_cultures_script_with_a_translation(culture):
    for item in tasks.bundled("train", culture) + tasks.bundled("test", culture):
        letters = [sign for sign in item.text if sign.isalpha()]
        in_script = [unicodedata.name(sign).startswith(SCRIPTS.get(culture, "LATIN")) for sign in letters]
        assert sum(in_script) > 0.8 * len(letters), item.text
        assert item.text == item.text.strip()
        assert unicodedata.is_normalized("NFC", item.text)
        assert (item.english == item.text) == (culture == "english")
        assert item.english.isascii()


def test_the_prompt_word_for_word():
    item = TaskItem(item_id="german-test-01", culture="german", task="rudeness_detect", split="test",
                    text="Bitte hör auf.", label="NOT_RUDE", english="Please stop.")
    assert tasks.prompt(item) == "Is the text below rude? Answer with RUDE or NOT_RUDE only.\nText: Bitte hör auf."


def test_a_broken_set_is_named_by_line(tmp_path):
    lines = (paths.DATA / "bundled_tasks.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    path = tmp_path / "bundled_tasks.jsonl"
    path.write_text("\n".join([*lines, lines[0].replace('"split": "test"', '"split": "dev"')]), encoding="utf-8")
    with pytest.raises(UserError, match=r"^bundled_tasks\.jsonl line 4: field 'split': Input should be 'train'"):
        read_rows(path, TaskItem)


def test_arithmetic_is_right_and_whole():
    every = ability.items()
    assert len(every) == len(dict(every)) == 49 + 28
    assert every[9] == ("What is 1 plus 2? Answer with one number.", "3")
    assert every[-1] == ("What is 6 minus 6? Answer with one number.", "0")
    for question, answer in every:
        a, sign, b = re.fullmatch(r"What is (\d) (plus|minus) (\d)\? Answer with one number\.", question).groups()
        assert int(answer) == (int(a) + int(b) if sign == "plus" else int(a) - int(b))
    assert {answer for _, answer in every} == set(ability.ANSWERS) == {str(number) for number in range(13)}


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (5, 5), (76, 76), (77, 77), (500, 77), (None, 77)])
def test_a_draw_of_arithmetic(count, expected):
    drawn = ability.items(count, seed=1)
    assert len(set(drawn)) == expected
    assert set(drawn) <= set(ability.items())
    assert drawn == ability.items(count, seed=1)


def test_another_seed_draws_other_arithmetic():
    assert ability.items(5, seed=1) != ability.items(5, seed=2)
