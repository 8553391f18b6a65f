"""The live client against a server on the loopback that answers well, badly or not at all, and against a real one."""

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import openai
import pytest
from chat_server import (
    FAULTS,
    SECRET,
    Answer,
    ask,
    complaint,
    finished,
    knobs,
    no_key_in,
    refused,
    request,
    running_server,  # noqa: F401
    said,
    start,
    texts,
    wait_until,
)

from culturellm_utils import client, live, protocol, replies
from culturellm_utils.augmentation import texts_schema
from culturellm_utils.errors import UserError
from culturellm_utils.live import OpenAI
from culturellm_utils.store import Store
from culturellm_utils.usage import Usage

SCHEMA = texts_schema("texts")
#: What a request with a prompt of two letters may cost: "Shout.", the prompt and the schema "{}" have 6 + 2 + 2 bytes,
#: each of them may bring 16 tokens more and the template 32; the reply has at most 16.
MOST = 6 + 2 + 2 + 3 * 16 + 32 + 16


# --- a server that answers


def test_replies_come_in_order_and_are_asked_for_once(server):
    server.delay = 0.02
    wanted = [f"word {number}" for number in range(12)]
    assert ask(server, *wanted, max_concurrency=5) == [prompt.upper() for prompt in wanted]
    assert sorted(server.prompts) == sorted(wanted)
    assert ask(server, *reversed(wanted)) == [prompt.upper() for prompt in reversed(wanted)]
    assert len(server.asked) == 12
    assert ask(server, "word 3", "new", "word 3", "new") == ["WORD 3", "NEW", "WORD 3", "NEW"]
    assert len(server.asked) == 13


def test_what_is_sent(server):
    OpenAI(knobs(server, temperature=0.25)).ask([request("a")])
    assert server.asked == [{
        "path": "/v1/chat/completions", "model": "toy", "temperature": 0.25, "max_tokens": 16,
        "messages": [{"role": "system", "content": "Shout."}, {"role": "user", "content": "a"}],
    }]
    assert server.keys == {f"Bearer {SECRET}"}


@pytest.mark.parametrize(("base_url", "name"), [
    ("", "max_completion_tokens"), ("https://api.openai.com/v1", "max_completion_tokens"),
    ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"), ("http://localhost:8000/v1", "max_tokens")])
def test_the_limit_of_a_reply_has_the_name_that_the_server_knows(own_cache, monkeypatch, base_url, name):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    body = OpenAI(knobs(base_url)).body(request("a"))
    assert {"max_tokens", "max_completion_tokens"} & body.keys() == {name}


def test_other_settings_are_other_requests(server):
    same = [{}, {"max_concurrency": 1}, {"request_timeout": 9.0}, {"unusable_retries": 3}, {"budget_tokens": 9999},
            {"price_input": 1.0, "price_output": 1.0, "budget_money": 5.0}]
    for changed in same:
        ask(server, "a", **changed)
    assert len(server.asked) == 1
    for number, changed in enumerate([
            {"temperature": 0.8}, {"chat_model": "other"}, {"max_reply_tokens": 17},
            {"base_url": server.base_url.replace("127.0.0.1", "localhost")}], start=2):
        ask(server, "a", **changed)
        assert len(server.asked) == number
    chat = OpenAI(knobs(server))
    for number, changed in enumerate([{"system": "Whisper."}, {"schema": SCHEMA}, {"attempt": 1}], start=6):
        chat.ask([request("a", **changed)])
        assert len(server.asked) == number


def test_the_count_of_what_was_sent_and_of_what_is_known(server):
    chat = OpenAI(knobs(server))
    wanted = [request("a"), request("b"), request("a")]
    assert chat.known(wanted) == 0
    for _ in range(2):
        chat.ask(wanted)
    assert (chat.sent, chat.known([*wanted, request("c")])) == (2, 3)
    assert (chat.source, chat.ask([])) == ("toy", [])


def test_usage_is_what_the_server_counted(server):
    server.answer = lambda prompt, before: said("x", tokens=(len(prompt), 7))
    chat = OpenAI(knobs(server, price_input=1000.0, price_output=2000.0))
    found = chat.ask([request("abc"), request("defgh")])
    assert [reply.usage for reply in found] == [Usage(1, 3, 7), Usage(1, 5, 7)]
    assert chat.budget.spent == Usage(2, 8, 14)
    assert chat.prices().money(chat.budget.spent) == pytest.approx(0.008 + 0.028)


def test_usage_is_estimated_where_the_server_counts_none(server):
    server.answer = lambda prompt, before: said("123456789", tokens=None)
    (reply,) = OpenAI(knobs(server)).ask([request("ab")])
    assert reply.usage == Usage(1, 8 // 4 + 1, 9 // 4 + 1)  # "Shout." and "ab" are 8 bytes


@pytest.mark.parametrize("bound", [1, 3])
def test_no_more_requests_are_in_flight_than_allowed(server, bound):
    server.delay = 0.03
    ask(server, *map(str, range(10)), max_concurrency=bound)
    assert server.most_busy == bound


def test_replies_that_come_while_the_disk_is_busy_are_stored_together(server):
    chat, writes = OpenAI(knobs(server, max_concurrency=8)), []
    keep = chat.keep

    def slowly(replies):
        time.sleep(0.2)
        writes.append(len(replies))
        keep(replies)

    chat.keep = slowly
    assert texts(chat, *"abcdefgh") == list("ABCDEFGH")
    assert sum(writes) == chat.sent == chat.budget.spent.requests == 8
    assert len(writes) <= 4  # eight, one after the other, would set the pace


def test_what_waits_for_a_disk_that_fails_is_not_counted(server):
    chat = OpenAI(knobs(server, max_concurrency=8))

    def broken(replies):
        time.sleep(0.05)
        raise UserError("the disk is full")

    chat.keep = broken
    assert complaint(texts, chat, *"abcdefghijkl") == "the disk is full"
    assert (chat.sent, chat.budget.spent) == (0, Usage())
    assert len(server.asked) <= 8  # those in flight, and none after


def test_it_works_in_a_notebook_whose_event_loop_is_busy(server):
    async def cell() -> list[str]:
        return ask(server, "a", "b")

    assert asyncio.run(cell()) == ["A", "B"]


def test_a_local_server_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(server, "a") == ["A"]
    assert server.keys == {"Bearer none"}
    assert "OPENAI_API_KEY" in complaint(OpenAI, knobs(""))


def test_the_environment_does_not_choose_the_server(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert ask(server, "a") == ["A"]
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setattr(live, "OFFICIAL", f"{server.base_url}/official")
    assert texts(OpenAI(knobs("")), "b") == ["B"]
    assert server.calls["POST /official/chat/completions"] == 1


@pytest.mark.parametrize("key", [f"{SECRET}\n", f"{SECRET}…", f"two {SECRET}"])
def test_a_key_that_no_header_can_hold(own_cache, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert "set it again" in complaint(OpenAI, knobs("http://localhost:1"))


def test_a_reply_in_any_script(server):
    server.answer = lambda prompt, before: said("삶의 목표 🌱\u2028\n")
    assert ask(server, "a") == ask(server, "a") == ["삶의 목표 🌱\u2028\n"]


def test_half_a_surrogate_pair_is_replaced_as_no_file_could_hold_it(server):
    server.answer = lambda prompt, before: said("cut \ud83c")
    assert ask(server, "a") == ask(server, "a") == ["cut \ufffd"]


def test_what_the_judges_read_comes_through(server):
    server.answer = lambda prompt, before: {
        "long": said("half a sen", finish="length"), "no": said(None, refusal="I can't help with that."),
        "none": said(None), "empty": said("", tokens=(10, 0)),
    }[prompt]
    chat = OpenAI(knobs(server))
    found = chat.ask([request(prompt) for prompt in ("long", "no", "none", "empty")])
    assert [(r.text, r.finish, r.refusal) for r in found] == [
        ("half a sen", "length", ""), ("", "stop", "I can't help with that."), ("", "stop", ""), ("", "stop", "")]
    assert [r.completion_tokens for r in found] == [5, 5, 5, 0]


# --- a server that does not


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_waited_for(server, fault):
    server.answer = lambda prompt, before: FAULTS[fault](said("ok")) if before < 2 else said("ok")
    assert ask(server, "a", request_timeout=0.3 if fault == "stalled" else 20.0) == ["ok"]
    assert len(server.asked) == 3


SENTENCES = {
    "429": "answered 429 for model toy", "500": "answered 500 for model toy",
    "503 in HTML": "answered 503 for model toy",
    "dropped": "cannot be reached, or breaks off for model toy", "stalled": "did not answer within 0.1 s for model toy",
    "truncated": "did not send a chat reply (check base_url, which mostly ends in /v1) for model toy",
    "no choices": "did not send a chat reply (check base_url, which mostly ends in /v1) for model toy",
}


@pytest.mark.parametrize("fault", SENTENCES)
def test_a_fault_that_stays_is_given_up_in_one_sentence(server, monkeypatch, fault):
    monkeypatch.setattr(live, "TRIES", 3)
    server.answer = lambda prompt, before: FAULTS[fault](said("ok"))
    message = complaint(ask, server, "a", request_timeout=0.1 if fault == "stalled" else 20.0)
    assert message == (f"the chat server at {server.base_url} {SENTENCES[fault]}; replies that came are kept, so rerun "
                       "when it is fixed")
    assert len(server.asked) == 3


def test_pauses_double_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(live._jitter, "uniform", lambda low, high: high)
    assert [live.backoff(tries) for tries in (0, 1, 2, 3, 7, 8, 99)] == [0.5, 0.5, 1.0, 2.0, 32.0, 60.0, 60.0]


@pytest.mark.parametrize("headers", [{"Retry_After": "0.3"}, {"retry_after_ms": "300"},
                                     {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "300ms"}])
def test_too_many_requests_waits_as_long_as_the_server_says(server, headers):
    server.answer = lambda prompt, before: refused(429, **headers) if before == 0 else said("ok")
    assert ask(server, "a") == ["ok"]
    assert 0.29 <= server.times[1] - server.times[0] < 2


def test_a_pause_until_a_date_holds_back_the_others_too_and_is_told_and_bounded(server, monkeypatch):
    monkeypatch.setattr(live, "LONGEST_ASKED", 0.4)
    date = formatdate(time.time() + 3600, usegmt=True)
    server.answer = lambda prompt, before: refused(429, Retry_After=date) if before == 0 else said(prompt)
    server.delay = 0.05
    assert ask(server, *"abcdef", max_concurrency=2) == list("abcdef")
    assert [later - server.times[0] >= 0.39 for later in server.times] == [False, False] + [True] * 5
    shown: list[str] = []
    monkeypatch.setattr(live, "LONGEST_ASKED", 900.0)
    hold = live._Sending(OpenAI(knobs(server)), {}, live.Progress(1, live.Prices(), shown.append))._hold
    for seconds in (3600.0, 3600.0, 1.0):
        hold(seconds)
    assert shown == ["the server asks for a pause of 15 min 0 s"]


@pytest.mark.parametrize(("headers", "seconds"), [
    ({"retry-after": "7"}, 7.0), ({"retry-after": "0.5"}, 0.5),
    ({"retry-after": "Thu, 01 Jan 1970 00:16:50 GMT"}, 10.0), ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
    ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ({"retry-after": "soon"}, None), ({"retry-after": "-3"}, None), ({"retry-after-ms": "nan"}, 0.0), ({}, None),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
    ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "9s"}, None),
])
def test_the_ways_to_ask_for_a_pause(monkeypatch, headers, seconds):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    error = Exception()
    error.response = type("Response", (), {"headers": headers})
    assert protocol.asked_pause(error) == seconds


@pytest.mark.parametrize(("remaining", "reset", "seconds"), [
    ("0", "6m0s", 360.0), ("0", "120ms", 0.12), ("0", "1h0m1.5s", 3601.5), ("0", "1s", 1.0), ("0", "soon", 0.0),
    ("5", "6m0s", 0.0)])
def test_how_long_a_rate_limit_is_exhausted(remaining, reset, seconds):
    headers = {"x-ratelimit-remaining-requests": remaining, "x-ratelimit-reset-requests": reset}
    assert protocol.exhausted(headers) == pytest.approx(seconds)
    assert protocol.exhausted({}) == 0.0


def test_an_exhausted_rate_limit_holds_back_the_others(server):
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "400ms"}
    server.answer = lambda prompt, before: said(prompt, headers=spent if before == 0 else {})
    assert ask(server, *"abcd", max_concurrency=1) == list("abcd")
    first, second, _, fourth = server.times
    assert second - first >= 0.39
    assert fourth - second < 0.39


def test_a_rate_limit_is_no_fault_while_other_replies_come(server, monkeypatch):
    monkeypatch.setattr(live, "TRIES", 5)
    opens = [0.0]

    def answer(prompt: str, before: int) -> Answer:
        with server.lock:
            if time.monotonic() < opens[0]:
                return refused(429, retry_after_ms="10")
            opens[0] = time.monotonic() + 0.02
        return said(prompt)

    server.answer = answer
    wanted = list(map(str, range(24)))
    assert ask(server, *wanted, max_concurrency=12) == wanted
    assert len(server.asked) > 24 + 12  # many were sent away, some of them more than five times
    assert max(Counter(server.prompts).values()) > 5


def test_no_money_left_is_not_asked_again(server):
    server.answer = lambda prompt, before: refused(429, "insufficient_quota", Retry_After="0.01")
    assert "answered 429 (insufficient_quota) for model toy" in complaint(ask, server, *"abc", max_concurrency=1)
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "code", "told"), [
    (400, 17, "answered 400 for model toy; "),
    (400, "context_length_exceeded", "answered 400 (context_length_exceeded)"),
    (401, f"invalid {SECRET}", "answered 401 for model toy (check OPENAI_API_KEY); "), (403, None, "answered 403 for"),
    (404, "model_not_found", "answered 404 (model_not_found) for model toy (check base_url and chat_model); ")])
def test_a_refusal_stops_the_run_at_once(server, status, code, told):
    server.answer = lambda prompt, before: refused(status, code)
    assert told in complaint(ask, server, *map(str, range(20)), max_concurrency=1)
    assert len(server.asked) == 1  # nobody knocks twenty times at a closed door


def test_what_is_in_flight_when_a_run_fails_is_kept(server):
    came = threading.Barrier(3)

    def answer(prompt: str, before: int) -> Answer:
        if before < 3:
            came.wait(10)
        if prompt == "bad":
            return refused(400)
        time.sleep(0.3)
        return said(prompt)

    server.answer = answer
    wanted = ["good", "bad", "fine", "later"]
    assert "answered 400" in complaint(ask, server, *wanted, max_concurrency=3)
    assert sorted(server.prompts) == ["bad", "fine", "good"]
    server.answer = lambda prompt, before: said(prompt)
    assert ask(server, *wanted) == wanted
    assert sorted(server.prompts[3:]) == ["bad", "later"]


def test_a_failure_ends_the_pauses_of_the_others(server):
    came = threading.Barrier(2)

    def answer(prompt: str, before: int) -> Answer:
        came.wait(10)
        if prompt == "patient":
            return refused(429, Retry_After="60")
        time.sleep(0.2)
        return refused(401)

    server.answer = answer
    began = time.monotonic()
    assert "answered 401" in complaint(ask, server, "patient", "refused", "later", max_concurrency=2)
    assert time.monotonic() - began < 10
    assert len(server.asked) == 2


def test_a_web_page_is_no_server(server):
    server.answer = lambda prompt, before: Answer(200, "\n<html>Welcome</html>", {"Content-Type": "text/html"})
    message = complaint(ask, server, "a")
    assert message == (f"{server.base_url} sent a web page instead of a reply: check base_url, which mostly ends in "
                       "/v1; replies that came are kept")
    assert len(server.asked) == 1


def test_nobody_listens(server, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        chat = OpenAI(knobs(address, budget_tokens=2 * MOST))
        message = complaint(texts, chat, "ab")
    assert message.startswith(f"the chat server at {address} cannot be reached, or breaks off for model toy; ")
    assert chat.budget.lost == Usage()  # what reached nobody cost nothing


@pytest.mark.parametrize("address", ["localhost:8000/v1", "http://", "ftp://host/v1", "http://[::1/v1", "http://h:99999/",
                                     "8000", "/v1"])
def test_an_address_that_is_none(own_cache, address):
    assert f"base_url '{address}' is not a web address" in complaint(OpenAI, knobs(address))


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals go to the main thread")
def test_an_interrupted_run_stops_sending_and_keeps_what_came(server):
    def answer(prompt: str, before: int) -> Answer:
        if before == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return said(prompt)

    server.answer, server.delay = answer, 0.05
    wanted = list(map(str, range(12)))
    # Tests that a shell started in the background were told to ignore interrupts; a person's terminal does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            ask(server, *wanted, max_concurrency=1)
    finally:
        signal.signal(signal.SIGINT, before)
    sent = len(server.prompts)
    assert sent <= 4
    time.sleep(0.1)
    assert len(server.prompts) == sent
    server.answer, server.delay = lambda prompt, before: said(prompt), 0.0
    assert ask(server, *wanted) == wanted
    assert len(server.prompts) <= sent + 10  # the first two, at least, were kept


def test_one_faulty_request_in_five_changes_no_reply(server):
    tries: Counter[str] = Counter()
    used: Counter[str] = Counter()

    def answer(prompt: str, before: int) -> Answer:
        with server.lock:
            tries[prompt] += 1
            chance = random.Random(f"{prompt} {tries[prompt]}")
            if chance.random() < 0.2:
                fault = chance.choice(sorted(FAULTS))
                used[fault] += 1
                return FAULTS[fault](said(prompt[::-1]))
        return said(prompt[::-1])

    server.answer = answer
    wanted = [f"prompt {number}" for number in range(120)]
    chat = OpenAI(knobs(server, max_concurrency=16, request_timeout=1.0))
    assert texts(chat, *wanted) == [prompt[::-1] for prompt in wanted]
    assert len(used) >= 10
    assert len(server.asked) == 120 + used.total()
    assert chat.budget.spent == Usage(120, 1200, 600)
    with sqlite3.connect(chat.store.path) as database:
        kept = [json.loads(value)["text"] for (value,) in database.execute("SELECT value FROM items")]
    assert sorted(kept) == sorted(prompt[::-1] for prompt in wanted)


# --- JSON schemas


def test_a_schema_is_sent_as_the_format_of_the_reply(server):
    OpenAI(knobs(server)).ask([request("a", schema=SCHEMA)])
    assert server.asked[0]["response_format"] == {"type": "json_schema", "json_schema": {
        "name": "toys", "strict": True, "schema": {
            "type": "object", "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
            "required": ["texts"], "additionalProperties": False}}}


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_schemas_is_asked_without(server, status):
    server.answer = lambda prompt, before: (
        refused(status) if "response_format" in server.asked[before] else said(prompt))
    chat = OpenAI(knobs(server, max_concurrency=1))
    wanted = [request(prompt, schema=SCHEMA) for prompt in "abc"]
    before = [chat.key(one) for one in wanted]
    assert [reply.text for reply in chat.ask(wanted)] == list("abc")
    assert ["response_format" in body for body in server.asked] == [True, False, False, False]
    assert [chat.key(one) for one in wanted] == before
    assert [reply.text for reply in OpenAI(knobs(server)).ask(wanted)] == list("abc")
    assert len(server.asked) == 4


def test_a_request_that_is_refused_with_and_without_a_schema_stops_the_run(server):
    server.answer = lambda prompt, before: refused(400)
    chat = OpenAI(knobs(server, max_concurrency=1))
    assert "answered 400" in complaint(chat.ask, [request(prompt, schema=SCHEMA) for prompt in "abc"])
    assert ["response_format" in body for body in server.asked] == [True, False]


def test_a_prompt_that_the_content_filter_refuses_is_a_refusal(server):
    server.answer = lambda prompt, before: refused(400, "content_filter") if prompt == "b" else said(prompt)
    found = OpenAI(knobs(server)).ask([request(prompt, schema=SCHEMA) for prompt in "abc"])
    assert [(reply.text, bool(reply.refusal)) for reply in found] == [("a", False), ("", True), ("c", False)]
    assert all("response_format" in body for body in server.asked)


# --- budgets


@pytest.mark.parametrize("bound", [1, 8])
def test_a_budget_of_tokens_is_never_passed(server, bound):
    # 15 tokens a reply, at most MOST = 106: the next is sent while 200 - 106 = 94 or less are spent: 0, 15, ... 90.
    server.delay = 0.01
    wanted = [f"p{number}" for number in range(9)]
    message = complaint(ask, server, *wanted, max_concurrency=bound, budget_tokens=200)
    assert message == ("the budget is too small to go on: 105 tokens of 200 tokens are spent, and what comes next may "
                       f"take up to {MOST} tokens; replies that came are kept, so raise budget_tokens or budget_money "
                       "and rerun")
    assert (len(server.asked), server.tokens) == (7, 105)
    server.answer = lambda prompt, before: said(prompt.upper())
    assert ask(server, *wanted, budget_tokens=135 + MOST) == [prompt.upper() for prompt in wanted]
    assert (len(server.asked), len(set(server.prompts))) == (9, 9)


def test_a_budget_of_money_is_never_passed(server):
    # $0.01 + $0.01 a reply; at most 90 * $0.001 + 16 * $0.002 = $0.122: sent while $0.078 or less are spent.
    message = complaint(ask, server, *[f"p{number}" for number in range(9)], max_concurrency=3, price_input=1000.0,
                        price_output=2000.0, budget_money=0.2)
    assert message.startswith("the budget is too small to go on: 60 tokens ($0.0800) of $0.2000 are spent, and")
    assert len(server.asked) == 4
    assert sum(prompt * 0.001 + reply * 0.002 for _, prompt, reply in server.billed) == pytest.approx(0.08)


@pytest.mark.parametrize("seed", range(3))
def test_a_budget_holds_whatever_the_server_bills(server, seed):
    chance = random.Random(seed)

    def answer(prompt: str, before: int) -> Answer:
        good = said(prompt, tokens=(chance.randint(1, 90), chance.randint(1, 16)))
        fault = FAULTS[chance.choice(["dropped", "truncated", "500", "broken off"])]
        return fault(good) if chance.random() < 0.2 else good

    server.answer = answer
    budget = 600
    message = complaint(ask, server, *[f"p{number}" for number in range(60)], max_concurrency=6, budget_tokens=budget)
    assert message.startswith("the budget is too small to go on")
    assert budget - 6 * MOST < server.tokens <= budget


def test_replies_that_never_arrive_count_against_the_budget(server):
    # Each of these may have cost MOST, and the budget is just short of four times that.
    server.answer = lambda prompt, before: FAULTS["dropped"](said("x", tokens=(90, 16)))
    message = complaint(ask, server, "p1", budget_tokens=4 * MOST - 1)
    assert f"0 tokens of {4 * MOST - 1} tokens are spent, and up to {3 * MOST} tokens on replies that never" in message
    assert server.tokens == 3 * MOST


def test_replies_on_disk_count_against_the_budget_and_are_free(server):
    wanted = [f"p{number}" for number in range(4)]
    ask(server, *wanted)
    chat = OpenAI(knobs(server, budget_tokens=60))
    assert texts(chat, *wanted) == texts(chat, *wanted) == [prompt.upper() for prompt in wanted]
    assert chat.budget.spent == Usage(4, 40, 20)
    assert "60 tokens of 60 tokens are spent" in complaint(texts, chat, *wanted, "p9")
    assert len(server.asked) == 4


def test_a_budget_of_money_needs_prices(own_cache):
    assert "budget_money needs price_input and price_output" in complaint(
        OpenAI, knobs("http://localhost:1", budget_money=1.0))


def test_progress_is_shown(server):
    shown: list[str] = []
    chat = OpenAI(knobs(server, price_input=1000.0, price_output=2000.0))
    chat.ask([request(prompt) for prompt in "abc"], shown.append)
    assert shown[-1].startswith("3 of 3 replies · ")
    assert " a second · 45 tokens · $0.0600 · " in shown[-1]
    assert shown[-1].endswith(" in all")
    shown.clear()
    chat.ask([request(prompt) for prompt in "abc"], shown.append)
    assert shown == []


# --- runs that are killed, and runs side by side


def test_a_run_killed_at_any_moment_asks_for_nothing_twice(server):
    wanted = [f"prompt {number}" for number in range(60)]
    settings = knobs(server, max_concurrency=4)
    chat = OpenAI(settings)
    names = {chat.key(request(prompt)): prompt for prompt in wanted}
    chance = random.Random(7)
    server.delay = 0.02
    kills = 4
    for _ in range(kills):
        sent, on_disk = len(server.asked), set(chat.store.get(names))
        run = start(settings, wanted)
        more = sent + chance.randint(3, 12)
        wait_until(lambda more=more: len(server.asked) >= more)
        time.sleep(chance.uniform(0, 0.05))
        run.send_signal(signal.SIGKILL)
        run.communicate()
        time.sleep(0.1)  # what the server still works on
        assert not {names[name] for name in on_disk} & set(server.prompts[sent:])
    sent, on_disk = len(server.asked), set(chat.store.get(names))
    assert 12 <= len(on_disk) < 60
    assert finished(start(settings, wanted)) == [prompt.upper() for prompt in wanted]
    assert sorted(server.prompts[sent:]) == sorted(names[name] for name in names.keys() - on_disk)
    assert len(server.asked) <= 60 + kills * 4  # no more is lost than was in flight


def test_two_runs_side_by_side_pay_once(server):
    wanted = [f"prompt {number}" for number in range(30)]
    server.delay = 0.02
    runs = [start(knobs(server, max_concurrency=2), wanted[::order]) for order in (1, -1)]
    first, second = map(finished, runs)
    assert first == second[::-1] == [prompt.upper() for prompt in wanted]
    assert sorted(server.prompts) == sorted(wanted)


def test_a_second_run_says_that_it_waits(server):
    shown: list[str] = []
    chat = OpenAI(knobs(server))
    busy = threading.Event()

    def first() -> None:
        server.answer = lambda prompt, before: (busy.set(), time.sleep(0.3), said(prompt))[2]
        texts(OpenAI(knobs(server)), "a")

    thread = threading.Thread(target=first)
    thread.start()
    assert busy.wait(10)
    assert [reply.text for reply in chat.ask([request("a")], shown.append)] == ["a"]
    thread.join()
    assert shown == ["another run is asking this server: waiting for it"]
    assert len(server.asked) == 1


def test_what_is_on_disk_waits_for_no_other_run(server):
    chat = OpenAI(knobs(server))
    texts(chat, "a")
    asks = threading.Event()
    server.answer = lambda prompt, before: (asks.set(), server.released.wait(10), said(prompt))[2]
    thread = threading.Thread(target=texts, args=(OpenAI(knobs(server)), "b"))
    thread.start()
    assert asks.wait(10)
    shown: list[str] = []
    assert [reply.text for reply in chat.ask([request("a")], shown.append)] == ["A"]
    assert shown == []
    server.released.set()
    thread.join()


# --- a real server: transformers serve, with a model of a few thousand weights


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """The address of a running server, the name of its model, and its log."""
    import toys

    folder = tmp_path_factory.mktemp("real")
    tokenizer = toys.tokenizer()
    tokenizer.save_pretrained(folder / "model")
    toys.model(tokenizer).save_pretrained(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("transformers"), "serve", folder / "model", "--host", "127.0.0.1", "--port",
             str(port), "--device", "cpu"],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT)

        def listens() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as trial:
                return trial.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_until(listens, 120)
            yield f"http://127.0.0.1:{port}/v1", str(folder / "model"), folder / "log"
        finally:
            process.terminate()
            process.wait(30)
    assert SECRET not in (folder / "log").read_text()


@pytest.fixture
def real_knobs(real: tuple[str, str, Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[client.Chat]:
    """Settings for the real server."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield knobs(real[0], chat_model=real[1], temperature=0.0, max_concurrency=3, unusable_retries=1)
    no_key_in(own_cache.parent)


def test_a_real_server_answers_counts_and_is_asked_once(real_knobs, real):
    chat = OpenAI(real_knobs)
    wanted = [request(f"Say {number}.", schema=SCHEMA) for number in range(8)]
    found = chat.ask(wanted)
    # Two turns, each with its role and its end, and a third that begins: 5 tokens; a byte is at most one token.
    assert all(5 < reply.prompt_tokens <= 5 + len("Shout.Say 1.") for reply in found)
    assert all(reply.completion_tokens == 16 for reply in found if reply.finish == "length")
    assert all(0 < reply.completion_tokens <= 16 for reply in found)
    assert chat.budget.spent == sum((reply.usage for reply in found), start=Usage())
    assert chat.sent == 8
    # Release 5.23 takes the schema and overlooks it; others refuse it, and are asked without.
    assert chat.schemas is ("Ignoring unsupported fields in the request: {'response_format'}" in real[2].read_text())
    again = OpenAI(real_knobs)
    assert again.ask(wanted) == found
    assert again.sent == 0
    # What this model says is no list of texts: each is asked once more and recorded as not used.
    values, rows = replies.settle(again, wanted[:2], lambda one, reply: replies.texts(reply.text, 2, "English"))
    assert values == [None, None]
    assert [(row.attempt, row.subject) for row in rows] == [(0, "Say 0."), (0, "Say 1."), (1, "Say 0."), (1, "Say 1.")]
    assert again.sent == 2


def test_a_real_server_takes_every_field_that_is_sent_and_refuses_others(real_knobs):
    chat = OpenAI(real_knobs)
    sender = openai.OpenAI(base_url=real_knobs.base_url, api_key="none", max_retries=0)
    body = chat.body(request("a"))
    assert body.keys() == {"model", "messages", "temperature", "max_tokens"}
    for name in ("max_tokens", "max_completion_tokens"):
        sent = {key: value for key, value in body.items() if key != "max_tokens"} | {name: 3}
        assert sender.chat.completions.create(**sent).usage.completion_tokens == 3
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        sender.chat.completions.create(**body, extra_body={"max_reply_tokens": 16})
    assert caught.value.response.json() == {"detail": "Unexpected fields in the request: {'max_reply_tokens'}"}
    message = complaint(texts, OpenAI(real_knobs.model_copy(update={"chat_model": "gpt-4o"})), "a")
    assert "answered 400 for model gpt-4o; " in message


@pytest.mark.slow
def test_a_real_server_is_asked_for_nothing_twice_by_runs_that_are_killed(real_knobs):
    wanted = [f"prompt {number}" for number in range(60)]
    settings = real_knobs.model_copy(update={"max_reply_tokens": 256})
    store = Store(OpenAI(settings).store.path)
    names = [OpenAI(settings).key(request(prompt)) for prompt in wanted]
    for share in (5, 20, 40):
        run = start(settings, wanted)
        wait_until(lambda share=share: len(store.get(names)) >= share, 120)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    known = store.get(names)
    assert 40 <= len(known) < 60
    killed = finished(start(settings, wanted), 300)
    assert known.items() <= store.get(names).items()
    undisturbed = OpenAI(settings.model_copy(update={"base_url": settings.base_url.replace("127.0.0.1", "localhost")}))
    assert texts(undisturbed, *wanted) == killed
    assert undisturbed.sent == 60
    assert undisturbed.budget.spent == sum(
        (client.Reply.model_validate_json(value).usage for value in store.get(names).values()), start=Usage())
