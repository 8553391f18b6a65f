"""1,000 prompts of two labels: their likelihoods in batches, against writing 200 tokens to one prompt after another.

The plain way is that of the released evaluator: ``generate`` with a batch of one, and the label is looked for in what
was written. It writes all 200 tokens, as a model does that does not end its turn after a label.
"""

import math

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from benchmarks import measuring, subjects
from benchmarks.measuring import Result
from culturellm_utils import models, scoring, stand_in
from culturellm_utils.encoding import as_turns, encode_answers
from culturellm_utils.records import Message

PROMPTS = 1000
WRITTEN = 200
Asked = list[tuple[list[Message], tuple[str, str]]]


def ours(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, asked: Asked) -> list[dict[str, float]]:
    """The project's way, with 05's 64 prompts a pass."""
    return scoring.label_probabilities(model, tokenizer, *map(list, zip(*asked, strict=True)), batch_size=64)


@torch.inference_mode()
def plain(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, asked: Asked, written: int) -> list[str | None]:
    """The label that comes first in ``written`` tokens, None where none does."""
    found = []
    for chat, labels in asked:
        prompt = tokenizer.apply_chat_template(as_turns(tokenizer, chat), add_generation_prompt=True, tokenize=False)
        tokens = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)["input_ids"]
        made = model.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=GenerationConfig(
            do_sample=False, max_new_tokens=written, min_new_tokens=written, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id))
        reply = tokenizer.decode(made[0, tokens.shape[1] :], skip_special_tokens=True)
        places = {label: reply.find(label) for label in labels if label in reply}
        found.append(min(places, key=places.__getitem__, default=None))
    return found


@torch.inference_mode()
def one_by_one(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, asked: Asked) -> list[dict[str, float]]:
    """What :func:`ours` should find, by a pass of its own for each prompt and label: no batch, padding or cache."""
    found = []
    for chat, labels in asked:
        logs = []
        for row in encode_answers(tokenizer, chat, labels):
            log_p = model(torch.tensor([row.tokens], device=model.device)).logits[0].float().log_softmax(-1)
            places = range(len(row.tokens) - row.answer, len(row.tokens))
            logs.append(sum(log_p[place - 1, row.tokens[place]] for place in places))
        found.append(dict(zip(labels, torch.stack(logs).double().softmax(0).tolist(), strict=True)))
    return found


def check(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, asked: Asked, tolerance: float) -> None:
    """Raises AssertionError when the log-odds of two labels are not what single passes give. (Random weights find a
    reply of fewer tokens so much likelier that its probability rounds to 1.)"""
    for one, other in zip(ours(model, tokenizer, asked), one_by_one(model, tokenizer, asked), strict=True):
        odds, expected = (math.log(first / second) for first, second in (one.values(), other.values()))
        assert abs(odds - expected) < tolerance, (one, other)


def compared(name: str, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, asked: Asked, every: int, few: int,
             repeats: int, written: int = WRITTEN, tolerance: float = 1e-3) -> Result:
    """A line, scaled to all that is ``asked``: ours on each ``every``-th prompt, the plain way on ``few`` of them."""
    part, first = asked[::every], asked[:: len(asked) // few][:few]
    check(model, tokenizer, part[:: max(1, len(part) // 20)], tolerance)
    fast, slow = measuring.alternate(lambda: ours(model, tokenizer, part),
                                     lambda: plain(model, tokenizer, first, written), repeats=repeats)
    return Result(f"scoring: {len(asked):,} prompts of two labels, {name}", fast * len(asked) / len(part),
                  slow * len(asked) / few, wanted=50, repeats=repeats, note=f"{written} tokens each in the plain way; "
                  f"ours: {len(part)}, plain: {few} of {len(asked):,} prompts, scaled; "
                  f"{len(part) / fast:.3g} and {few / slow:.3g} prompts per second")


def measure() -> list[Result]:
    """On the stand-in, and on a hundred million random weights that read the stand-in's tokens."""
    models.quiet()
    folder = stand_in.folder("stand-in")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    toy = AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = subjects.posts(PROMPTS)
    return [compared("stand-in", toy, tokenizer, asked, every=1, few=10, repeats=5),
            compared("100 M weights", subjects.llama(subjects.HUNDRED_MILLION, tokenizer), tokenizer, asked, every=4,
                     few=2, repeats=3)]
