"""The face of the chat clients, what their servers' replies say, recordings, and the store that keeps replies."""

import hashlib
import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from chat_server import SECRET, complaint, completion, knobs, request
from hypothesis import given, settings
from hypothesis import strategies as st

from culturellm_utils import client, prompts, protocol
from culturellm_utils.batch import Batch
from culturellm_utils.client import Recorded, Reply, again
from culturellm_utils.errors import UserError
from culturellm_utils.live import OpenAI
from culturellm_utils.protocol import NoReply
from culturellm_utils.records import Message
from culturellm_utils.store import Store
from culturellm_utils.usage import Prices, Usage

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
                    max_leaves=9)


# --- the face


def test_connect_gives_the_client_that_is_named(own_cache, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    recorded = client.connect(knobs("", chat_backend="recorded", price_input=2.0))
    assert (type(recorded), recorded.retries, recorded.budget.prices) == (Recorded, 0, Prices(2.0, 0.0))
    for backend, kind, price in (("openai", OpenAI, 2.0), ("batch", Batch, 1.0)):
        made = client.connect(knobs("", chat_backend=backend, unusable_retries=3, budget_tokens=5, price_input=2.0))
        assert (type(made), made.source, made.retries, made.budget.tokens) == (kind, "toy", 3, 5)
        assert made.budget.prices == Prices(price, 0.0)


def test_a_key_names_messages_and_settings():
    messages = [Message(role="user", content="é")]
    written = '{"messages": [{"content": "é", "role": "user"}], "model": "toy"}'
    assert client.key(messages, model="toy") == hashlib.sha256(written.encode()).hexdigest()
    assert len({client.key(messages), client.key(messages * 2), client.key(messages, model="a")}) == 3
    assert client.key(messages, a=1, b=2) == client.key(messages, b=2, a=1)


def test_the_request_to_send_again_says_why_and_differs_by_attempt():
    first = request("Write.")
    second = again(first, "wrong count:\n2 instead of 3")
    third = again(second, "empty")
    assert second.messages[0] == first.messages[0]
    assert second.messages[1].content == (
        "Write.\nAn earlier reply to this could not be used (wrong count: 2 instead of 3). Follow the format and the "
        "instructions exactly.")
    assert third.messages[1].content == (
        "Write.\nAn earlier reply to this could not be used (empty). Follow the format and the instructions exactly.")
    assert [one.attempt for one in (first, second, third, again(third, "empty"))] == [0, 1, 2, 3]
    assert len({client.recording_key(one) for one in (first, second, third, again(third, "empty"))}) == 4
    assert (second.subject, second.purpose, second.schema) == (first.subject, first.purpose, first.schema)


# --- what a server's reply says


def body(**changed: Any) -> str:
    return json.dumps(completion("abcd") | changed)


@pytest.mark.parametrize(("usage", "counted"), [
    ({"prompt_tokens": 7, "completion_tokens": 3}, (7, 3)), ({"prompt_tokens": 7}, (7, 2)),
    ({"prompt_tokens": 7.0, "completion_tokens": 1e99}, (7, 2)), (None, (3, 2)), ({}, (3, 2)),
    ({"prompt_tokens": 0, "completion_tokens": 0}, (3, 2)), ({"prompt_tokens": -1, "completion_tokens": "3"}, (3, 2)),
    ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, (3, 2))])
def test_tokens_that_a_server_counts_and_those_that_are_estimated(usage, counted):
    reply = protocol.read_body(body(usage=usage), request("abc"))  # "Shout.abc" and "abcd": 9 and 4 bytes
    assert (reply.prompt_tokens, reply.completion_tokens) == counted
    assert reply.usage == Usage(1, *counted)


@pytest.mark.parametrize("text", [
    "", "{", "null", "[]", "{}", '"text"', "7", '{"choices": []}', '{"choices": {}}', '{"choices": [{}]}',
    '{"choices": [{"message": []}]}', '{"choices": [{"message": {"content": ["a"]}}]}',
    body(usage=[1]), body()[:-2], "[" * 100_000, b"\xff\xfe\x00", body().encode()[:-1]])
def test_what_is_no_reply(text):
    with pytest.raises(NoReply):
        protocol.read_body(text, request("abc"))


@given(JSON, st.sampled_from(["choices", "message", "content", "finish_reason", "usage", "prompt_tokens", "refusal"]))
def test_whatever_a_server_sends_is_a_reply_or_none(value, where):
    def changed(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {name: value if name == where else changed(inner) for name, inner in tree.items()}
        return [changed(inner) for inner in tree] if isinstance(tree, list) else tree

    for sent in (value, changed(completion("abcd", refusal=""))):
        try:
            reply = protocol.read_body(json.dumps(sent), request("abc"))
        except NoReply:
            continue
        assert Reply.model_validate_json(reply.model_dump_json()) == reply
        assert reply.prompt_tokens >= 0 <= reply.completion_tokens


@pytest.mark.parametrize(("code", "said"), [("rate_limit_exceeded", "rate_limit_exceeded"), (SECRET, ""), (None, ""),
                                            (404, ""), ("two words", ""), ("x", "")])
def test_codes_that_may_be_repeated(code, said):
    assert protocol.plain(code) == said


# --- recordings


def test_a_recorded_prompt_is_answered_and_its_tokens_are_estimated(monkeypatch):
    first, other = request("Write."), again(request("Write."), "empty")
    recordings = {client.key(first.messages): "One.", client.recording_key(other): "Two."}
    monkeypatch.setattr(client, "_recordings", lambda: recordings)
    recorded = Recorded(Prices(1.0, 1.0))
    assert recorded.known([first, other]) == 2
    found = recorded.ask([other, first, first])
    assert [reply.text for reply in found] == ["Two.", "One.", "One."]
    assert found[1].usage == Usage(1, len("Shout.Write.") // 4 + 1, 4 // 4 + 1)
    assert recorded.budget.spent.requests == 2  # what is asked again costs nothing, as with a live server
    assert recorded.source == "recorded"


def test_a_prompt_that_was_never_recorded_is_named():
    asked = client.Request("Q1", "templates", prompts.template_request("Cats are better than dogs.", 12))
    with pytest.raises(UserError, match=r"no recorded reply for the templates of 'Cats are better than dogs\.'"):
        Recorded().ask([asked])
    with pytest.raises(UserError, match="no recorded reply for the toys of 'Hello'"):
        Recorded().ask([request("Hello")])
    assert Recorded().ask([]) == []


def test_every_recording_is_a_reply_to_one_prompt():
    recordings = client._recordings()
    assert len(recordings) >= 50
    assert all(text.strip() for text in recordings.values())


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


def test_what_is_removed_is_gone_and_may_be_put_again(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    store.put({"a": b"1", "b": b"2", "c": b"3"})
    store.remove(["a", "c", "never there"])
    store.remove([])
    assert store.get("abc") == {"b": b"2"}
    store.put({"a": b"4"})
    assert store.get("abc") == {"a": b"4", "b": b"2"}


def test_one_at_a_time_holds_a_lock(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    inside, most, waited = [0], [0], []

    def work(number: int) -> None:
        with store.alone("one", lambda: waited.append(number)):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert most == [1]
    assert waited
    with store.alone("one", lambda: waited.append("free")), store.alone("two", lambda: waited.append("another")):
        pass
    assert not {"free", "another"} & set(waited)


def test_what_is_paid_for_is_not_to_be_removed_when_the_disk_is_full(tmp_path, monkeypatch):
    store = Store(tmp_path / "a.sqlite")

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", full)
    message = complaint(store.put, {"a": b"1"})
    assert message == ("a.sqlite cannot be used as a cache (database or disk is full); free some space there and "
                       "rerun (what was written or paid before is kept), or set CULTURELLM_CACHE to another folder")
