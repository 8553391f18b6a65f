"""OpenAI's protocol as servers really speak it: what a reply's JSON holds, how long they ask to wait, what they refuse.

>>> read_body('{"choices": [{"message": {"content": "Yes"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}',
...           request)
Reply(text='Yes', finish='stop', refusal='', prompt_tokens=9, completion_tokens=1)
"""

import json
import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import openai

from culturellm_utils.client import Reply, Request
from culturellm_utils.errors import UserError
from culturellm_utils.usage import estimated_tokens


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
                     completion_tokens=_counted(counted.get("completion_tokens"), content + refusal),
                     logprobs=_first_token(choice))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise NoReply(type(error).__name__) from None


def _first_token(choice: dict[str, Any]) -> dict[str, float]:
    """The log-probabilities of the candidates for a reply's first token, where the server sends any: no reply is lost
    for want of them."""
    try:
        first = choice["logprobs"]["content"][0]
        offered = [(_whole(one["token"]), float(one["logprob"])) for one in [*(first.get("top_logprobs") or []), first]]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        return {}
    found: dict[str, float] = {}
    for token, value in offered:
        if -1e4 < value < 1e-3:  # some servers send minus infinity for what was left out
            found[token] = max(value, found.get(token, value))
    return found


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
    """Seconds that the server asks to wait: Retry-After in seconds or as a date, or its form in milliseconds. A date
    counts from the reply's own, where it has one: this machine's clock may be wrong."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers["retry-after"]
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (KeyError, ValueError, TypeError, OverflowError):
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


def failure(error: Exception, timeout: float) -> str:
    """What a server did instead of replying within ``timeout`` seconds; "" when the error says nothing of it."""
    if isinstance(error, (TimeoutError, openai.APITimeoutError)):
        return f"did not answer within {timeout:g} s"
    if isinstance(error, openai.APIConnectionError):
        return "cannot be reached, or breaks off"
    status, code = getattr(error, "status_code", None), plain(getattr(error, "code", None))
    return f"answered {status}{code and f' ({code})'}" if status else ""


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
