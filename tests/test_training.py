"""Training and models: the loss by hand, what the two targets learn, adapters that plain peft can load."""

import json
import math
from itertools import pairwise

import huggingface_hub.constants
import peft.utils.save_and_load
import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import log_softmax

from culturellm_utils import models, paths, scoring, training
from culturellm_utils.encoding import Example, as_turns, collate, encode, encode_distribution
from culturellm_utils.errors import UserError
from culturellm_utils.training import answer_loss

SHARES = {"1": 0.5, "2": 0.3, "10": 0.2}
PAD = 4


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=[False, True], ids=["10-is-a-token", "10-is-split"])
def tokenizer(request):
    return toys.tokenizer(split_digits=request.param)


@pytest.fixture(scope="module")
def simple():
    return toys.tokenizer()


def rows_of(tokenizer, share=0.7):
    """Examples of unlike lengths, hard and soft, and one that counts half."""
    return [
        encode(tokenizer, toys.chat("Do you agree?", "2"), 512),
        *encode_distribution(tokenizer, toys.chat("What is the answer to this one?", "1"),
                             {"1": share, "2": 1 - share, "3": 0.0}, 512),
        encode(tokenizer, toys.chat("Say it!", "three of them"), 512),
        Example(**{**vars(encode(tokenizer, toys.chat("Is it?", "10"), 512)), "weight": 0.5}),
    ]


def loss_of(model, rows, pad=PAD):
    batch = collate(rows, pad)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
                   position_ids=batch["position_ids"]).logits
    return answer_loss(logits, batch)


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


# Encoding

def test_the_answer_is_the_assistant_turn_with_its_end(simple):
    row = encode(simple, toys.chat("Do you agree?", "10"), 512)
    assert simple.convert_ids_to_tokens(row.tokens[-row.answer:]) == ["10", toys.END]
    assert simple.decode(row.tokens[: -row.answer]) == (
        "<|system|>You are a chatbot.<|end|><|user|>Do you agree?<|end|><|assistant|>")


def test_a_splitting_tokenizer_answers_ten_in_two_tokens():
    split = toys.tokenizer(split_digits=True)
    row = encode(split, toys.chat("Do you agree?", "10"), 512)
    assert split.convert_ids_to_tokens(row.tokens[-row.answer:]) == ["1", "0", toys.END]


def test_a_template_that_changes_an_answered_prompt_still_ends_the_answer():
    thinking = toys.tokenizer(template=toys.CHAT_TEMPLATE.replace("<|assistant|>{% endif", "<|assistant|>2 {% endif"))
    row = encode(thinking, toys.chat("Do you agree?", "3"), 512)
    assert thinking.convert_ids_to_tokens(row.tokens[-row.answer:]) == ["3", toys.END]
    assert thinking.decode(row.tokens).endswith("<|assistant|>2 3<|end|>")


def test_a_row_that_is_too_long_is_refused_with_both_lengths(simple):
    length = len(encode(simple, toys.chat(answer="1"), 512).tokens)
    assert len(encode(simple, toys.chat(answer="1"), length).tokens) == length
    with pytest.raises(UserError, match=f"has {length} tokens, max_length is {length - 1}"):
        encode(simple, toys.chat(answer="1"), length - 1)


def test_a_distribution_is_one_soft_row_when_options_are_tokens(simple):
    (row,) = encode_distribution(simple, toys.chat(answer="2"), {**SHARES, "3": 0.0}, 512)
    assert row.shares == {simple.convert_tokens_to_ids(code): share for code, share in SHARES.items()}
    assert (row.weight, row.tokens) == (1.0, encode(simple, toys.chat(answer="2"), 512).tokens)


def test_a_distribution_is_a_weighted_row_an_option_when_ten_is_split():
    split = toys.tokenizer(split_digits=True)
    rows = encode_distribution(split, toys.chat(answer="2"), {**SHARES, "3": 0.0}, 512)
    assert [(split.decode(row.tokens[-row.answer:]), row.weight, row.shares) for row in rows] == [
        (f"{code}{toys.END}", share, {}) for code, share in SHARES.items()]


def test_options_that_only_begin_with_different_tokens_are_no_soft_row():
    split = toys.tokenizer(split_digits=True)
    assert len(encode_distribution(split, toys.chat(answer="10"), {"10": 0.5, "23": 0.5}, 512)) == 2


GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + toys.CHAT_TEMPLATE
)
DROPS = toys.CHAT_TEMPLATE.replace("messages %}", "messages if m['role'] != 'system' %}")


@pytest.mark.parametrize("template", [GEMMA, DROPS], ids=["refuses", "drops"])
def test_a_template_without_system_turn_has_it_in_the_users(template):
    folding = toys.tokenizer(template=template)
    row = encode(folding, toys.chat("Do you agree?", "10"), 512)
    assert folding.decode(row.tokens) == (
        "<|user|>You are a chatbot.\n\nDo you agree?<|end|><|assistant|>10<|end|>")
    assert folding.convert_ids_to_tokens(row.tokens[-row.answer:]) == ["10", toys.END]


def test_a_chat_without_system_turn_stays_as_it_is():
    turns = as_turns(toys.tokenizer(template=GEMMA), toys.chat()[1:])
    assert turns == [{"role": "user", "content": "Do you agree?"}]


def test_a_whole_row_carries_loss_on_all_but_its_first_token():
    batch = collate([Example([1, 2, 3], 1), Example([5, 6, 7, 8], 2, {8: 1.0}, whole=True)], pad=0)
    assert batch["labels"].tolist() == [[-100, -100, -100, 3], [-100, 6, 7, 8]]
    assert batch["answers"].tolist() == [1, 2]


def test_collate_pads_left_and_masks_all_but_the_answer():
    batch = collate([Example([1, 2, 3], 1), Example([5, 6, 7, 8, 9], 2, {8: 0.25, 3: 0.75}, 0.5)], pad=0)
    assert batch["input_ids"].tolist() == [[0, 0, 1, 2, 3], [5, 6, 7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert batch["position_ids"].tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert batch["labels"].tolist() == [[-100] * 4 + [3], [-100] * 3 + [8, 9]]
    assert batch["option_ids"].tolist() == [[0, 0], [8, 3]]
    assert batch["option_shares"].tolist() == [[0, 0], [0.25, 0.75]]
    assert batch["weights"].tolist() == [1, 0.5]


# Loss

# What a model says after each of three tokens, over a vocabulary of three.
TOY = torch.tensor([[[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3]]]).log()


def test_hard_loss_by_hand():
    batch = collate([Example([0, 1, 2], answer=2)], pad=0)
    assert answer_loss(TOY, batch).item() == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)


def test_soft_loss_by_hand():
    batch = collate([Example([0, 1, 2], 2, {1: 0.75, 2: 0.25})], pad=0)
    kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.3)
    assert answer_loss(TOY, batch).item() == pytest.approx((kl - math.log(0.8)) / 2)


def test_loss_on_all_by_hand():
    hard, soft = Example([0, 1, 2, 0], 1, whole=True), Example([0, 1, 2, 0], 1, {0: 0.75, 1: 0.25}, whole=True)
    logits = torch.cat([TOY, TOY[:, :1]], dim=1)
    before = -(math.log(0.5) + math.log(0.8))
    assert answer_loss(logits, collate([hard], 0)).item() == pytest.approx((before - math.log(0.4)) / 3)
    kl = 0.75 * math.log(0.75 / 0.4) + 0.25 * math.log(0.25 / 0.3)
    assert answer_loss(logits, collate([soft], 0)).item() == pytest.approx((before + kl) / 3)  # soft at the answer


def test_a_row_of_no_loss_adds_nothing():
    row, none = Example([0, 1, 2], 2, {1: 0.75, 2: 0.25}), Example([0, 0], 0)
    alone, beside = collate([row], 0), collate([row, none], 0)
    assert answer_loss(TOY.repeat(2, 1, 1), beside) == answer_loss(TOY, alone)
    assert answer_loss(TOY, collate([none], 0) | {"labels": torch.full((1, 2), -100)}, 5).item() == 0


def test_the_loss_of_a_step_is_over_all_its_tokens():
    batch = collate([Example([0, 1, 2], answer=2)], pad=0)
    assert answer_loss(TOY, batch, 8).item() == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 8)


def test_soft_loss_is_zero_where_model_and_people_agree():
    batch = collate([Example([0, 1], 1, {0: 0.2, 1: 0.5, 2: 0.3})], pad=0)
    assert answer_loss(TOY[:, :2], batch).item() == pytest.approx(0, abs=1e-6)


def test_loss_of_one_unpadded_row_is_that_of_plain_torch(tokenizer):
    model = toys.model(tokenizer)
    for row in rows_of(tokenizer):
        log_p = log_softmax(model(torch.tensor([row.tokens])).logits[0], dim=-1)
        places = range(len(row.tokens) - row.answer - 1, len(row.tokens) - 1)
        costs = [-log_p[place, row.tokens[place + 1]] for place in places]
        if row.shares:
            costs[0] = sum(s * (math.log(s) - log_p[places[0], token]) for token, s in row.shares.items())
        expected = row.weight * sum(costs) / len(costs)
        assert loss_of(model, [row]).item() == pytest.approx(expected.item(), rel=1e-4)


@given(order=st.permutations(range(4)), size=st.integers(1, 4), pad=st.sampled_from([0, 3, 4]))
@settings(max_examples=25)
def test_loss_does_not_depend_on_padding_or_batch(order, size, pad):
    tokenizer = toys.tokenizer()
    model = toys.model(tokenizer)
    rows = [rows_of(tokenizer)[i] for i in order[:size]]
    with torch.no_grad():
        alone = [loss_of(model, [row]).item() * row.answer for row in rows]
        together = loss_of(model, rows, pad).item()
    assert together == pytest.approx(sum(alone) / sum(row.answer for row in rows), rel=1e-3)


def test_few_logits_give_the_loss_of_all(simple):
    model, rows = toys.model(simple), rows_of(simple)
    batch = collate(rows, PAD)
    keep = max(row.answer for row in rows) + 1
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
                   position_ids=batch["position_ids"]).logits
    assert answer_loss(logits[:, -keep:], batch).item() == pytest.approx(answer_loss(logits, batch).item(), rel=1e-5)


def test_soft_target_and_weighted_rows_have_one_gradient():
    """Where the reply is the option alone: its end is trained on the label's row, or on every option's."""
    tokenizer = toys.tokenizer(template=toys.OPEN_TEMPLATE)
    model = toys.model(tokenizer)
    soft = encode_distribution(tokenizer, toys.chat(answer="1"), SHARES, 512)
    rows = [Example(encode(tokenizer, toys.chat(answer=code), 512).tokens, 1, weight=share)
            for code, share in SHARES.items()]
    assert [row.answer for row in soft] == [1]
    of_rows = len(rows) * gradient(model, loss_of(model, rows))
    of_parts = sum(gradient(model, loss_of(model, [row])) for row in rows)
    of_soft = gradient(model, loss_of(model, soft))
    assert of_soft.norm() > 1e-3
    torch.testing.assert_close(of_rows, of_soft, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(of_parts, of_soft, rtol=1e-3, atol=1e-6)  # however the rows fall into batches


def test_the_shared_beginning_ends_before_the_first_logit_that_counts():
    def shared(*rows):
        return training.shared_beginning(collate(list(rows), PAD))

    assert shared(Example([7, 8, 9, 1, 2, 3], 1), Example([7, 8, 5, 2, 3], 1)) == 2
    assert shared(Example([7, 8, 9, 1, 3], 2), Example([7, 8, 9, 1, 3], 2)) == 2  # 9 predicts what carries loss
    assert shared(Example([7, 8, 9, 3], 1), Example([8, 8, 9, 3], 1)) == 0
    assert shared(Example([7, 8, 9, 3], 1), Example([7, 8, 9, 3], 1, whole=True)) == 0
    assert shared(Example([7, 8, 9, 3], 1), Example([PAD, PAD], 0)) == 0


def passes_of(monkeypatch, model, examples, least, **knobs):
    """Train; the widths of the passes, the losses, and the weights in a row."""
    widths, forward = [], model.forward
    monkeypatch.setitem(training.WORTHWHILE, "cpu", least)
    monkeypatch.setattr(model, "forward", lambda **b: widths.append(b["input_ids"].shape[1]) or forward(**b))
    log = training.train(model, toys.tokenizer(), examples, epochs=2, batch_size=4, learning_rate=0.01, **knobs).log
    return widths, [row["loss"] for row in log], torch.cat([w.detach().flatten() for w in model.parameters()])


def test_a_beginning_that_is_read_once_trains_as_if_each_row_read_its_own(monkeypatch):
    tokenizer = toys.tokenizer()
    rows = rows_of(tokenizer)
    shared, longest = training.shared_beginning(collate(rows, PAD)), max(len(row.tokens) for row in rows)
    assert shared > 5
    once, losses, weights = passes_of(monkeypatch, toys.model(tokenizer), rows, 3 * shared)
    each, expected, others = passes_of(monkeypatch, toys.model(tokenizer), rows, 3 * shared + 1)
    assert (once, each) == ([shared, longest - shared] * 2, [longest] * 2)
    assert losses == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(weights, others, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["dropout", "checkpointing", "attention dropout"])
def test_each_row_reads_its_own_beginning_where_rows_differ_or_nothing_is_kept(how, monkeypatch):
    tokenizer = toys.tokenizer()
    model = toys.model(tokenizer)
    model.config.attention_dropout = 0.1 * (how == "attention dropout")
    if how == "dropout":
        model = models.add_lora(model, 2, 4, 0.1, seed=0)
    rows = rows_of(tokenizer)
    widths, _, _ = passes_of(monkeypatch, model, rows, 1, gradient_checkpointing=how == "checkpointing")
    assert set(widths) == {max(len(row.tokens) for row in rows)}


# Training

@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_model_trained_on_a_distribution_reaches_it(tokenizer, batch_size):
    model = toys.model(tokenizer, spread=0.1)
    examples = encode_distribution(tokenizer, toys.chat(answer="1"), SHARES, 512)
    training.train(model, tokenizer, examples * (12 // len(examples)), epochs=30, batch_size=batch_size,
                   learning_rate=0.01, lr_schedule="linear")
    (found,) = scoring.label_probabilities(model, tokenizer, [toys.chat()], [toys.SCALE], 8)
    # Per-token means count a reply of three tokens a little less in a small batch.
    assert found == pytest.approx(dict.fromkeys(toys.SCALE, 0.0) | SHARES, abs=0.08)


def test_a_model_trained_on_a_label_says_it(tokenizer):
    model = toys.model(tokenizer, spread=0.1)
    training.train(model, tokenizer, [encode(tokenizer, toys.chat(answer="10"), 512)] * 4, epochs=30, batch_size=4,
                   learning_rate=0.01)
    (found,) = scoring.label_probabilities(model, tokenizer, [toys.chat()], [toys.SCALE], 8)
    assert found["10"] > 0.95


def test_the_log_holds_the_loss_before_each_step_and_the_schedule(simple):
    model = models.add_lora(toys.model(simple), 2, 4, 0.0, seed=0)
    rows = rows_of(simple)
    before = loss_of(model, rows).item()
    log = training.train(model, simple, rows, epochs=4, batch_size=4, learning_rate=0.008, lr_schedule="linear").log
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert [row["epoch"] for row in log] == [1, 2, 3, 4]
    assert log[0]["loss"] == pytest.approx(before, rel=1e-3)
    assert [row["learning_rate"] for row in log] == pytest.approx([0.008, 0.006, 0.004, 0.002])
    assert not model.training


@pytest.mark.parametrize(("schedule", "warmup", "rates"), [
    ("constant", 0.0, [1.0, 1.0, 1.0, 1.0]),
    ("constant", 0.5, [0.0, 0.5, 1.0, 1.0]),
    ("cosine", 0.0, [1.0, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2]),
])
def test_learning_rate_schedules_by_hand(simple, schedule, warmup, rates):
    model = models.add_lora(toys.model(simple), 2, 4, 0.0, seed=0)
    log = training.train(model, simple, rows_of(simple), epochs=4, batch_size=4, learning_rate=0.01,
                         lr_schedule=schedule, warmup_ratio=warmup).log
    assert [row["learning_rate"] for row in log] == pytest.approx([0.01 * rate for rate in rates])


@pytest.mark.parametrize(("count", "budget", "steps"), [(4, 18, 5), (4, 3, 1), (6, 16, 4), (2, 12, 3)])
def test_a_budget_sets_the_steps_the_passes_and_the_schedule(simple, count, budget, steps):
    """Whatever the number of rows and the epochs, and with the learning rate falling over the whole of it."""
    model = models.add_lora(toys.model(simple), 2, 4, 0.0, seed=0)
    rows = (rows_of(simple) * 2)[:count]
    run = training.train(model, simple, rows, epochs=1, budget=budget, batch_size=4, learning_rate=0.01,
                         lr_schedule="linear")
    assert [row["step"] for row in run.log] == list(range(1, steps + 1))
    assert [row["epoch"] for row in run.log] == pytest.approx([n / steps * budget / count for n in range(1, steps + 1)])
    assert [row["learning_rate"] for row in run.log] == pytest.approx([0.01 * (1 - n / steps) for n in range(steps)])
    assert run.tokens == sum(len(row.tokens) for row in rows) * budget // count


def test_a_budget_of_whole_epochs_trains_as_they_do(simple):
    def log(**options):
        model = models.add_lora(toys.model(simple), 2, 4, 0.0, seed=0)
        return training.train(model, simple, rows_of(simple) * 2, batch_size=4, learning_rate=0.01, **options).log

    assert log(epochs=3) == log(epochs=9, budget=24)


def test_the_last_step_ends_the_curve(simple):
    model = models.add_lora(toys.model(simple), 2, 4, 0.0, seed=0)
    log = training.train(model, simple, rows_of(simple), epochs=1, budget=101, batch_size=1, learning_rate=0.01).log
    assert [row["step"] for row in log][-3:] == [98, 100, 101]  # every second step, and the last


def test_every_way_to_train_reaches_the_same_loss(simple):
    def losses(**options):
        model = models.add_lora(toys.model(simple), 2, 4, 0.0, seed=0)
        run = training.train(model, simple, rows_of(simple) * 3, epochs=2, batch_size=8, learning_rate=0.01, **options)
        return [row["loss"] for row in run.log]

    plain = losses()  # steps of 8 and 4 rows, answers of 2 to 5 tokens
    assert losses(gradient_accumulation=4) == pytest.approx(plain, rel=1e-5)
    assert losses(gradient_checkpointing=True) == pytest.approx(plain, rel=1e-5)
    assert losses(optimizer="paged_adamw_32bit") == pytest.approx(plain, rel=1e-5)
    assert losses(weight_decay=0.5) != pytest.approx(plain, rel=1e-5)
    assert losses(max_grad_norm=1e-9) != pytest.approx(plain, rel=1e-5)


def test_a_batch_that_cannot_be_shared_out_is_refused(simple, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"batch_size is 6: it must be a multiple of 4 \(2 processes x "):
        training.train(toys.model(simple), simple, rows_of(simple), epochs=1, batch_size=6, learning_rate=0.1,
                       gradient_accumulation=2)


def test_a_loss_that_is_no_number_stops_with_a_sentence(simple):
    model = models.add_lora(toys.model(simple), 2, 4, 0.0, seed=0)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(UserError, match="lower learning_rate"):
        training.train(model, simple, rows_of(simple), epochs=2, batch_size=2, learning_rate=0.01)


def test_no_rows_are_refused(simple):
    with pytest.raises(UserError, match="no training rows"):
        training.train(toys.model(simple), simple, [], epochs=1, batch_size=1, learning_rate=0.1)


@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=150), batch_size=st.integers(1, 16))
@settings(max_examples=50)
def test_every_row_comes_once_an_epoch(lengths, batch_size):
    order = list(training.SimilarLength(lengths, batch_size))
    assert sorted(order) == list(range(len(lengths)))


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), rows=st.integers(1, 4),
       multiple=st.sampled_from([1, 2, 4]))
@settings(max_examples=50)
def test_the_last_batch_is_filled_so_that_all_processes_get_as_much(lengths, rows, multiple):
    plain = list(training.SimilarLength(lengths, rows * multiple))
    filled = training.SimilarLength(lengths, rows * multiple, multiple=multiple)
    assert len(filled) % multiple == 0
    assert list(filled) == plain + [len(lengths)] * (len(filled) - len(plain))
    assert len(filled) - len(plain) < multiple


@given(rows=st.integers(1, 40), budget=st.integers(1, 200), batch=st.integers(1, 8),
       multiple=st.sampled_from([1, 2, 4]))
@settings(max_examples=50)
def test_a_budget_draws_exactly_so_many_rows_pass_after_pass(rows, budget, batch, multiple):
    sampler = training.SimilarLength(list(range(1, rows + 1)), batch, seed=3, multiple=multiple, budget=budget)
    order = list(sampler)
    assert len(order) == len(sampler) == math.ceil(budget / multiple) * multiple
    assert order[budget:] == [rows] * (len(order) - budget)  # rows of no loss
    for start in range(0, budget, rows):
        found = order[: budget][start : start + rows]
        assert len(set(found)) == len(found)  # a pass has each row once
        plain = training.SimilarLength(list(range(1, rows + 1)), batch, seed=3)
        plain.epoch = start // rows
        assert found == list(plain)[: len(found)]
    sampler.epoch = 7
    assert list(sampler) == order


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = training.SimilarLength(list(range(40)), 4, seed)
        sampler.epoch = epoch
        torch.rand(1)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}) == 9


def test_batches_hold_rows_of_like_length_in_mixed_order():
    lengths = [n % 64 for n in range(512)]
    order = list(training.SimilarLength(lengths, 8))
    batches = [[lengths[i] for i in order[start : start + 8]] for start in range(0, 512, 8)]
    assert sum(max(b) - min(b) for b in batches) / len(batches) < 16  # at random about 50
    means = [sum(b) / 8 for b in batches]
    assert 20 < sum(a > b for a, b in pairwise(means)) < 43


# Adapters

def base_folder(place, tokenizer, **shape):
    toys.model(tokenizer, **shape).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


def trained(base):
    model, tokenizer = models.load(base, device="cpu")
    model = models.add_lora(model, rank=4, alpha=8, dropout=0.1, seed=0)
    training.train(model, tokenizer, rows_of(tokenizer) * 2, epochs=2, batch_size=3, learning_rate=0.02)
    return model, tokenizer


def weights(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def probabilities(model, tokenizer):
    """What the model answers to two prompts, side by side."""
    found = scoring.label_probabilities(model, tokenizer, [toys.chat(), toys.chat("Is it?")], [toys.SCALE] * 2, 8)
    return torch.tensor([p for row in found for p in row.values()])


def same(first, second):
    return torch.allclose(first, second, atol=1e-5)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder with ``outputs`` in it, as a checkout has."""
    monkeypatch.setenv("CULTURELLM_OUTPUTS", str(tmp_path / "home" / "outputs"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def test_only_the_adapter_is_trained_and_can_be_switched_off(home, tokenizer):
    base = base_folder(home / "base", tokenizer)
    plain, _ = models.load(base, device="cpu")
    untouched = probabilities(plain, tokenizer)
    model = models.add_lora(plain, rank=4, alpha=8, dropout=0.0, seed=0)
    before = weights(model)
    assert same(probabilities(model, tokenizer), untouched)  # a fresh adapter changes nothing
    training.train(model, tokenizer, rows_of(tokenizer), epochs=3, batch_size=4, learning_rate=0.02)
    after = weights(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert not same(probabilities(model, tokenizer), untouched)
    with model.disable_adapter():
        assert same(probabilities(model, tokenizer), untouched)


def test_trained_weights_by_hand(simple):
    model = models.add_lora(toys.model(simple), rank=4, alpha=8, dropout=0.0, seed=0)
    attention, mlp = 4 * 4 * (16 + 16), 3 * 4 * (16 + 32)  # q k v o; gate up down: rank × (in + out)
    base = sum(weight.numel() for weight in toys.model(simple).parameters())
    assert models.trained_weights(model) == (attention + mlp, base + attention + mlp)


def test_lora_on_named_layers(simple):
    model = models.add_lora(toys.model(simple), rank=4, alpha=8, dropout=0.0, seed=0, targets="q_proj,v_proj")
    assert models.trained_weights(model)[0] == 2 * 4 * (16 + 16)


def test_an_unknown_layer_is_refused_with_those_that_exist(simple):
    with pytest.raises(UserError, match="no linear layer 'w_proj'; it has down_proj, gate_proj, k_proj, lm_head"):
        models.add_lora(toys.model(simple), rank=4, alpha=8, dropout=0.0, seed=0, targets="q_proj,w_proj")


@pytest.mark.parametrize(("precision", "dtype"), [
    ("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precisions_on_a_cpu(home, simple, precision, dtype):
    model, _ = models.load(base_folder(home / "base", simple), precision, device="cpu")
    assert model.dtype == models.compute_dtype(model) == dtype
    model = models.add_lora(model, rank=4, alpha=8, dropout=0.0, seed=0)
    log = training.train(model, simple, rows_of(simple), epochs=8, batch_size=4, learning_rate=0.02).log
    assert log[-1]["loss"] < log[0]["loss"]


def test_four_bits(home, simple):
    pytest.importorskip("bitsandbytes")
    base = base_folder(home / "base", simple, hidden=64, spread=0.1)  # what its CPU kernels can do
    whole, _ = models.load(base, "fp32", device="cpu")
    model, tokenizer = models.load(base, "4bit", device="cpu")
    assert model.is_loaded_in_4bit
    assert models.compute_dtype(model) == torch.bfloat16
    assert models.trained_weights(model)[1] == models.trained_weights(whole)[1]
    found, expected = probabilities(model, tokenizer), probabilities(whole, tokenizer)
    assert torch.allclose(found, expected, atol=0.1)
    assert not same(found, expected)
    model = models.add_lora(models.load(base, "4bit", device="cpu")[0], rank=4, alpha=8, dropout=0.0, seed=0)
    log = training.train(model, tokenizer, rows_of(tokenizer), epochs=8, batch_size=4, learning_rate=0.02,
                         optimizer="adamw_8bit").log
    assert log[-1]["loss"] < log[0]["loss"]
    folder = paths.stage_dir("toy", "korean") / "model"
    models.save_adapter(model, tokenizer, folder, "card")
    again, _ = models.load_adapters({"default": folder}, base, "4bit")
    assert torch.allclose(probabilities(again, tokenizer), probabilities(model, tokenizer), atol=0.02)


def test_four_bits_without_bitsandbytes_name_the_extra(home, simple, monkeypatch):
    base = base_folder(home / "base", simple)
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'precision 4bit needs bitsandbytes: pip install -e "\.\[four-bit\]"'):
        models.load(base, "4bit", device="cpu")
    with pytest.raises(UserError, match="optimizer adamw_8bit needs bitsandbytes"):
        training.train(toys.model(simple), simple, rows_of(simple), epochs=1, batch_size=1, learning_rate=0.1,
                       optimizer="adamw_8bit")


def test_half_precision_needs_a_gpu(home, simple):
    with pytest.raises(UserError, match="precision fp16 needs a GPU"):
        models.load(base_folder(home / "base", simple), "fp16", device="cpu")


def test_the_same_seeds_give_the_same_adapter_and_others_another(simple):
    def adapter(start, order):
        model = models.add_lora(toys.model(simple), rank=4, alpha=8, dropout=0.1, seed=start)
        training.train(model, simple, rows_of(simple) * 2, epochs=2, batch_size=3, learning_rate=0.02, seed=order)
        return weights(model)

    first, again, restarted, reordered = adapter(0, 0), adapter(0, 0), adapter(1, 0), adapter(0, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for other in (restarted, reordered):
        assert any(not torch.equal(first[name], other[name]) for name in first if "lora_B" in name)


@pytest.mark.parametrize("where", ["home/base", "elsewhere/base"])
def test_the_lines_on_the_card_load_a_saved_adapter(home, simple, where):
    base = base_folder(home.parent / where, simple)
    model, tokenizer = trained(base)
    folder = paths.stage_dir("toy", "korean") / "model"
    models.save_adapter(model, tokenizer, folder, models.card("Toy", base, folder, rows=8, knobs={"epochs": 2}))
    lines = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert lines.count("\n") == 3
    names = {}
    exec(lines, names)
    assert same(probabilities(names["model"].eval(), names["tokenizer"]), probabilities(model, tokenizer))
    assert names["tokenizer"].chat_template == tokenizer.chat_template
    assert (folder / "adapter_model.safetensors").is_file()


def test_a_saved_adapter_loads_and_gives_the_base_back(home, simple):
    base = base_folder(home / "base", simple)
    model, tokenizer = trained(base)
    folder = paths.stage_dir("toy", "korean") / "model"
    models.save_adapter(model, tokenizer, folder, "first card")
    models.save_adapter(model, tokenizer, folder, "second card")  # replaces the first
    assert (folder / "README.md").read_text() == "second card"
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    loaded, again = models.load_adapters({"default": folder}, base)
    assert same(probabilities(loaded, again), probabilities(model, tokenizer))
    with loaded.disable_adapter():
        assert same(probabilities(loaded, again), probabilities(models.load(base, device="cpu")[0], tokenizer))


def test_saving_asks_no_hub_wherever_it_is_called(home, simple, monkeypatch):
    model, tokenizer = trained(base_folder(home / "base", simple))
    monkeypatch.setattr(peft.utils.save_and_load, "check_file_exists_on_hf_hub", lambda *a, **k: pytest.fail("hub"))
    (home / "notebooks").mkdir()
    monkeypatch.chdir(home / "notebooks")
    folder = paths.stage_dir("toy", "korean") / "model"
    models.save_adapter(model, tokenizer, folder, "card")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"  # as seen from where outputs/ lies
    assert config["target_modules"] == sorted(config["target_modules"])


def test_a_failed_save_leaves_the_old_adapter(home, simple, monkeypatch):
    model, tokenizer = trained(base_folder(home / "base", simple))
    folder = paths.stage_dir("toy", "korean") / "model"
    models.save_adapter(model, tokenizer, folder, "old")
    monkeypatch.setattr(tokenizer, "save_pretrained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        models.save_adapter(model, tokenizer, folder, "new")
    assert (folder / "README.md").read_text() == "old"
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_missing_adapter_names_the_notebook_to_run(home, simple):
    with pytest.raises(UserError, match="korean/model has no adapter: run notebook 04_fine_tuning"):
        models.load_adapters({"a": paths.stage_dir("toy", "korean") / "model"}, base_folder(home / "base", simple))


@pytest.mark.parametrize("name", ["no/such-model", "./nowhere"])
def test_an_unknown_base_model_is_one_sentence(name):
    with pytest.raises(UserError, match=f"base_model '{name}' cannot be loaded .*give 'stand-in'"):
        models.load(name)


def test_a_broken_model_folder_is_one_sentence(home, simple):
    base = base_folder(home / "base", simple)
    (home / "base" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="cannot be loaded"):
        models.load(base)


def test_a_base_model_without_chat_template_is_refused(home):
    base = base_folder(home / "base", toys.tokenizer(template=None))
    with pytest.raises(UserError, match="no chat template"):
        models.load(base)


def test_the_card_warns_about_the_stand_in_alone(home):
    folder = paths.stage_dir("toy", "korean") / "model"
    knobs = {"epochs": 4, "target": "distribution"}
    toy, real = (models.card("T", name, folder, 10, knobs) for name in (models.STAND_INS[0], "some/model"))
    assert "a toy of a million weights" in toy
    assert "a toy of" not in real
    assert "| epochs | 4 |" in real
    assert "| target | distribution |" in real
