"""What a model answers, and how far that is from what people answered.

Several systems answer the same items (``systems.SYSTEMS``). Every figure is computed from ``predictions.jsonl`` alone.
A row of it::

    {"item_id": "Q39-t08", "part": "held_out_wording", "culture": "korean", "system": "adapter", "question_id": "Q39",
     "messages": [...], "probabilities": {"1": 0.1, "2": 0.7, ...}, "reply": "2", "label": "2", "gold": "2",
     "gold_distribution": {"1": 0.08, "2": 0.48, ...}}
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from culturellm_utils import alignment, classification, prompts, survey
from culturellm_utils.alignment import Estimate
from culturellm_utils.items import Item
from culturellm_utils.packed import Packed
from culturellm_utils.records import Answer, Message, Prediction, Seed
from culturellm_utils.released import defect_effects
from culturellm_utils.tasks import TaskSet

if TYPE_CHECKING:
    from culturellm_utils.answerers import Answerer
    from culturellm_utils.systems import Framing

SURVEY_PARTS = ("held_out_wording", "held_out_question")
#: Parts whose items have an answer distribution.
OPINION_PARTS = (*SURVEY_PARTS, "held_out_country", "option_order", "other_prompt")
#: How often respondents are split in halves for the ceiling.
SPLITS = 200
#: Averages over a culture's classification sets: all of them, and those that can carry a claim.
ALL_SETS, SOUND_SETS = "all sets", "sets that carry a claim"


def predict(answerer: "Answerer", items: Sequence[Item], system: str,
            framings: "Mapping[str, Framing]") -> Packed[Prediction]:
    """The answers of one system, in the order of ``items``; a culture without framing gets the neutral prompt.

    A task at a time, so that a ``Kept`` answerer resumes per task.
    """
    def chat(item: Item) -> list[Message]:
        framing = framings.get(item.culture)
        return framing.chat(system, item.user) if framing else prompts.chat(prompts.NEUTRAL, item.user)

    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        groups[item.part, item.culture, item.question_id if item.part == "task" else ""].append(place)
    answers: dict[int, Answer] = {}
    for places in groups.values():
        asked = [items[place] for place in places]
        answers |= zip(places, answerer.answer([chat(item) for item in asked], [item.labels for item in asked]),
                       strict=True)
    made = Packed(Prediction)
    for place, item in enumerate(items):
        answer = answers.pop(place)
        made.append(Prediction(
            item_id=item.item_id, part=item.part, culture=item.culture, system=system, question_id=item.question_id,
            messages=chat(item), reply=answer.reply, label=answer.label, gold=item.gold,
            probabilities={label: round(p, 6) for label, p in answer.probabilities.items()},
            gold_distribution=dict(item.gold_distribution)))
    return made


def values(predictions: Sequence[Prediction], metric: str) -> list[float]:
    """One value in [0, 1] per prediction: ``accuracy`` (against the most frequent answer; a reply that cannot be
    parsed is wrong), ``js_similarity`` (1 - JS distance) or ``emd`` (normalised; 0 is best)."""
    if metric == "accuracy":
        return [float(p.label == p.gold) for p in predictions]
    measure = {"js_similarity": lambda p, q: 1 - alignment.js_distance(p, q), "emd": alignment.emd_distance}[metric]
    by_length: dict[int, list[int]] = defaultdict(list)  # distributions over as many options are measured at once
    for place, row in enumerate(predictions):
        by_length[len(row.gold_distribution)].append(place)
    found = np.empty(len(predictions))
    for places in by_length.values():
        rows = [predictions[place] for place in places]
        found[places] = measure([[p.probabilities[o] for o in p.gold_distribution] for p in rows],
                                [list(p.gold_distribution.values()) for p in rows])
    return found.tolist()


def bounds(seeds: Sequence[Seed], left_out: frozenset[str]) -> dict[str, dict[str, dict[str, float]]]:
    """What needs no model: for each question the ``uniform`` distribution, and the ``majority`` one, the mean of the
    culture's answers to the other questions with the same options that are trained on (uniform when there are none)."""
    by_scale = defaultdict(list)
    for seed in seeds:
        if seed.distribution and seed.question_id not in left_out:
            by_scale[tuple(seed.options.items())].append(seed)
    found = {}
    for seed in seeds:
        uniform = {option: 1 / len(seed.options) for option in seed.options}
        others = [s.distribution for s in by_scale[tuple(seed.options.items())] if s.question_id != seed.question_id]
        majority = {o: float(np.mean([d[o] for d in others])) for o in uniform} if others else uniform
        found[seed.question_id] = {"uniform": uniform, "majority": majority}
    return found


def with_bounds(predictions: Iterable[Prediction],
                known: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> Packed[Prediction]:
    """The predictions, and behind them those of the bounds as two more systems on the same survey items.

    ``known`` maps culture and question to what :func:`bounds` found.
    """
    found, done = Packed(Prediction, predictions), set()
    made = Packed(Prediction)
    for row in found:
        if row.part not in SURVEY_PARTS or row.culture not in known or (row.culture, row.part, row.item_id) in done:
            continue
        done.add((row.culture, row.part, row.item_id))
        for system, distribution in known[row.culture][row.question_id].items():
            label = survey.mode(distribution) if system == "majority" else None
            made.append(row.model_copy(update={
                "system": system, "messages": [], "probabilities": dict(distribution), "reply": label or "",
                "label": label,
            }))
    found.extend(made)
    return found


def ceilings(seeds: Sequence[Seed], items: Sequence[Item], samples: int, seed: int) -> list[dict]:
    """Figures of the human split-half ceiling, like those of a system, on the questions of a culture's ``items``."""
    people = alignment.respondents(seeds)
    rows = []
    for part in SURVEY_PARTS:
        asked = {item.question_id: people[item.question_id] for item in items if item.part == part}
        for metric in ("accuracy", "js_similarity", "emd") if asked else ():
            estimate = alignment.ceiling(asked, metric, SPLITS, samples, seed)
            rows.append({"part": part, "culture": seeds[0].culture, "system": "split_half", "task": "",
                         "metric": metric, **asdict(estimate), "baselines": {}})
    return rows


def paper_scores(predictions: Sequence[Prediction], sets: Sequence[TaskSet]) -> list[dict]:
    """Macro-F1 of the adapter's replies to the released sets as the released evaluator reads them, and what each of its
    defects does to it (``released.defect_effects``)."""
    replies: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for p in predictions:
        if (p.part, p.system) == ("task", "adapter"):
            replies[p.culture, p.question_id].append((p.item_id, p.reply))
    rows = []
    for found in sets:
        gold = {row.item_id: row.file_label for row in found.items}
        answered = replies[found.task.culture, found.task.task]
        if answered and found.task.paper_parser:
            effects = defect_effects(found.task, [gold[name] for name, _ in answered], [reply for _, reply in answered])
            rows.append({"culture": found.task.culture, "task": found.task.task, "n": len(answered), **effects})
    return rows


def score(predictions: Sequence[Prediction], samples: int, seed: int,
          unsound: Collection[tuple[str, str]] = ()) -> list[dict]:
    """Every figure: part, culture, system, task, metric, value, 95% interval, n, clusters, and its baselines (the same
    figure of the bounds and of the base model).

    ``task`` names the classification set or the ability ("" for survey parts). Averages over a culture's sets are
    given with and without the ``unsound`` ones (culture and task), which cannot carry a claim.
    """
    grouped: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(predictions):
        grouped[row.part, row.culture, row.system, "" if row.part in OPINION_PARTS else row.question_id].append(place)
    rows = []
    draws: dict[tuple[str, str, str, str], dict[str, np.ndarray]] = defaultdict(dict)
    for (part, culture, system, task), places in grouped.items():
        group = [predictions[place] for place in places]
        key = {"part": part, "culture": culture, "system": system, "task": task}
        clusters = [p.question_id if part in OPINION_PARTS else p.item_id for p in group]
        metrics = ["accuracy", "js_similarity", "emd"] if part in OPINION_PARTS else ["accuracy"]
        for metric in metrics:
            estimate = alignment.bootstrap(_values(group, metric, system), clusters, samples, seed)
            rows.append(key | {"metric": metric, **asdict(estimate)})
        if part == "task":
            invalid = alignment.bootstrap([float(p.label is None) for p in group], clusters, samples, seed)
            rows.append(key | {"metric": "invalid_rate", **asdict(invalid)})
            for metric, found in _labels(group).items():
                # A seed of its own, or the resamples of a culture's sets would move together.
                drawn = classification.macro_f1_draws([p.gold for p in group], found, list(group[0].probabilities),
                                                      samples, [seed, len(draws[part, culture, system, metric])])
                draws[part, culture, system, metric][task] = drawn
                rows.append(key | {"metric": metric, **asdict(_estimate(drawn, len(group), len(group)))})
    for (part, culture, system, metric), by_task in draws.items():
        sound = {name for name in by_task if (culture, name) not in unsound}
        for task, chosen in ((ALL_SETS, set(by_task)), (SOUND_SETS, sound)):
            if chosen:
                mean = np.mean([by_task[name] for name in sorted(chosen)], axis=0)
                n = sum(len(grouped[part, culture, system, name]) for name in chosen)
                rows.append({"part": part, "culture": culture, "system": system, "task": task, "metric": metric,
                             **asdict(_estimate(mean, n, len(chosen)))})
    level = {(r["part"], r["culture"], r["task"], r["metric"], r["system"]): r["value"] for r in rows}
    for row in rows:
        key = row["part"], row["culture"], row["task"], row["metric"]
        row["baselines"] = {name: level[*key, name] for name in ("uniform", "majority", "base")
                            if (*key, name) in level and name != row["system"]}
    return rows


def _values(group: Sequence[Prediction], metric: str, system: str) -> list[float]:
    if system == "uniform" and metric == "accuracy":  # a fair guess has no label of its own: its expectation counts
        return [p.probabilities[p.gold] for p in group]
    return values(group, metric)


def _labels(group: Sequence[Prediction]) -> dict[str, list[str | None]]:
    """The labels that count for macro-F1 as they came, and after batch calibration."""
    calibrated = classification.batch_calibrated([p.probabilities for p in group])
    return {"macro_f1": [p.label for p in group],
            "macro_f1_calibrated": [None if p.label is None else survey.mode(found)
                                    for p, found in zip(group, calibrated, strict=True)]}


def _estimate(drawn: np.ndarray, n: int, clusters: int) -> Estimate:
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return Estimate(float(drawn[0]), float(low), float(high), n, clusters)
