"""The study in a culture's own language: questions, options, system prompts and the prompts that augment.

Each text is worded by the user, or translated by the chat model and back without sight of the original. It is used when
its blanks and protected words are there and the English that comes back says the same: its cosine to the original is
above a threshold and its stance is the original's. A row of ``translations.jsonl``::

    {"name": "Q39", "kind": "question", "english": "Not working makes people lazy.", "text": "...", "protected": [...],
     "back": "Not having work makes people lazy.", "similarity": 0.93, "source": "gpt-4o", "reason": ""}
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

from pydantic import Field

from culturellm_utils import languages, paths, prompts, replies, studies, wordings
from culturellm_utils.augmentation import Writer, texts_schema
from culturellm_utils.client import Client, Reply, Request, Show, again, quiet
from culturellm_utils.encoder import BUNDLED, Encoder, load
from culturellm_utils.errors import UserError
from culturellm_utils.filtering import Judge
from culturellm_utils.guard import Guard
from culturellm_utils.parameters import Augmentation
from culturellm_utils.prompts import Phrasebook
from culturellm_utils.records import Question, ReplyRow, Row, Translation, read_rows
from culturellm_utils.replies import Verdict

#: Texts in one request: few requests, and replies short enough not to be cut off.
TOGETHER = 10
_BLANK = re.compile(r"\{\w+\}")
#: What makes an option negative in English.
_NOT = re.compile(
    r"\b(?:no|not|none|nothing|nobody|never|neither|nor|without|hardly|barely|scarcely|rarely|seldom|infrequently|dis\w+"
    r"|un(?!der|io|it|iv|til|less)\w+)\b|n['’]t\b", re.IGNORECASE)


class Own(Row):
    """A row of a user's ``translations_path``: a text by its name (a question id, an English option, a phrase)."""

    name: str
    text: str = Field(min_length=1)
    protected: list[str] = Field(default_factory=list)


def prepare(knobs: Augmentation, client: Client, questions: list[Question],
            show: Show = quiet) -> tuple[list[Question], Phrasebook, list[Translation], list[ReplyRow]]:
    """The questions as they are asked, their phrasebook, and with ``language: local`` the translations behind them and
    the replies that they took. Raises UserError as :func:`translate` does."""
    if knobs.language == "english":
        return questions, prompts.ENGLISH, [], []
    language = knobs.culture_language
    languages.code(language)  # complains now about what is no language
    names = [studies.culture(name).prompt_name for name in dict.fromkeys([knobs.culture, *knobs.cultures])]
    scales = [[text for text in question.options.values() if text] for question in questions]
    rows, record = translate(client, wanted(questions, names), _own(knobs.translations_path), language, load(BUNDLED),
                             Guard(), knobs.back_translation_tau, show, scales)
    return wordings.in_language(questions, rows), wordings.phrasebook(language, rows), rows, record


def _own(translations_path: str) -> list[Own]:
    """A user's own wordings; none for ""."""
    path = paths.given(translations_path)
    if translations_path and not path.is_file():
        raise UserError(f"translations_path: {paths.shown(path)} does not exist; give a JSON Lines file of rows with "
                        "name and text, or '' to have all translated")
    return read_rows(path, Own) if translations_path else []


def wanted(questions: Sequence[Question], prompt_names: Sequence[str]) -> list[Translation]:
    """What a study needs in another language, still without texts."""
    def row(kind: str, name: str, english: str, protected: Sequence[str] = ()) -> Translation:
        return Translation(name=name, kind=kind, english=english, text="", protected=list(protected), source="")

    options = dict.fromkeys(text for question in questions for text in question.options.values() if text)
    phrases = [row("phrase", name, english) for name, english in prompts.PHRASES.items()]
    systems = [row("phrase", f"system {name}", prompts.culture_system(name)) for name in dict.fromkeys(prompt_names)]
    return [*(row("question", q.question_id, q.question, q.protected) for q in questions),
            *(row("option", text, text) for text in options), *phrases, *systems]


def translate(client: Client, rows: list[Translation], own: Sequence[Own], language: str, encoder: Encoder,
              guard: Judge, least: float, show: Show = quiet,
              scales: Sequence[Sequence[str]] = ()) -> tuple[list[Translation], list[ReplyRow]]:
    """``rows`` with their texts in ``language``: those of ``own`` (a user's, by name) as they are, the others by the
    chat model, checked by translating back; what fails is translated again as often as replies are.

    ``least`` is the least cosine between the original and what came back (exclusive); ``scales`` are the options that
    stand beside each other. Raises UserError when an option or phrase stays without a usable translation, since every
    prompt would lack it; a question that does has a reason.
    """
    if languages.code(language) == "en":
        return [row.model_copy(update={"text": row.english, "source": "original"}) for row in rows], []
    done = _worded(rows, own, language)
    open_ = [row for row in rows if row.name not in done]
    record: list[ReplyRow] = []
    for attempt in range(client.retries + 1):
        if not open_:
            break
        why = "; ".join(dict.fromkeys(done[row.name].reason for row in open_ if row.name in done))
        made = _once(Writer(client, Phrasebook(language), show, record), open_, encoder, guard, least, attempt, why)
        done |= {row.name: row for row in made}
        done |= _confused(done, scales)
        open_ = [row for row in rows if done[row.name].reason]
    lacking = [row for row in open_ if row.kind != "question"]
    if lacking:
        raise UserError(f"{len(lacking)} texts have no usable translation into {language}, such as '{lacking[0].name}' "
                        f"({done[lacking[0].name].reason}); word them yourself in translations_path, or use another "
                        "chat_model")
    return [done[row.name] for row in rows], record


def _worded(rows: Sequence[Translation], own: Sequence[Own], language: str) -> dict[str, Translation]:
    """The rows that a user worded, by name."""
    by_name = {row.name: row for row in rows}
    done: dict[str, Translation] = {}
    for given in own:
        if given.name not in by_name:
            raise UserError(f"translations_path: '{given.name}' is no question, option or phrase of this study; its "
                            "names are question ids, English options, and those in prompts.PHRASES")
        if given.name in done:
            raise UserError(f"translations_path: '{given.name}' comes twice; keep one of them")
        row = by_name[given.name].model_copy(update={"text": given.text, "protected": given.protected,
                                                     "source": "user"})
        if lost := missing(row, language):
            raise UserError(f"translations_path: the text of '{row.name}' lacks {lost}")
        done[row.name] = row
    return done


def _once(writer: Writer, rows: list[Translation], encoder: Encoder, guard: Judge, least: float, attempt: int,
          why: str) -> list[Translation]:
    """Translate there and back, and judge. ``why`` says what was wrong with the attempt before."""
    language = writer.book.language
    found = _ask(writer, rows, language, attempt, why)
    made = [row.model_copy(update={"text": text, "protected": protected, "source": writer.client.source})
            for row, (text, protected) in zip(rows, found, strict=True)]
    reasons = {row.name: _lack(old, row, language) for old, row in zip(rows, made, strict=True)}
    sound = [row for row in made if not reasons[row.name]]
    home = Writer(writer.client, prompts.ENGLISH, writer.show, writer.replies)
    back = {row.name: text for row, (text, _) in zip(sound, _ask(home, sound, language, attempt, why), strict=True)}
    pairs = [(row.english, back[row.name]) for row in sound if back[row.name]]
    cosines = (encoder.encode(a for a, _ in pairs) * encoder.encode(b for _, b in pairs)).sum(1) if pairs else []
    similarity = {pair: round(float(cosine), 6) for pair, cosine in zip(pairs, cosines, strict=True)}
    verdicts = dict(zip(pairs, guard.judge(pairs), strict=True))
    for row in sound:
        pair = row.english, back[row.name]
        if pair not in similarity:
            reasons[row.name] = "no usable back-translation"
        elif similarity[pair] <= least:
            reasons[row.name] = f"similarity of the back-translation: at most {least:.2f}"
        elif row.kind == "question" and verdicts[pair].startswith("polarity"):
            reasons[row.name] = f"the back-translation changes it ({verdicts[pair]})"
        elif row.kind == "option" and bool(_NOT.search(pair[0])) != bool(_NOT.search(pair[1])):
            reasons[row.name] = "the back-translation changes it (polarity: flipped)"
    return [row.model_copy(update={"back": back.get(row.name) or None, "reason": reasons[row.name],
                                   "similarity": similarity.get((row.english, back.get(row.name, "")))})
            for row in made]


def _lack(asked: Translation, row: Translation, language: str) -> str:
    """Why a translation need not be translated back; "" when it is to be."""
    if not row.text:
        return "no usable reply"
    if asked.protected and not row.protected:
        return "names no protected word"
    lost = missing(row, language)
    return f"lacks {lost}" if lost else ""


def missing(row: Translation, language: str) -> str:
    """What a translation lacks: a blank of its original, or a word that it names as protected; "" when nothing."""
    blanks = sorted(set(_BLANK.findall(row.english)) - set(_BLANK.findall(row.text)))
    words = [word for word in row.protected if not languages.holding(word, row.text, language)]
    return f"the blank {blanks[0]}" if blanks else f"its protected word '{words[0]}'" if words else ""


def _confused(done: Mapping[str, Translation], scales: Sequence[Sequence[str]]) -> dict[str, Translation]:
    """Translated options that cannot be told from another one of their scale, with that as their reason."""
    found = {}
    for scale in scales:
        for name, other in permutations(dict.fromkeys(scale), 2):
            row, beside = done[name], done[other]
            if row.source == "user" or row.reason or beside.reason:
                continue
            if languages.plain(row.text) == languages.plain(beside.text):
                found[name] = row.model_copy(update={"reason": f"the same text as '{other}'"})
            elif row.back and languages.plain(row.back) == languages.plain(other):
                found[name] = row.model_copy(update={"reason": f"the back-translation says '{other}'"})
    return found


def _ask(writer: Writer, rows: list[Translation], language: str, attempt: int, why: str) -> list[tuple[str, list[str]]]:
    """The text and the protected words of each row in the writer's language, from ``language`` or into it; "" where
    there is no usable one."""
    groups = [rows[i : i + TOGETHER] for i in range(0, len(rows), TOGETHER)]
    into = writer.book.language
    requests = [_back(group, language) if into == "English" else _there(group, language) for group in groups]
    if attempt:
        requests = [replace(again(request, why), attempt=attempt) for request in requests]
    named = {request.subject: group for request, group in zip(requests, groups, strict=True)}
    found = writer.settle(requests, lambda request, reply: _read(reply, named[request.subject], into))
    return [value for group, values in zip(groups, found, strict=True) for value in values or [("", [])] * len(group)]


def _there(group: list[Translation], language: str) -> Request:
    """The request for some translations into ``language``."""
    items = [{"text": row.english, "protected": row.protected} for row in group]
    return Request(_subject(group), "translation", prompts.chat(
        "You translate surveys faithfully: same meaning, strength and stance. You answer with JSON only.",
        f"Translate each text from English into {language}, as a native survey writer would put it. Keep what stands "
        "in braces, such as {count}, untouched. 'protected' holds words of the text: give the exact words of your "
        f"translation that stand for them.\nItems: {json.dumps(items, ensure_ascii=False)}\n"
        'Reply as {"texts": [{"text": "...", "protected": ["..."]}]}, in the same order.'), _SCHEMA)


def _back(group: list[Translation], language: str) -> Request:
    """The request that translates them back."""
    items = [{"text": row.text, "protected": []} for row in group]
    return Request(_subject(group), "back-translation", prompts.chat(
        "You translate surveys faithfully: same meaning, strength and stance. You answer with JSON only.",
        f"Translate each text from {language} into English, literally. Keep what stands in braces untouched.\n"
        f"Items: {json.dumps(items, ensure_ascii=False)}\n"
        'Reply as {"texts": [{"text": "...", "protected": []}]}, in the same order.'), _SCHEMA)


_SCHEMA = texts_schema("texts")
_SCHEMA["properties"]["texts"]["items"] = {
    "type": "object", "properties": {"text": {"type": "string"}, **texts_schema("protected")["properties"]},
    "required": ["text", "protected"], "additionalProperties": False}


def _subject(group: list[Translation]) -> str:
    return group[0].name if len(group) == 1 else f"{group[0].name} to {group[-1].name}"


def _read(reply: Reply, group: list[Translation], language: str) -> Verdict:
    """The verdict on a list of translations: each a text and its protected words; "" for one that cannot be used."""
    try:
        found = _list(replies.json_object(reply.text)["texts"])
        values = [(" ".join(item["text"].split()), [str(word) for word in _list(item.get("protected", []))])
                  for item in found]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return replies.not_json(reply.text, error)
    if len(values) != len(group):
        return Verdict(None, 0, "wrong count", f"{len(values)} instead of {len(group)}")
    wrong = {row.name: problem for row, (text, _) in zip(group, values, strict=True)
             if (problem := _problem(row, text, language))}
    kept = [("", []) if row.name in wrong else value for row, value in zip(group, values, strict=True)]
    outcome = next(iter(wrong.values()), "used")
    return Verdict(kept, len(group) - len(wrong), outcome, ", ".join(wrong))


def _problem(row: Translation, text: str, language: str) -> str:
    """Why a text is unusable as it stands: an outcome of a reply, or ""."""
    problem = replies.problem(text, language) if text else "empty"
    # A word or two may be of many languages.
    return "" if problem == "another language" and len(row.english.split()) < 4 else problem


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} is not a list")
    return value
