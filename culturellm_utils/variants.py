"""The arms of a study side by side: what their models answered to the same items, held against the same people.

An arm is a variant as the study's file names it, run once with each seed. Reads what 01 to 05 wrote, and no model. A
row of ``Compared.answers``, where ``key`` is the item with a checksum of its words::

    {"arm": "few", "variant": "few-seed1", "seed": 1, "culture": "korean", "system": "adapter",
     "part": "held_out_wording", "key": "Q39-t08:9ae3c0f1", "cluster": "Q39", "accuracy": 1.0, "js_similarity": 0.81,
     "emd": 0.07}
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from culturellm_utils import alignment, encoder, parameters, paths, studies, survey
from culturellm_utils.errors import UserError
from culturellm_utils.guard import Guard
from culturellm_utils.parameters import ONE, Comparison
from culturellm_utils.records import Augmented, Prediction, Seed, TargetRow, read_json, read_rows
from culturellm_utils.summary import OWN, WRONG

#: What answers without training, and is asked in every arm.
PROMPTED = ("base", "persona")
WORDINGS, QUESTIONS, SETS = "held_out_wording", "held_out_question", "task"
#: The parts of an ability: arithmetic, and what lm-evaluation-harness asks.
ARITHMETIC, HARNESS = "arithmetic", "harness"
#: What makes an item: where it is the same, arms are compared.
ITEM = ["seed", "culture", "system", "part", "key"]
METRICS = ["accuracy", "js_similarity", "emd"]


@dataclass(frozen=True)
class Arms:
    """The arms of a study, each with its variants, one a seed; ``compare`` names the knobs in which they differ."""

    study: str
    question: str
    compare: tuple[str, ...]
    cultures: tuple[str, ...]
    variants: dict[str, list[str]]

    @property
    def leading(self) -> str:
        """The first arm, against which the others are held."""
        return next(iter(self.variants))

    def folder(self, variant: str, name: str) -> Path:
        """Where a variant keeps what belongs to a culture, to ``one``, or to all (``common``)."""
        return paths.outputs() / self.study / variant / name

    def every_variant(self) -> Iterable[tuple[str, int, str]]:
        """Arm, place of the seed, and variant."""
        return ((arm, place, variant) for arm, names in self.variants.items() for place, variant in enumerate(names))

    def knobs(self, notebook: str, variant: str) -> dict[str, Any]:
        """The parameters of a notebook in a variant, of the first culture where it is run for each."""
        given = studies.merged(notebook, self.study, self.cultures[0], variant, list(self.cultures))
        return studies.defaults(notebook) | given


@dataclass(frozen=True)
class Compared(Arms):
    """What the arms wrote. ``answers`` are those to survey items and abilities, ``labels`` those to classification sets
    (columns task, gold, label in place of the metrics), both to items that every arm was asked alone; ``left_out``
    counts the others by part. ``words`` are the labels of each set (culture, task), ``sound`` the sets that can carry a
    claim."""

    answers: pd.DataFrame
    labels: pd.DataFrame
    left_out: pd.DataFrame
    words: dict[tuple[str, str], tuple[str, ...]]
    sound: frozenset[tuple[str, str]]


def load(knobs: Comparison) -> Compared:
    """Read every variant of the study. All are scored against the people of the first (its ``seeds.jsonl``), whatever
    label they were trained on. Raises UserError where there is one arm, or nothing that all were asked."""
    plan, names = studies.study(knobs.study), studies.arms(knobs.study)
    if len(names) < 2:
        raise UserError(f"params/studies/{knobs.study}.yaml has one variant, so there is nothing to compare: list "
                        "another under variants")
    compare = tuple(plan["compare"] or [studies.VARIANT])
    arms = Arms(knobs.study, plan["question"], compare, tuple(knobs.cultures), names)
    rows = _read(arms, [*knobs.cultures, *([ONE] if plan["one"] else [])], plan["seeds"])
    by_all = rows.groupby(ITEM)["arm"].transform("nunique") == len(names)
    common = rows[by_all]
    if not (common["part"] == WORDINGS).any():
        raise UserError(f"the arms of study {knobs.study} were asked no held-out wording in common: set wordings_of to "
                        f"{arms.leading} for the arms whose texts are not its texts, and rerun their 05_evaluation")
    own = rows.assign(left_out=~by_all)[rows["system"] == OWN].drop_duplicates(ITEM)
    left_out = own.groupby("part", sort=False)["left_out"].agg(["size", "sum"]).reset_index()
    labelled = common["part"] == SETS
    return Compared(
        **vars(arms),
        answers=common.loc[~labelled, ["arm", "variant", *ITEM, "cluster", *METRICS]].reset_index(drop=True),
        labels=common.loc[labelled, ["arm", "variant", *ITEM, "task", "gold", "label"]].reset_index(drop=True),
        left_out=left_out.set_axis(["part", "items", "not asked in all arms"], axis=1),
        words={(row.culture, row.task): row.words for row in common[labelled].itertuples()},
        sound=_sound(arms))


def _read(arms: Arms, models: list[str], seeds: list[int]) -> pd.DataFrame:
    """The answers of all variants, one row an item; what the adapters of other cultures said is their mean."""
    first = arms.variants[arms.leading][0]
    people = {name: _people(read_rows(arms.folder(first, name) / "seeds.jsonl", Seed)) for name in arms.cultures}
    rows: list[dict[str, Any]] = []
    for arm, place, variant in arms.every_variant():
        run = {"arm": arm, "variant": variant, "seed": seeds[place] if seeds else 0}
        for model in models:
            answers = read_rows(arms.folder(variant, model) / "predictions.jsonl", Prediction)
            rows += [run | row for row in _scored(answers, model, people)]
    table = pd.DataFrame(rows, columns=["arm", "variant", *ITEM, "cluster", *METRICS, "task", "gold", "label", "words"])
    others = table["system"] == WRONG
    away = table[others].groupby(["arm", "variant", *ITEM, "cluster"], as_index=False, sort=False)[METRICS].mean()
    return pd.concat([table[~others], away], ignore_index=True)


def _people(seeds: Iterable[Seed]) -> dict[str, dict[str, float]]:
    """What people answered to each question; of two rows of a question (released labels) the first, which is about all
    of them."""
    found: dict[str, dict[str, float]] = {}
    for seed in seeds:
        if seed.distribution:
            found.setdefault(seed.question_id, seed.distribution)
    return found


def _scored(predictions: Iterable[Prediction], model: str,
            people: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[dict[str, Any]]:
    """The answers of one model that count here, with what they score against ``people``."""
    opinions: dict[tuple[str, str], list[tuple[dict[str, Any], Prediction]]] = defaultdict(list)
    for p in predictions:
        system = _system(p, model)
        if not system or p.culture not in people:
            continue
        row: dict[str, Any] = {"culture": p.culture, "system": system, "part": p.part, "cluster": p.item_id,
                               "key": f"{p.item_id}:{crc32(p.messages[-1].content.encode()):08x}"}
        if p.part in (WORDINGS, QUESTIONS) and p.question_id in people[p.culture]:
            opinions[p.culture, p.question_id].append((row | {"cluster": p.question_id}, p))
        elif p.part == "ability":
            yield row | {"part": ARITHMETIC if p.question_id == ARITHMETIC else HARNESS,
                         "accuracy": float(p.label == p.gold)}
        elif p.part == SETS and system != WRONG:
            yield row | {"task": p.question_id, "gold": p.gold, "label": p.label, "words": tuple(p.probabilities)}
    for (culture, question), asked in opinions.items():
        said = people[culture][question]
        shares = np.array([[p.probabilities[code] for code in said] for _, p in asked])
        near, gold = 1 - alignment.js_distance(shares, list(said.values())), survey.mode(said)
        for (row, p), mine, similarity in zip(asked, shares, near.tolist(), strict=True):
            yield row | {"accuracy": float(p.label == gold), "js_similarity": similarity,
                         "emd": alignment.emd(mine, list(said.values()))}


def _system(p: Prediction, model: str) -> str:
    """As what a prediction counts here: a prompted system, the own adapter, One, another culture's, or "" for none."""
    if p.system == OWN:
        return ONE if model == ONE else OWN if p.culture == model else WRONG
    return p.system if p.system in PROMPTED and p.culture == model else ""


def _sound(arms: Arms) -> frozenset[tuple[str, str]]:
    """The sets that can carry a claim, as 05 of the first variant found."""
    variant = arms.variants[arms.leading][0]
    return frozenset((row["culture"], row["task"]) for name in arms.cultures
                     for row in read_json(arms.folder(variant, name) / "scores.json")["tasks"]
                     if row["carries a claim"])


def settings(arms: Arms) -> pd.DataFrame:
    """A row an arm: the value of every compared knob, from the first notebook that has it."""
    table = pd.DataFrame({"arm": list(arms.variants)})
    for knob in arms.compare:
        if knob != studies.VARIANT:
            notebook = next(name for name in parameters.MODELS if knob in parameters.names(name))
            table[knob] = [arms.knobs(notebook, names[0])[knob] for names in arms.variants.values()]
    return table


def trained(arms: Arms) -> pd.DataFrame:
    """What each arm was trained on: rows, generated texts among them, and steps, means over cultures and seeds."""
    rows = []
    for arm, _, variant in arms.every_variant():
        for culture in arms.cultures:
            folder = arms.folder(variant, culture)
            log = read_json(folder / "training_log.json")
            texts = {row.wording_id for row in read_rows(folder / "targets.jsonl", TargetRow)
                     if row.wording_id != row.question_id}
            rows.append({"arm": arm, "rows": log["rows"], "generated texts": len(texts),
                         "steps": max((row["step"] for row in log["log"]), default=0)})
    return pd.DataFrame(rows).groupby("arm", sort=False).mean().reset_index()


def kept(arms: Arms, samples: int, seed: int) -> pd.DataFrame:
    """What the filter of each arm kept (of its first seed): templates, samples, mean similarity to the seed questions,
    and the shares of kept texts that the guard takes for a change of stance and for damage, each with a 95% interval
    over questions. The guard's verdicts are an automatic estimate; they are missing where texts are not English.

    ``labelled_good`` and ``labelled_bad``: which shares of the labelled pairs that calibrated tau (calibration.py) the
    arm's filter keeps; missing for another encoder than theirs. Empty when all arms kept the same texts.
    """
    texts = {arm: _kept(arms, names[0]) for arm, names in arms.variants.items()}
    if len({frozenset((row.candidate_id, row.text) for row in rows) for rows in texts.values()}) == 1:
        return pd.DataFrame()
    curve, guard = pd.read_csv(paths.DATA / "tau_curve.csv"), Guard()
    table = []
    for arm, names in arms.variants.items():
        rows, knobs = texts[arm], arms.knobs("03_filtering", names[0])
        questions = [row.question_id for row in rows]
        row = {"arm": arm, "tau": knobs["tau"], "guards": knobs["guards"],
               "templates": sum(row.stage == 1 for row in rows), "samples": sum(row.stage == 2 for row in rows)}
        row |= _with_interval("similarity", [row.similarity for row in rows], questions, samples, seed)
        if knobs["language"] == "english":
            asked = {one.question_id: one.question for one in survey.questions(knobs["questions_path"])}
            verdicts = guard.judge([(asked[row.question_id], row.text) for row in rows])
            for name, kind in (("stance_errors", "polarity"), ("damaged", "damage")):
                row |= _with_interval(name, [float(v.startswith(kind)) for v in verdicts], questions, samples, seed)
        if knobs["encoder"] == encoder.BUNDLED and not knobs["nli_model"]:
            at = curve.iloc[(curve["tau"] - knobs["tau"]).abs().argmin()]
            prefix = "filter_" * knobs["guards"]
            row |= {"labelled_good": at[f"{prefix}kept_good"], "labelled_bad": 1 - at[f"{prefix}rejected_bad"]}
        table.append(row)
    return pd.DataFrame(table)


def _kept(arms: Arms, variant: str) -> list[Augmented]:
    places = dict.fromkeys(studies.place(arms.study, name, variant) for name in arms.cultures)
    return [row for place in places for row in read_rows(arms.folder(variant, place) / "augmented.jsonl", Augmented)]


def _with_interval(name: str, values: list[float], clusters: list[str], samples: int, seed: int) -> dict[str, float]:
    estimate = alignment.bootstrap(values, clusters, samples, seed)
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def axis(arms: Arms, table: pd.DataFrame) -> pd.DataFrame:
    """Where each arm stands in a figure: ``x`` (of the first compared knob), ``line`` (the value of the second, or ""),
    and ``aside``, whether an earlier arm has the same place. ``x`` is missing unless the first knob is a number in all
    arms; of ``generated_texts`` it is what was reached (``table`` of :func:`trained`), not what was asked for."""
    knob, *second = arms.compare
    known = settings(arms)
    places = known[["arm"]].copy()
    values = known[knob].tolist() if knob in known else []
    numbers = bool(values) and all(type(value) in (int, float) for value in values)
    if numbers and knob == "generated_texts":
        values = table.set_index("arm")["generated texts"].reindex(places["arm"]).tolist()
    places["x"] = np.array(values, dtype=float) if numbers else np.nan
    places["line"] = [str(value) for value in known[second[0]]] if second and numbers else ""
    places["aside"] = places.duplicated(["x", "line"]) & numbers
    return places
