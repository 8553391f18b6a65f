"""Chat models behind one face: recorded replies, a live server (live.py), or a batch of requests (batch.py).

A recording, which stands in for a live reply to the very same messages, is a line of ``recordings.jsonl``::

    {"key": "5f0c...", "purpose": "templates", "question_id": "Q27", "reply": "{\\"templates\\": [...]}"}
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol

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
    ``attempt`` counts from 0 how often an unusable reply made it be asked again. ``max_tokens`` is the longest reply
    (0: as the settings say), ``top_logprobs`` how many candidates for its first token are wanted."""

    subject: str
    purpose: str
    messages: list[Message]
    schema: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    max_tokens: int = 0
    top_logprobs: int = 0


class Reply(Row):
    """What came back. ``finish`` is the server's reason to stop: ``length`` means cut off. ``logprobs`` are the natural
    log-probabilities of the candidates for the first token, empty where none were wanted or offered."""

    text: str
    finish: str = "stop"
    refusal: str = ""
    prompt_tokens: int
    completion_tokens: int
    logprobs: dict[str, float] = Field(default={})

    @property
    def usage(self) -> Usage:
        return Usage(1, self.prompt_tokens, self.completion_tokens)


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
