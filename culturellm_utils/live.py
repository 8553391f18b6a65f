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
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import openai
from anyio.from_thread import start_blocking_portal

from culturellm_utils import paths, protocol
from culturellm_utils.client import Reply, Request, Show, key, quiet
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Chat
from culturellm_utils.protocol import NoReply, api_key, filtered, read_body
from culturellm_utils.store import Store
from culturellm_utils.usage import Budget, Prices, Progress, Usage, duration

#: How often a request is sent before a failing server is given up; the first and the longest pause (seconds), and the
#: longest that a server may ask for.
TRIES, FIRST_PAUSE, LONGEST_PAUSE, LONGEST_ASKED = 8, 0.5, 60.0, 900.0
#: Bytes of the disk kept for each reply in flight: for each of its tokens, and for the database's pages and journal.
TOKEN_BYTES, PAGES_BYTES = 8, 16384
OFFICIAL = "https://api.openai.com/v1"
Missing = dict[str, Request]
_jitter = random.Random()  # not the global one, whose state belongs to the study


class OpenAI:
    """Any server that speaks OpenAI's chat protocol."""

    def __init__(self, settings: Chat) -> None:
        self.settings = settings
        if not settings.base_url and not os.environ.get("OPENAI_API_KEY"):
            raise UserError(f"chat_backend {settings.chat_backend} needs the environment variable OPENAI_API_KEY, or a "
                            "base_url of a server that asks for no key")
        if not re.fullmatch(r"[!-~]+", api_key()):
            raise UserError("OPENAI_API_KEY holds a space, a line break or a sign that no key has: set it again")
        if settings.base_url and not protocol.is_address(settings.base_url):
            raise UserError(f"base_url '{settings.base_url}' is not a web address: write one such as "
                            "http://localhost:8000/v1")
        self.source = settings.chat_model
        self.address = settings.base_url or "api.openai.com"
        self.retries = settings.unusable_retries
        self.budget = Budget(settings.budget_tokens, settings.budget_money, self.prices())
        self.sent = 0
        self.store = Store(paths.cache() / "chat.sqlite")
        self.schemas = self.logprobs = True  # whether the server takes these fields; learned from its first refusal
        self.open_at = 0.0  # no request before this moment (monotonic): the server asked for a pause
        self._counted: set[str] = set()

    def prices(self) -> Prices:
        """What a token costs."""
        return Prices(self.settings.price_input, self.settings.price_output)

    def key(self, request: Request) -> str:
        """The hash under which the reply is kept."""
        s = self.settings
        wanted = {"top_logprobs": request.top_logprobs} if request.top_logprobs else {}
        return key(request.messages, model=s.chat_model, base_url=s.base_url, temperature=s.temperature,
                   max_reply_tokens=request.max_tokens or s.max_reply_tokens, schema=request.schema,
                   attempt=request.attempt, **wanted)

    def known(self, requests: list[Request]) -> int:
        """How many of the requests are answered on disk, and cost nothing."""
        keys = [self.key(request) for request in requests]
        found = self.store.get(set(keys))
        return sum(name in found for name in keys)

    def ask(self, requests: list[Request], show: Show = quiet) -> list[Reply]:
        """One reply per request, in order; only those not on disk are sent. ``show`` gets lines of progress.

        Raises UserError when the server refuses, stays unreachable or does not speak the protocol, and when the budget
        is spent: replies that came are kept.
        """
        keys = [self.key(request) for request in requests]
        wanted = dict(zip(keys, requests, strict=True))
        if self._unanswered(wanted):
            # Another run beside this one would pay for the same requests and break the server's rate limit.
            server = hashlib.sha256(self.settings.base_url.encode()).hexdigest()[:12]
            with self.store.alone(f"chat-{server}", lambda: show("another run is asking this server: waiting for it")):
                missing = self._unanswered(wanted)
                if missing:
                    self.fetch(missing, Progress(len(missing), self.prices(), show))
        found = self.store.get(wanted)
        return [Reply.model_validate_json(found[name]) for name in keys]

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
        host = urlsplit(s.base_url or OFFICIAL).hostname or ""
        limit = "max_completion_tokens" if host.endswith(("openai.com", "azure.com")) else "max_tokens"
        body = {"model": s.chat_model, "temperature": s.temperature, limit: request.max_tokens or s.max_reply_tokens,
                "messages": [message.model_dump() for message in request.messages]}
        if request.schema and self.schemas:
            body["response_format"] = {"type": "json_schema", "json_schema": {
                "name": re.sub(r"[^\w-]", "_", request.purpose, flags=re.ASCII), "strict": True,
                "schema": request.schema}}
        if request.top_logprobs and self.logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        return body

    def most(self, request: Request) -> Usage:
        """What a request may cost at most: a token for each byte of its prompt (no tokenizer makes more), some for what
        a chat template adds, and the longest reply."""
        said = [message.content for message in request.messages]
        prompt = sum(len(text.encode()) + 16 for text in [*said, json.dumps(request.schema)])
        return Usage(1, prompt + 32, request.max_tokens or self.settings.max_reply_tokens)

    def keep(self, replies: Mapping[str, Reply]) -> None:
        """Put replies on disk, all or none."""
        self.store.put({name: reply.model_dump_json().encode() for name, reply in replies.items()})

    def count(self, replies: Mapping[str, Reply], progress: Progress) -> None:
        """Count replies that are on disk."""
        for name, reply in replies.items():
            self.sent += 1
            self._counted.add(name)
            self.budget.spent += reply.usage
            progress.count(reply.usage)

    def fetch(self, missing: Missing, progress: Progress) -> None:
        """Send the requests and keep their replies. Nothing is sent where the disk has no room for the replies."""
        longest = max(request.max_tokens or self.settings.max_reply_tokens for request in missing.values())
        in_flight = min(len(missing), self.settings.max_concurrency)
        # An event loop in a thread of its own: a notebook's is busy. When interrupted, it stops sending.
        with self.store.room(in_flight, TOKEN_BYTES * longest + PAGES_BYTES), start_blocking_portal() as portal:
            failure = portal.call(_Sending(self, missing, progress).run)
        if failure:
            raise failure

    def explained(self, error: Exception) -> UserError:
        """A failure in one sentence. A server's own message stays out, in frames too: it might repeat the key."""
        if isinstance(error, UserError):
            return error.with_traceback(None)
        status = getattr(error, "status_code", None)
        check = {401: " (check OPENAI_API_KEY)", 404: " (check base_url and chat_model)"}
        what = protocol.failure(error, self.settings.request_timeout) or f"could not be asked ({type(error).__name__})"
        if isinstance(error, NoReply):
            what = "did not send a chat reply (check base_url, which mostly ends in /v1)"
        return UserError(f"the chat server at {self.address} {what} for model {self.source}{check.get(status, '')}; "
                         "replies that came are kept, so rerun when it is fixed")


class _Sending:
    """One run of requests: what is still to be sent, what is in flight, and what stopped it."""

    def __init__(self, client: OpenAI, missing: Missing, progress: Progress) -> None:
        self.client, self.queue, self.progress = client, iter(missing.items()), progress
        self.failure: UserError | None = None
        self.replies = 0
        self.arrived: dict[str, Reply] = {}  # what is to be put on disk

    async def run(self) -> UserError | None:
        """Send everything, ``max_concurrency`` at a time. The first failure, which is returned, stops what is not yet
        sent, while what is in flight is waited for and kept: it is paid."""
        self.stopped, self.settled, self.disk = anyio.Event(), anyio.Event(), anyio.Lock()
        settings = self.client.settings
        # The library does not retry by itself: the pauses here also hold back the requests beside.
        server = openai.AsyncOpenAI(base_url=settings.base_url or OFFICIAL, max_retries=0, api_key=api_key(),
                                    timeout=settings.request_timeout)
        async with server, anyio.create_task_group() as group:
            for _ in range(min(settings.max_concurrency, self.progress.total)):
                group.start_soon(self._work, server)
        return self.failure

    async def _work(self, server: openai.AsyncOpenAI) -> None:
        for name, request in self.queue:
            try:
                await self._persist(server, name, request)
            except Exception as error:
                self.failure = self.failure or self.client.explained(error)
                self.stopped.set()
            if self.failure:
                return

    async def _persist(self, server: openai.AsyncOpenAI, name: str, request: Request) -> None:
        """Send a request until it is answered: transient faults are tried again, after the pause that the server asks
        for, or one that doubles each time, with jitter. A rate limit is no fault while other replies come."""
        tries, most = 0, self.client.most(request)
        while not self.failure:
            before = self.replies
            async with self._room(most):
                await self._opening()
                if self.failure:
                    return
                try:
                    with anyio.fail_after(self.client.settings.request_timeout):
                        reply = await self._send(server, request)
                    self.replies += 1
                    return await self._keep(name, reply)
                except Exception as error:
                    limited = getattr(error, "status_code", None) == 429
                    tries = 0 if limited and self.replies > before else tries + 1
                    if tries == TRIES or not transient(error):
                        raise
                    pause, asked = backoff(tries), protocol.asked_pause(error)
                    if paid(error):
                        self.client.budget.lost += most
            if asked:  # a date that has passed asks for nothing
                self._hold(asked)
                pause *= 0.1  # jitter alone, so that not all knock at the same moment
            await self._sleep(pause)

    async def _keep(self, name: str, reply: Reply) -> None:
        """Put a reply on disk and count it; those that came while the disk was busy go together, or it would set the
        pace. Who waits here sends nothing, so that a kill loses no more than was in flight; an interrupt loses none."""
        self.arrived[name] = reply
        with anyio.CancelScope(shield=True):
            async with self.disk:
                if name not in self.arrived:
                    return
                replies, self.arrived = self.arrived, {}
                await anyio.to_thread.run_sync(self.client.keep, replies)
                self.client.count(replies, self.progress)

    async def _send(self, server: openai.AsyncOpenAI, request: Request) -> Reply:
        """Send a request once; where the server takes no schema or no wish for log-probabilities, once more without."""
        body = self.client.body(request)

        async def create() -> Any:
            # As extra_body the library takes it as it is; going through its types costs as much as all else it does.
            return await server.chat.completions.with_raw_response.create(
                model=body["model"], messages=[], extra_body=body)

        try:
            raw = await create()
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if error.code == "content_filter":
                return filtered(request)
            if not (left_out := {one for one in ("response_format", "logprobs", "top_logprobs") if body.pop(one, 0)}):
                raise
            raw = await create()
            self.client.schemas &= "response_format" not in left_out
            self.client.logprobs &= "logprobs" not in left_out
        self._hold(protocol.exhausted(raw.headers))
        if raw.content.lstrip()[:1] == b"<":
            raise protocol.web_page(self.client.address)
        return read_body(raw.content, request)

    @asynccontextmanager
    async def _room(self, most: Usage) -> AsyncIterator[None]:
        """Room in the budget; waited for while requests in flight may turn out cheaper than they might be."""
        budget = self.client.budget
        while not self.failure and not budget.allows(most):
            if not budget.reserved.requests:
                raise budget.too_small(most)
            await self.settled.wait()
        budget.reserved += most
        try:
            yield
        finally:
            budget.reserved -= most
            self.settled.set()
            self.settled = anyio.Event()

    async def _opening(self) -> None:
        while not self.failure and (pause := self.client.open_at - time.monotonic()) > 0:
            await self._sleep(pause)

    async def _sleep(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.stopped.wait()

    def _hold(self, seconds: float) -> None:
        """Send nothing for a while."""
        seconds = min(seconds, LONGEST_ASKED)
        until = time.monotonic() + seconds
        if seconds > 5 and until > self.client.open_at + 1:
            self.progress.show(f"the server asks for a pause of {duration(seconds)}")
        self.client.open_at = max(self.client.open_at, until)


def transient(error: Exception) -> bool:
    """Whether another try may help: rate limits, server errors, broken connections and broken replies."""
    if "insufficient_quota" in (getattr(error, "code", None), getattr(error, "type", None)):  # comes as 429, and stays
        return False
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, (NoReply, TimeoutError, openai.APIConnectionError))


def paid(error: Exception) -> bool:
    """Whether a reply that never arrived may have been paid: the request did arrive."""
    unreached = "Connect" in type(error.__cause__).__name__
    return isinstance(error, (NoReply, TimeoutError, openai.APIConnectionError)) and not unreached


def backoff(tries: int) -> float:
    """Seconds to pause after ``tries`` faults."""
    return _jitter.uniform(0.5, 1) * min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, tries - 1))
