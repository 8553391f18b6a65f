"""Chat models behind one face: recorded replies, or any server that speaks OpenAI's protocol.

Every live reply is on disk, under a hash of model, messages and sampling settings, before it is used: a rerun
or a killed run asks again only for what was never answered. A recording is a line of ``recordings.jsonl``::

    {"key": "5f0c...", "purpose": "templates", "question_id": "Q27", "reply": "{\\"templates\\": [...]}"}
"""

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, Literal

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
        self.source = model
        self.base_url = base_url
        self.temperature = temperature
        self.max_concurrency = max_concurrency
        self.sent = 0
        self._store = Store(paths.cache() / "chat.sqlite")

    def ask(self, requests: list[Messages]) -> list[str]:
        """One reply per request, in order; only those not on disk are sent. Raises UserError when the server
        refuses or stays unreachable: replies that came are kept."""
        settings = {"model": self.source, "base_url": self.base_url, "temperature": self.temperature}
        keys = [key(messages, **settings) for messages in requests]
        missing = dict(zip(keys, requests, strict=True))
        for known in self._store.get(missing):
            del missing[known]
        if missing:
            _run(self._send(missing))
        found = self._store.get(keys)
        return [found[name].decode() for name in keys]

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
            self._store.put({name: (answer.choices[0].message.content or "").encode()})

        try:
            async with server:
                tasks = [asyncio.create_task(one(*item)) for item in missing.items()]
                try:
                    await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        except openai.APIError as error:
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


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, also inside a notebook, whose own event loop is busy."""
    failure: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
