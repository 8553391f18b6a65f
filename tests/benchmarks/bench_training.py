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


def tuned(shape: dict, tokenizer: PreTrainedTokenizerBase, device: str = "cpu",
          dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A model of random weights with a fresh adapter: the same each time."""
    return models.add_lora(subjects.llama(shape, tokenizer, device, dtype), RANK, ALPHA, 0.0, seed=0)


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


def rows_of(tokenizer: PreTrainedTokenizerBase, count: int) -> list[Example]:
    """So many rows of a culture's training, of all lengths that there are."""
    chats = subjects.training_chats()
    return [encode(tokenizer, chat, 512) for chat in chats[:: len(chats) // count][:count]]


def compared(name: str, shape: dict, tokenizer: PreTrainedTokenizerBase, rows: list[Example], device: str = "cpu",
             dtype: torch.dtype = torch.float32, matrix: int = MATRIX) -> Result:
    """A line: ours and the plain way in turns, each on its own model of the same weights, and products of matrices."""
    first, second = (tuned(shape, tokenizer, device, dtype) for _ in range(2))
    left, right = (torch.randn(matrix, matrix, device=device, dtype=dtype) for _ in range(2))

    def products() -> None:
        for _ in range(20):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()

    for way in (lambda: ours(first, tokenizer, rows[:BATCH]), lambda: plain(second, tokenizer, rows[:BATCH]), products):
        way()  # memory is reserved, threads are started
    fast, slow, square = measuring.alternate(lambda: ours(first, tokenizer, rows),
                                             lambda: plain(second, tokenizer, rows), products, repeats=3)
    rate, needed = 20 * 2 * matrix**3 / square, operations(first, rows)
    tokens = sum(len(row.tokens) for row in rows)
    note = (f"{tokens / fast:,.0f} and {tokens / slow:,.0f} tokens per second; {needed / fast / 1e9:,.0f} of "
            f"{rate / 1e9:,.0f} GFLOP/s; {len(rows)} rows, batches of {BATCH}, rank {RANK}")
    return Result(f"training: LoRA of {name}, {tokens:,} tokens", fast, slow, 1.5, needed / rate, 0.7, 3, note)


def measure() -> list[Result]:
    """On a hundred million random weights that read the stand-in's tokens."""
    models.quiet()
    tokenizer = AutoTokenizer.from_pretrained(stand_in.folder("stand-in-tiny"), padding_side="left")
    return [compared("100 M weights", subjects.HUNDRED_MILLION, tokenizer, rows_of(tokenizer, STEPS * BATCH))]
