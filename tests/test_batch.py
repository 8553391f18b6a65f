"""Batch jobs against a server on the loopback: what is uploaded, every way a job can end, and runs that are killed."""

import json
import signal
from typing import Any

import pytest
from chat_server import (
    SECRET,
    Answer,
    Server,
    complaint,
    finished,
    knobs,
    refused,
    request,
    running_server,  # noqa: F401
    said,
    start,
    texts,
    wait_until,
)

from culturellm_utils import batch, live
from culturellm_utils.augmentation import texts_schema
from culturellm_utils.batch import Batch
from culturellm_utils.live import OpenAI
from culturellm_utils.store import Store
from culturellm_utils.usage import Usage

SCHEMA = texts_schema("texts")
#: As in test_live.py: the most that a prompt of two letters may cost, a third of it the reply.
PROMPT_MOST, REPLY_MOST = 6 + 2 + 2 + 3 * 16 + 32, 16


def jobs(server: Server, **settings: Any) -> Batch:
    """A new batch client."""
    return Batch(knobs(server, **({"chat_backend": "batch"} | settings)))


def failing(line: dict[str, Any], status: int = 500, code: str = "server_error") -> dict[str, Any]:
    """The output line of a request that failed."""
    body = {"error": {"message": SECRET, "code": code}}
    return {"id": "r", "custom_id": line["custom_id"], "error": None,
            "response": {"status_code": status, "request_id": "q", "body": body}}


def prompt(line: dict[str, Any]) -> str:
    return line["body"]["messages"][-1]["content"]


def sent(server: Server) -> list[list[str]]:
    """The prompts of each job."""
    return [[prompt(json.loads(line)) for line in server.files[job["input_file_id"]].decode().splitlines()]
            for job in server.jobs]


# --- a job that goes well


def test_the_request_file_line_by_line(server, own_cache):
    chat = jobs(server, temperature=0.5)
    wanted = [request("é\u2028x"), request("b", schema=SCHEMA)]
    assert [reply.text for reply in chat.ask(wanted)] == ["É\u2028X", "B"]
    first, second = [json.loads(line) for line in server.files["file-0"].decode().split("\n")[:-1]]
    assert first == {
        "custom_id": chat.key(wanted[0]), "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "toy", "temperature": 0.5, "max_tokens": 16, "messages": [
            {"role": "system", "content": "Shout."}, {"role": "user", "content": "é\u2028x"}]}}
    assert second["custom_id"] == chat.key(wanted[1])
    assert second["body"]["response_format"]["json_schema"]["schema"] == SCHEMA
    (job,) = server.jobs
    assert (job["endpoint"], job["completion_window"]) == ("/v1/chat/completions", "24h")
    (path,) = (own_cache / "batches").iterdir()
    assert path.read_bytes() == server.files["file-0"]
    assert path.stem == job["metadata"]["mark"]
    assert server.keys == {f"Bearer {SECRET}"}
    assert server.asked == []  # nothing went the dearer way


def test_replies_come_in_order_and_are_asked_for_once(server):
    wanted = [f"p{number}" for number in range(8)]
    shown: list[str] = []
    found = jobs(server).ask([request(one) for one in wanted], shown.append)
    assert [reply.text for reply in found] == [one.upper() for one in wanted]
    assert shown[0] == ("batch batch_0: validating, 0 of 8 done after 0 s; it may take up to 24 h, and a rerun resumes "
                        "it")
    assert shown[-1].startswith("8 of 8 replies · ")
    assert texts(jobs(server), *wanted[::-1], "p3") == [one.upper() for one in [*wanted[::-1], "p3"]]
    assert texts(jobs(server), "p1", "new") == ["P1", "NEW"]
    assert sent(server) == [wanted, ["new"]]


def test_polls_become_rarer(server, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(batch.time, "sleep", pauses.append)
    monkeypatch.setattr(batch, "FIRST_POLL", 2.0)
    server.polls = 12
    assert texts(jobs(server), "a") == ["A"]
    assert pauses[:4] == [2.0, 3.0, 4.5, 6.75]
    assert pauses[9:] == [60.0, 60.0, 60.0, 60.0]  # 2 * 1.5^9 would be 77


def test_the_live_client_and_batches_share_replies_and_keys(server):
    server.answer = lambda text, before: said(f"{text}!", tokens=(len(text), 3))
    a, b = [request("a", schema=SCHEMA)], [request("b", schema=SCHEMA)]
    by_batch = jobs(server).ask(a + b)
    assert OpenAI(knobs(server)).ask(a + b) == by_batch
    assert server.asked == []
    live_ = OpenAI(knobs(server, base_url=server.base_url.replace("127.0.0.1", "localhost"))).ask(a + b)
    assert live_ == by_batch
    assert OpenAI(knobs(server)).key(a[0]) == jobs(server).key(a[0])


def test_half_the_price(server):
    settings = {"price_input": 1000.0, "price_output": 2000.0}
    chat = jobs(server, **settings)
    shown: list[str] = []
    chat.ask([request("a"), request("b")], shown.append)
    assert chat.budget.spent == Usage(2, 20, 10)
    assert chat.budget.prices.money(chat.budget.spent) == pytest.approx((20 * 0.001 + 10 * 0.002) / 2)
    assert " · 30 tokens · $0.0200 · " in shown[-1]


def test_many_requests_are_split_into_jobs_that_the_api_takes(server, monkeypatch):
    monkeypatch.setattr(batch, "LARGEST_JOB", 3)
    assert texts(jobs(server), *"abcdefg") == list("ABCDEFG")
    assert sent(server) == [list("abc"), list("def"), ["g"]]
    monkeypatch.setattr(batch, "LARGEST_FILE", 2 * len(server.files["file-0"]) // 3 + 10)  # two lines and no third
    assert texts(jobs(server), *"hijk") == list("HIJK")
    assert sent(server)[3:] == [list("hi"), list("jk")]


# --- lines that went wrong


def test_lines_in_any_order_repeated_broken_or_unknown_do_no_harm(server):
    def lines(line: dict[str, Any], good: dict[str, Any], number: int) -> list[Any]:
        other = json.loads(json.dumps(good).replace(line["custom_id"], "f" * 64))
        second = json.loads(json.dumps(good).replace(prompt(line).upper(), "A second reply"))
        return ["{broken", other, good, second, json.dumps(good)[:50], "", "[]", "null", '{"custom_id": 1}']

    server.lines, server.shuffle = lines, lambda made: made.sort(key=lambda line: line == "null", reverse=True)
    chat = jobs(server)
    assert texts(chat, *"abc") == ["A", "B", "C"]
    assert chat.budget.spent == Usage(3, 30, 15)
    assert len(server.jobs) == 1
    server.lines, server.shuffle = lambda line, good, number: [good], lambda made: made.reverse()
    assert texts(jobs(server), *"defg") == list("DEFG")


@pytest.mark.parametrize("what", ["failed", "broken", "missing", "no choices", "expired"])
def test_lines_without_a_reply_go_into_a_new_job(server, what):
    def lines(line: dict[str, Any], good: dict[str, Any], number: int) -> list[Any]:
        if number > 0 or prompt(line) not in "bd":
            return [good]
        empty = good | {"response": good["response"] | {"body": {"choices": []}}}
        expired = good | {"response": None, "error": {"code": "batch_expired", "message": "late"}}
        return {"failed": [failing(line)], "broken": [json.dumps(good)[:-9]], "missing": [], "no choices": [empty],
                "expired": [expired]}[what]

    server.lines = lines
    chat = jobs(server)
    assert texts(chat, *"abcd") == list("ABCD")
    assert sent(server) == [list("abcd"), list("bd")]
    assert chat.budget.spent == Usage(4, 40, 20)
    # A line that cannot be read may have been paid, one that says that it failed was not.
    assert chat.budget.lost.requests == (0 if what in ("failed", "expired") else 2)


def test_lines_that_fail_again_and_again_are_given_up(server):
    server.lines = lambda line, good, number: [failing(line) if prompt(line) == "b" else good]
    message = complaint(texts, jobs(server), *"abc")
    assert message == (f"1 requests of the batch failed 3 times (500 server_error) at {server.base_url} for model toy; "
                       "replies that came are kept, so rerun when it is fixed")
    assert sent(server) == [list("abc"), ["b"], ["b"]]
    server.lines = lambda line, good, number: [good]
    assert texts(jobs(server), *"abc") == list("ABC")
    assert sent(server)[3:] == [["b"]]


def test_a_whole_job_of_failing_lines_is_not_mistaken_for_its_successor(server):
    server.lines = lambda line, good, number: [good if number else failing(line)]
    assert texts(jobs(server), *"ab") == list("AB")
    assert sent(server) == [list("ab"), list("ab")]


def test_lines_whose_schema_is_refused_are_asked_without(server):
    def lines(line: dict[str, Any], good: dict[str, Any], number: int) -> list[Any]:
        return [failing(line, 400, "unsupported") if "response_format" in line["body"] else good]

    server.lines = lines
    found = jobs(server).ask([request("a", schema=SCHEMA), request("b", schema=SCHEMA)])
    assert [reply.text for reply in found] == ["A", "B"]
    assert len(server.jobs) == 2


def test_a_prompt_that_the_content_filter_refuses_is_a_refusal(server):
    server.lines = lambda line, good, number: [failing(line, 400, "content_filter") if prompt(line) == "b" else good]
    found = jobs(server).ask([request("a"), request("b")])
    assert [(reply.text, reply.refusal) for reply in found] == [("A", ""), ("", "content filter")]
    assert len(server.jobs) == 1


# --- jobs that go wrong


def test_a_failed_job_is_explained_and_a_rerun_starts_another(server):
    server.ends = lambda number: "failed" if number == 0 else "completed"
    message = complaint(texts, jobs(server), "a", "b")
    mark = server.jobs[0]["metadata"]["mark"]
    assert message == (f"batch batch_0 was refused at {server.base_url} (invalid_json_line, line 3); the request file "
                       f"is cache/batches/{mark}.jsonl")
    assert texts(jobs(server), "a", "b") == ["A", "B"]
    assert sent(server) == [["a", "b"], ["a", "b"]]


def test_an_expired_job_leaves_its_replies_and_the_rest_goes_into_a_new_one(server):
    server.ends = lambda number: "expired" if number == 0 else "completed"
    server.lines = lambda line, good, number: [good] if number or prompt(line) == "a" else []
    assert texts(jobs(server), *"abc") == list("ABC")
    assert sent(server) == [list("abc"), list("bc")]


def test_a_cancelled_job_stops_the_run_and_leaves_its_replies(server):
    server.ends = lambda number: "cancelled" if number == 0 else "completed"
    server.lines = lambda line, good, number: [good] if number or prompt(line) == "a" else []
    assert complaint(texts, jobs(server), *"abc") == (
        f"batch batch_0 was cancelled at {server.base_url}; replies that came are kept, and a rerun sends the rest in "
        "a new job")
    assert texts(jobs(server), *"abc") == list("ABC")
    assert sent(server) == [list("abc"), list("bc")]


@pytest.mark.parametrize("deed", ["POST /files", "POST /batches", "GET /batches/batch_0",
                                  "GET /files/output-0/content"])
@pytest.mark.parametrize("fault", [refused(500), refused(429, Retry_After="0.02"), Answer(body="{half")])
def test_a_call_that_fails_once_is_made_again(server, deed, fault):
    server.once = {deed: [fault]}
    if "content" in deed and fault.status == 200:
        fault = Answer(body="{half", sent=3)
        server.once = {deed: [fault]}
    assert texts(jobs(server), "a", "b") == ["A", "B"]
    assert server.calls[deed] > 1
    assert len(server.jobs) == 1


def test_a_job_whose_start_was_answered_with_500_has_started(server):
    server.lost = {"POST /batches": [refused(500)]}
    assert texts(jobs(server), "a", "b") == ["A", "B"]
    assert len(server.jobs) == 1
    assert server.tokens == 2 * 15


@pytest.mark.parametrize(("answer", "told"), [
    (refused(401, f"bad {SECRET}"), "answered 401 for model toy (check OPENAI_API_KEY); "),
    (refused(429, "insufficient_quota"), "answered 429 (insufficient_quota) for model toy; "),
    (Answer(200, "<html>", {"Content-Type": "text/html"}), "sent a web page instead of a reply"),
    (Answer(200, "[]"), "could not be asked (")])
@pytest.mark.parametrize("deed", ["POST /files", "POST /batches", "GET /batches/batch_0"])
def test_an_api_that_refuses(server, answer, told, deed):
    server.once = {deed: [answer] * live.TRIES}
    assert told in complaint(texts, jobs(server), "a")
    assert server.calls[deed] == 1
    server.once = {}
    assert texts(jobs(server), "a") == ["A"]
    assert len(server.jobs) == 1


def test_a_web_page_in_place_of_the_output_does_not_lose_the_job(server):
    server.once = {"GET /files/output-0/content": [Answer(200, "<html>", {"Content-Type": "text/html"})]}
    assert "sent a web page instead of a reply" in complaint(texts, jobs(server), "a")
    assert texts(jobs(server), "a") == ["A"]
    assert len(server.jobs) == 1


def test_a_budget_that_might_not_do_for_all_sends_nothing(server):
    most = 3 * (PROMPT_MOST + REPLY_MOST)
    message = complaint(texts, jobs(server, budget_tokens=most - 1), "p1", "p2", "p3")
    assert f"0 tokens of {most - 1} tokens are spent, and what comes next may take up to {most} tokens" in message
    assert (server.calls["POST /files"], server.jobs) == (0, [])
    assert texts(jobs(server, budget_tokens=most), "p1", "p2", "p3") == ["P1", "P2", "P3"]
    # The 45 tokens that came count: a fourth needs room beside them.
    assert "45 tokens of 150 tokens are spent" in complaint(
        texts, jobs(server, budget_tokens=150), "p1", "p2", "p3", "p4")
    assert texts(jobs(server, budget_tokens=45 + most // 3), "p1", "p2", "p3", "p4") == ["P1", "P2", "P3", "P4"]


def test_a_budget_of_money_counts_half_the_price(server):
    settings = {"price_input": 1000.0, "price_output": 2000.0}
    most = (PROMPT_MOST * 0.001 + REPLY_MOST * 0.002) / 2
    assert "the budget is too small" in complaint(texts, jobs(server, **settings, budget_money=most - 0.0001), "p1")
    assert texts(jobs(server, **settings, budget_money=most), "p1") == ["P1"]


# --- runs that are killed


class Killed(BaseException):
    """Stands for the end of the process at one very line."""


def dies(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("moment", ["before the id is stored", "while polling", "before replies are kept",
                                    "after they are kept"])
def test_a_run_killed_after_it_submitted_finds_its_job_and_pays_once(server, monkeypatch, moment):
    with monkeypatch.context() as patch:
        if moment == "before the id is stored":
            put = Store.put
            patch.setattr(Store, "put", lambda store, items: dies() if server.jobs else put(store, items))
        elif moment == "while polling":
            patch.setattr(batch.time, "sleep", dies)
        else:
            patch.setattr(Batch, "keep" if moment == "before replies are kept" else "_forget", dies)
        with pytest.raises(Killed):
            texts(jobs(server), *"abc")
    assert len(server.jobs) == 1
    assert texts(jobs(server), *"abc") == list("ABC")
    assert len(server.jobs) == 1
    assert server.tokens == 3 * 15


def test_a_rerun_that_wants_more_or_less_finds_the_job_too(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(batch.time, "sleep", dies)
        with pytest.raises(Killed):
            texts(jobs(server), *"abcd")
    assert texts(jobs(server), "c", "x", "a") == ["C", "X", "A"]
    assert sent(server) == [list("abcd"), ["x"]]
    assert texts(jobs(server), *"abcd") == list("ABCD")
    assert len(server.jobs) == 2


def test_a_run_killed_before_its_job_began_begins_another(server):
    server.once = {"POST /batches": [refused(401)]}
    complaint(texts, jobs(server), "a")
    assert server.jobs == []
    assert texts(jobs(server), "a") == ["A"]
    assert len(server.jobs) == 1


def test_a_job_that_the_server_has_forgotten_is_begun_anew(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(batch.time, "sleep", dies)
        with pytest.raises(Killed):
            texts(jobs(server), "a")
    server.jobs[0]["id"] = "another"
    with monkeypatch.context() as patch:
        patch.setattr(batch.time, "sleep", dies)
        with pytest.raises(Killed):
            texts(jobs(server), "a")
    assert texts(jobs(server), "a") == ["A"]
    assert len(server.jobs) == 2


def test_a_job_is_found_among_many(server, monkeypatch):
    put = Store.put
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", lambda store, items: dies() if server.jobs else put(store, items))
        with pytest.raises(Killed):
            texts(jobs(server), "a")
    server.jobs += [server.jobs[0] | {"id": f"other_{number}", "metadata": None} for number in range(250)]
    assert texts(jobs(server), "a") == ["A"]
    assert server.calls["GET /batches"] == 3
    assert server.calls["POST /batches"] == 1


@pytest.mark.parametrize("stored", [False, True])
def test_a_process_killed_after_it_submitted_pays_once(server, stored):
    server.polls = 10**9
    settings = jobs(server).settings
    wanted = [f"p{number}" for number in range(20)]
    run = start(settings, wanted)
    wait_until(lambda: len(server.looks) > 0 if stored else len(server.jobs) > 0)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    server.polls = 1
    assert finished(start(settings, wanted)) == [one.upper() for one in wanted]
    assert len(server.jobs) == 1
    assert server.tokens == 20 * 15
