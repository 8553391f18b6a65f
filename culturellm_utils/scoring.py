"""Likelihood scoring: the probability of each allowed label as the whole reply to a prompt, in batches.

>>> label_probabilities(model, tokenizer, [chat], [["1", "2", "3", "4"]], batch_size=64)
[{"1": 0.61, "2": 0.24, "3": 0.09, "4": 0.06}]
"""

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import log_softmax
from transformers import PreTrainedTokenizerBase

from culturellm_utils.encoding import IGNORED, Example, collate, encode_answers
from culturellm_utils.records import Message


def label_probabilities(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[list[Message]],
    labels: Sequence[Sequence[str]],
    batch_size: int,
) -> list[dict[str, float]]:
    """For each chat (system and user turn) the probabilities of its labels, normalised over them (sum 1).

    Labels of one token each need a single pass per prompt: their score is that token's probability, whatever ends
    the turn. Other labels' score is the probability of the whole reply, end of turn included, so that ``1`` and
    ``10`` compete fairly with a tokenizer that splits ``10``.
    """
    rows: list[tuple[Example, list[int]]] = []  # a sequence, and the first tokens that it answers for at once
    plan: list[list[tuple[int, int]]] = []  # for each chat and label: row, column of that row's scores
    for chat, allowed in zip(chats, labels, strict=True):
        answered = encode_answers(tokenizer, chat, allowed)
        tails = [row.tokens[-row.answer :] for row in answered]
        if len({tail[0] for tail in tails}) == len(tails) and len({tuple(tail[1:]) for tail in tails}) == 1:
            plan.append([(len(rows), column) for column in range(len(tails))])
            rows.append((Example(answered[0].tokens, answered[0].answer), [tail[0] for tail in tails]))
        else:
            plan.append([(len(rows) + column, 0) for column in range(len(tails))])
            rows += [(row, []) for row in answered]
    scores: list[list[float]] = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0].tokens))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        for i, score in zip(part, _score(model, [rows[i] for i in part], tokenizer.pad_token_id), strict=True):
            scores[i] = score
    result = []
    for allowed, places in zip(labels, plan, strict=True):
        logs = [scores[row][column] for row, column in places]
        top = max(logs)
        weights = [math.exp(value - top) for value in logs]
        result.append({label: weight / sum(weights) for label, weight in zip(allowed, weights, strict=True)})
    return result


@torch.inference_mode()
def _score(model: torch.nn.Module, rows: list[tuple[Example, list[int]]], pad: int) -> list[list[float]]:
    """Log-probabilities: of each listed first token, or of the whole answer when none is listed."""
    batch = {name: value.to(model.device) for name, value in collate([row for row, _ in rows], pad).items()}
    columns = max(row.answer for row, _ in rows)
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=columns + 1,
    ).logits[:, -columns - 1 : -1]
    log_p = log_softmax(logits.float(), dim=-1)
    targets = batch["labels"][:, -columns:]
    answered = targets != IGNORED
    whole = (log_p.gather(2, targets.clamp(min=0)[..., None])[..., 0] * answered).sum(1).tolist()
    first = answered.int().argmax(1).tolist()
    return [
        log_p[i, first[i], options].tolist() if options else [whole[i]] for i, (_, options) in enumerate(rows)
    ]


@torch.inference_mode()
def perplexity(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str],
               batch_size: int = 64) -> float:
    """Perplexity of ``texts`` under a language model: exp of the mean negative log-likelihood per token
    (CultureLLM, appendix C.1.1). Each text is read after the end-of-text token, so its first token counts too."""
    total = count = 0.0
    rows = [
        Example([tokenizer.eos_token_id, *ids], len(ids))
        for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ]
    rows.sort(key=lambda row: row.answer)
    for start in range(0, len(rows), batch_size):
        part = [(row, []) for row in rows[start : start + batch_size]]
        total -= sum(score[0] for score in _score(model, part, tokenizer.pad_token_id))
        count += sum(row.answer for row, _ in part)
    return math.exp(total / count)
