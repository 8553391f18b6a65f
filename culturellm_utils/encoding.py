"""Chats as tokens: what a model is trained on and scored on, and the batches of it.

An example is a tokenised chat; its last tokens are the assistant's, and mostly they alone carry loss::

    Example(tokens=[5, 17, ..., 212, 3], answer=2, shares={212: 0.61, 213: 0.39}, weight=1.0)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from culturellm_utils.errors import UserError
from culturellm_utils.records import Message

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """A tokenised chat: the last ``answer`` tokens are the assistant's, and alone carry loss unless ``whole``.

    ``shares`` maps option token ids to the share of respondents (sum 1) and replaces the first answer token as
    target; ``weight`` scales the row's loss; ``whole`` has every token but the first carry loss.
    """

    tokens: list[int]
    answer: int
    shares: dict[int, float] = field(default_factory=dict)
    weight: float = 1.0
    whole: bool = False

    @property
    def scored(self) -> int:
        """How many of the last tokens carry loss."""
        return len(self.tokens) - 1 if self.whole else self.answer


def encode(tokenizer: PreTrainedTokenizerBase, messages: list[Message], max_length: int) -> Example:
    """Tokenise one chat with the model's own template. Raises UserError when it is longer than ``max_length``."""
    (row,) = encode_answers(tokenizer, messages[:-1], [messages[-1].content])
    if len(row.tokens) > max_length:
        raise UserError(f"a training row has {len(row.tokens)} tokens, max_length is {max_length}: raise it")
    return row


def as_turns(tokenizer: PreTrainedTokenizerBase, chat: list[Message]) -> list[dict[str, str]]:
    """The turns of ``chat`` as ``apply_chat_template`` takes them.

    Where the model's template refuses a system turn (Gemma's raises an error) or leaves it out, it becomes the head
    of the user's turn.
    """
    turns = [message.model_dump() for message in chat]
    system, *rest = turns
    if system["role"] != "system":
        return turns
    try:
        if system["content"].strip() in tokenizer.apply_chat_template(turns, tokenize=False):
            return turns
    except TemplateError:
        pass
    return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def encode_answers(tokenizer: PreTrainedTokenizerBase, chat: list[Message], answers: Sequence[str]) -> list[Example]:
    """The same chat with each of several assistant turns; the prompt is rendered and tokenised once."""
    turns = as_turns(tokenizer, chat)
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": answers[0]}], tokenize=False)
    # Some templates change the prompt once it is answered: then the turn ends as the tokenizer ends a text.
    ending = whole[len(prompt) + len(answers[0]) :] if whole.startswith(prompt + answers[0]) else tokenizer.eos_token
    texts = [prompt, *(answer + ending for answer in answers)]
    head, *tails = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [Example(head + tail, len(tail)) for tail in tails]


def encode_distribution(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], distribution: dict[str, float], max_length: int
) -> list[Example]:
    """Examples that pull the model towards ``distribution`` over option codes.

    One example with soft shares when every option is a single token of its own; otherwise (a tokenizer that
    splits ``10``) one example per option, weighted by its share: together they have the same gradient at the option.
    """
    base = encode(tokenizer, messages, max_length)
    codes = [code for code, share in distribution.items() if share > 0]
    answered = dict(zip(codes, encode_answers(tokenizer, messages[:-1], codes), strict=True))
    first = {code: row.tokens[-row.answer] for code, row in answered.items()}
    rests = {tuple(row.tokens[len(row.tokens) - row.answer + 1 :]) for row in answered.values()}
    if len(set(first.values())) == len(first) and len(rests) == 1:
        return [Example(base.tokens, base.answer, {first[code]: distribution[code] for code in first})]
    return [Example(row.tokens, row.answer, weight=distribution[code]) for code, row in answered.items()]


def collate(rows: list[Example], pad: int) -> dict[str, torch.Tensor]:
    """Left-padded batch: answers of all rows end in the last column, so few logits are needed.

    ``answers`` says how many of a row's last tokens are the assistant's; ``labels`` are those that carry loss.
    """
    width = max(len(row.tokens) for row in rows)
    options = max(len(row.shares) for row in rows)
    batch = {
        "input_ids": torch.full((len(rows), width), pad),
        "attention_mask": torch.zeros((len(rows), width), dtype=torch.long),
        "labels": torch.full((len(rows), width), IGNORED),
        "answers": torch.tensor([row.answer for row in rows]),
        "option_ids": torch.zeros((len(rows), options), dtype=torch.long),
        "option_shares": torch.zeros((len(rows), options)),
        "weights": torch.tensor([row.weight for row in rows]),
    }
    for i, row in enumerate(rows):
        batch["input_ids"][i, width - len(row.tokens) :] = torch.tensor(row.tokens)
        batch["attention_mask"][i, width - len(row.tokens) :] = 1
        batch["labels"][i, width - row.scored :] = torch.tensor(row.tokens[len(row.tokens) - row.scored :])
        for j, (token, share) in enumerate(row.shares.items()):
            batch["option_ids"][i, j], batch["option_shares"][i, j] = token, share
    batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return batch
