"""The one exception that a user is meant to read: a sentence that says which file, where, and what to do."""


class UserError(Exception):
    """Bad input, explained in one sentence.

    In a notebook IPython prints the sentence alone, without a traceback.

    >>> raise UserError("params/korean.yaml: countries is empty; list at least one ISO alpha-3 code")
    """

    def _render_traceback_(self) -> list[str]:
        return [f"Error: {self}"]
