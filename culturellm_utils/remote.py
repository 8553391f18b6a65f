"""Fine-tuning on a server that speaks OpenAI's fine-tuning API: knobs and rows checked, cost shown, model recorded.

What lies in ``model/`` is then no adapter but ``remote.json``::

    {"model": "ft:gpt-4o-mini:org:culturellm-korean:9xY", "job": "ftjob-abc", "base_model": "gpt-4o-mini",
     "base_url": ""}
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from culturellm_utils import paths, protocol, provenance, records, remote_job
from culturellm_utils.client import Show
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import STAND_INS, FineTuning
from culturellm_utils.records import TargetRow, TrainRow
from culturellm_utils.usage import estimated_tokens

#: What the API takes: rows at least, bytes of a file, epochs.
FEWEST_ROWS, LARGEST_FILE, MOST_EPOCHS = 10, 512_000_000, 50
#: Tokens that a chat format adds to a message: about, and at most.
AROUND, MOST_AROUND = 4, 8


class Model(records.Row):
    """``model/remote.json``: the fine-tuned model, its job, what it was trained from, and the server ("": OpenAI)."""

    model: str
    job: str
    base_model: str
    base_url: str


@dataclass(frozen=True)
class Cost:
    """What training costs: ``tokens`` billed in all epochs as estimated, ``most`` at most, and US dollars at ``price``
    per million (0: unknown)."""

    rows: int
    epochs: int
    tokens: int
    most: int
    price: float

    @property
    def money(self) -> float:
        return self.tokens * self.price / 1e6

    @property
    def most_money(self) -> float:
        return self.most * self.price / 1e6

    def sentence(self) -> str:
        """The cost as a line to read before anything is sent."""
        money = (f"${self.money:.2f}, at most ${self.most_money:.2f}" if self.price
                 else "set price_training to see the cost")
        return f"{self.rows:,} rows in {self.epochs} epochs: about {self.tokens:,} training tokens ({money})"


def estimate(rows: Sequence[TrainRow], epochs: int, price: float) -> Cost:
    """What training on ``rows`` costs at ``price`` US dollars per million tokens. Tokens are estimated from bytes,
    which fits English within a fifth; the most is a token for each byte, and no tokenizer makes more."""
    said = [message.content for row in rows for message in row.messages]
    return Cost(rows=len(rows), epochs=epochs, price=price,
                tokens=epochs * sum(estimated_tokens(text) + AROUND for text in said),
                most=epochs * sum(len(text.encode()) + MOST_AROUND for text in said))


def passes(knobs: FineTuning, rows: int) -> int:
    """Epochs that a server is asked for: what the knobs say, or those whose rows come nearest to ``training_budget``,
    at least one."""
    return max(1, round(knobs.training_budget / rows)) if knobs.training_budget and rows else knobs.epochs


def check_rows(rows: Sequence[TrainRow], max_length: int, where: str = "train.jsonl") -> None:
    """Refuse, with the line, what the server would refuse after the upload. Raises UserError for fewer than ten rows,
    other roles than system, user and assistant in this order, an empty message, a row of over ``max_length`` tokens as
    estimated, and a file of over 512 MB."""
    if len(rows) < FEWEST_ROWS:
        raise UserError(f"{where} has {len(rows)} rows, and a fine-tuning job takes {FEWEST_ROWS} or more: check "
                        "stages, held_out_questions and augmented.jsonl")
    for line, row in enumerate(rows, start=1):
        roles = [message.role for message in row.messages]
        if roles != ["system", "user", "assistant"]:
            raise UserError(f"{where} line {line}: the roles are {', '.join(roles)}: write system, user, assistant")
        for message in row.messages:
            if not message.content.strip():
                raise UserError(f"{where} line {line}: the {message.role} message is empty: fill it, or leave the row "
                                "out")
        tokens = sum(estimated_tokens(message.content) + AROUND for message in row.messages)
        if tokens > max_length:
            raise UserError(f"{where} line {line} has about {tokens} tokens, more than max_length {max_length}: raise "
                            "it if base_model takes longer rows, or shorten the question")
    size = sum(len(row.model_dump_json().encode()) + 1 for row in rows)
    if size > LARGEST_FILE:
        raise UserError(f"{where} has {size:,} bytes, and a fine-tuning job takes {LARGEST_FILE:,}: lower "
                        "templates_per_seed")


def tune(knobs: FineTuning, folder: Path, title: str, rows: Sequence[tuple[TrainRow, TargetRow]],
         show: Show = print) -> dict[str, Any]:
    """Train ``knobs.base_model`` on the server at ``knobs.model_url``, and return what ``job.run`` does.

    Writes train.jsonl, targets.jsonl, training_log.json and model/ (``remote.json``, card) to ``folder``. The cost is
    shown before anything is sent, and ``budget_money`` holds for each job. A rerun follows the job that an earlier run
    started. The epochs (:func:`passes`) and ``random_seed`` are sent; batch size and learning rate are the server's
    choice, and the loss counts on the answer alone. What the server does not tell (weights, learning rate) is None in
    the result.

    Raises UserError when the knobs ask for what no server does, the rows or the budget do not fit, the server refuses
    or stays unreachable, or the job fails, is cancelled or is paused.
    """
    knobs = knobs.model_copy(update={"epochs": passes(knobs, len(rows))})
    _check_knobs(knobs)
    train = records.write_rows(folder / "train.jsonl", [row for row, _ in rows])
    records.write_rows(folder / "targets.jsonl", [aim for _, aim in rows])
    check_rows([row for row, _ in rows], knobs.max_length, paths.shown(train))
    cost = estimate([row for row, _ in rows], knobs.epochs, knobs.price_training)
    show(cost.sentence())
    show("the server chooses batch size, learning rate and adapter; the loss counts on the answer alone")
    result = _result(knobs, cost, remote_job.run(knobs, train, title, lambda: _afford(knobs, cost), show))
    records.write_json(folder / "training_log.json", result)
    _save(folder / "model", Model(model=result["model"], job=result["job"], base_model=knobs.base_model,
                                  base_url=knobs.model_url), title, result)
    return result


def load(folder: Path) -> Model:
    """The remote model in a culture's ``folder``. Raises UserError when there is none."""
    path = folder / "model" / "remote.json"
    try:
        return Model.model_validate(records.read_json(path))
    except ValidationError:
        raise UserError(f"{paths.shown(path)} names no remote model: remove it and rerun 04_fine_tuning") from None


def _check_knobs(knobs: FineTuning) -> None:
    if knobs.base_model in STAND_INS:
        raise UserError(f"base_model '{knobs.base_model}' is trained here alone: set model_backend to local, or "
                        "base_model to a model that the server fine-tunes")
    if knobs.target == "distribution":
        raise UserError("target 'distribution' needs model_backend local, as a server learns one answer per row: set "
                        "target to label")
    if knobs.epochs > MOST_EPOCHS:
        raise UserError(f"epochs is {knobs.epochs}, and a fine-tuning job takes 1 to {MOST_EPOCHS}")
    if knobs.model_url and not protocol.is_address(knobs.model_url):
        raise UserError(f"model_url '{knobs.model_url}' is not a web address: write one such as "
                        "https://api.openai.com/v1")
    if not knobs.model_url and not os.environ.get("OPENAI_API_KEY"):
        raise UserError("model_backend openai needs the environment variable OPENAI_API_KEY, or a model_url of a "
                        "server that asks for no key")
    if not re.fullmatch(r"[!-~]+", protocol.api_key()):
        raise UserError("OPENAI_API_KEY holds a space, a line break or a sign that no key has: set it again")
    if knobs.budget_money and not knobs.price_training:
        raise UserError("budget_money needs price_training (US dollars per million training tokens), or nothing could "
                        "be counted against it")


def _afford(knobs: FineTuning, cost: Cost) -> None:
    if knobs.budget_money and cost.most_money > knobs.budget_money + 1e-12:
        raise UserError(f"budget_money ${knobs.budget_money:.2f} is too small for this job: {cost.sentence()}; no job "
                        "was started, so raise it, or lower epochs or templates_per_seed, and rerun")


def _result(knobs: FineTuning, cost: Cost, done: remote_job.Done) -> dict[str, Any]:
    """The training log: as ``job.run`` writes it, with the model, the money and what the server chose."""
    job = done.job
    # The server's clock alone: this machine's may be another.
    ended = job.finished_at or max((event.created_at for event in done.events), default=job.created_at)
    seconds = max(1.0, ended - job.created_at)
    tokens = job.trained_tokens or cost.tokens
    chosen = ((job.method and job.method.supervised) or job).hyperparameters
    return {"seconds": round(seconds, 1), "rows": cost.rows, "tokens": tokens,
            "tokens_per_second": round(tokens / seconds), "trained_weights": None, "weights": None,
            "precision": None, "processes": None, "resumed_from": 0,
            "log": remote_job.losses(done.events, knobs.epochs), "model": job.fine_tuned_model, "job": job.id,
            "money": tokens * knobs.price_training / 1e6 if knobs.price_training else None,
            "hyperparameters": chosen.model_dump() if chosen else {}, "checkpoints": done.checkpoints,
            **provenance.record(knobs)}


def _save(folder: Path, model: Model, title: str, result: dict[str, Any]) -> None:
    """Write the card and ``remote.json`` to an emptied folder; with the latter the model is there."""
    shutil.rmtree(folder, ignore_errors=True)
    address = model.base_url and f'base_url="{model.base_url}"'
    chosen = "\n".join(f"| {name} | {value} |" for name, value in result["hyperparameters"].items())
    records.write_text(folder / "README.md", f"""---
tags: [culturellm]
---
# {title}

{model.base_model} fine-tuned at {model.base_url or "api.openai.com"} on {result["rows"]} rows of World Values Survey
questions, each answered as the people of the culture answered (CultureLLM, arXiv 2402.10946). It moves answers to
value questions; it makes no model an authority on a culture, and no person's answer is that of their culture. The
weights stay on the server: a key of the account that trained it can ask it.

```python
import openai
openai.OpenAI({address}).chat.completions.create(model="{model.model}", messages=[...])
```

| parameter | value |
|---|---|
| job | {model.job} |
| training tokens | {result["tokens"]} |
{chosen}
""")
    records.write_json(folder / "remote.json", model.model_dump())
