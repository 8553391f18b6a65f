"""The one exception that a user is meant to read: a sentence that says which file, where, and what to do."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


class UserError(Exception):
    """Bad input, explained in one sentence.

    In a notebook IPython prints the sentence alone, without a traceback.

    >>> raise UserError("params/korean.yaml: countries is empty; list at least one ISO alpha-3 code")
    """

    def _render_traceback_(self) -> list[str]:
        return [f"Error: {self}"]


def command_line(main: Callable[P, int]) -> Callable[P, int]:
    """Make ``main`` say what a user can mend in one sentence on standard error, and return 1."""
    @wraps(main)
    def told(*arguments: P.args, **named: P.kwargs) -> int:
        try:
            return main(*arguments, **named)
        except (UserError, OSError) as error:
            print(f"Error: {error}", file=sys.stderr, flush=True)
            return 1
    return told
