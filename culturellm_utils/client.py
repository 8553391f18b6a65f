"""Chat models behind one face: recorded replies, or any server that speaks OpenAI's protocol.

Every live reply is on disk, under a hash of model, messages and sampling settings, before it is used: a rerun
or a killed run asks again only for what was never answered. A recording is a line of ``recordings.jsonl``::

    {"key": "5f0c...", "purpose": "templates", "question_id": "Q27", "reply": "{\\"templates\\": [...]}"}
"""

import asyncio
import hashlib
import json
import os
from functools import cache
from typing import Any, Literal
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal
from pydantic import Field

from culturellm_utils import paths
from culturellm_utils.errors import UserError
from culturellm_utils.records import Message, Row, read_rows
from culturellm_utils.store import Store

Messages = list[Message]


class Recording(Row):
    """``recordings.jsonl``: a reply written by this project's authors to one very prompt."""

    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    purpose: Literal["templates", "substitutes"]
    question_id: str
    reply: str


def key(messages: Messages, **settings: Any) -> str:
    """A hash that names a request."""
    request = {"messages": [message.model_dump() for message in messages], **settings}
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Recorded:
    """Replays the recordings that ship with the package; needs no network and no key."""

    source = "recorded"

    def ask(self, requests: list[Messages]) -> list[str]:
        """One reply per request, in order. Raises UserError for a prompt that was never recorded."""
        replies = [_recordings().get(key(messages)) for messages in requests]
        for messages, reply in zip(requests, replies, strict=True):
            if reply is None:
                item = messages[-1].content.partition("Item: ")[2].partition("\n")[0] or messages[-1].content[:60]
                raise UserError(
                    f"no recorded reply for the request about '{item}': recordings cover the shipped questions with "
                    "the shipped settings (templates_requested, substitutes_requested); set chat_backend to openai"
                )
        return replies


@cache
def _recordings() -> dict[str, str]:
    return {row.key: row.reply for row in read_rows(paths.DATA / "recordings.jsonl", Recording)}


class OpenAI:
    """Any server that speaks OpenAI's chat protocol; the key comes from ``OPENAI_API_KEY`` alone."""

    def __init__(self, model: str, base_url: str = "", temperature: float = 0.7, max_concurrency: int = 8) -> None:
        if not base_url and not os.environ.get("OPENAI_API_KEY"):
            raise UserError("chat_backend openai needs the environment variable OPENAI_API_KEY, or a base_url "
                            "of a server that asks for no key")
        if base_url and not _is_address(base_url):
            raise UserError(f"base_url '{base_url}' is not a web address: write one such as http://localhost:8000/v1")
        self.source = model
        self.base_url = base_url
        self.temperature = temperature
        self.max_concurrency = max_concurrency
        self.sent = 0
        self._store = Store(paths.cache() / "chat.sqlite")

    def ask(self, requests: list[Messages]) -> list[str]:
        """One reply per request, in order; only those not on disk are sent. A model that says nothing gives an
        empty reply, which is not kept. Raises UserError when the server refuses, stays unreachable or does not
        speak the protocol: replies that came are kept."""
        settings = {"model": self.source, "base_url": self.base_url, "temperature": self.temperature}
        keys = [key(messages, **settings) for messages in requests]
        missing = dict(zip(keys, requests, strict=True))
        for known in self._store.get(missing):
            del missing[known]
        if missing:
            # An event loop in a thread of its own: a notebook's is busy. When interrupted, it stops sending.
            with start_blocking_portal() as portal:
                portal.call(self._send, missing)
        found = self._store.get(keys)
        return [found.get(name, b"").decode() for name in keys]

    async def _send(self, missing: dict[str, Messages]) -> None:
        import openai

        free = asyncio.Semaphore(self.max_concurrency)
        # The library itself backs off on 429 and 5xx, and heeds Retry-After.
        server = openai.AsyncOpenAI(base_url=self.base_url or None, max_retries=6, timeout=120,
                                    api_key=os.environ.get("OPENAI_API_KEY") or "none")

        async def one(name: str, messages: Messages) -> None:
            async with free:
                answer = await server.chat.completions.create(
                    model=self.source,
                    messages=[message.model_dump() for message in messages],
                    temperature=self.temperature,
                )
            self.sent += 1
            try:
                content = answer.choices[0].message.content
            except (AttributeError, TypeError, IndexError):
                raise UserError(f"the server at {self.base_url or 'api.openai.com'} did not send a chat reply: check "
                                "base_url, which mostly ends in /v1") from None
            if content:
                self._store.put({name: content.encode()})

        try:
            async with server:
                tasks = [asyncio.create_task(one(*item)) for item in missing.items()]
                try:
                    await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        except (openai.OpenAIError, ValueError) as error:
            status = getattr(error, "status_code", None)
            raise UserError(
                f"the chat server at {self.base_url or 'api.openai.com'} answered {status or type(error).__name__} for "
                f"model {self.source}; replies that came are kept, so rerun when it is fixed"
            ) from None


def connect(backend: str, model: str, base_url: str, temperature: float, max_concurrency: int) -> Recorded | OpenAI:
    """The chat client that the parameters name."""
    if backend == "recorded":
        return Recorded()
    return OpenAI(model, base_url, temperature, max_concurrency)


def _is_address(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
