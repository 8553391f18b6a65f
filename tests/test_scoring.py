"""Likelihood scoring against brute force: one label at a time, alone, by the product of softmax probabilities."""

import math
from itertools import product

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma2Config, GPTNeoXConfig, MambaConfig, MistralConfig, Qwen2Config

from culturellm_utils import scoring
from culturellm_utils.encoding import encode, encode_answers
from culturellm_utils.scoring import label_probabilities, perplexity

LABELS = {
    "single tokens": ["1", "2", "3", "4"],
    "a scale to ten": toys.SCALE,
    "one and ten": ["1", "10"],
    "words": ["RUDE", "NOT_RUDE"],
    "words that begin alike": ["agree", "agreement", "agreeable"],
}
CHATS = [toys.chat(user) for user in ("Is it?", "Do you agree with this, or that?", "10 or 1?", "What is it? " * 9)]


@pytest.fixture(scope="module", params=[False, True], ids=["10-is-a-token", "10-is-split"])
def toy(request):
    tokenizer = toys.tokenizer(split_digits=request.param)
    return toys.model(tokenizer), tokenizer


@torch.no_grad()
def reply_log_probability(model, tokenizer, chat, reply, first_only=False):
    """Log of the product of softmax probabilities of the reply's tokens, in a batch of one, without padding."""
    row = encode(tokenizer, toys.chat(chat[1].content, reply), 512)
    softmax = torch.softmax(model(torch.tensor([row.tokens])).logits[0].double(), dim=-1)
    start = len(row.tokens) - row.answer
    product = 1.0
    for place in range(start, start + 1 if first_only else len(row.tokens)):
        product *= softmax[place - 1, row.tokens[place]].item()
    return math.log(product)


def brute_force(model, tokenizer, chat, labels):
    """Option tokens compete alone when each label is one token of its own, whole replies otherwise."""
    single = all(len(tokenizer(label)["input_ids"]) == 1 for label in labels)
    weights = [math.exp(reply_log_probability(model, tokenizer, chat, label, single)) for label in labels]
    return {label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_probabilities_are_those_of_brute_force(toy, labels):
    found = label_probabilities(*toy, CHATS, [labels] * len(CHATS), batch_size=3)
    for chat, row in zip(CHATS, found, strict=True):
        assert list(row) == labels
        assert row == pytest.approx(brute_force(*toy, chat, labels), rel=1e-3, abs=1e-9)
        assert sum(row.values()) == pytest.approx(1)


def test_split_ten_pays_for_its_second_token():
    """With ``1`` and ``10`` both beginning with ``1``, what tells them apart is what follows."""
    tokenizer = toys.tokenizer(split_digits=True)
    model = toys.model(tokenizer)
    (found,) = label_probabilities(model, tokenizer, [CHATS[0]], [["1", "10"]], 8)
    one, zero, end = (tokenizer.convert_tokens_to_ids(token) for token in ("1", "0", toys.END))
    prompt = encode(tokenizer, toys.chat(CHATS[0][1].content, "1"), 512).tokens[:-2]
    with torch.no_grad():
        after_one = torch.softmax(model(torch.tensor([[*prompt, one]])).logits[0, -1], dim=-1)
        after_ten = torch.softmax(model(torch.tensor([[*prompt, one, zero]])).logits[0, -1], dim=-1)
    odds = after_one[end] / (after_one[zero] * after_ten[end])
    assert found["1"] / found["10"] == pytest.approx(odds.item(), rel=1e-3)


@given(order=st.permutations(range(len(CHATS))), batch_size=st.integers(1, 9))
@settings(max_examples=20)
def test_probabilities_do_not_depend_on_batches(toy_pair, order, batch_size):
    toy, alone = toy_pair
    chats, allowed = [CHATS[i] for i in order], [list(LABELS.values())[i] for i in order]
    found = label_probabilities(*toy, chats, allowed, batch_size)
    for i, row in zip(order, found, strict=True):
        assert row == pytest.approx(alone[i], rel=1e-3, abs=1e-9)


@pytest.fixture(scope="module")
def toy_pair(toy):
    return toy, [label_probabilities(*toy, [chat], [labels], 1)[0]
                 for chat, labels in zip(CHATS, LABELS.values(), strict=False)]


def shapes_of_passes(model, monkeypatch):
    """The shapes (rows, tokens) of the passes that a model is asked for, as they come."""
    shapes = []
    forward = model.forward
    monkeypatch.setattr(model, "forward",
                        lambda **batch: shapes.append(tuple(batch["input_ids"].shape)) or forward(**batch))
    return shapes


def test_the_shared_beginning_is_read_once_and_each_prompt_once(toy, monkeypatch):
    model, tokenizer = toy
    prompts = [row.tokens[: -row.answer] for chat in CHATS for row in encode_answers(tokenizer, chat, ["1"])]
    shared = next(i for i in range(99) if len({tuple(prompt[: i + 1]) for prompt in prompts}) > 1)
    assert shared > 5
    lengths = sorted(len(prompt) - shared for prompt in prompts)
    shapes = shapes_of_passes(model, monkeypatch)
    label_probabilities(model, tokenizer, CHATS, [["1", "2", "3", "4"]] * 4, batch_size=2)
    assert shapes == [(1, shared), (2, lengths[1]), (2, lengths[3])]


def test_labels_of_several_tokens_are_read_after_their_prompt(toy, monkeypatch):
    model, tokenizer = toy
    labels = ["RUDE", "NOT_RUDE", "1"]
    (rows,) = [encode_answers(tokenizer, CHATS[0], labels)]
    longest, prompt = max(row.answer for row in rows), len(rows[0].tokens) - rows[0].answer
    shapes = shapes_of_passes(model, monkeypatch)
    label_probabilities(model, tokenizer, CHATS[:1], [labels], batch_size=4)
    assert shapes == [(1, prompt), (3, longest - 1)]  # alone, no prompt shares a beginning
    shapes.clear()
    label_probabilities(model, tokenizer, [CHATS[0]] * 3, [labels, ["1", "2"], labels], batch_size=4)
    assert shapes == [(1, prompt - 1), (3, 1), (4, longest - 1), (2, longest - 1)]


ARCHITECTURES = {"qwen2": (Qwen2Config, {}, True), "gpt-neox": (GPTNeoXConfig, {}, True),
                 "gemma2": (Gemma2Config, {"sliding_window": 400, "head_dim": 8}, True),
                 "gemma2 with a narrow window": (Gemma2Config, {"sliding_window": 16, "head_dim": 8}, False),
                 "mistral with a narrow window": (MistralConfig, {"sliding_window": 16}, False),
                 "mamba": (MambaConfig, {"state_size": 4}, False)}


@pytest.mark.parametrize(("config", "own", "cached"), ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_other_architectures_answer_as_by_brute_force(config, own, cached, monkeypatch):
    """From the cache where one can be used; where not, each reply's row is read whole."""
    tokenizer = toys.tokenizer(split_digits=True)
    heads = {} if config is MambaConfig else {"num_attention_heads": 2, "intermediate_size": 32}
    heads |= {"num_key_value_heads": 1} if heads and config is not GPTNeoXConfig else {}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, initializer_range=0.3, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **heads, **own)).eval()
    plain = []
    monkeypatch.setattr(scoring, "_plain_scores", lambda *a, known=scoring._plain_scores: plain.append(1) or known(*a))
    pairs = list(product(CHATS, LABELS.values()))
    found = label_probabilities(model, tokenizer, [chat for chat, _ in pairs], [labels for _, labels in pairs], 6)
    assert bool(plain) is not cached
    for (chat, labels), row in zip(pairs, found, strict=True):
        assert row == pytest.approx(brute_force(model, tokenizer, chat, labels), rel=1e-3, abs=1e-6)


def test_the_cache_is_left_out_where_rows_outgrow_the_window(toy):
    _, tokenizer = toy
    model = AutoModelForCausalLM.from_config(MistralConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_key_value_heads=2, sliding_window=40)).eval()
    assert scoring.cacheable(model, 39)
    assert not scoring.cacheable(model, 40)


def test_no_chats_no_answers(toy):
    assert label_probabilities(*toy, [], [], 8) == []


def test_chats_and_labels_must_match(toy):
    with pytest.raises(ValueError, match="zip"):
        label_probabilities(*toy, CHATS, [["1", "2"]], 8)


# Perplexity

def test_uniform_logits_have_the_vocabulary_as_perplexity(toy):
    _, tokenizer = toy
    model = toys.model(tokenizer)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    assert perplexity(model, tokenizer, ["Do you agree?", "10"]) == pytest.approx(len(tokenizer), rel=1e-5)


def test_perplexity_by_hand(toy):
    model, tokenizer = toy
    texts = ["Do you agree?", "10", "Is it so, or not so?"]
    total = count = 0
    for text in texts:
        ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]
        with torch.no_grad():
            log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
        total -= sum(log_p[place, token].item() for place, token in enumerate(ids[1:]))
        count += len(ids) - 1
    for batch_size in (1, 2, 64):
        assert perplexity(model, tokenizer, texts, batch_size) == pytest.approx(math.exp(total / count), rel=1e-3)


def test_long_rows_go_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(scoring, "ORDINARY_LENGTH", 10)
    lengths = [3, 5, 10, 12, 15, 40, 90]
    assert list(scoring._batches(range(7), lengths, batch_size=3)) == [[0, 1, 2], [3, 4], [5], [6]]
    assert list(scoring._batches([], [], batch_size=3)) == []
