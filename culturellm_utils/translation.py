"""The study in a culture's own language: questions, options, system prompts and the prompts that augment.

Each text is translated by the chat model, or worded by the user, and the translation is translated back without sight
of the original. It is used when the English that comes back says the same: its cosine to the original is above a
threshold, its stance is the original's, its blanks and protected words are there. A row of ``translations.jsonl``::

    {"name": "Q39", "kind": "question", "english": "Not working makes people lazy.", "text": "...", "protected": [...],
     "back": "Not having work makes people lazy.", "similarity": 0.93, "source": "gpt-4o", "reason": ""}
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from culturellm_utils import languages, paths, prompts, replies, studies, wordings
from culturellm_utils.augmentation import Writer, texts_schema
from culturellm_utils.client import Client, Reply, Request, Show, again, quiet
from culturellm_utils.encoder import BUNDLED, Encoder, load
from culturellm_utils.errors import UserError
from culturellm_utils.guard import Guard
from culturellm_utils.parameters import Augmentation
from culturellm_utils.prompts import Phrasebook
from culturellm_utils.records import Question, ReplyRow, Row, Translation, read_rows
from culturellm_utils.replies import Verdict

#: Texts in one request: few requests, and replies short enough not to be cut off.
TOGETHER = 10
_BLANK = re.compile(r"\{\w+\}")


class Own(Row):
    """A row of a user's ``translations_path``: a text by its name (a question id, an English option, a phrase)."""

    name: str
    text: str
    protected: list[str] = Field(default_factory=list)


def prepare(knobs: Augmentation, client: Client, questions: list[Question],
            show: Show = quiet) -> tuple[list[Question], Phrasebook, list[Translation], list[ReplyRow]]:
    """The questions as they are asked, their phrasebook, and with ``language: local`` the translations behind them and
    the replies that they took."""
    if knobs.language == "english":
        return questions, prompts.ENGLISH, [], []
    languages.code(knobs.culture_language)  # complains now about what is no language
    names = [studies.culture(name).prompt_name for name in dict.fromkeys([knobs.culture, *knobs.cultures])]
    own = read_rows(paths.ROOT / knobs.translations_path, Own) if knobs.translations_path else []
    rows, record = translate(client, wanted(questions, names), own, knobs.culture_language, load(BUNDLED), Guard(),
                             knobs.back_translation_tau, show)
    return wordings.in_language(questions, rows), wordings.phrasebook(knobs.culture_language, rows), rows, record


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
              guard: Guard, least: float, show: Show = quiet) -> tuple[list[Translation], list[ReplyRow]]:
    """``rows`` with their texts in ``language``: those of ``own`` (a user's, by name) as they are, the others by the
    chat model, checked by translating back; what fails is translated again as often as replies are.

    ``least`` is the least cosine between the original and what came back (exclusive). Raises UserError when an option
    or phrase stays without a usable translation, since every prompt would lack it; a question that does has a reason.
    """
    worded = {row.name: row for row in own}
    unknown = sorted(worded.keys() - {row.name for row in rows})
    if unknown:
        raise UserError(f"translations_path: '{unknown[0]}' is no question, option or phrase of this study; its names "
                        "are question ids, English options and the names in prompts.PHRASES")
    done = {row.name: row.model_copy(update={"text": worded[row.name].text, "protected": worded[row.name].protected,
                                             "source": "user"}) for row in rows if row.name in worded}
    for row in done.values():
        if (lost := missing(row, row.text, row.protected)):
            raise UserError(f"translations_path: the text of '{row.name}' lacks {lost}")
    open_ = [row for row in rows if row.name not in done]
    record: list[ReplyRow] = []
    for attempt in range(client.retries + 1):
        if not open_:
            break
        for row in _once(client, open_, language, encoder, guard, least, attempt, record, show):
            done[row.name] = row
        open_ = [row for row in rows if done[row.name].reason]
    lacking = [row for row in open_ if row.kind != "question"]
    if lacking:
        raise UserError(f"{len(lacking)} texts have no usable translation into {language}, such as '{lacking[0].name}' "
                        f"({done[lacking[0].name].reason}); word them yourself in translations_path, or use another "
                        "chat_model")
    return [done[row.name] for row in rows], record


def _once(client: Client, rows: list[Translation], language: str, encoder: Encoder, guard: Guard, least: float,
          attempt: int, record: list[ReplyRow], show: Show) -> list[Translation]:
    """Translate there and back, and judge."""
    there = Writer(client, Phrasebook(language), show, record)
    groups = [rows[i : i + TOGETHER] for i in range(0, len(rows), TOGETHER)]
    requests = [_attempt(_there(group, language), attempt) for group in groups]
    named = {request.subject: group for request, group in zip(requests, groups, strict=True)}
    found = there.settle(requests, lambda request, reply: _read(reply, named[request.subject], language))
    made = [row.model_copy(update={"text": text, "protected": protected, "source": client.source})
            for group, values in zip(groups, found, strict=True)
            for row, (text, protected) in zip(group, values or [("", [])] * len(group), strict=True)]
    sound = [row for row in made if row.text and not missing(row, row.text, row.protected)]
    groups = [sound[i : i + TOGETHER] for i in range(0, len(sound), TOGETHER)]
    home = Writer(client, prompts.ENGLISH, show, record)
    requests = [_attempt(_back(group, language), attempt) for group in groups]
    named = {request.subject: group for request, group in zip(requests, groups, strict=True)}
    back = home.settle(requests, lambda request, reply: _read(reply, named[request.subject], "English"))
    english = {row.name: text for group, values in zip(groups, back, strict=True)
               for row, (text, _) in zip(group, values or [("", [])] * len(group), strict=True)}
    pairs = [row for row in sound if english[row.name]]
    originals, returned = [r.english for r in pairs], [english[r.name] for r in pairs]
    cosines = (encoder.encode(originals) * encoder.encode(returned)).sum(1) if pairs else []
    verdicts = guard.judge(list(zip(originals, returned, strict=True)))
    judged = {row.name: (float(cosine), verdict) for row, cosine, verdict in zip(pairs, cosines, verdicts, strict=True)}
    result = []
    for row in made:
        reason, similarity = "", None
        if not row.text:
            reason = "no usable reply"
        elif lost := missing(row, row.text, row.protected):
            reason = f"lacks {lost}"
        elif row.name not in judged:
            reason = "no usable back-translation"
        else:
            similarity, verdict = round(judged[row.name][0], 6), judged[row.name][1]
            if similarity <= least:
                reason = f"similarity of the back-translation: at most {least:.2f}"
            elif row.kind == "question" and verdict.startswith("polarity"):
                reason = f"the back-translation changes it ({verdict})"
        result.append(row.model_copy(update={"back": english.get(row.name), "similarity": similarity, "reason": reason}))
    return result


def missing(row: Translation, text: str, protected: Sequence[str]) -> str:
    """What a translation lacks: a blank of its original, or a word that it names as protected; "" when nothing."""
    blanks = sorted(set(_BLANK.findall(row.english)) - set(_BLANK.findall(text)))
    words = [word for word in protected if word not in text]
    return f"the blank {blanks[0]}" if blanks else f"its protected word '{words[0]}'" if words else ""


def _attempt(request: Request, attempt: int) -> Request:
    for _ in range(attempt):
        request = again(request, "a back-translation did not say the same")
    return request


def _there(group: list[Translation], language: str) -> Request:
    """The request for some translations into ``language``."""
    items = [{"text": row.english, "protected": row.protected} for row in group]
    return Request(_subject(group), "translation", prompts.chat(
        "You translate surveys faithfully: same meaning, strength and stance. You answer with JSON only.",
        f"Translate each text from English into {language}, as a native survey writer would put it. Keep what stands in "
        "braces, such as {count}, untouched. 'protected' holds words of the text: give the exact words of your "
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
    """The verdict on a list of translations: each a text and its protected words; "" for one in another language."""
    try:
        found: list[Any] = replies.json_object(reply.text)["texts"]
        values = [(" ".join(str(item["text"]).split()), [str(word) for word in item["protected"]]) for item in found]
    except (ValueError, KeyError, TypeError) as error:
        return replies.not_json(reply.text, error)
    if len(values) != len(group):
        return Verdict(None, 0, "wrong count", f"{len(values)} instead of {len(group)}")
    # A single word may be of many languages; a sentence is not.
    right = [bool(text) and (len(row.english.split()) < 4 or languages.plausible(text, language))
             for row, (text, _) in zip(group, values, strict=True)]
    kept = [value if good else ("", []) for value, good in zip(values, right, strict=True)]
    wrong = [row.name for row, good in zip(group, right, strict=True) if not good]
    return Verdict(kept, sum(right), "another language" if wrong else "used", ", ".join(wrong))
