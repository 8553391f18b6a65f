"""The one exception that a user is meant to read: a sentence that says which file, where, and what to do."""

import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")
#: Control characters and those that turn text round: quoted from a file or a reply, they would steer a terminal.
_STEERING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

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
            print(f"Error: {printable(str(error))}", file=sys.stderr, flush=True)
            return 1
    return told
