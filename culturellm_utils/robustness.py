"""Whether answers hold when a survey item is asked differently: the scale turned round, other prompt formats.

A model that has learned a digit and not what the digit means gives itself away on a scale turned round::

    held_out_wording  "... Options: 1. Agree 2. Disagree ..."   people: {"1": 0.8, "2": 0.2}
    option_order      "... Options: 1. Disagree 2. Agree ..."   people: {"1": 0.2, "2": 0.8}

What counts as right is given in the codes as they are shown, so that these items are scored like any other; only who
compares a reply with the one to the original item, or has a distribution in the codes of the survey, needs
:func:`mirrored`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

from culturellm_utils import prompts
from culturellm_utils.alignment import bootstrap, js_similarity
from culturellm_utils.items import Item
from culturellm_utils.prompts import ENGLISH, Phrasebook
from culturellm_utils.records import Prediction

PARTS = ("option_order", "other_prompt")
V = TypeVar("V")


def mirrored(by_code: Mapping[str, V]) -> dict[str, V]:
    """The values of a scale's codes the other way round: ``{"1": "a", "2": "b"}`` as ``{"1": "b", "2": "a"}``. Twice is
    the original."""
    return dict(zip(by_code, reversed(by_code.values()), strict=True))


def option_order(items: Iterable[Item], book: Phrasebook = ENGLISH) -> list[Item]:
    """The survey items, under their ids, with their scales turned round: codes stay in place, option texts change
    places, and so do people's answers. ``book`` holds the options' texts. Items without options are left out."""
    return [
        replace(item, part="option_order", options=(options := mirrored(item.options)),
                user=prompts.survey_prompt(item.text, options, book),
                gold=_opposite(item.gold, item.labels),
                gold_distribution=mirrored(item.gold_distribution))
        for item in items if item.options
    ]


def other_prompts(items: Iterable[Item], book: Phrasebook = ENGLISH) -> list[Item]:
    """The survey items once in each format of :func:`prompts.other_survey_prompts`; ``Q39-t08`` in the format ``list``
    has the id ``Q39-t08/list``. Items without options are left out."""
    return [
        replace(item, part="other_prompt", item_id=f"{item.item_id}/{name}", user=user)
        for item in items if item.options
        for name, user in prompts.other_survey_prompts(item.text, item.options, book).items()
    ]


def original(item_id: str) -> str:
    """The id of the item that was asked differently: ``Q39-t08`` for ``Q39-t08/list``."""
    return item_id.partition("/")[0]


def stability(predictions: Sequence[Prediction], samples: int, seed: int) -> list[dict]:
    """How far a system's answers to items asked differently are its answers to the same items as they are.

    A row per part, format (``reversed`` or a prompt's name), culture, system and metric, with value, 95% interval over
    questions, n and clusters: ``same_answer`` (share of items whose answer means the same; a reply that cannot be
    parsed is never the same), ``js_similarity`` (between the distributions over meanings) and, with the scale
    turned round, ``same_code`` (share answered by the same digit, which now means the opposite; items first answered by
    the middle of their scale tell nothing and are left out). ``predictions`` hold both kinds of items.
    """
    turned = [row for row in predictions if row.part in PARTS]
    wanted = {(row.culture, row.system, original(row.item_id)) for row in turned}
    plain = {key: p for p in predictions
             if p.part.startswith("held_out") and (key := (p.culture, p.system, p.item_id)) in wanted}
    groups: dict[tuple[str, ...], list[tuple[Prediction, Prediction]]] = defaultdict(list)
    for row in turned:
        before = plain.get((row.culture, row.system, original(row.item_id)))
        if before:
            form = "reversed" if row.part == "option_order" else row.item_id.partition("/")[2]
            groups[row.part, form, row.culture, row.system].append((before, row))
    rows = []
    for (part, form, culture, system), pairs in groups.items():
        measures: dict[str, Callable[[Prediction, Prediction], float]] = {
            "same_answer": _same_answer, "js_similarity": _similarity}
        if part == "option_order":
            measures["same_code"] = _same_code
        for metric, measure in measures.items():
            kept = [(a, b) for a, b in pairs if metric != "same_code" or _turns(a)]
            if kept:
                found = bootstrap([measure(a, b) for a, b in kept], [a.question_id for a, _ in kept], samples, seed)
                rows.append({"part": part, "format": form, "culture": culture, "system": system, "metric": metric,
                             **asdict(found)})
    return rows


def _opposite(label: str, labels: Iterable[str]) -> str:
    """The code that has a code's place when the scale is turned round."""
    return mirrored({code: code for code in labels})[label]


def _meant(row: Prediction) -> dict[str, float]:
    """The distribution over the options as the survey numbers them."""
    return mirrored(row.probabilities) if row.part == "option_order" else row.probabilities


def _code(row: Prediction) -> str | None:
    """The code by which the survey knows the answer; None when it could not be parsed."""
    if row.part != "option_order" or row.label is None:
        return row.label
    return _opposite(row.label, row.probabilities)


def _turns(row: Prediction) -> bool:
    """Whether the answer has another code when the scale is turned round."""
    return row.label is not None and _opposite(row.label, row.probabilities) != row.label


def _same_answer(before: Prediction, after: Prediction) -> float:
    return float(before.label is not None and before.label == _code(after))


def _same_code(before: Prediction, after: Prediction) -> float:
    return float(before.label == after.label)


def _similarity(before: Prediction, after: Prediction) -> float:
    meant = _meant(after)
    return js_similarity(list(before.probabilities.values()), [meant[code] for code in before.probabilities])
