"""What a model answers, and how far that is from what people answered.

Three systems answer the same items: ``base`` (the base model, a neutral system prompt), ``persona`` (the base model,
the culture's system prompt) and ``adapter`` (the fine-tuned model, the culture's system prompt). Every figure is
computed from ``predictions.jsonl`` alone. A row of it::

    {"item_id": "Q39-t08", "part": "held_out_wording", "culture": "korean", "system": "adapter", "question_id": "Q39",
     "messages": [...], "probabilities": {"1": 0.1, "2": 0.7, ...}, "reply": "2", "label": "2", "gold": "2",
     "gold_distribution": {"1": 0.08, "2": 0.48, ...}}
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.metrics import f1_score

from culturellm_utils import ability, alignment, prompts, survey, tasks, wordings
from culturellm_utils.alignment import Estimate
from culturellm_utils.records import Part, Prediction, Seed
from culturellm_utils.wordings import Texts

SYSTEMS = ("base", "persona", "adapter")
SURVEY_PARTS = ("held_out_wording", "held_out_question")


@dataclass(frozen=True)
class Item:
    """One thing to ask: the user turn, the labels allowed, and what counts as right."""

    item_id: str
    part: Part
    culture: str
    question_id: str
    user: str
    labels: tuple[str, ...]
    gold: str
    gold_distribution: Mapping[str, float]


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
                 survey.mode(seed.distribution), seed.distribution)
            for w in asked
        ]
    return items


def task_items(culture: str) -> list[Item]:
    """The small classification set of a culture that ships with the package; empty when it has none."""
    return [
        Item(i.item_id, "task", culture, i.task, tasks.prompt(i), tasks.LABELS, i.label, {})
        for i in tasks.bundled("test", culture)
    ]


def ability_items(culture: str, count: int, seed: int) -> list[Item]:
    """Arithmetic, the general ability that fine-tuning should leave alone."""
    return [
        Item(f"arithmetic-{n}", "ability", culture, "arithmetic", question, ability.ANSWERS, answer, {})
        for n, (question, answer) in enumerate(ability.items(count, seed))
    ]


def predict(model, tokenizer, items: Sequence[Item], system: str,
            system_prompts: Mapping[str, str], batch_size: int) -> list[Prediction]:
    """The answers of one system. ``model`` is a peft model: its adapter is switched off for base and persona.

    ``system_prompts`` name each culture; one without gets the neutral prompt, as the base system always does.
    """
    from culturellm_utils.scoring import label_probabilities  # loads torch, which the figures do not need

    chats = []
    for item in items:
        named = system_prompts.get(item.culture, "") if system != "base" else ""
        chats.append(prompts.chat(named or prompts.NEUTRAL, item.user))
    with nullcontext() if system == "adapter" else model.disable_adapter():
        found = label_probabilities(model, tokenizer, chats, [item.labels for item in items], batch_size)
    return [
        Prediction(
            item_id=item.item_id, part=item.part, culture=item.culture, system=system, question_id=item.question_id,
            messages=chat, probabilities={label: round(p, 6) for label, p in probabilities.items()},
            reply=(answer := survey.mode(probabilities)), label=answer, gold=item.gold,
            gold_distribution=dict(item.gold_distribution),
        )
        for item, chat, probabilities in zip(items, chats, found, strict=True)
    ]


def values(predictions: Sequence[Prediction], metric: str) -> list[float]:
    """One value in [0, 1] per prediction: ``accuracy`` (against the most frequent answer; a reply that cannot be
    parsed is wrong), ``js_similarity`` (1 - JS distance) or ``emd`` (normalised; 0 is best)."""
    if metric == "accuracy":
        return [float(p.label == p.gold) for p in predictions]
    measure = {"js_similarity": alignment.js_similarity, "emd": alignment.emd}[metric]
    return [measure([p.probabilities[o] for o in p.gold_distribution], list(p.gold_distribution.values()))
            for p in predictions]


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


def with_bounds(predictions: Sequence[Prediction],
                known: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> list[Prediction]:
    """Predictions of the bounds as two more systems, on the survey items that ``predictions`` hold.

    ``known`` maps culture and question to what :func:`bounds` found.
    """
    items = {(p.culture, p.part, p.item_id): p for p in predictions if p.part in SURVEY_PARTS and p.culture in known}
    made = []
    for row in items.values():
        for system, distribution in known[row.culture][row.question_id].items():
            label = survey.mode(distribution) if system == "majority" else None
            made.append(row.model_copy(update={
                "system": system, "messages": [], "probabilities": dict(distribution), "reply": label or "",
                "label": label,
            }))
    return made


def score(predictions: Sequence[Prediction], samples: int, seed: int) -> list[dict]:
    """Every figure: part, culture, system, metric, value, 95% interval, n, clusters, and its baselines (the same
    figure of the bounds and of the base model)."""
    grouped: dict[tuple[str, str, str], list[Prediction]] = defaultdict(list)
    for row in predictions:
        grouped[row.part, row.culture, row.system].append(row)
    rows = []
    for (part, culture, system), group in grouped.items():
        clusters = [p.question_id if part in SURVEY_PARTS else p.item_id for p in group]
        metrics = ["accuracy", "js_similarity", "emd"] if part in SURVEY_PARTS else ["accuracy"]
        for metric in metrics:
            found = _accuracy_of_chance(group, metric, system)
            estimate = alignment.bootstrap(found, clusters, samples, seed)
            rows.append({"part": part, "culture": culture, "system": system, "metric": metric, **asdict(estimate)})
        if part == "task":
            rows.append({"part": part, "culture": culture, "system": system, "metric": "macro_f1",
                         **asdict(macro_f1(group, samples, seed))})
    level = {(r["part"], r["culture"], r["metric"], r["system"]): r["value"] for r in rows}
    for row in rows:
        key = row["part"], row["culture"], row["metric"]
        row["baselines"] = {name: level[*key, name] for name in ("uniform", "majority", "base")
                            if (*key, name) in level and name != row["system"]}
    return rows


def _accuracy_of_chance(group: Sequence[Prediction], metric: str, system: str) -> list[float]:
    if system == "uniform" and metric == "accuracy":  # a fair guess has no label of its own: its expectation counts
        return [p.probabilities[p.gold] for p in group]
    return values(group, metric)


def macro_f1(predictions: Sequence[Prediction], samples: int, seed: int) -> Estimate:
    """Macro-F1 over the labels of a task (scikit-learn's definition, a class without items or answers counts 0)."""
    labels = list(predictions[0].probabilities)
    gold = np.array([labels.index(p.gold) for p in predictions])
    found = np.array([labels.index(p.label) if p.label in labels else len(labels) for p in predictions])
    value = f1_score(gold, found, labels=range(len(labels)), average="macro", zero_division=0)
    picks = np.random.default_rng(seed).integers(0, len(gold), (samples, len(gold)))
    scores = np.zeros(samples)
    for label in range(len(labels)):
        right = ((gold == label) & (found == label))[picks].sum(1)
        total = (gold == label)[picks].sum(1) + (found == label)[picks].sum(1)
        scores += 2 * right / np.maximum(total, 1) / len(labels)
    low, high = np.quantile(scores, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), len(gold), len(gold))
