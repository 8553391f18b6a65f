"""Classification tasks: the small sets that ship, and the registry of the sets that the CultureLLM authors released.

    python -m culturellm_utils.tasks --data-path DIR          # what a copy holds; --json for a program

A row of ``bundled_tasks.jsonl``, and an entry of ``tasks.yaml`` (which explains its lines)::

    {"item_id": "german-test-01", "culture": "german", "task": "rudeness_detect", "split": "test",
     "text": "...", "label": "NOT_RUDE", "english": "..."}

    - {culture: chinese, task: spam_detect, kind: spam, path: data/China/.../data-2.jsonl}

>>> spam = load(registry()[0], "../shared/reference")
>>> spam.items[0].label, spam.label_counts, spam.warnings
"""

import argparse
import json
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from culturellm_utils import paths, prompts
from culturellm_utils.errors import UserError, command_line
from culturellm_utils.records import Row, TaskItem, numbered_lines, read_rows
from culturellm_utils.released import Task, paper_parse, registry, strict_parse

__all__ = ["Task", "TaskSet", "available", "bundled", "load", "overview", "paper_parse", "prompt", "registry", "sample",
           "shipped", "strict_parse"]

LABELS = ("RUDE", "NOT_RUDE")
INSTRUCTION = "Is the text below rude?"
#: Rows of a class below which a set carries no claim: one more error then moves that class's recall by ten points.
LEAST_OF_A_CLASS = 10
#: Longer texts are cut here when they are asked about: a few e-mails would not fit the window of many models.
LONGEST_TEXT = 2000


@cache
def _bundled() -> tuple[TaskItem, ...]:
    return tuple(read_rows(paths.DATA / "bundled_tasks.jsonl", TaskItem))


def bundled(split: str, culture: str = "") -> list[TaskItem]:
    """The shipped items of ``train`` or ``test``, of one culture or of all; empty for a culture without a set."""
    return [item for item in _bundled() if item.split == split and culture in ("", item.culture)]


def prompt(item: TaskItem) -> str:
    """The user turn that asks for the label of a shipped item."""
    return prompts.classification_prompt(item.text, LABELS, INSTRUCTION)


class LabelledText(Row):
    """One usable row of a set: ``label`` is the word asked for, ``file_label`` what the file says. The number in
    ``item_id`` is the line in the file."""

    item_id: str
    culture: str
    task: str
    text: str
    label: str
    file_label: str


@dataclass(frozen=True)
class TaskSet:
    """A set as a copy holds it: its usable ``items``, and of the whole file ``rows``, ``label_counts`` (by label in
    the file), ``set_aside`` (reason: rows), ``duplicates`` (rows whose text stood before), ``contradictions``
    (texts with more than one label) and ``cut`` (texts of which only the beginning is asked about)."""

    task: Task
    items: tuple[LabelledText, ...]
    rows: int
    label_counts: dict[str, int]
    set_aside: dict[str, int]
    duplicates: int
    contradictions: int
    cut: int

    @property
    def doubts(self) -> list[str]:
        """Why the set carries no claim; empty when it does."""
        found = Counter(item.label for item in self.items)
        doubts = []
        if len(found) == 1:
            doubts.append(f"one class only ({next(iter(found))})")
        else:
            few = [f"{word} ({found[word]})" for word in self.task.words if found[word] < LEAST_OF_A_CLASS]
            if few:
                doubts.append(f"fewer than {LEAST_OF_A_CLASS} of {', '.join(few)}")
        if self.task.duplicate_of:
            doubts.append(f"same corpus as {self.task.duplicate_of}, which stands for it in averages")
        return doubts

    @property
    def carries_claim(self) -> bool:
        """Whether the set belongs into averages: two classes or more, ten rows of each, texts of its own."""
        return not self.doubts

    @property
    def warnings(self) -> list[str]:
        """The doubts, and all else that a reader of the set's figures must know."""
        warnings = self.doubts
        if self.duplicates:
            warnings.append(f"repeated texts: {self.duplicates}")
        if self.contradictions:
            warnings.append(f"texts with two labels: {self.contradictions}")
        if self.cut:
            warnings.append(f"texts cut to {LONGEST_TEXT:,} characters: {self.cut}")
        if self.task.corpus and not self.task.duplicate_of:
            warnings.append(f"shares the corpus {self.task.corpus} with other sets")
        if self.task.counts and self.label_counts != self.task.counts:
            warnings.append(f"differs from the released file ({_counted(self.task.counts)})")
        return warnings + self.task.defects


def shipped(culture: str) -> list[TaskSet]:
    """The small set of a culture that ships with the package, as a set of the registry; none when it has none."""
    rows = bundled("test", culture)
    if not rows:
        return []
    task = Task(culture=culture, task=rows[0].task, path="bundled_tasks.jsonl", text_field="text", label_field="label",
                labels={label: label for label in LABELS}, instruction=INSTRUCTION, metric="macro-F1", version=1,
                defects=["written for this project by a language model"])
    items = tuple(LabelledText(item_id=row.item_id, culture=culture, task=row.task, text=row.text, label=row.label,
                               file_label=row.label) for row in rows)
    return [TaskSet(task, items, len(items), dict(Counter(row.label for row in rows)), {}, 0, 0, 0)]


def available(culture: str, data_path: Path | str, path: Path | str = "") -> list[Task]:
    """The sets of a culture whose file lies below ``data_path``; none for an empty ``data_path``."""
    if not data_path:
        return []
    return [task for task in registry(path) if task.culture == culture and os.path.isfile(Path(data_path) / task.path)]


def load(task: Task, data_path: Path | str) -> TaskSet:
    """Read a set. Rows with an empty label, an unknown label or an empty text are set aside and counted.

    Raises UserError naming file and line when the file is missing or broken, or no row of it is usable.
    """
    path = Path(data_path) / task.path
    if not os.path.isfile(path):  # unlike Path.is_file it takes any name
        raise UserError(f"{task.path} is missing below {paths.shown(data_path)}: data_path must be the folder that "
                        "holds the files of the registry, such as a clone of the reference repository")
    items, labels, aside, cut = [], Counter[str](), Counter[str](), 0
    said: dict[str, set[str]] = defaultdict(set)  # the usable labels of each text
    for number, line in numbered_lines(path):
        where = f"{task.path} line {number}"
        text, label = (_value(fields, name, where) for fields in [_fields(line, where)]
                       for name in (task.text_field, task.label_field))
        labels[label] += 1
        answers = said[text]
        if not label.strip():
            aside["empty label"] += 1
        elif label not in task.labels:
            aside["unknown label"] += 1
        elif not text.strip():
            aside["empty text"] += 1
        else:
            answers.add(task.labels[label])
            items.append(LabelledText(item_id=f"{task.task}-{number}", culture=task.culture, task=task.task,
                                      text=text[:LONGEST_TEXT], label=task.labels[label], file_label=label))
            cut += len(text) > LONGEST_TEXT
    if not items:
        raise UserError(f"{task.path} has no usable row: its labels are {_counted(labels) or 'none'}, the registry "
                        f"knows {', '.join(task.labels)}")
    return TaskSet(task, tuple(items), labels.total(), dict(labels), dict(aside), labels.total() - len(said),
                   sum(len(answers) > 1 for answers in said.values()), cut)


def _fields(line: str, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair, which no file can hold, raises
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise UserError(f"{where} is no JSON object: get the file again")
    return fields


def _value(fields: Mapping[str, Any], name: str, where: str) -> str:
    """A field as text: a missing value is empty, a number is its digits."""
    if name not in fields:
        raise UserError(f"{where} has no field '{name}' but {', '.join(fields)}: correct it in the registry")
    value = fields[name]
    if isinstance(value, list | dict):
        raise UserError(f"{where}: field '{name}' is no text")
    return "" if value is None or value != value else str(value)  # NaN alone differs from itself


def sample(found: TaskSet, rows: int, seed: int) -> TaskSet:
    """A simple random sample of a set's usable rows, in the order of the file; the whole set for ``rows`` 0.

    It is not stratified: every row has the same chance, so that the mix of labels is the set's and the bootstrap over
    rows holds. A larger sample of the same seed contains a smaller one.
    """
    if not rows or rows >= len(found.items):
        return found
    order = list(range(len(found.items)))
    random.Random(f"{seed} {found.task.culture} {found.task.task}").shuffle(order)
    return replace(found, items=tuple(found.items[place] for place in sorted(order[:rows])))


def overview(data_path: Path | str, path: Path | str = "") -> list[dict[str, Any]]:
    """One row for each set of a registry: what the copy below ``data_path`` holds of it.

    ``state`` is found, missing, or what is wrong with the file; the figures of the latter two are None.
    """
    table = []
    for task in registry(path):
        state, found = "found", None
        try:
            found = load(task, data_path)
        except UserError as error:
            state = str(error) if os.path.isfile(Path(data_path) / task.path) else "missing"
        table.append({
            "culture": task.culture, "task": task.task, "path": task.path, "state": state,
            "rows": found and found.rows, "usable": found and len(found.items),
            "label_counts": found and found.label_counts, "set_aside": found and found.set_aside,
            "carries_claim": found and found.carries_claim, "warnings": found.warnings if found else task.defects,
            "metric": task.metric, "version": task.version, "citation": task.citation,
            "released_counts": task.counts or None,
        })
    return table


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label or '(empty)'} {count}" for label, count in counts.items())


@command_line
def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m culturellm_utils.tasks",
                                     description="List the labelled sets, and what a copy of them holds.")
    parser.add_argument("--data-path", required=True, help="folder with the files, such as a clone of the reference")
    parser.add_argument("--tasks-path", default="", help="a registry of your own in the form of data/tasks.yaml")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    rows = overview(arguments.data_path, arguments.tasks_path)
    at_hand = sum(row["state"] == "found" for row in rows)
    if not at_hand and all(row["state"] == "missing" for row in rows):
        raise UserError(f"no file of the registry lies below {arguments.data_path}: --data-path must be the folder "
                        f"that holds {rows[0]['path']}")
    if arguments.json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return 0
    table = pd.DataFrame([
        {"culture": row["culture"], "task": row["task"],
         "rows": "missing" if row["state"] == "missing" else row["rows"] or "broken",
         "labels": _counted(row["label_counts"] or {}), "set aside": _counted(row["set_aside"] or {}),
         "claim": {None: "", True: "yes", False: "no"}[row["carries_claim"]]}
        for row in rows
    ])
    print(table.to_string(index=False))
    print(f"\n{at_hand} of {len(rows)} sets at hand; sets without 'yes' stay out of averages.\n")
    for row in rows:
        notes = row["warnings"] if row["state"] in ("found", "missing") else [row["state"]]
        for note in notes:
            print(f"{row['culture']} {row['task']}: {note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
