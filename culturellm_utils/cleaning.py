"""Whose ratings are left out: rules that are stated before there is anything to leave out.

``cleaning_rules.json``, written when the rating form is made and kept once people have rated::

    {"digest": "0f8b3c5d92aa", "before_ratings": true, "rules": {"failed_checks": 0, ...}, "in_words": [...]}

The rules look at how somebody rated, never at whether the samples come out well; automatic raters always stay.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from pydantic import Field, ValidationError

from culturellm_utils import paths, records, studies
from culturellm_utils.errors import UserError
from culturellm_utils.human_study import Key
from culturellm_utils.imports import Participant
from culturellm_utils.ratings import Rating
from culturellm_utils.records import Row

COLUMNS = ("rater_id", "pairs", "rules", "reason")


class Rules(Row):
    """What a person must meet to be kept. A check is failed by identical texts rated below ``same_at_least``, or
    unrelated ones above ``different_at_most``."""

    same_at_least: int = Field(default=4, ge=1, le=5)
    different_at_most: int = Field(default=2, ge=1, le=5)
    failed_checks: int = Field(default=0, ge=0)             # most failed checks of a person who is kept
    median_seconds: float = Field(default=2.0, ge=0)        # least median time on a real pair; 0: any
    straight_line_pairs: int = Field(default=10, ge=0)      # from so many real pairs on, one rating for all; 0: never
    share_of_pairs: float = Field(default=0.5, ge=0, le=1)  # least share of the real pairs
    statuses: list[str] = Field(default=["REJECTED", "RETURNED", "SCREENED OUT", "TIMED OUT"])  # of Prolific

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with any rule."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:12]

    def in_words(self) -> list[str]:
        """Each rule as a sentence."""
        some = f"more than {self.failed_checks}" if self.failed_checks else "any"
        said = [f"Attention checks: a person is left out who fails {some} of them, that is, rates identical texts "
                f"below {self.same_at_least} or unrelated ones above {self.different_at_most}."]
        if self.median_seconds:
            said.append(f"Too fast: a median of less than {self.median_seconds:g} seconds on the real pairs.")
        if self.straight_line_pairs:
            said.append(f"Straight-lining: one and the same rating on all of {self.straight_line_pairs} or more real "
                        "pairs, unless another rating on an attention check shows that the texts were read.")
        if self.share_of_pairs:
            said.append(f"Too few: less than {self.share_of_pairs:.0%} of the real pairs rated.")
        if self.statuses:
            said.append(f"Prolific: whose submission is {', '.join(self.statuses).lower()}.")
        return said


def rules(path: str = "") -> Rules:
    """The rules, with what the YAML file at ``path`` changes (a rule's name and its value a line); "" changes none.

    Raises UserError when the file is missing, or names a rule that is none or a value out of its range.
    """
    if not path:
        return Rules()
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{paths.shown(path)} is not YAML in UTF-8: write one rule a line, as in 'failed_checks: 1'"
                        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cleaning_path: {paths.shown(path)} cannot be read ({paths.reason(error)}); "
                        "leave it empty for the project's rules") from None
    try:
        return Rules.model_validate(studies.parse_yaml(text, paths.shown(path)) or {})
    except ValidationError as error:
        rule = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(f"{paths.shown(path)}: there is no rule '{rule}' with such a value; the rules are "
                        f"{', '.join(Rules.model_fields)}") from None


def state(folder: Path, wanted: Rules, rated: bool) -> dict[str, Any]:
    """State the rules in ``folder/cleaning_rules.json``; once people have rated, the file stays as it was.

    Returns what ``agreement.json`` keeps: the ``digest`` of the rules in force, ``stated``, that of the rules stated
    before the data, and ``changes``, a sentence for each rule that differs (or that none had been stated).
    """
    path = folder / "cleaning_rules.json"
    if not (rated and path.is_file()):
        records.write_json(path, {"digest": wanted.digest, "before_ratings": not rated, "rules": wanted.model_dump(),
                                  "in_words": wanted.in_words()})
    try:
        found = records.read_json(path)
        stated, early = Rules.model_validate(found["rules"]), bool(found["before_ratings"])
    except (KeyError, TypeError, ValidationError):
        raise UserError(f"{paths.shown(path)} does not hold rules: put back the file that was written with the "
                        "rating form") from None
    before, now = stated.model_dump(), wanted.model_dump()
    changes = [f"After people had rated, the rule {name} was changed from {before[name]} to {now[name]}."
               for name in now if now[name] != before[name]]
    if not early:
        changes.insert(0, "The rules were first stated when there were ratings already.")
    return {"digest": wanted.digest, "stated": stated.digest if early else "", "changes": changes}


def clean(ratings: Iterable[Rating], key: Key, rules: Rules | None = None,
          participants: Mapping[str, Participant] | None = None) -> tuple[list[Rating], pd.DataFrame]:
    """The ratings of those who stay, and a table of the people left out: one row a person, columns ``COLUMNS``.

    ``participants`` are those of Prolific's export (``imports.participants``); who is not among them is judged by the
    other rules alone. Attention checks of those who stay are among the ratings returned.
    """
    rules, ratings, participants = rules or Rules(), list(ratings), participants or {}
    real = sum(not entry.check for entry in key.values())
    by_person: dict[str, list[Rating]] = defaultdict(list)
    for rating in ratings:
        if not rating.automatic:
            by_person[rating.rater_id].append(rating)
    out = []
    for person, rows in sorted(by_person.items()):
        pairs = [row for row in rows if not key[row.pair_id].check]
        found = _reasons(rows, pairs, real, key, rules)
        if person in participants and participants[person].status in rules.statuses:
            found["prolific"] = f"Prolific's status is {participants[person].status.lower()}"
        if found:
            out.append((person, len(pairs), "; ".join(found), "; ".join(found.values())))
    left_out = {person for person, *_ in out}
    return [row for row in ratings if row.rater_id not in left_out], pd.DataFrame(out, columns=list(COLUMNS))


def _reasons(rows: list[Rating], pairs: list[Rating], real: int, key: Key, rules: Rules) -> dict[str, str]:
    """The rules that one person does not meet, each with what was found."""
    found = {}
    checks = [row for row in rows if key[row.pair_id].check]
    failed = sum(row.rating < rules.same_at_least if key[row.pair_id].check == "same"
                 else row.rating > rules.different_at_most for row in checks)
    if failed > rules.failed_checks:
        found["attention checks"] = f"fails {failed} of {len(checks)} attention checks"
    seconds = [row.seconds for row in pairs if row.seconds is not None]
    if seconds and median(seconds) < rules.median_seconds:
        found["too fast"] = f"takes {median(seconds):.1f} seconds in the median"
    if len(pairs) >= rules.straight_line_pairs > 0 and len({row.rating for row in rows}) == 1:
        found["straight-lining"] = f"rates everything {pairs[0].rating}"
    if len(pairs) < rules.share_of_pairs * real:
        found["too few"] = f"rates {len(pairs)} of {real} pairs"
    return found
