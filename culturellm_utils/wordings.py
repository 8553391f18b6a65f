"""What is trained on and what is held out: questions, and wordings of the questions that are trained on.

Wordings whose template number is at least ``held_out_from`` are never trained on, whatever the filter kept of
them; questions drawn by ``held_out_questions`` are never trained on in any wording. One row of training data::

    {"messages": [{"role": "system", "content": "You are a Korean chatbot ..."}, {"role": "user", ...}, ...]}
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from culturellm_utils import prompts
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Worded
from culturellm_utils.prompts import ENGLISH, Phrasebook
from culturellm_utils.records import (
    Augmented,
    Candidate,
    Message,
    Question,
    Seed,
    TargetRow,
    TrainRow,
    Translation,
    read_rows,
)

Stages = Literal["seeds", "templates", "samples"]
Rows = list[tuple[TrainRow, TargetRow]]
C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True)
class Wording:
    """A question as one text asks it; ``wording_id`` is the question's id for the seed itself."""

    wording_id: str
    question_id: str
    text: str


@dataclass(frozen=True)
class Texts:
    """How a culture is asked: the questions and the accepted candidates in the language of ``book``."""

    questions: list[Question]
    augmented: list[Augmented]
    book: Phrasebook

    def localised(self, seeds: Iterable[Seed]) -> list[Seed]:
        """Seeds with their questions in this language; those without a translation are left out. English ones stay."""
        if self.book == ENGLISH:
            return list(seeds)
        asked = {question.question_id: question.question for question in self.questions}
        return [seed.model_copy(update={"question": asked[seed.question_id]}) for seed in seeds
                if seed.question_id in asked]


def texts(knobs: Worded, culture: str, questions: Sequence[Question]) -> Texts:
    """What 02 and 03 left for a culture: in English for all, or with ``language: local`` in its own language."""
    folder = knobs.model_copy(update={"culture": culture}).place
    augmented = read_rows(knobs.folder(folder) / "augmented.jsonl", Augmented)
    if knobs.language == "english":
        return Texts(list(questions), augmented, ENGLISH)
    rows = read_rows(knobs.folder(folder) / "translations.jsonl", Translation)
    return Texts(in_language(questions, rows), augmented, phrasebook("local", rows))


def phrasebook(language: str, rows: Sequence[Translation]) -> Phrasebook:
    """The phrasebook of the usable translations."""
    return Phrasebook(language, {row.english: row.text for row in rows if not row.reason})


def in_language(questions: Sequence[Question], rows: Sequence[Translation]) -> list[Question]:
    """The questions that have a usable translation, worded in it; their options stay English (the phrasebook has
    them)."""
    worded = {row.name: row for row in rows if row.kind == "question" and not row.reason}
    return [q.model_copy(update={"question": worded[q.question_id].text, "protected": worded[q.question_id].protected})
            for q in questions if q.question_id in worded]


def held_out_questions(questions: Sequence[Question], count: int, seed: int) -> frozenset[str]:
    """Ids of ``count`` questions, the same for every culture, spread over the topics by their size."""
    by_topic = defaultdict(list)
    for question in questions:
        by_topic[question.topic].append(question.question_id)
    chance = random.Random(seed)
    ranked = []
    for ids in by_topic.values():
        # The i-th of a topic's n questions stands at (i + 1/2) / n, so that each prefix is spread over the topics.
        ranked += [((i + 0.5) / len(ids), chance.random(), name) for i, name in enumerate(chance.sample(ids, len(ids)))]
    return frozenset(name for *_, name in sorted(ranked)[:count])


def plain(text: str) -> str:
    """A text without case, punctuation and spacing, to tell whether two say the same words."""
    return " ".join("".join(sign if sign.isalnum() else " " for sign in text.casefold()).split())


def number(template_id: str) -> int:
    """The number of a template: 3 for ``Q27-t03``."""
    try:
        return int(template_id.rpartition("-t")[2])
    except ValueError:
        raise UserError(f"template id '{template_id}' has no number: rerun 02_augmentation") from None


def is_template(wording_id: str) -> bool:
    """Whether a wording is a template, such as ``Q27-t03``, and neither seed nor sample."""
    return "-t" in wording_id and "-s" not in wording_id


def trained(question: Question | Seed, augmented: Iterable[Augmented], stages: Stages, templates_per_seed: int,
            held_out_from: int) -> list[Wording]:
    """The wordings of one question to train on: the seed; with ``templates`` its first accepted templates; with
    ``samples`` the samples of those templates (the paper's 50 + 500)."""
    rows = [row for row in augmented if number(row.template_id) < held_out_from]
    kept = [row.template_id for row in rows if row.stage == 1][:templates_per_seed]
    wordings = [Wording(question.question_id, question.question_id, question.question)]
    stage = {"seeds": 0, "templates": 1, "samples": 2}[stages]
    wordings += [Wording(r.candidate_id, r.question_id, r.text) for r in rows
                 if r.stage == stage and r.template_id in kept]
    return wordings


def products(rows: Sequence[C]) -> list[C]:
    """What an augmenter is for: its samples, or, where it makes none, its only texts."""
    return [row for row in rows if row.stage == 2] or list(rows)


def held_out(augmented: Iterable[Augmented], held_out_from: int) -> list[Wording]:
    """The accepted wordings, templates and samples, that no training may see."""
    return [Wording(r.candidate_id, r.question_id, r.text) for r in augmented if number(r.template_id) >= held_out_from]


def by_question(augmented: Iterable[Augmented]) -> dict[str, list[Augmented]]:
    """Accepted candidates by question, in their order."""
    grouped: dict[str, list[Augmented]] = defaultdict(list)
    for row in augmented:
        grouped[row.question_id].append(row)
    return grouped


def but_last_country(seeds: Sequence[Seed]) -> list[Seed]:
    """Of ``country_seeds.jsonl`` what is trained on when the last country is held out."""
    return [seed for seed in seeds if seed.countries != seeds[-1].countries]


def of_last_country(seeds: Sequence[Seed]) -> list[Seed]:
    """Of ``country_seeds.jsonl`` the answers of the last country alone."""
    return [seed for seed in seeds if seed.countries == seeds[-1].countries]


def ask(seed: Seed, wording: Wording, system: str, book: Phrasebook = ENGLISH) -> list[Message]:
    """System and user turn that ask ``wording`` with the seed's scale."""
    return prompts.chat(system, prompts.survey_prompt(wording.text, seed.options, book))


def training_rows(seeds: Iterable[Seed], texts: Texts, prompt_name: str, left_out: frozenset[str],
                  stages: Stages, templates_per_seed: int, held_out_from: int) -> Rows:
    """Training rows of one culture, each with the answer distribution that belongs to it."""
    if stages == "samples" and not any(row.stage == 2 for row in texts.augmented):
        raise UserError("augmented.jsonl has no samples, only templates: set stages to templates (augmenters other "
                        "than two_stage and paper make no samples)")
    system = texts.book.text(prompts.culture_system(prompt_name))
    grouped = by_question(texts.augmented)
    rows = []
    for seed in texts.localised(seeds):
        if seed.question_id in left_out:
            continue
        for wording in trained(seed, grouped[seed.question_id], stages, templates_per_seed, held_out_from):
            answered = [*ask(seed, wording, system, texts.book), Message(role="assistant", content=seed.label)]
            rows.append((TrainRow(messages=answered),
                         TargetRow(question_id=seed.question_id, wording_id=wording.wording_id,
                                   distribution=seed.distribution)))
    return rows


def drawn(rows: Rows, count: int, seed: int) -> Rows:
    """Of one culture's training rows those of its seeds and of ``count`` generated texts (-1: all; 0: none), in their
    order. The texts are drawn evenly over the questions, and a smaller draw is part of a larger one."""
    if count < 0:
        return rows
    by_question: dict[str, list[str]] = defaultdict(list)
    for wording_id, question_id in {aim.wording_id: aim.question_id for _, aim in rows}.items():
        if wording_id != question_id:
            by_question[question_id].append(wording_id)
    ranked = []
    for question_id, ids in by_question.items():
        chance = random.Random(f"{seed}:{question_id}")
        ranked += [(place, chance.random(), name) for place, name in enumerate(chance.sample(ids, len(ids)))]
    chosen = {name for *_, name in sorted(ranked)[:count]}
    return [row for row in rows if row[1].wording_id == row[1].question_id or row[1].wording_id in chosen]
