"""Chat models behind one face: recorded replies, a live server (live.py), or a batch of requests (batch.py).

A recording, which stands in for a live reply to the very same messages, is a line of ``recordings.jsonl``::

    {"key": "5f0c...", "purpose": "templates", "question_id": "Q27", "reply": "{\\"templates\\": [...]}"}
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import Field

from culturellm_utils import paths
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Chat
from culturellm_utils.records import Message, Row, read_rows
from culturellm_utils.usage import Budget, Prices, Usage, estimated_tokens

Show = Callable[[str], None]


def quiet(line: str) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Request:
    """What is asked: ``subject`` is what it is about (an id), ``schema`` the JSON schema of a usable reply, and
    ``attempt`` counts from 0 how often an unusable reply made it be asked again."""

    subject: str
    purpose: str
    messages: list[Message]
    schema: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0


class Reply(Row):
    """What came back. ``finish`` is the server's reason to stop: ``length`` means cut off."""

    text: str
    finish: str = "stop"
    refusal: str = ""
    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> Usage:
        return Usage(1, self.prompt_tokens, self.completion_tokens)


class NoReply(Exception):
    """The server sent something that is no chat reply; another try may bring one."""


def read_body(text: str | bytes, request: Request) -> Reply:
    """The reply in a server's JSON; tokens are estimated where it counts none. Raises NoReply when there is none."""
    try:
        body = json.loads(text)
        choice, counted = body["choices"][0], body.get("usage") or {}
        content, refusal = (_whole(choice["message"].get(part) or "") for part in ("content", "refusal"))
        prompt = "".join(message.content for message in request.messages)
        return Reply(text=content, finish=_whole(choice.get("finish_reason") or "stop"), refusal=refusal,
                     prompt_tokens=_counted(counted.get("prompt_tokens"), prompt),
                     completion_tokens=_counted(counted.get("completion_tokens"), content + refusal))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise NoReply(type(error).__name__) from None


def _whole(text: str) -> str:
    """A text without halves of surrogate pairs, which no file can hold."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _counted(tokens: Any, text: str) -> int:
    """The server's count of a text's tokens when it is one, otherwise an estimate."""
    known = isinstance(tokens, (int, float)) and 0 <= tokens < 1e12 and (tokens > 0 or not text)
    return int(tokens) if known else estimated_tokens(text)


def filtered(request: Request) -> Reply:
    """The reply to a request whose prompt the server's content filter refused: no more than the prompt is paid."""
    return Reply(text="", finish="content_filter", refusal="content filter", completion_tokens=0,
                 prompt_tokens=sum(estimated_tokens(message.content) for message in request.messages))


def asked_pause(error: Exception) -> float | None:
    """Seconds that the server asks to wait: Retry-After in seconds or as a date, or its form in milliseconds."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers["retry-after"]
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (KeyError, ValueError, TypeError):
        return exhausted(headers) or None


def exhausted(headers: Mapping[str, str]) -> float:
    """Seconds until the rate limit allows a request again, when the headers say that none is left ("6m0s", "120ms")."""
    seconds = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    waits = [0.0]
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}") == "0":
            parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", headers.get(f"x-ratelimit-reset-{what}", ""))
            waits.append(sum(float(number) * seconds[unit] for number, unit in parts))
    return max(waits)


def web_page(address: str) -> UserError:
    """The error when a server sends HTML."""
    return UserError(f"{address} sent a web page instead of a reply: check base_url, which mostly ends in /v1; replies "
                     "that came are kept")


def plain(code: Any) -> str:
    """A server's error code when it is one ("rate_limit_exceeded"); other words might repeat the key."""
    return code if isinstance(code, str) and re.fullmatch(r"[a-z_]{3,40}", code) else ""


def api_key() -> str:
    """The key, from the environment alone; a server that asks for none gets "none"."""
    return os.environ.get("OPENAI_API_KEY") or "none"


def is_address(base_url: str) -> bool:
    """Whether a text is a web address."""
    try:
        parts = urlsplit(base_url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class Recording(Row):
    """``recordings.jsonl``: a reply written by this project's authors to one very prompt."""

    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    purpose: str
    question_id: str
    reply: str


def key(messages: list[Message], **settings: Any) -> str:
    """A hash that names a request."""
    request = {"messages": [message.model_dump() for message in messages], **settings}
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def recording_key(request: Request) -> str:
    """The hash that names a recorded request: its messages, and the attempt when it is not the first."""
    return key(request.messages, attempt=request.attempt) if request.attempt else key(request.messages)


class Recorded:
    """Replays the recordings that ship with the package; needs no network and no key. Tokens are estimated."""

    source = "recorded"
    retries = 0  # a recording says the same each time

    def __init__(self, prices: Prices | None = None) -> None:
        self.budget = Budget(prices=prices or Prices())
        self._counted: set[str] = set()

    def known(self, requests: list[Request]) -> int:
        """How many of the requests cost nothing: all."""
        return len(requests)

    def ask(self, requests: list[Request], show: Show = quiet) -> list[Reply]:
        """One reply per request, in order. Raises UserError for a prompt that was never recorded."""
        replies = []
        for request in requests:
            text = _recordings().get(recording_key(request))
            if text is None:
                about = request.messages[-1].content.partition("Item: ")[2].partition("\n")[0]
                raise UserError(
                    f"no recorded reply for the {request.purpose} of '{about or request.messages[-1].content[:60]}': "
                    "recordings cover the shipped questions in English with the shipped settings "
                    "(templates_requested, substitutes_requested); set chat_backend to openai"
                )
            prompt = "".join(message.content for message in request.messages)
            reply = Reply(text=text, prompt_tokens=estimated_tokens(prompt), completion_tokens=estimated_tokens(text))
            if (name := recording_key(request)) not in self._counted:  # as a live reply: from disk the second time
                self._counted.add(name)
                self.budget.spent += reply.usage
            replies.append(reply)
        return replies


@cache
def _recordings() -> dict[str, str]:
    return {row.key: row.reply for row in read_rows(paths.DATA / "recordings.jsonl", Recording)}


class Client(Protocol):
    """What augmenters and translations talk to."""

    source: str
    retries: int
    budget: Budget

    def known(self, requests: list[Request]) -> int: ...

    def ask(self, requests: list[Request], show: Show = quiet) -> list[Reply]: ...


def connect(settings: Chat) -> Client:
    """The chat client that the parameters name."""
    if settings.chat_backend == "recorded":
        return Recorded(Prices(settings.price_input, settings.price_output))
    if settings.chat_backend == "batch":
        from culturellm_utils.batch import Batch

        return Batch(settings)
    from culturellm_utils.live import OpenAI

    return OpenAI(settings)


def again(request: Request, reason: str) -> Request:
    """The request to send when its reply could not be used: the same, with what was wrong."""
    *before, last = request.messages
    start = "\nAn earlier reply to this could not be used ("
    note = f"{start}{' '.join(reason.split())}). Follow the format and the instructions exactly."
    asked = last.content.partition(start)[0] + note
    return replace(request, messages=[*before, Message(role=last.role, content=asked)], attempt=request.attempt + 1)
