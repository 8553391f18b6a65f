"""A live chat server, asynchronously: bounded concurrency, patient with faults, within a budget, nothing paid twice.

Every reply is on disk, under a hash of model, server, messages, reply schema and sampling settings, before it is used:
a rerun or a killed run asks again only for what was never answered. The key comes from ``OPENAI_API_KEY`` alone::

    OPENAI_API_KEY=... papermill notebooks/02_augmentation.ipynb out.ipynb -p chat_backend openai -p chat_model gpt-4o
"""

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import openai
from anyio.from_thread import start_blocking_portal
from filelock import FileLock, Timeout

from culturellm_utils import paths
from culturellm_utils.client import Reply, Request, Show, key, quiet
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Chat
from culturellm_utils.store import Store
from culturellm_utils.usage import Budget, Prices, Progress, Usage, estimated_tokens

#: How often a request is sent before a failing server is given up; the first and the longest pause (seconds).
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 8, 0.5, 60.0
Missing = dict[str, Request]


class NoReply(Exception):
    """The server sent something that is no chat reply; another try may bring one."""


class OpenAI:
    """Any server that speaks OpenAI's chat protocol."""

    def __init__(self, settings: Chat) -> None:
        self.settings = settings
        if not settings.base_url and not os.environ.get("OPENAI_API_KEY"):
            raise UserError(f"chat_backend {settings.chat_backend} needs the environment variable OPENAI_API_KEY, or a "
                            "base_url of a server that asks for no key")
        if settings.base_url and not _is_address(settings.base_url):
            raise UserError(f"base_url '{settings.base_url}' is not a web address: write one such as "
                            "http://localhost:8000/v1")
        self.source = settings.chat_model
        self.address = settings.base_url or "api.openai.com"
        self.retries = settings.unusable_retries
        self.budget = Budget(settings.budget_tokens, settings.budget_money, self.prices())
        self.sent = 0
        self.store = Store(paths.cache() / "chat.sqlite")
        self._counted: set[str] = set()
        self._schemas = True      # whether the server takes JSON schemas; learned from its first refusal
        self._open_at = 0.0       # no request before this moment (monotonic): the server asked for a pause

    def prices(self) -> Prices:
        """What a token costs."""
        return Prices(self.settings.price_input, self.settings.price_output)

    def key(self, request: Request) -> str:
        """The hash under which the reply is kept."""
        s = self.settings
        return key(request.messages, model=s.chat_model, base_url=s.base_url, temperature=s.temperature,
                   max_reply_tokens=s.max_reply_tokens, schema=request.schema, attempt=request.attempt)

    def known(self, requests: list[Request]) -> int:
        """How many of the requests are answered on disk, and cost nothing."""
        found = self.store.get({self.key(request) for request in requests})
        return sum(self.key(request) in found for request in requests)

    def ask(self, requests: list[Request], show: Show = quiet) -> list[Reply]:
        """One reply per request, in order; only those not on disk are sent. ``show`` gets lines of progress.

        Raises UserError when the server refuses, stays unreachable or does not speak the protocol, and when the budget
        is spent: replies that came are kept.
        """
        keys = [self.key(request) for request in requests]
        wanted = dict(zip(keys, requests, strict=True))
        if self._unanswered(wanted):
            with self._alone(show):
                missing = self._unanswered(wanted)
                if missing:
                    self.fetch(missing, Progress(len(missing), self.prices(), show))
        found = self.store.get(wanted)
        return [Reply.model_validate_json(found[name]) for name in keys]

    @contextmanager
    def _alone(self, show: Show) -> Iterator[None]:
        """One run at a time talks to a server: another would pay for the same requests and break its rate limit."""
        name = hashlib.sha256(self.settings.base_url.encode()).hexdigest()[:12]
        lock = FileLock(paths.cache() / f"chat-{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            show("another run is asking this server: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _unanswered(self, wanted: Missing) -> Missing:
        """Requests without a reply on disk; the others are counted against the budget, once, whoever paid them."""
        known = self.store.get(wanted)
        for name in known.keys() - self._counted:
            self._counted.add(name)
            self.budget.spent += Reply.model_validate_json(known[name]).usage
        return {name: request for name, request in wanted.items() if name not in known}

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the protocol has it."""
        s = self.settings
        # OpenAI's newer models know the new name alone, most other servers the old one.
        limit = "max_tokens" if s.base_url and "azure" not in s.base_url else "max_completion_tokens"
        body = {"model": s.chat_model, "temperature": s.temperature, limit: s.max_reply_tokens,
                "messages": [message.model_dump() for message in request.messages]}
        if request.schema and self._schemas:
            body["response_format"] = {"type": "json_schema", "json_schema": {
                "name": request.purpose, "strict": True, "schema": request.schema}}
        return body

    def most(self, request: Request) -> Usage:
        """What a request may cost at most, its prompt estimated with a third to spare."""
        prompt = sum(estimated_tokens(message.content) + 8 for message in request.messages)
        return Usage(1, prompt * 4 // 3 + 16, self.settings.max_reply_tokens)

    def keep(self, name: str, reply: Reply) -> None:
        """Put a reply on disk, then count it."""
        self.store.put({name: reply.model_dump_json().encode()})
        self.sent += 1
        self._counted.add(name)
        self.budget.spent += reply.usage

    def over_budget(self) -> UserError:
        """The budget does not allow the next request."""
        return UserError(f"the budget is spent: {self.budget.sentence()}, and the next reply might not fit; what came is "
                         "kept, so raise budget_tokens or budget_money and rerun to go on")

    def fetch(self, missing: Missing, progress: Progress) -> None:
        """Send the requests and keep their replies."""
        # An event loop in a thread of its own: a notebook's is busy. When interrupted, it stops sending.
        with start_blocking_portal() as portal:
            failure = portal.call(self._send_all, missing, progress)
        if failure:
            raise self.explained(failure) from None

    # --- sending

    async def _send_all(self, missing: Missing, progress: Progress) -> Exception | None:
        """Send everything, ``max_concurrency`` at a time. The first failure stops what is not yet sent, while what is
        in flight is waited for and kept: it is paid."""
        queue, failures, changed = iter(missing.items()), [], anyio.Condition()
        async with self.connection() as server, anyio.create_task_group() as workers:
            for _ in range(min(self.settings.max_concurrency, len(missing))):
                workers.start_soon(self._work, server, queue, failures, changed, progress)
        return failures[0] if failures else None

    async def _work(self, server: openai.AsyncOpenAI, queue: Iterator[tuple[str, Request]], failures: list[Exception],
                    changed: anyio.Condition, progress: Progress) -> None:
        for name, request in queue:
            most = self.most(request)
            async with changed:
                while not failures and not self.budget.allows(most):
                    if not self.budget.reserved.requests:
                        failures.append(self.over_budget())
                        break
                    await changed.wait()
                if failures:
                    return
                self.budget.reserved += most
            try:
                reply = await self._persist(server, request, failures)
                await anyio.to_thread.run_sync(self.keep, name, reply)
                progress.count(reply.usage)
            except Exception as error:
                failures.append(error)
            self.budget.reserved -= most
            async with changed:
                changed.notify_all()

    async def _persist(self, server: openai.AsyncOpenAI, request: Request, failures: list[Exception]) -> Reply:
        """Send a request until it is answered: transient faults are tried again, after the pause that the server asks
        for, or one that doubles each time, with jitter."""
        for attempt in range(1, TRIES + 1):
            while (pause := self._open_at - time.monotonic()) > 0:
                await anyio.sleep(pause)
            try:
                with anyio.fail_after(self.settings.request_timeout):
                    return await self._send(server, request)
            except Exception as error:
                if attempt == TRIES or failures or not transient(error):
                    raise
                pause = random.uniform(0.5, 1) * min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
                asked = _asked_pause(error)
                if asked is not None:
                    self._open_at = max(self._open_at, time.monotonic() + asked)
                    pause *= 0.1  # jitter alone, so that not all knock at the same moment
            await anyio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def _send(self, server: openai.AsyncOpenAI, request: Request) -> Reply:
        """Send a request once; where the server takes no schema, once more without."""
        body = self.body(request)
        try:
            raw = await server.chat.completions.with_raw_response.create(**body)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if error.code == "content_filter":
                return Reply(text="", finish="content_filter", refusal="content filter",
                             prompt_tokens=self.most(request).prompt_tokens, completion_tokens=0)
            if body.pop("response_format", None) is None:
                raise
            raw = await server.chat.completions.with_raw_response.create(**body)
            self._schemas = False
        self._open_at = max(self._open_at, time.monotonic() + _exhausted(raw.headers))
        if "json" not in raw.headers.get("content-type", "json"):
            raise UserError(f"the server at {self.address} did not send a chat reply: check base_url, which mostly ends "
                            "in /v1")
        return read_body(raw.text, request)

    def connection(self) -> openai.AsyncOpenAI:
        """The library's client. It does not retry by itself: the pauses here also hold back the requests beside."""
        return openai.AsyncOpenAI(base_url=self.settings.base_url or None, max_retries=0,
                                  timeout=self.settings.request_timeout, api_key=api_key())

    def explained(self, error: Exception) -> UserError:
        """A failure in one sentence. A server's own message stays out: it might repeat the key."""
        if isinstance(error, UserError):
            return error
        if isinstance(error, NoReply):
            return UserError(f"the server at {self.address} did not send a chat reply ({error}): check base_url, which "
                             "mostly ends in /v1; replies that came are kept")
        answer = getattr(error, "status_code", None) or type(error).__name__
        code = getattr(error, "code", None) or ""
        said = f" ({code})" if re.fullmatch(r"[a-z_]{3,40}", code) else ""
        return UserError(f"the chat server at {self.address} answered {answer}{said} for model {self.source}; "
                         "replies that came are kept, so rerun when it is fixed")


def api_key() -> str:
    """The key, from the environment alone; a server that asks for none gets "none"."""
    return os.environ.get("OPENAI_API_KEY") or "none"


def read_body(text: str | bytes, request: Request) -> Reply:
    """The reply in a server's JSON; tokens are estimated where it counts none. Raises NoReply when there is none."""
    try:
        body = json.loads(text)
        message, finish = body["choices"][0]["message"], body["choices"][0].get("finish_reason")
        content, refusal = message.get("content") or "", message.get("refusal") or ""
        counted = body.get("usage") or {}
        prompt = counted.get("prompt_tokens") or sum(estimated_tokens(m.content) for m in request.messages)
        completion = counted.get("completion_tokens") or estimated_tokens(content + refusal)
        (content + refusal).encode()  # half a surrogate pair raises: no file could hold it
        return Reply(text=content, finish=str(finish or "stop"), refusal=refusal, prompt_tokens=int(prompt),
                     completion_tokens=int(completion))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise NoReply(type(error).__name__) from None


def transient(error: Exception) -> bool:
    """Whether another try may help: rate limits, server errors, broken connections and broken replies."""
    if getattr(error, "code", None) == "insufficient_quota":  # comes as 429, and stays
        return False
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, (NoReply, TimeoutError, openai.APIConnectionError, openai.APIResponseValidationError))


def _asked_pause(error: Exception) -> float | None:
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
        return None


def _exhausted(headers: Any) -> float:
    """Seconds until the rate limit allows a request again, when the headers say that none is left ("6m0s", "120ms")."""
    seconds = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    waits = [0.0]
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}") == "0":
            parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", headers.get(f"x-ratelimit-reset-{what}", ""))
            waits.append(sum(float(number) * seconds[unit] for number, unit in parts))
    return max(waits)


def _is_address(base_url: str) -> bool:
    try:
        parts = urlsplit(base_url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
