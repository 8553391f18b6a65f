"""Tokens per second of LoRA on a hundred million weights: the project's training, against a plain loop, and the limit.

The plain way: transformers and peft with AdamW, batches in random order, padded on the right to their longest row, loss
on all tokens. Both ways train the same rank, targets and batch size, on the same rows once; counted are the rows' own
tokens, not padding, which are as many in both.

The limit is 70% of the machine's matrix rate (float32 products of a size that it does fast). Operations that the
training needs: 2 for each weight of the layers and token forward, 2 backward through the frozen weights (the gradient
of what goes in; their own is not needed), 6 for each weight of the adapter; the head's 4 only for tokens that predict a
token that carries loss. An embedding is looked up. What tokens attend to is left out: one in fifty here. Tokens that
all rows begin with (the system prompt) are needed once a batch.
"""

import math
from itertools import takewhile

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks import measuring, subjects
from benchmarks.measuring import Result
from culturellm_utils import models, stand_in, training
from culturellm_utils.encoding import IGNORED, Example, encode

RANK, ALPHA, BATCH, RATE = 16, 32, 16, 2e-4
STEPS = 4
MATRIX = 2048


def ours(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, rows: list[Example]) -> list[float]:
    """The project's training, one pass; the loss of each step, where each is logged."""
    run = training.train(model, tokenizer, rows, epochs=1, batch_size=BATCH, learning_rate=RATE, show=lambda line: None)
    return [row["loss"] for row in run.log]


def plain(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, rows: list[Example]) -> list[float]:
    """A loop as in a tutorial, one pass; the loss of each step."""
    model.train()
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=RATE)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    losses = []
    for start in range(0, len(rows), BATCH):
        part = [rows[i].tokens for i in order[start : start + BATCH]]
        batch = tokenizer.pad({"input_ids": part}, padding_side="right", return_tensors="pt").to(model.device)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def tuned(shape: dict, tokenizer: PreTrainedTokenizerBase) -> torch.nn.Module:
    """A model of random weights with a fresh adapter: the same each time."""
    return models.add_lora(subjects.llama(shape, tokenizer), RANK, ALPHA, 0.0, seed=0)


def operations(model: torch.nn.Module, rows: list[Example]) -> int:
    """What training on the rows once needs at least; see above."""
    trained, total = models.trained_weights(model)
    head = model.get_output_embeddings().weight.numel()
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    layers = total - trained - head * (1 if tied else 2)
    columns = zip(*(row.tokens for row in rows), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    tokens = sum(len(row.tokens) for row in rows) - shared * (len(rows) - math.ceil(len(rows) / BATCH))
    scored = sum(row.scored for row in rows)
    return tokens * (4 * layers + 6 * trained) + scored * 4 * head


def measure() -> list[Result]:
    """Ours and the plain way in turns, each on its own model of the same weights."""
    models.quiet()
    tokenizer = AutoTokenizer.from_pretrained(stand_in.folder("stand-in-tiny"), padding_side="left")
    chats = subjects.training_chats()
    rows = [encode(tokenizer, chat, 512) for chat in chats[:: len(chats) // (STEPS * BATCH)][: STEPS * BATCH]]
    first, second = (tuned(subjects.HUNDRED_MILLION, tokenizer) for _ in range(2))
    product = measuring.matrix_rate(MATRIX)
    for way in (lambda: ours(first, tokenizer, rows[:BATCH]), lambda: plain(second, tokenizer, rows[:BATCH]), product):
        way()  # memory is reserved, threads are started
    fast, slow, square = measuring.alternate(
        lambda: ours(first, tokenizer, rows), lambda: plain(second, tokenizer, rows),
        lambda: [product() for _ in range(20)], repeats=3)
    rate = 20 * 2 * MATRIX**3 / square
    needed = operations(first, rows)
    tokens = sum(len(row.tokens) for row in rows)
    return [Result(
        f"training: LoRA of 100 M weights, {tokens:,} tokens", fast, slow, wanted=1.5, limit=needed / rate,
        wanted_share=0.7, repeats=3, note=f"{tokens / fast:,.0f} and {tokens / slow:,.0f} tokens per second; "
        f"{needed / fast / 1e9:.0f} of {rate / 1e9:.0f} GFLOP/s; {len(rows)} rows, batches of {BATCH}, rank {RANK}")]
