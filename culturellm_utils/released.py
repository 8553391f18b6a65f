"""The registry of labelled sets, and how replies to them are read: strictly, or as the released evaluator does.

An entry of ``tasks.yaml``, which explains its lines::

    {culture: chinese, task: spam_detect, kind: spam, path: data/.../data-2.jsonl, counts: {"Ham": 518, "Spam": 482}}

>>> strict_parse(("Spam", "NOT_Spam"), "I know this is Spam"), paper_parse(spam, "I know this is Spam")
(None, 'Ham')
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sklearn.metrics import f1_score

from culturellm_utils import paths, prompts, studies
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Name

QUOTES = "\"'`´*“”„‘’‚«»‹›「」『』"


class Task(BaseModel):
    """One entry of the registry; ``tasks.yaml`` says what each field means. ``labels`` maps the label in the file to
    the word that a model is asked to answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    culture: Name
    task: str = Field(pattern=r"^[\w.-]+$")
    path: str = Field(min_length=1)
    text_field: str
    label_field: str
    labels: dict[str, str] = Field(min_length=2)
    instruction: str = ""
    prompt: str = ""
    metric: Literal["macro-F1", "accuracy"]
    version: int = Field(ge=1)
    counts: dict[str, int] = {}
    corpus: str = ""
    duplicate_of: str = ""
    citation: str = ""
    defects: list[str] = []
    paper_parser: dict[str, str] = {}
    paper_labels: list[str] = []

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.instruction) == bool(self.prompt):
            raise ValueError("needs either an instruction or a prompt")
        if self.prompt and "{text}" not in self.prompt:
            raise ValueError("prompt has no {text}")
        if len(self.words) < 2:
            raise ValueError("labels ask for one word only")
        return self

    @property
    def words(self) -> tuple[str, ...]:
        """The words that a model may answer, each once."""
        return tuple(dict.fromkeys(self.labels.values()))

    def ask(self, text: str) -> str:
        """The user turn that asks for the label of ``text``."""
        if self.prompt:
            return self.prompt.replace("{text}", text)
        return prompts.classification_prompt(text, self.words, self.instruction)


def registry(path: Path | str = "") -> list[Task]:
    """All entries of a registry: the shipped one, or a user's file of the same form.

    Raises UserError naming file and entry when one is wrong, stands there twice, or names no set that it duplicates.
    """
    path = Path(path) if path else paths.DATA / "tasks.yaml"
    parts = studies.read_yaml(path)
    defaults, kinds, entries = (parts.pop(name, empty) for name, empty in (("defaults", {}), ("kinds", {}),
                                                                           ("tasks", [])))
    if parts or not (isinstance(defaults, dict) and isinstance(kinds, dict) and isinstance(entries, list) and entries):
        raise UserError(f"{paths.shown(path)}: must hold defaults, kinds and a list of tasks, and nothing else")
    found: dict[tuple[str, str], Task] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"{paths.shown(path)} entry {number}"
        if not isinstance(entry, dict):
            raise UserError(f"{where}: must be 'name: value' lines")
        where += f" ({entry.get('culture', '')} {entry.get('task', '')})"
        kind = str(entry.get("kind", ""))
        if kind and not isinstance(kinds.get(kind), dict):
            raise UserError(f"{where}: there is no kind '{kind}': use one of {', '.join(map(str, kinds))}")
        values = defaults | kinds.get(kind, {}) | {name: value for name, value in entry.items() if name != "kind"}
        try:
            task = Task.model_validate(values, strict=True)
        except ValidationError as error:
            raise UserError(f"{where}: {_problem(error)}") from None
        if (task.culture, task.task) in found:
            raise UserError(f"{where}: stands there twice; name one of the two otherwise")
        found[task.culture, task.task] = task
    for task in found.values():
        other = found.get((task.culture, task.duplicate_of))
        if task.duplicate_of and (other is None or other.duplicate_of):
            raise UserError(f"{paths.shown(path)} ({task.culture} {task.task}): duplicate_of names "
                            f"'{task.duplicate_of}', which must be a set of the culture that duplicates no other")
    return list(found.values())


def _problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    said = problem["msg"].removeprefix("Value error, ")
    hint = '; quote words such as "OFF", "no" or "1"' if problem["type"] == "string_type" else ""
    return (f"field '{where}': {said}" if where else said) + hint


def strict_parse(labels: Iterable[str], reply: str) -> str | None:
    """The label that a reply is, up to case, quotes, spaces, a final full stop and ``Label:`` before it; else None."""
    labels = tuple(labels)
    bare = re.sub(r"(?i)^label\s*[:：]", "", reply.strip().strip(QUOTES)).strip().strip(QUOTES).strip()
    bare = re.sub(r"[.。।۔]$", "", bare).strip().strip(QUOTES).strip()
    for said in (reply.strip(), bare):
        found = [x for x in labels if x == said] or [x for x in labels if x.casefold() == said.casefold()]
        if len(found) == 1:
            return found[0]
    return None


def paper_parse(task: Task, reply: str) -> str:
    """The label in the file that the released evaluator takes a reply for, or the reply itself when it cannot tell.

    It reproduces ``postprocess`` of the authors' ``test_offensEval.py`` with its defects: words are looked for anywhere
    in the lower-cased reply ("no" in "know"), HS2 to HS6 become HS1, and ``ind`` is never found.
    """
    if not task.paper_parser:
        raise UserError(f"{task.culture} {task.task}: the released evaluator does not know this set")
    return _first(task.paper_parser, reply)


def defect_effects(task: Task, golds: Sequence[str], replies: Sequence[str]) -> dict[str, float]:
    """Macro-F1 of the same replies as the released evaluator gets it, and what mending its defects changes.

    ``golds`` are labels in the file. ``released`` keeps all defects; ``substrings``, ``merged classes`` and
    ``renamed class`` mend one each, where the set has it: words looked for anywhere, HS2 to HS6 read as HS1, and
    ``ind`` in the file but ``indv`` in the labels averaged over. ``mended`` has none of them. Empty for a set that the
    released evaluator does not know. Labels absent from golds and replies count 0, as there.
    """
    if not task.paper_parser:
        return {}
    labels = task.paper_labels or list(task.labels)
    named = {label: label if label in labels else word for label, word in task.labels.items()}
    of_word: dict[str | None, str] = {word: named[label] for label, word in task.labels.items()}
    read = list(task.paper_parser.values())
    merged = [label for label in read if read.count(label) > 1]
    apart = {part: next((own for own in task.labels if part in own.lower()), label) if label in merged else label
             for part, label in task.paper_parser.items()}

    def f1(true: Sequence[str], parser: dict[str, str] | None) -> float:
        if parser is None:
            found = [of_word.get(strict_parse(task.words, reply), "") for reply in replies]
        else:
            found = [_first(parser, reply) for reply in replies]
        return float(f1_score(true, found, labels=labels, average="macro", zero_division=0))

    right = [named[label] for label in golds]
    effects = {"released": f1(golds, task.paper_parser), "substrings": f1(golds, None)}
    if merged:
        effects["merged classes"] = f1(golds, apart)
    if set(named.values()) != set(named):
        effects["renamed class"] = f1(right, task.paper_parser)
    return effects | {"mended": f1(right, None)}


def _first(parser: dict[str, str], reply: str) -> str:
    return next((label for part, label in parser.items() if part in reply.lower()), reply) if reply else reply
