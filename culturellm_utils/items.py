"""What is asked: survey questions in words never trained on, classification sets, and a general ability.

>>> survey_items(seeds, texts, frozenset({"Q33"}), held_out_from=7)[0].item_id
'Q27-t07'
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from culturellm_utils import ability, prompts, survey, tasks, wordings
from culturellm_utils.records import Part, Seed, TrainRow
from culturellm_utils.wordings import Texts


@dataclass(frozen=True)
class Item:
    """One thing to ask: the user turn, the labels allowed, and what counts as right.

    ``question_id`` is the survey question, the task, or the set of an ability. A survey item also has the wording
    ``text`` and the scale ``options`` that its user turn was made of.
    """

    item_id: str
    part: Part
    culture: str
    question_id: str
    user: str
    labels: tuple[str, ...]
    gold: str
    gold_distribution: Mapping[str, float]
    text: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


def survey_items(seeds: Iterable[Seed], texts: Texts, left_out: frozenset[str], held_out_from: int) -> list[Item]:
    """Items of one culture: held-out wordings of the questions trained on, and held-out questions.

    The latter are asked in the seed's words and in the held-out wordings. Questions nobody was asked are no items.
    """
    grouped = wordings.by_question(texts.augmented)
    items = []
    for seed in {seed.question_id: seed for seed in texts.localised(seeds) if seed.distribution}.values():
        asked = wordings.held_out(grouped[seed.question_id], held_out_from)
        part: Part = "held_out_wording"
        if seed.question_id in left_out:
            part = "held_out_question"
            asked = [wordings.Wording(seed.question_id, seed.question_id, seed.question), *asked]
        items += [
            Item(w.wording_id, part, seed.culture, seed.question_id,
                 prompts.survey_prompt(w.text, seed.options, texts.book), tuple(seed.options),
                 survey.mode(seed.distribution), seed.distribution, w.text, seed.options)
            for w in asked
        ]
    return items


def never_trained(items: Iterable[Item], rows: Iterable[TrainRow]) -> list[Item]:
    """The items that no training row asks in the same words, whatever their case, punctuation and spacing.

    Needed where the wordings asked are those of another variant, which trained on others than this one.
    """
    seen = {wordings.plain(row.messages[1].content) for row in rows}
    return [item for item in items if wordings.plain(item.user) not in seen]


def templates_of(items: Iterable[Item]) -> list[Item]:
    """The held-out wordings that are templates: one structure each, so enough for a control."""
    return [item for item in items if item.part == "held_out_wording" and wordings.is_template(item.item_id)]


def one_each(items: Iterable[Item]) -> list[Item]:
    """The first item of each question."""
    return list({item.question_id: item for item in reversed(list(items))}.values())[::-1]


def country_items(items: Iterable[Item], seeds: Iterable[Seed]) -> list[Item]:
    """The same items, held against the answers of one country (its ``seeds``); those it did not ask are left out."""
    said = {seed.question_id: seed.distribution for seed in seeds if seed.distribution}
    return [replace(item, part="held_out_country", gold=survey.mode(said[item.question_id]),
                    gold_distribution=said[item.question_id])
            for item in items if item.question_id in said]


def set_items(found: tasks.TaskSet) -> list[Item]:
    """The usable rows of a labelled set."""
    return [Item(row.item_id, "task", row.culture, row.task, found.task.ask(row.text), found.task.words, row.label, {})
            for row in found.items]


def ability_items(culture: str, count: int, seed: int) -> list[Item]:
    """Arithmetic, the general ability that fine-tuning should leave alone."""
    return [
        Item(f"arithmetic-{n}", "ability", culture, "arithmetic", question, ability.ANSWERS, answer, {})
        for n, (question, answer) in enumerate(ability.items(count, seed))
    ]
