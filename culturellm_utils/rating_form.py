"""The rating form: one HTML page in the raters' language that needs no server and sends nothing.

Its texts are in ``data/rating_form.yaml``, its page in ``data/rating_form.html``. A rater's file as the form gives it::

    rater_id,pair_id,rating,seconds,position
    r07,p3fa91c07be,5,6.2,1

Each rater sees the pairs in an order of their own, drawn from the rater id, so that a change over time can be told from
easy and hard pairs; ``position`` keeps it.
"""

import hashlib
import html
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from culturellm_utils import paths, studies
from culturellm_utils.errors import UserError
from culturellm_utils.records import Pair, problem

#: What reading and rating one pair takes, in seconds: an assumption, for the duration that the form announces.
SECONDS_A_PAIR = 10


class Texts(BaseModel):
    """The texts of one language, as far as their kind matters here; the page has them all."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, str | list[str] | list[dict[str, str | int]]]

    name: str
    direction: Literal["ltr", "rtl"]
    title: str
    ask: str
    rubric: dict[Literal[1, 2, 3, 4, 5], str] = Field(min_length=5)
    consent: list[str]
    placeholder: str
    no_script: str


@cache
def languages() -> dict[str, dict[str, Any]]:
    """Every text of the form, by ISO 639-1 code of its language. Raises UserError when one is missing or
    is none."""
    path = paths.DATA / "rating_form.yaml"
    found = studies.read_yaml(path)
    try:
        blocks = TypeAdapter(dict[str, Texts]).validate_python(found)
    except ValidationError as error:
        raise UserError(f"{paths.shown(path)}: {problem(error)}; write each language's block like that of 'en'"
                        ) from None
    names = {name for block in blocks.values() for name in block.model_dump()}
    for language, block in found.items():
        if lacking := sorted(names - block.keys()):
            raise UserError(f"{paths.shown(path)}: {language} has no '{lacking[0]}', as others have: translate it")
    return found


def texts(language: str = "en") -> dict[str, Any]:
    """The form's texts in one language. Raises UserError when it has none in it."""
    if language not in languages():
        known = ", ".join(f"{code} ({block['name']})" for code, block in languages().items())
        raise UserError(f"form_language '{language}': the rating form speaks {known}; add others to "
                        "culturellm_utils/data/rating_form.yaml")
    return languages()[language]


def consent(language: str = "en", path: str = "") -> list[str]:
    """The paragraphs a rater agrees to: those of the text file at ``path``, or the project's, whose last one is a gap
    that the researchers must fill. Raises UserError when the file cannot be read or is empty."""
    if not path:
        return [*texts(language)["consent"], texts(language)["placeholder"]]
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"consent_path: {paths.shown(path)} cannot be read ({paths.reason(error)}): "
                        "name a text file in UTF-8, with blank lines between paragraphs") from None
    found = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]
    if not found:
        raise UserError(f"consent_path: {paths.shown(path)} is empty: write into it what raters agree to")
    return found


def notices(language: str = "en", consent_path: str = "") -> list[str]:
    """What the researcher should know before using the form; the form itself shows it until ``consent_path`` is set."""
    said = []
    if language != "en":
        said.append(f"The form's {texts(language)['name']} texts were written for this project and no native speaker "
                    "has checked them: have one read them first, above all the five ratings.")
    if not consent_path:
        said.append("The consent text has a gap to be filled: write your own into a text file and name it in "
                    "consent_path (who asks and why, whom to contact, payment, ethics approval, who keeps what, and "
                    "how long).")
    return said


def page(pairs: Sequence[Pair], language: str = "en", consent_path: str = "", completion_url: str = "") -> str:
    """The form as one HTML page.

    ``completion_url`` is shown once the ratings are downloaded (on Prolific, the study's completion link). Opened with
    ``?PROLIFIC_PID=...`` the form takes that for the rater id. Texts travel as JSON in which ``<`` cannot occur, and
    enter the page as text. Raises UserError when the language, the consent text or the link cannot be used.
    """
    if completion_url and not re.fullmatch(r"https://[^\s\"'<>\\]{3,500}", completion_url):
        raise UserError("completion_url must be a link that begins with https://, or empty")
    words = texts(language)
    shown = [pair.model_dump() for pair in pairs]
    data = {
        "form": hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:12],
        "pairs": shown,
        "texts": words,
        "consent": consent(language, consent_path),
        "notices": [] if consent_path else notices(language),
        "minutes": max(1, round(len(shown) * SECONDS_A_PAIR / 60)),
        "completion": completion_url,
    }
    filled = (paths.DATA / "rating_form.html").read_text(encoding="utf-8")
    for name, value in {"__LANGUAGE__": language, "__DIRECTION__": words["direction"], "__TITLE__": words["title"],
                        "__NO_SCRIPT__": words["no_script"]}.items():
        filled = filled.replace(name, html.escape(value))
    return filled.replace("__DATA__", json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e"))
