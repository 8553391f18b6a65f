"""The one exception that a user is meant to read: a sentence that says which file, where, and what to do."""

import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")
#: Control characters and those that turn text round: quoted from a file or a reply, they would steer a terminal.
_STEERING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

#: What helps where a disk refuses, by what systems, SQLite, safetensors, tokenizers and torch say: some keep no errno.
_REMEDIES = {
    re.compile("no space left|disk is full|quota exceeded|file too large|file write failed|os error (28|122|27)", re.I):
        "free some space there and rerun (what was written or paid before is kept)",
    re.compile("permission denied|not permitted|read-?only|os error (13|1|30)\\b", re.I):
        "allow that and rerun",
    re.compile("input/output error|disk i/o error|os error 5\\b", re.I): "check that disk and rerun",
}

#: Characters of a sentence beyond which its middle is left out: what is quoted in it may be of any length.
LONGEST = 1000


class UserError(Exception):
    """Bad input, explained in one sentence, or in some, each a line.

    In a notebook IPython prints the sentence alone, without a traceback. What a sentence quotes may be anything: it
    stays on its line, without signs that cannot be seen, and a long one loses its middle.

    >>> raise UserError("params/korean.yaml: countries is empty; list at least one ISO alpha-3 code")
    """

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(map(_one_line, sentences)))

    def _render_traceback_(self) -> list[str]:
        return [f"Error: {self}"]


def remedy(said: object) -> str:
    """What to do when an error, or its text, says that a disk is full, forbidden or broken; "" when it says no such
    thing."""
    return next((help for sign, help in _REMEDIES.items() if sign.search(str(said))), "")


def printable(text: str) -> str:
    """Text for a terminal: tabs and line feeds stay, other control characters become a replacement character."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def _one_line(sentence: str) -> str:
    if len(sentence) > LONGEST:
        sentence = f"{sentence[: LONGEST // 2]} ... {sentence[-LONGEST // 2 :]}"
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "\N{REPLACEMENT CHARACTER}"
                   for sign in sentence)


def command_line(main: Callable[P, int]) -> Callable[P, int]:
    """Make ``main`` say what a user can mend in one sentence on standard error, and return 1."""
    @wraps(main)
    def told(*arguments: P.args, **named: P.kwargs) -> int:
        try:
            return main(*arguments, **named)
        except (UserError, OSError) as error:
            helps = remedy(error) if isinstance(error, OSError) else ""
            print(f"Error: {printable(str(error))}{helps and ': '}{helps}", file=sys.stderr, flush=True)
            return 1
    return told
