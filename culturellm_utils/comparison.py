"""Augmenters compared on the same questions, the same filter and equal numbers of accepted texts.

    python -m culturellm_utils.comparison                                    # recorded replies, English
    python -m culturellm_utils.comparison -p chat_backend openai -p chat_model gpt-4o -p price_input 2.5

A row: what an augmenter asked (for `paper` as often as the released procedure sends it), which shares of its texts are
similar enough, damaged or changed, how many are accepted at what cost, and how varied an equal draw of those is.
"""

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from culturellm_utils import augmenters, client, encoder, filtering, paper, parameters, records, studies, survey
from culturellm_utils.augmentation import Writer
from culturellm_utils.errors import UserError, command_line
from culturellm_utils.parameters import Augmentation
from culturellm_utils.records import Augmented, Question

#: Texts asked for per question: what the recordings of each augmenter cover.
REQUESTED = {"two_stage": 12, "paraphrase": 12, "free": 8, "round_trip": 4, "eda": 12, "paper": 5}
#: The filter of the default study.
NEAR_DUPLICATE, SAMPLES_PER_TEMPLATE = 0.995, 2
COLUMNS = ("augmenter", "requests", "tokens", "money", "texts", "similar", "damaged", "changed", "accepted",
           "requests_per_accepted", "tokens_per_accepted", "money_per_accepted", "drawn", "diversity_gain")


def compare(knobs: Augmentation, questions: Sequence[Question], guard: filtering.Judge,
            per_question: int) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """A row an augmenter (see :data:`COLUMNS`; shares in 0..1, money in US dollars; what an augmenter without texts
    lacks is missing), and the texts drawn from each: up to ``per_question`` accepted ones of every question, the same
    number for all augmenters. Texts are samples where an augmenter makes any, else all that it makes."""
    if knobs.language != "english":
        raise UserError("augmenters are compared in English: leave language at english")
    model = encoder.load(knobs.encoder)
    seeds = {question.question_id: question.question for question in questions}
    rows, accepted = [], {}
    for name, count in REQUESTED.items():
        own = knobs.model_copy(update={"augmenter": name, "templates_requested": count})
        writer = Writer(client.connect(own))
        made = augmenters.augment(augmenters.Job(writer, list(questions), own))
        spent = paper.requests_sent(made, writer.replies) if name == "paper" else writer.client.budget.spent
        money = writer.client.budget.prices.money(spent)
        last = max((row.stage for row in made), default=1)
        pairs = [(seeds[row.question_id], row.text) for row in made if row.stage == last]
        kept, _ = filtering.filter_candidates(made, questions, model, tau=knobs.tau, near_duplicate=NEAR_DUPLICATE,
                                              guard=guard, samples_per_template=SAMPLES_PER_TEMPLATE)
        accepted[name] = [row for row in kept if row.stage == last]
        good = len(accepted[name]) or np.nan
        rows.append((name, spent.requests, spent.tokens, money, len(pairs), *_shares(pairs, model, guard, knobs.tau),
                     len(accepted[name]), spent.requests / good, spent.tokens / good, money / good))
    drawn = _equal(accepted, per_question, knobs.random_seed)
    base = model.encode(seeds.values())
    table = pd.DataFrame(rows, columns=COLUMNS[:-2])
    table["drawn"] = [len(drawn[name]) for name in table["augmenter"]]
    table["diversity_gain"] = [filtering.diversity_gain(model.encode(drawn[name]), base) if drawn[name] else np.nan
                               for name in table["augmenter"]]
    return table, drawn


def _shares(pairs: Sequence[tuple[str, str]], model: encoder.Encoder, guard: filtering.Judge,
            tau: float) -> tuple[float, float, float]:
    """Which shares of (seed, text) are similar enough, damaged, changed."""
    if not pairs:
        return np.nan, np.nan, np.nan
    cosines = (model.encode(seed for seed, _ in pairs) * model.encode(text for _, text in pairs)).sum(1)
    verdicts = [reason.partition(":")[0] for reason in guard.judge(pairs)]
    return (float((cosines > tau).mean()), verdicts.count("damage") / len(pairs),
            verdicts.count("polarity") / len(pairs))


def _equal(accepted: dict[str, list[Augmented]], per_question: int, seed: int) -> dict[str, list[str]]:
    """An equal draw: of each question as many as the poorest augmenter has, up to ``per_question``."""
    by: dict[str, dict[str, list[str]]] = {name: defaultdict(list) for name in accepted}
    for name, rows in accepted.items():
        for row in rows:
            by[name][row.question_id].append(row.text)
    drawn: dict[str, list[str]] = {name: [] for name in accepted}
    for question in sorted({q for texts in by.values() for q in texts}):
        count = min(per_question, *(len(texts[question]) for texts in by.values()))
        for name, texts in by.items():
            drawn[name] += random.Random(f"{seed}:{name}:{question}").sample(texts[question], count)
    return drawn


def _value(name: str, text: str) -> object:
    """What is written on the command line, read as papermill reads it."""
    try:
        return studies.parse_yaml(text, name)
    except UserError:
        raise UserError(f"-p {name} '{text}' is no value: put texts with signs into quotes") from None


@command_line
def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m culturellm_utils.comparison", description="Compare augmenters.")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="a parameter of 02_augmentation")
    parser.add_argument("--per-question", type=int, default=2, help="accepted texts drawn per question")
    parser.add_argument("--perplexity-model", default="", help="add the perplexity under this model")
    parser.add_argument("--output", type=Path, help="write the table to this CSV file")
    arguments = parser.parse_args()
    values = studies.defaults("02_augmentation") | {name: _value(name, text) for name, text in arguments.p}
    knobs = parameters.validate(Augmentation, values)
    table, drawn = compare(knobs, survey.questions(knobs.questions_path), filtering.Guards(True),
                           arguments.per_question)
    if arguments.perplexity_model:
        from culturellm_utils import models, scoring

        reader = models.load(arguments.perplexity_model)
        table["perplexity"] = [scoring.perplexity(*reader, drawn[name]) if drawn[name] else np.nan
                               for name in table["augmenter"]]
    if arguments.output:
        records.write_table(arguments.output, table, "%.4f")
    print(table.to_string(index=False, float_format="%.3f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
