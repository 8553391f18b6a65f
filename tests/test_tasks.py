"""Labelled sets: those that ship, the registry of the released ones, their parsers; and arithmetic, which shows
forgetting."""

import csv
import json
import re
import sys
import unicodedata
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import ability, paths, released, studies, tasks
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


TOY = """
defaults: {text_field: text, label_field: label, metric: macro-F1, version: 1}
kinds:
  rude:
    labels: {"R": "RUDE", "N": "POLITE"}
    instruction: Is the text below rude?
tasks:
  - {culture: korean, task: toy, kind: rude, path: sets/toy.jsonl}
"""


def toy_registry(tmp_path: Path, text: str = TOY) -> Path:
    path = tmp_path / "tasks.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def toy_set(tmp_path: Path, rows: list, text: str = TOY) -> tasks.TaskSet:
    path = tmp_path / "sets" / "toy.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tasks.load(tasks.registry(toy_registry(tmp_path, text))[0], tmp_path)


SHIPPED = {(task.culture, task.task): task for task in tasks.registry()}


def named(culture: str, task: str) -> tasks.Task:
    return SHIPPED[culture, task]


@pytest.fixture(scope="module")
def listed(reference: Path) -> dict[tuple[str, str], dict]:
    with (reference / "tasks.csv").open(encoding="utf-8", newline="") as file:
        rows = {({"germany": "german"}.get(row["culture"], row["culture"]), row["task"]): row
                for row in csv.DictReader(file)}
    return {key: row | {"label_counts": json.loads(row["label_counts"])} for key, row in rows.items()}


def words_asked(row: dict) -> set[str]:
    return set(re.findall(r'"(\w+)"', row["prompt"]))


def test_the_registry_says_what_is_known_of_all_released_sets(listed):
    assert len(listed) == 60
    assert set(SHIPPED) == {*listed, ("chinese", "cvalues")}
    for key, row in listed.items():
        task = SHIPPED[key]
        assert (task.path, task.text_field) == (row["file_path"], row["text_field_used"])
        assert task.counts == row["label_counts"]
        assert set(task.counts) - {""} <= set(task.labels)
        metric, _, labels = row["metric"].partition(" over ")
        assert task.metric == metric
        assert set(task.paper_labels or task.labels) == set(labels.split("|"))
        if task.task != "hate_off_detect":
            assert set(task.words) == words_asked(row), key
    assert named("german", "hate_off_detect").words == ("HOF", "NOT")


def test_cvalues_as_its_publishers_describe_it():
    task = named("chinese", "cvalues")
    assert sum(task.counts.values()) == 1712
    assert task.ask("{text} 哪个好?") == "{text} 哪个好?\nAnswer with 回复1 or 回复2 only."


def test_all_sets_at_hand_load_with_exactly_the_known_counts(listed, reference):
    seen = Counter()
    for (culture, name), row in listed.items():
        task = named(culture, name)
        if not (reference / task.path).is_file():
            continue
        found = tasks.load(task, reference)
        assert found.label_counts == row["label_counts"]
        assert found.rows == int(row["rows"]) == len(found.items) + sum(found.set_aside.values())
        assert found.duplicates == int(row["duplicate_texts"])
        assert found.set_aside == ({"empty text": 3} if int(row["empty_texts"]) else {})
        assert not any("differs" in warning for warning in found.warnings)
        seen[culture] += 1
    assert seen == {"arabic": 10, "bengali": 6, "chinese": 2, "german": 5, "portuguese": 5, "turkish": 7}


def test_sets_not_at_hand_load_from_files_made_to_their_description(listed, tmp_path):
    for (culture, name), row in listed.items():
        task = named(culture, name)
        labels = [label for label, count in row["label_counts"].items() for _ in range(count)]
        repeated, empty = int(row["duplicate_texts"]), int(row["empty_texts"])
        made = [f"text {max(n, repeated)}" for n in range(len(labels))]  # the first ones repeat one text
        if empty:
            made[-empty:] = [""] * empty
        path = tmp_path / task.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({row["text_field_used"]: text, "label": label}) + "\n"
                                for text, label in zip(made, labels, strict=True)), encoding="utf-8")
        found = tasks.load(task, tmp_path)
        assert (found.label_counts, found.rows) == (row["label_counts"], int(row["rows"]))
        aside = {"empty label": row["label_counts"].get("", 0), "empty text": empty}
        assert found.set_aside == {reason: count for reason, count in aside.items() if count}
        assert len(found.items) == len(labels) - sum(aside.values())
        assert found.duplicates == repeated + max(empty - 1, 0)
    assert {task.task for task in tasks.available("korean", tmp_path)} == {n for c, n in listed if c == "korean"}


def test_sets_of_one_corpus_share_texts_and_others_do_not(reference):
    found = [tasks.load(task, reference) for task in SHIPPED.values() if (reference / task.path).is_file()]
    for one, two in combinations(found, 2):
        texts = [{item.text for item in each.items} for each in (one, two)]
        share = len(texts[0] & texts[1]) / min(map(len, texts))
        same = one.task.culture == two.task.culture and one.task.corpus == two.task.corpus != ""
        assert (share > 0.15) == same, f"{one.task.culture}: {one.task.task}, {two.task.task}: {share:.0%}"
        assert same or share < 0.06


def test_the_largest_set_with_the_largest_rarer_class_stands_for_a_corpus():
    corpora = {}
    for task in SHIPPED.values():
        if task.corpus:
            corpora.setdefault((task.culture, task.corpus), []).append(task)
    assert len(corpora) == 12
    for sets in corpora.values():
        first = max(sets, key=lambda task: (sum(task.counts.values()), min(task.counts.values())))
        assert {task.duplicate_of for task in sets if task is not first} == {first.task}
        assert not first.duplicate_of
    assert all(not task.duplicate_of for task in SHIPPED.values() if not task.corpus)


def test_the_sets_that_carry_no_claim(reference):
    def doubts(culture, name):
        return tasks.load(named(culture, name), reference).doubts

    assert doubts("arabic", "hate_detect_fine-grained")[0] == "fewer than 10 of HS2 (7), HS4 (2)"
    assert doubts("turkish", "offensive_detect_finegrained")[0] == "fewer than 10 of oth (5)"
    assert doubts("portuguese", "homophobia_detect") == [
        "fewer than 10 of 1 (2)", "same corpus as insult_detect, which stands for it in averages"]
    assert doubts("portuguese", "insult_detect") == doubts("turkish", "spam_detect") == []


def test_every_prompt_is_our_own_and_names_the_words(listed):
    for task in SHIPPED.values():
        asked = task.ask("SENTENCE")
        assert asked.count("SENTENCE") == 1
        assert " or ".join(task.words) in asked
        released_prompt = listed.get((task.culture, task.task), {}).get("prompt", "")
        assert "just say" not in asked
        assert asked != released_prompt.format(text="SENTENCE")
    spam = named("turkish", "spam_detect")
    assert spam.ask("x") == "Is the text below spam? Answer with Spam or NOT_Spam only.\nText: x"
    assert "indv" in named("turkish", "offensive_detect_finegrained").words


def test_what_is_set_aside_and_counted(tmp_path):
    found = toy_set(tmp_path, [
        {"text": "a", "label": "R"}, {"text": "b", "label": "N"}, {"text": "a", "label": "N"},
        {"text": "c", "label": ""}, {"text": " ", "label": "R"}, {"text": None, "label": "N"},
        {"text": "d", "label": "X"}, {"text": 1.0, "label": "N"}, {"text": "e", "label": None},
        {"text": float("nan"), "label": "R"},
    ])
    assert [(item.item_id, item.text, item.label, item.file_label) for item in found.items] == [
        ("toy-1", "a", "RUDE", "R"), ("toy-2", "b", "POLITE", "N"), ("toy-3", "a", "POLITE", "N"),
        ("toy-8", "1.0", "POLITE", "N")]
    assert found.rows == 10
    assert found.label_counts == {"R": 3, "N": 4, "": 2, "X": 1}
    assert found.set_aside == {"empty label": 2, "empty text": 3, "unknown label": 1}
    assert (found.duplicates, found.contradictions) == (2, 1)  # "a", and the empty text of None and NaN
    assert found.warnings == ["fewer than 10 of RUDE (1), POLITE (3)", "repeated texts: 2", "texts with two labels: 1"]


def test_nine_rows_of_a_class_carry_no_claim_and_ten_do(tmp_path):
    rows = [{"text": f"{n}", "label": "R" if n < 9 else "N"} for n in range(30)]
    assert toy_set(tmp_path, rows).doubts == ["fewer than 10 of RUDE (9)"]
    assert toy_set(tmp_path, [*rows, {"text": "more", "label": "R"}]).carries_claim
    assert toy_set(tmp_path, rows[:9]).doubts == ["one class only (RUDE)"]


def test_a_copy_that_differs_from_the_release_is_marked(tmp_path):
    rows = [{"text": f"{n}", "label": "RN"[n % 2]} for n in range(20)]
    text = TOY.replace("toy.jsonl}", 'toy.jsonl, counts: {"R": 10, "N": 11}, defects: [Dull.]}')
    assert toy_set(tmp_path, rows, text).warnings == ["differs from the released file (R 10, N 11)", "Dull."]
    assert toy_set(tmp_path, rows, text.replace("11", "10")).warnings == ["Dull."]


@pytest.mark.parametrize(("line", "said"), [
    ("{", r"^sets/toy\.jsonl line 2 is no JSON object"),
    ("[1]", r"^sets/toy\.jsonl line 2 is no JSON object"),
    ('{"tweet": "a", "label": "R"}', r"^sets/toy\.jsonl line 2 has no field 'text' but tweet, label"),
    ('{"text": "a"}', r"^sets/toy\.jsonl line 2 has no field 'label' but text"),
    ('{"text": ["a"], "label": "R"}', r"^sets/toy\.jsonl line 2: field 'text' is no text"),
])
def test_a_broken_line_is_named(tmp_path, line, said):
    toy_set(tmp_path, [{"text": "a", "label": "R"}])
    with (tmp_path / "sets" / "toy.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=said):
        tasks.load(tasks.registry(tmp_path / "tasks.yaml")[0], tmp_path)


def test_a_missing_file_and_a_set_without_usable_rows(tmp_path):
    said = r"^sets/toy\.jsonl has no usable row: its labels are OFF 1, the registry knows R, N"
    with pytest.raises(UserError, match=said):
        toy_set(tmp_path, [{"text": "a", "label": "OFF"}])
    (tmp_path / "sets" / "toy.jsonl").unlink()
    with pytest.raises(UserError, match=r"^sets/toy\.jsonl is missing below"):
        tasks.load(tasks.registry(tmp_path / "tasks.yaml")[0], tmp_path)
    assert tasks.available("korean", tmp_path, tmp_path / "tasks.yaml") == []
    assert tasks.available("korean", "") == []


def test_byte_order_mark_blank_lines_and_odd_line_ends(tmp_path):
    toy_set(tmp_path, [{"text": "a", "label": "R"}])
    (tmp_path / "sets" / "toy.jsonl").write_bytes(
        b'\xef\xbb\xbf{"text": "a\xe2\x80\xa8b", "label": "R"}\r\n\r\n{"text": "c", "label": "N"}')
    found = tasks.load(tasks.registry(tmp_path / "tasks.yaml")[0], tmp_path)
    assert [(item.item_id, item.text) for item in found.items] == [("toy-1", "a\u2028b"), ("toy-3", "c")]


@pytest.mark.parametrize(("old", "new", "said"), [
    ('"R": "RUDE"', "off: RUDE", r"^tasks\.yaml entry 1 \(korean toy\): field 'labels.*quote words such as"),
    ("path: sets/toy.jsonl", "file: x", r"entry 1 \(korean toy\): field 'path': Field required"),
    ("kind: rude", "kind: odd", r"entry 1 \(korean toy\): there is no kind 'odd': use one of rude"),
    ("Is the text below rude?", '""', r"entry 1 \(korean toy\): needs either an instruction or a prompt"),
    ("instruction: Is the text below rude?", "prompt: Rude?", r"entry 1 \(korean toy\): prompt has no \{text\}"),
    ('"POLITE"', '"RUDE"', r"entry 1 \(korean toy\): labels ask for one word only"),
    ("metric: macro-F1", "metric: BLEU", r"entry 1 \(korean toy\): field 'metric'"),
    ("kind: rude,", "kind: rude, duplicate_of: nil,", r"\(korean toy\): duplicate_of names 'nil'"),
    ("culture: korean, task: toy, ", "", r"entry 1 \( \): field 'culture'"),
    ("  - {culture", "  - 7\n  - {culture", r"entry 1: must be 'name: value' lines"),
    ("tasks:", "task:", r"^tasks\.yaml: must hold defaults, kinds and a list of tasks"),
    ("tasks:\n", "tasks:\n  - {culture: korean, task: toy, kind: rude, path: x}\n", r"entry 2 .*stands there twice"),
])
def test_a_wrong_registry_is_refused_by_file_and_entry(tmp_path, old, new, said):
    assert old in TOY
    with pytest.raises(UserError, match=said):
        tasks.registry(toy_registry(tmp_path, TOY.replace(old, new)))


def test_a_prompt_of_ones_own_may_hold_braces(tmp_path):
    text = TOY.replace("instruction: Is the text below rude?", 'prompt: "Say RUDE or POLITE. {text} {}"')
    assert tasks.registry(toy_registry(tmp_path, text))[0].ask("{text}") == "Say RUDE or POLITE. {text} {}"


def test_a_sample_is_drawn_by_chance_and_grows(tmp_path):
    whole = toy_set(tmp_path, [{"text": f"{n}", "label": "RN"[n % 2]} for n in range(40)])
    ten, twenty = tasks.sample(whole, 10, 0), tasks.sample(whole, 20, 0)
    assert len(ten.items) == 10
    assert set(ten.items) <= set(twenty.items) <= set(whole.items)
    assert ten.items == tasks.sample(whole, 10, 0).items != tasks.sample(whole, 10, 1).items
    assert [whole.items.index(item) for item in ten.items] == sorted(whole.items.index(item) for item in ten.items)
    assert (ten.rows, ten.label_counts) == (40, whole.label_counts)
    assert (whole.carries_claim, ten.carries_claim) == (True, False)  # too few of a class are left
    assert tasks.sample(whole, 0, 0) is tasks.sample(whole, 40, 0) is whole
    counts = Counter(item for seed in range(200) for item in tasks.sample(whole, 10, seed).items)
    assert len(counts) == 40
    assert max(counts.values()) < 85  # 50 expected, 6 the standard deviation


@pytest.mark.parametrize(("reply", "label"), [
    ("OFF", "OFF"), ("off", "OFF"), (' "OFF". ', "OFF"), ("Label: NOT_OFF", "NOT_OFF"),
    ("label：'not_off.'", "NOT_OFF"), ("**Label:** OFF", "OFF"), ("«OFF»", "OFF"), ("OFF\n", "OFF"), ("NOT", None),
    ("not off", None), ("OFF..", None),
    ("It is OFF", None), ("OFF or NOT_OFF", None), ("", None), ("Label:", None), ("Answer", None),
])
def test_the_strict_parser(reply, label):
    assert tasks.strict_parse(("OFF", "NOT_OFF"), reply) == label


def test_labels_that_differ_in_case_or_end_in_a_full_stop():
    assert tasks.strict_parse(("a", "A"), "A") == "A"
    assert tasks.strict_parse(("aB", "Ab"), "ab") is None
    assert tasks.strict_parse(("U.S.", "EU"), "u.s.") == "U.S."


EVERY_WORD = sorted({word for task in SHIPPED.values() for word in task.words})


FRAMES = ["{}", "{}.", '"{}"', " {} \n", "Label: {}", "“{}”.", "`{}`"]


@given(st.sampled_from(EVERY_WORD), st.sampled_from(FRAMES), st.booleans())
def test_a_decorated_label_is_read(word, frame, upper):
    reply = frame.format(word.upper() if upper else word)
    assert tasks.strict_parse((word, "another label"), reply) == word


@given(st.text())
def test_no_text_that_does_not_spell_a_label_is_one(reply):
    found = tasks.strict_parse(("OFF", "NOT_OFF"), reply)
    assert found is None or found.casefold() in reply.casefold()


@pytest.mark.parametrize(("culture", "task", "reply", "label"), [
    ("arabic", "offensive_detect", "NOT_OFF", "NOT"), ("arabic", "offensive_detect", "Offensive", "OFF"),
    ("arabic", "offensive_detect", "nothing but OFF", "NOT"), ("arabic", "offensive_detect", "Rude", "Rude"),
    ("arabic", "offensive_detect", "", ""), ("arabic", "hate_detect_mp", "HS", "HS"),
    ("arabic", "vulgar_detect_mp", "Vulgar", "V"), ("arabic", "vulgar_detect_mp", "NOT_Vulgar", "-"),
    ("arabic", "spam_detect", "I know this is Spam", "Ham"), ("arabic", "spam_detect", "Spam", "Spam"),
    ("arabic", "hate_detect_fine-grained", "HS6", "HS1"), ("arabic", "hate_detect_fine-grained", "HS1", "HS1"),
    ("arabic", "hate_detect_fine-grained", "NOT_HS", "NOT_HS"), ("german", "hate_off_detect", "HOF", "HOF"),
    ("turkish", "offensive_detect_finegrained", "indv", "indv"),
    ("turkish", "offensive_detect_finegrained", "ind", "ind"),
    ("turkish", "offensive_detect_finegrained", "another", "non"), ("bengali", "threat_detect", "1 (not 0)", "1"),
    ("english", "hate_offens_detect", "neither", "2"), ("english", "hate_offens_detect", "", ""),
    ("english", "hate_offens_detect", "10", "0"),
])
def test_the_released_parser_with_its_defects(culture, task, reply, label):
    assert tasks.paper_parse(named(culture, task), reply) == label


def test_the_released_evaluator_knows_every_set_but_cvalues():
    assert [task.task for task in SHIPPED.values() if not task.paper_parser] == ["cvalues"]
    with pytest.raises(UserError, match="chinese cvalues: the released evaluator does not know this set"):
        tasks.paper_parse(named("chinese", "cvalues"), "回复1")
    assert released.defect_effects(named("chinese", "cvalues"), ["回复1"], ["回复1"]) == {}


def test_what_each_defect_does_to_f1():
    classes = ["NOT_HS", "HS1", "HS2", "HS3", "HS4", "HS5", "HS6"]
    # All right, yet read as NOT_HS once and HS1 six times: F1 of 1, and of 2 * 1 / (6 + 1).
    assert released.defect_effects(named("arabic", "hate_detect_fine-grained"), classes, classes) == pytest.approx(
        {"released": (1 + 2 / 7) / 7, "substrings": 1, "merged classes": 1, "mended": 1})
    golds, replies = ["non", "prof", "grp", "ind", "oth"], ["non", "prof", "grp", "indv", "oth"]
    assert released.defect_effects(named("turkish", "offensive_detect_finegrained"), golds, replies) == pytest.approx(
        {"released": 4 / 5, "substrings": 4 / 5, "renamed class": 1, "mended": 1})
    # "I know: Spam" is Ham to the released parser and invalid to the strict one; "Ham" was never a word to answer.
    # released: Spam 2/3, Ham 2/3; strict: Spam 2/3 (one missed), Ham 0 (one missed, none found).
    assert released.defect_effects(named("arabic", "spam_detect"), ["Spam", "Spam", "Ham"],
                                   ["Spam", "I know: Spam", "no"]) == pytest.approx(
        {"released": 2 / 3, "substrings": 1 / 3, "mended": 1 / 3})


def test_the_released_parser_reads_every_asked_word_as_its_label():
    for task in SHIPPED.values():
        for label, word in task.labels.items() if task.paper_parser else ():
            expected = {"ind": "indv"}.get(label, "HS1" if label.startswith("HS") and label != "HS" else label)
            assert tasks.paper_parse(task, word) == expected


def command_line(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tasks", *arguments])
    code = tasks.main()
    return code, *capsys.readouterr()


def test_the_command_line_lists_what_a_copy_holds(tmp_path, monkeypatch, capsys):
    rows = [{"text": f"{n}", "label": "RN"[n % 2]} for n in range(20)]
    toy_set(tmp_path, [*rows, {"text": "", "label": "R"}, {"text": "0", "label": "R"}])
    text = TOY + "  - {culture: korean, task: gone, kind: rude, path: gone.jsonl}\n" \
                 "  - {culture: korean, task: broken, kind: rude, path: broken.jsonl}\n"
    (tmp_path / "broken.jsonl").write_text("oops", encoding="utf-8")
    mine = ["--data-path", str(tmp_path), "--tasks-path", str(toy_registry(tmp_path, text))]
    code, out, _ = command_line(monkeypatch, capsys, *mine, "--json")
    toy, gone, broken = json.loads(out)
    assert code == 0
    assert (toy["rows"], toy["usable"], toy["label_counts"], toy["set_aside"], toy["carries_claim"]) == (
        22, 21, {"R": 12, "N": 10}, {"empty text": 1}, True)
    assert toy["warnings"] == ["repeated texts: 1"]
    assert (gone["state"], gone["rows"], gone["carries_claim"]) == ("missing", None, None)
    assert broken["state"] == "broken.jsonl line 1 is no JSON object: get the file again"
    code, out, _ = command_line(monkeypatch, capsys, *mine)
    assert code == 0
    assert re.search(r"korean +toy +22 +R 12, N 10 +empty text 1 +yes", out)
    assert re.search(r"korean +gone +missing", out)
    assert re.search(r"korean +broken +broken", out)
    for line in ("1 of 3 sets at hand", "korean toy: repeated texts: 1", "korean broken: broken.jsonl line 1"):
        assert line in out


def test_the_command_line_refuses_an_empty_folder(tmp_path, monkeypatch, capsys):
    code, out, error = command_line(monkeypatch, capsys, "--data-path", str(tmp_path))
    assert (code, out) == (1, "")
    assert error.startswith("Error: no file of the registry lies below")
    assert "data/Arabic" in error


def test_the_shipped_registry_has_no_line_twice():
    text = (paths.DATA / "tasks.yaml").read_text(encoding="utf-8")
    for entry in re.split(r"\n(?=  - culture:)", text.partition("\ntasks:\n")[2]):
        keys = re.findall(r"^(?:  - |    )(\w+):", entry, flags=re.M)
        assert len(keys) == len(set(keys)), entry
    assert all(len(line) <= 120 for line in text.split("\n"))
    assert set(yaml.safe_load(text)["kinds"]) == set(re.findall(r"    kind: (\w+)", text))
