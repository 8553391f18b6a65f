"""Classification tasks: the small labelled sets that ship with the package, one per culture, in its language.

A row of ``bundled_tasks.jsonl``::

    {"item_id": "german-test-01", "culture": "german", "task": "rudeness_detect", "split": "test",
     "text": "...", "label": "NOT_RUDE", "english": "..."}
"""

from functools import cache

from culturellm_utils import paths, prompts
from culturellm_utils.records import TaskItem, read_rows

LABELS = ("RUDE", "NOT_RUDE")
INSTRUCTION = "Is the text below rude?"


@cache
def _bundled() -> tuple[TaskItem, ...]:
    return tuple(read_rows(paths.DATA / "bundled_tasks.jsonl", TaskItem))


def bundled(split: str, culture: str = "") -> list[TaskItem]:
    """The shipped items of ``train`` or ``test``, of one culture or of all; empty for a culture without a set."""
    return [item for item in _bundled() if item.split == split and culture in ("", item.culture)]


def prompt(item: TaskItem) -> str:
    """The user turn that asks for the item's label."""
    return prompts.classification_prompt(item.text, LABELS, INSTRUCTION)
