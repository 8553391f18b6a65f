"""Chat client and store: recorded replies, and a real server on the loopback that answers well, badly or not at all."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culturellm_utils import client, prompts
from culturellm_utils.errors import UserError
from culturellm_utils.records import Message
from culturellm_utils.store import Store

SECRET = "sk-sentinel-7f3a9c"
Answer = tuple[int, dict[str, str], str]


def said(content: str | None) -> Answer:
    """A reply in OpenAI's protocol."""
    message = {"role": "assistant", "content": content}
    return 200, {}, json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "toy",
                                "choices": [{"index": 0, "finish_reason": "stop", "message": message}]})


def refused(status: int, message: str = "no", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"error": {"message": message, "code": "x"}})


class Server(ThreadingHTTPServer):
    """Answers with ``answer(prompt, how many requests came before)``; keeps what it was asked, and when."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[str, int], Answer] = lambda prompt, before: said(prompt.upper())
        self.asked: list[dict] = []
        self.prompts: list[str] = []
        self.times: list[float] = []
        self.keys: set[str] = set()
        self.busy = self.most_busy = 0
        self.delay = 0.0
        self.lock = threading.Lock()
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        prompt = body["messages"][-1]["content"]
        with server.lock:
            before = len(server.asked)
            server.asked.append(body | {"path": self.path})
            server.prompts.append(prompt)
            server.times.append(time.monotonic())
            server.keys.add(self.headers["Authorization"])
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        time.sleep(server.delay)
        status, headers, text = server.answer(prompt, before)
        with server.lock:
            server.busy -= 1
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()
    for path in own_cache.rglob("*"):
        assert SECRET.encode() not in path.read_bytes()


def ask(server: Server, *wanted: str, **settings) -> list[str]:
    chat = client.OpenAI("toy", server.base_url, **settings)
    return chat.ask([prompts.chat("Shout.", prompt) for prompt in wanted])


def complaint(call: Callable, *arguments, **settings) -> str:
    """What a user is told, in one line; neither that nor the traceback may hold the key."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


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
    ask(server, "a", temperature=0.25)
    (request,) = server.asked
    assert request == {
        "path": "/v1/chat/completions", "model": "toy", "temperature": 0.25,
        "messages": [{"role": "system", "content": "Shout."}, {"role": "user", "content": "a"}],
    }
    assert server.keys == {f"Bearer {SECRET}"}


def test_other_settings_are_other_requests(server):
    for changed in ({"temperature": 0.7}, {"temperature": 0.8}, {"temperature": 0.7, "max_concurrency": 1}):
        ask(server, "a", **changed)
    client.OpenAI("other", server.base_url).ask([prompts.chat("Shout.", "a")])
    client.OpenAI("toy", server.base_url).ask([prompts.chat("Whisper.", "a")])
    assert len(server.asked) == 4  # how many are in flight does not matter


def test_the_count_of_what_was_sent(server):
    chat = client.OpenAI("toy", server.base_url)
    for _ in range(2):
        chat.ask([prompts.chat("Shout.", "a"), prompts.chat("Shout.", "b")])
    assert chat.sent == 2
    assert chat.source == "toy"
    assert chat.ask([]) == []


@pytest.mark.parametrize("bound", [1, 3])
def test_no_more_requests_are_in_flight_than_allowed(server, bound):
    server.delay = 0.03
    ask(server, *map(str, range(10)), max_concurrency=bound)
    assert server.most_busy == bound


def test_it_works_in_a_notebook_whose_event_loop_is_busy(server):
    async def cell() -> list[str]:
        return ask(server, "a", "b")

    assert asyncio.run(cell()) == ["A", "B"]


def test_a_local_server_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(server, "a") == ["A"]
    assert server.keys == {"Bearer none"}
    assert "OPENAI_API_KEY" in complaint(client.OpenAI, "toy")


def test_an_empty_reply_is_given_but_asked_for_again(server):
    server.answer = lambda prompt, before: said((None, "", "third")[before])
    assert [ask(server, "a") for _ in range(4)] == [[""], [""], ["third"], ["third"]]


def test_a_reply_in_any_script(server):
    server.answer = lambda prompt, before: said("삶의 목표 🌱\u2028\n")
    assert ask(server, "a") == ask(server, "a") == ["삶의 목표 🌱\u2028\n"]


# --- a server that does not


def test_too_many_requests_waits_as_long_as_the_server_says(server):
    server.answer = lambda prompt, before: refused(429, Retry_After="0.4") if before == 0 else said("ok")
    assert ask(server, "a") == ["ok"]
    assert len(server.asked) == 2
    assert server.times[1] - server.times[0] >= 0.39


def test_server_errors_are_tried_again(server):
    server.answer = lambda prompt, before: refused(500 + before, retry_after_ms="10") if before < 4 else said("ok")
    assert ask(server, "a") == ["ok"]
    assert len(server.asked) == 5


def test_a_server_that_never_recovers(server):
    server.answer = lambda prompt, before: refused(503, retry_after_ms="10")
    message = complaint(ask, server, "a")
    assert message == (f"the chat server at {server.base_url} answered 503 for model toy; replies that came are kept, "
                       "so rerun when it is fixed")
    assert len(server.asked) == 7


def test_a_refused_key_gives_one_sentence_without_the_key(server):
    server.answer = lambda prompt, before: refused(401, f"Incorrect API key provided: {SECRET}")
    assert "answered 401 for model toy" in complaint(ask, server, *map(str, range(20)), max_concurrency=1)
    assert len(server.asked) <= 2  # nobody knocks twenty times at a closed door


@pytest.mark.parametrize("key", [f"{SECRET}\n", f"{SECRET}…"])
def test_a_key_that_no_header_can_hold(server, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)
    assert "for model toy" in complaint(ask, server, "a")


def test_a_run_that_fails_midway_keeps_what_came(server):
    server.answer = lambda prompt, before: refused(400) if prompt == "3" else said(prompt)
    wanted = list("01234")
    assert "answered 400" in complaint(ask, server, *wanted, max_concurrency=1)
    came = set(server.prompts[:3])
    assert came == {"0", "1", "2"}
    server.prompts.clear()
    server.answer = lambda prompt, before: said(prompt)
    assert ask(server, *wanted, max_concurrency=1) == wanted
    assert set(server.prompts) == {"3", "4"}


@pytest.mark.parametrize("answer", [
    (200, {"Content-Type": "text/html"}, "<html>Welcome</html>"),
    (200, {}, "{}"),
    (200, {}, '{"choices": []}'),
    (200, {}, '{"choices": null, "error": {"message": "overloaded"}}'),
    (200, {}, '{"choices": [{"message": null}]}'),
])
def test_a_server_that_speaks_something_else(server, answer):
    server.answer = lambda prompt, before: answer
    message = complaint(ask, server, "a")
    assert message == (f"the server at {server.base_url} did not send a chat reply: check base_url, which mostly ends "
                       "in /v1")


def test_a_reply_cut_off(server):
    server.answer = lambda prompt, before: (200, {}, said("whole")[2][:40])
    assert server.base_url in complaint(ask, server, "a")


def test_nobody_listens(server, monkeypatch):
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        message = complaint(client.OpenAI("toy", address).ask, [prompts.chat("Shout.", "a")])
    assert message.startswith(f"the chat server at {address} answered APIConnectionError for model toy")


@pytest.mark.parametrize("address", ["localhost:8000/v1", "http://", "ftp://host/v1", "http://[::1/v1", "http://h:99999/",
                                     "8000", "/v1"])
def test_an_address_that_is_none(own_cache, address):
    assert f"base_url '{address}' is not a web address" in complaint(client.OpenAI, "toy", address)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals go to the main thread")
def test_an_interrupted_run_stops_sending_and_keeps_what_came(server):
    def answer(prompt: str, before: int) -> Answer:
        if before == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return said(prompt)

    server.answer, server.delay = answer, 0.05
    wanted = list(map(str, range(12)))
    with pytest.raises(KeyboardInterrupt):
        ask(server, *wanted, max_concurrency=1)
    sent = len(server.prompts)
    assert sent <= 4
    time.sleep(0.1)
    assert len(server.prompts) == sent
    server.answer, server.delay = lambda prompt, before: said(prompt), 0.0
    assert ask(server, *wanted) == wanted
    assert len(server.prompts) <= sent + 10  # the first two, at least, were kept


# --- recordings


def test_a_prompt_that_was_never_recorded_is_named():
    request = prompts.template_request("Cats are better than dogs.", 12)
    with pytest.raises(UserError, match=r"no recorded reply for the request about 'Cats are better than dogs\.'"):
        client.Recorded().ask([request])
    with pytest.raises(UserError, match="no recorded reply for the request about 'Hello'"):
        client.Recorded().ask([prompts.chat("a", "Hello")])
    assert client.Recorded().ask([]) == []


def test_connect_gives_the_client_that_is_named(own_cache):
    assert isinstance(client.connect("recorded", "gpt-4", "", 0.7, 8), client.Recorded)
    live = client.connect("openai", "toy", "http://localhost:1", 0.5, 3)
    assert (live.source, live.base_url, live.temperature, live.max_concurrency) == ("toy", "http://localhost:1", 0.5, 3)


def test_a_key_names_messages_and_settings():
    messages = [Message(role="user", content="é")]
    written = '{"messages": [{"content": "é", "role": "user"}], "model": "toy"}'
    assert client.key(messages, model="toy") == hashlib.sha256(written.encode()).hexdigest()
    assert len({client.key(messages), client.key(messages * 2), client.key(messages, model="a")}) == 3
    assert client.key(messages, a=1, b=2) == client.key(messages, b=2, a=1)


# --- the store


def test_the_first_value_of_a_key_stays(tmp_path):
    store = Store(tmp_path / "deep" / "a.sqlite")
    store.put({"a": b"1", "b": b"\x00\xff"})
    store.put({"a": b"2", "c": b""})
    store.put({})
    assert store.get(["a", "b", "c", "d", "a"]) == {"a": b"1", "b": b"\x00\xff", "c": b""}
    assert store.get([]) == {}
    assert Store(tmp_path / "deep" / "a.sqlite").get("a") == {"a": b"1"}


def test_more_keys_than_one_query_takes(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    items = {f"k{number}": str(number).encode() for number in range(1201)}
    store.put(items)
    assert store.get(iter(items)) == items


@settings(max_examples=10)
@given(items=st.dictionaries(st.text(max_size=9), st.binary(max_size=9), max_size=5))
def test_any_text_is_a_key(tmp_path_factory, items):
    store = Store(tmp_path_factory.mktemp("any") / "a.sqlite")
    store.put(items)
    assert store.get(items) == items


def test_many_writers_at_once_lose_nothing(tmp_path):
    def write(number: int) -> None:
        store = Store(tmp_path / "a.sqlite")
        for turn in range(4):
            store.put({f"{number}-{turn}": b"x", "shared": str(number).encode()})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        assert database.execute("SELECT count(*) FROM items").fetchone() == (33,)


def test_a_write_that_fails_is_not_half_done(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    with pytest.raises(UserError, match=r"a\.sqlite cannot be used as a cache"):
        store.put({"a": b"1", "b": object()})
    assert store.get("ab") == {}


def test_a_file_that_is_no_cache_is_named(tmp_path):
    path = tmp_path / "a.sqlite"
    path.write_text("this is not a database, though it is long enough to be taken for one" * 20)
    assert "a.sqlite cannot be used as a cache (file is not a database); remove it" in complaint(Store, path)
    path.unlink()
    Store(path).put({f"k{number}": b"x" * 999 for number in range(200)})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "a.sqlite cannot be used as a cache" in complaint(lambda: Store(path).get(["k1", "k199"]))
    path.unlink()
    path.mkdir()
    assert "a.sqlite cannot be used as a cache" in complaint(Store, path)
    assert "b.sqlite cannot be used as a cache" in complaint(Store, Path(__file__) / "b.sqlite")
