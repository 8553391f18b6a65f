"""Likelihood scoring: the probability of each allowed label as the whole reply to a prompt, in batches.

>>> label_probabilities(model, tokenizer, [chat], [["1", "2", "3", "4"]], batch_size=64)
[{"1": 0.61, "2": 0.24, "3": 0.09, "4": 0.06}]
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch.nn.functional import log_softmax
from transformers import DynamicCache, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from culturellm_utils.encoding import IGNORED, Example, collate, encode_answers
from culturellm_utils.records import Message

#: Tokens of a row that memory is reckoned for: survey questions and short posts have fewer.
ORDINARY_LENGTH = 256


@dataclass(frozen=True)
class _Asked:
    """A prompt's tokens, and those of each label's reply, end of turn included."""

    prompt: list[int]
    tails: list[list[int]]

    @property
    def one_token_each(self) -> bool:
        """Whether the labels differ in their first token alone: whatever ends the turn is then the same for all."""
        return len({tail[0] for tail in self.tails}) == len(self.tails) and len({(*t[1:],) for t in self.tails}) == 1


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

    What all prompts begin with is read once, and so is each prompt, however many replies follow it; models whose
    attention cannot be cached by rows (state-space layers, windows shorter than a prompt) read each reply's whole row.
    """
    asked = []
    for chat, allowed in zip(chats, labels, strict=True):
        rows = encode_answers(tokenizer, chat, allowed)
        asked.append(_Asked(rows[0].tokens[: -rows[0].answer], [row.tokens[-row.answer :] for row in rows]))
    longest = max((len(row.prompt) for row in asked), default=0) + max((len(t) for row in asked for t in row.tails),
                                                                       default=0)
    way = _scores if asked and cacheable(model, longest) else _plain_scores
    with folded_head(model):
        scores = way(model, asked, tokenizer.pad_token_id, batch_size)
    result = []
    for allowed, logs in zip(labels, scores, strict=True):
        top = max(logs)
        weights = [math.exp(value - top) for value in logs]
        result.append({label: weight / sum(weights) for label, weight in zip(allowed, weights, strict=True)})
    return result


@contextmanager
def folded_head(model: torch.nn.Module) -> Iterator[None]:
    """Meanwhile the columns whose logits are kept reach the model's head in one piece: cut out of a batch they would be
    multiplied row by row, each row reading all of the head's weights again."""
    head = model.get_output_embeddings()
    hook = head and head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
    try:
        yield
    finally:
        if hook:
            hook.remove()


def cacheable(model: torch.nn.Module, longest: int) -> bool:
    """Whether keys and values of a prompt can be kept, repeated and padded in the middle: every layer attends to all
    tokens, or to a window that holds the longest row, padding included."""
    return all(
        type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and longest < layer.sliding_window)
        for layer in DynamicCache(config=model.config).layers
    )


@torch.inference_mode()
def _scores(model: torch.nn.Module, asked: list[_Asked], pad: int, batch_size: int) -> list[list[float]]:
    """For each prompt its labels' log-probabilities. Each row of a batch is laid out as the prefix that all prompts
    share, padding, the rest of the prompt, the reply."""
    shared = _shared([row.prompt for row in asked])
    prefix = DynamicCache(config=model.config)
    if shared:
        model(input_ids=torch.tensor([shared], device=model.device), past_key_values=prefix, use_cache=True,
              logits_to_keep=1)
    scores: list[list[float]] = [[] for _ in asked]
    order = sorted(range(len(asked)), key=lambda i: len(asked[i].prompt))
    for places in _batches(order, [len(row.prompt) for row in asked], batch_size):
        part = [asked[i] for i in places]
        cache = cached_rows(prefix, [0] * len(part))
        width = max(len(row.prompt) for row in part) - len(shared)
        tokens = torch.full((len(part), width), pad)
        mask = torch.zeros((len(part), len(shared) + width), dtype=torch.long)
        mask[:, : len(shared)] = 1
        for i, row in enumerate(part):
            rest = row.prompt[len(shared) :]
            tokens[i, width - len(rest) :] = torch.tensor(rest)
            mask[i, -len(rest) :] = 1
        log_p = _log_p(model, tokens, mask, cache, logits_to_keep=1)[:, 0]
        for i, (place, row) in enumerate(zip(places, part, strict=True)):
            scores[place] = log_p[i, [tail[0] for tail in row.tails]].tolist()
        # The rows of a few prompts at a time, one for each label, are a batch again.
        ahead = [(i, label) for i, row in enumerate(part) if not row.one_token_each for label in range(len(row.tails))]
        for numbers in _batches(range(len(ahead)), [mask.shape[1]] * len(ahead), batch_size):
            pairs = [ahead[number] for number in numbers]
            rows = [i for i, _ in pairs]
            found = _tails(model, [part[i].tails[label] for i, label in pairs], mask[rows], cached_rows(cache, rows),
                           pad)
            for (i, label), score in zip(pairs, found, strict=True):
                scores[places[i]][label] += score
    return scores


def _batches(order: Iterable[int], lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """The places in ``order`` (short to long) in batches of ``batch_size``, and of fewer where rows are long, so that a
    batch holds no more tokens than ``batch_size`` rows of ordinary length."""
    part: list[int] = []
    for place in order:
        if part and (len(part) == batch_size or (len(part) + 1) * lengths[place] > batch_size * ORDINARY_LENGTH):
            yield part
            part = []
        part.append(place)
    if part:
        yield part


def _shared(prompts: list[list[int]]) -> list[int]:
    """What all of several prompts begin with; a token of each is left to be read."""
    if len(prompts) == 1:
        return []
    first, last = min(prompts), max(prompts)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return first[: min(same, min(map(len, prompts)) - 1)]


def _tails(model: torch.nn.Module, tails: list[list[int]], mask: torch.Tensor, cache: DynamicCache,
           pad: int) -> list[float]:
    """Log-probabilities of what follows each reply's first token, given the cached prompts."""
    width = max(map(len, tails)) - 1
    if not width:
        return [0.0] * len(tails)
    padded = torch.tensor([tail + [pad] * (width + 1 - len(tail)) for tail in tails])
    log_p = _log_p(model, padded[:, :-1], torch.cat([mask, torch.ones((len(tails), width), dtype=torch.long)], 1),
                   cache, logits_to_keep=0)
    targets = padded[:, 1:].to(log_p.device)
    answered = torch.arange(width) < torch.tensor([[len(tail) - 1] for tail in tails])
    return (log_p.gather(2, targets[..., None])[..., 0] * answered.to(log_p.device)).sum(1).tolist()


def _log_p(model: torch.nn.Module, tokens: torch.Tensor, mask: torch.Tensor, cache: DynamicCache,
           logits_to_keep: int) -> torch.Tensor:
    """Log-probabilities of what comes after ``tokens`` (rows x width), which follow what is cached."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    logits = model(
        input_ids=tokens.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=logits_to_keep,
    ).logits
    return log_softmax(logits.float(), dim=-1)


def cached_rows(cache: DynamicCache, rows: list[int]) -> DynamicCache:
    """A cache of some rows of another, which stays as it is; a row may be taken several times."""
    made = copy.copy(cache)
    made.layers = [copy.copy(layer) for layer in cache.layers]
    made.batch_select_indices(torch.tensor(rows))
    return made


def _plain_scores(model: torch.nn.Module, asked: list[_Asked], pad: int, batch_size: int) -> list[list[float]]:
    """The same with no cache: a row for each prompt whose labels are one token each, for each label otherwise."""
    rows: list[tuple[Example, list[int]]] = []  # a sequence, and the first tokens that it answers for at once
    owners: list[int] = []
    for i, row in enumerate(asked):
        whole = [Example(row.prompt + tail, len(tail)) for tail in row.tails]
        made = [(whole[0], [tail[0] for tail in row.tails])] if row.one_token_each else [(one, []) for one in whole]
        rows += made
        owners += [i] * len(made)
    found: list[list[float]] = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0].tokens))
    for part in _batches(order, [len(row.tokens) for row, _ in rows], batch_size):
        for i, score in zip(part, _score(model, [rows[i] for i in part], pad), strict=True):
            found[i] = score
    scores: list[list[float]] = [[] for _ in asked]
    for i, score in zip(owners, found, strict=True):
        scores[i] += score
    return scores


@torch.inference_mode()
def _score(model: torch.nn.Module, rows: list[tuple[Example, list[int]]], pad: int) -> list[list[float]]:
    """Log-probabilities: of each listed first token, or of the whole answer when none is listed."""
    batch = {name: value.to(model.device) for name, value in collate([row for row, _ in rows], pad).items()}
    columns = max(row.answer for row, _ in rows)
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        use_cache=False,
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
