"""Replies that are usable and replies that are not: judged, asked again a bounded number of times, all recorded.

A judge reads one reply and says what it is worth::

    >>> texts('{"texts": ["A.", "B."]}', 3, "English")
    Verdict(value=['A.', 'B.'], worth=2, outcome='wrong count', detail='2 instead of 3')

What stays unusable after the last attempt is None; of attempts that are partly usable the one worth most is taken.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from culturellm_utils import languages
from culturellm_utils.client import Client, Reply, Request, Show, again, quiet, recording_key
from culturellm_utils.records import ReplyRow

_REFUSAL = re.compile(
    r"\b(?:I|we)(?:['’]m| am)? (?:cannot|can['’]t|won['’]t|will not|unable|not able|must decline|sorry|apologi[sz]e)\b"
    r"|\bas an AI\b", re.IGNORECASE)
#: Tags, emphasis, code, headings, links, entities, escapes, and halves of surrogate pairs, which no file can hold.
_MARKUP = re.compile(
    r"</?[a-z][^<>]*>|\*\*|\*\w[^*]*\*|__|`|^#+ |\[[^\[\]]*\]\([^()]*\)|&(?:[a-z]{2,8}|#\d+);|\\[nu]|[\ud800-\udfff]",
    re.IGNORECASE)
_LISTED = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•])[ \t]+(.+)$", re.MULTILINE)
_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """``value`` is what can be used (None: nothing), ``worth`` how much of it there is, ``outcome`` as in ReplyRow."""

    value: Any
    worth: int
    outcome: str = "used"
    detail: str = ""


Judge = Callable[[Request, Reply], Verdict]


def settle(client: Client, requests: list[Request], judge: Judge,
           show: Show = quiet) -> tuple[list[Any], list[ReplyRow]]:
    """The usable value of each request, None where no attempt brought one, and a record of every reply, attempt by
    attempt, in the order of the requests."""
    best: list[Verdict] = [Verdict(None, 0, "unusable")] * len(requests)
    rows: list[ReplyRow] = []
    best_row: dict[int, int] = {}
    waiting = dict(enumerate(requests))
    for attempt in range(client.retries + 1):
        replies = client.ask(list(waiting.values()), show)
        unusable: dict[int, Request] = {}
        for (place, request), reply in zip(waiting.items(), replies, strict=True):
            verdict = _unusable(reply) or judge(request, reply)
            used = verdict.outcome == "used"
            if used or verdict.worth > best[place].worth:
                best[place], best_row[place] = verdict, len(rows)
            if not used:
                unusable[place] = again(request, _said(verdict))
            rows.append(ReplyRow(
                key=recording_key(request), purpose=request.purpose, subject=request.subject, attempt=attempt,
                outcome=verdict.outcome, detail=verdict.detail, prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens, text="" if used else reply.text or reply.refusal))
        waiting = unusable
        if not waiting:
            break
    for place in waiting:  # after the last attempt a part is better than nothing
        if best[place].value is not None:
            row = best_row[place]
            rows[row] = rows[row].model_copy(update={"outcome": "partly used", "detail": _said(best[place])})
    return [verdict.value for verdict in best], rows


def _said(verdict: Verdict) -> str:
    return f"{verdict.outcome}: {verdict.detail}" if verdict.detail else verdict.outcome


def _unusable(reply: Reply) -> Verdict | None:
    """What no judge needs to read."""
    if reply.refusal or reply.finish == "content_filter":
        return Verdict(None, 0, "refusal")
    if not reply.text.strip():
        return Verdict(None, 0, "empty")
    if reply.finish == "length":
        return Verdict(None, 0, "cut off", "raise max_reply_tokens if this is frequent")
    return None


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in a reply, code fences, thoughts and talk around it tolerated.

    Raises ValueError when there is none, or one with text that no file can hold.
    """
    text = _THOUGHT.sub("", text)
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError("no JSON object in the reply")
    try:
        value = json.loads(text[start : end + 1])
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair raises
    except RecursionError:
        raise ValueError("the reply is nested too deeply") from None
    return value


def not_json(text: str, error: Exception) -> Verdict:
    """The verdict on a reply that holds no usable object."""
    if _REFUSAL.search(text[:200]):
        return Verdict(None, 0, "refusal", " ".join(text.split())[:80])
    return Verdict(None, 0, "not JSON", f"no field {error}" if isinstance(error, KeyError) else str(error)[:120])


def texts(reply: str, count: int, language: str, field: str = "texts") -> Verdict:
    """The verdict on a reply that should list ``count`` sentences in ``language`` (its English name).

    Where there is no JSON, a numbered or bulleted list of at least two lines will do. A text with markup or in another
    language is not used.
    """
    try:
        found = json_object(reply)[field]
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise ValueError(f"'{field}' is no list of texts")
    except (ValueError, KeyError, TypeError) as error:
        found = _LISTED.findall(_THOUGHT.sub("", reply))
        if len(found) < 2:
            return not_json(reply, error)
    cleaned = [text for text in (" ".join(text.split()) for text in found) if text]
    problems = [(problem(text, language), text) for text in cleaned]
    good = list(dict.fromkeys(text for what, text in problems if not what))[:count]
    bad = [(what, text) for what, text in problems if what]
    outcome, detail = "wrong count", f"{len(good)} instead of {count}"
    if bad:
        outcome, detail = bad[0][0], f"{len(bad)} of {len(cleaned)} texts, such as '{bad[0][1][:60]}'"
    if len(good) == count:
        return Verdict(good, count, detail=detail if bad else "")
    return Verdict(good or None, len(good), outcome, detail)


def problem(text: str, language: str) -> str:
    """Why a sentence is unusable as it stands: ``markup`` or ``another language``; "" when nothing is wrong."""
    if _MARKUP.search(text):
        return "markup"
    return "" if languages.plausible(text, language) else "another language"
