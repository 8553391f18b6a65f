"""General abilities beyond arithmetic, by lm-evaluation-harness (an optional extra): BIG-Bench Hard and GSM8K.

The paper says that 21 tasks of BIG-Bench Hard, 100 items of each, and GSM8K showed no forgetting, and does not name the
21. Here they are its 23 tasks (the two that come in three sizes with five objects) without the two whose answers are
free strings, dyck_languages and word_sorting.

- **Variant**: ``bbh_fewshot``, three answered examples and the answer alone (arXiv 2210.09261's "answer only"). The
  examples show the form of an answer, so a model trained to answer with a digit is tested for what it knows rather than
  for the form; and a reply takes 32 tokens instead of the 1,024 of a chain of thought. ``gsm8k``: five worked examples,
  the last number of the reply counts.
- **Chat template**: applied, with the examples as turns. An adapter is trained inside it; without it the adapter would
  be tested where it was never meant to act.

A row::

    {"item_id": "bbh_fewshot_navigate-17", "task": "bbh_fewshot_navigate", "messages": [...], "reply": " Yes",
     "label": "Yes", "gold": "No"}
"""

import contextlib
import hashlib
import io
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from culturellm_utils import encoding, paths, records
from culturellm_utils.errors import UserError
from culturellm_utils.records import Message, Prediction, Row

INVALID = "[invalid]"  # what the harness's own filters say of a reply without an answer


@dataclass(frozen=True)
class HarnessTask:
    """Where a task is described (a YAML file, below the harness's own tasks unless absolute), which of its answer
    filters counts, and how many tokens a reply may take."""

    path: str
    filter: str
    reply_tokens: int


_BBH = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "formal_fallacies",
    "geometric_shapes", "hyperbaton", "logical_deduction_five_objects", "movie_recommendation",
    "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table",
    "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects", "web_of_lies",
)
TASKS: dict[str, HarnessTask] = {
    **{f"bbh_fewshot_{name}": HarnessTask(f"bbh/fewshot/{name}.yaml", "none", 32) for name in _BBH},
    "gsm8k": HarnessTask("gsm8k/gsm8k.yaml", "flexible-extract", 256),
}


class HarnessRow(Row):
    """One item of one task and what a model replied. ``label`` is the answer read from the reply (None: none found); it
    equals ``gold`` exactly where the harness's own metric, exact match, is 1."""

    item_id: str
    task: str
    messages: list[Message]
    reply: str
    label: str | None
    gold: str


def run(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    items: int,
    seed: int,
    *,
    adapter: bool,
    system_prompt: str,
    batch_size: int,
    tasks: Mapping[str, HarnessTask] = TASKS,
    show: Callable[[str], None] = print,
) -> list[HarnessRow]:
    """What a (peft) model replies, greedily, to ``items`` items of each task, drawn with ``seed``: the same items and
    examples whoever answers. Without ``adapter`` a peft model's adapter is switched off.

    ``name`` tells models apart (base model, adapter's digest, precision): the rows of each task are kept under it in
    the cache, so that a second run asks only what is missing. Raises UserError when the extra is not installed, the
    data of a task cannot be had, or a prompt is longer than the model reads.
    """
    if not items:  # and then the extra need not be there; the harness would take none for all
        return []
    version = _version()
    rows: list[HarnessRow] = []
    for number, (task, how) in enumerate(tasks.items(), start=1):
        key = json.dumps([name, adapter, version, task, how.path, items, seed, system_prompt, how.reply_tokens])
        path = paths.cache() / "harness" / f"{hashlib.sha256(key.encode()).hexdigest()}.jsonl"
        found = _kept(path)
        if not found:
            with nullcontext() if adapter else model.disable_adapter():
                found = _ask(model, tokenizer, task, how, items, seed, system_prompt, batch_size)
            records.write_rows(path, found)
        right = sum(row.label == row.gold for row in found)
        show(f"{number}/{len(tasks)} {task}: {right} of {len(found)} right")
        rows += found
    return rows


def predictions(rows: list[HarnessRow], culture: str, system: str) -> list[Prediction]:
    """Rows as they stand in ``predictions.jsonl``; a free reply has no probabilities."""
    return [
        Prediction(item_id=row.item_id, part="ability", culture=culture, system=system, question_id=row.task,
                   messages=row.messages, probabilities={}, reply=row.reply, label=row.label, gold=row.gold)
        for row in rows
    ]


def _version() -> str:
    try:
        return metadata.version("lm_eval")
    except metadata.PackageNotFoundError:
        raise UserError('harness_items needs lm-evaluation-harness: pip install -e ".[harness]", or set '
                        "harness_items to 0") from None


def _kept(path: Path) -> list[HarnessRow]:
    """The rows of an earlier run; none when there was none or its file is broken."""
    try:
        return records.read_rows(path, HarnessRow)
    except UserError:
        return []


def _ask(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, name: str, how: HarnessTask, items: int,
         seed: int, system_prompt: str, batch_size: int) -> list[HarnessRow]:
    from lm_eval import evaluate  # seconds to import, and an extra
    from lm_eval.models.huggingface import HFLM

    with _quiet():
        task = _load(name, how)
        # The special tokens are the template's own, as in training.
        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, add_bos_token=False)
        room = lm.max_length - how.reply_tokens
        turns: dict[str, list[Message]] = {}
        render = lm.apply_chat_template

        def rendered(history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            chat = [Message(**turn) for turn in history]
            prompt = render(encoding.as_turns(tokenizer, chat), add_generation_prompt=add_generation_prompt)
            if len(lm.tok_encode(prompt)) > room:  # the harness would cut its beginning away
                raise UserError(f"a prompt of the harness task {name} is longer than the {room} tokens that the base "
                                "model can read: set harness_items to 0 for this model")
            turns[prompt] = chat
            return prompt

        lm.apply_chat_template = rendered
        task.set_config(key="generation_kwargs", value={"max_gen_toks": how.reply_tokens}, update=True)
        task.set_fewshot_seed(seed=seed)
        count = len(task.eval_docs)
        # In ascending order: the harness numbers what it was asked for in the order of the data.
        drawn = sorted(random.Random(seed).sample(range(count), min(items, count)))
        found = evaluate(lm, {"tasks": {name: task}}, samples={name: drawn}, bootstrap_iters=0,
                         system_instruction=system_prompt, apply_chat_template=True, fewshot_as_multiturn=True)
    return [_row(name, sample, turns) for sample in found["samples"][name] if sample["filter"] == how.filter]


def _load(name: str, how: HarnessTask) -> Any:
    """The task with its data, which the harness takes from the hub, or from the hub's cache on this machine."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    path = Path(lm_eval.__file__).parent / "tasks" / how.path
    if not path.is_file():
        raise UserError(f"lm-evaluation-harness {_version()} has no task {name}: install a version that has it, "
                        "as constraints.txt says")
    try:
        # By path: the harness takes ten seconds to look through its 15,000 tasks for a name.
        return TaskManager(include_defaults=False).load([str(path)])["tasks"][name]
    except (OSError, ValueError) as error:
        raise UserError(f"the data of the harness task {name} cannot be loaded ({_first_line(error)}): run once with "
                        "access to the Hugging Face hub, which keeps a copy on this machine, or set harness_items to "
                        "0") from None


def _row(name: str, sample: dict[str, Any], turns: dict[str, list[Message]]) -> HarnessRow:
    gold = str(sample["target"]).split("####")[-1].strip()  # GSM8K writes the solution before the number
    answer = sample["filtered_resps"][0].strip()
    label = gold if sample["exact_match"] == 1 else answer
    return HarnessRow(item_id=f"{name}-{sample['doc_id']}", task=name, messages=turns[sample["arguments"][0][0]],
                      reply=sample["resps"][0][0], label=None if label in ("", INVALID) else label, gold=gold)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """None of the harness's bars and advice on the page."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
