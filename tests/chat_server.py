"""A server on the loopback that speaks OpenAI's chat, files, batches and fine-tuning, and has faults to order.

>>> server.answer = lambda prompt, before: refused(429, Retry_After="1") if before == 0 else said(prompt.upper())

``before`` counts the requests that came earlier. What it generated it bills, whether or not the reply arrives.
"""

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from culturellm_utils import batch, live, paths, prompts
from culturellm_utils.client import Client, Request
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Chat

SECRET = "sk-sentinel-7f3a9c"
#: What a reply costs unless a test says otherwise: tokens of prompt and reply.
TOKENS = (10, 5)


@dataclass(frozen=True)
class Answer:
    """What the server sends: ``sent`` bytes of the body before the connection breaks off (None: all); ``stalls`` if
    nothing is ever sent; ``tokens`` is what it bills."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None
    stalls: bool = False
    tokens: tuple[int, int] = (0, 0)


def completion(content: str | None, tokens: tuple[int, int] | None = TOKENS, finish: str = "stop",
               first: dict[str, float] | None = None, **message: Any) -> dict[str, Any]:
    """A reply in OpenAI's protocol; ``first`` are the log-probabilities of the candidates for its first token."""
    counted = {"usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}} if tokens else {}
    offered = [{"token": token, "logprob": value, "bytes": None} for token, value in (first or {}).items()]
    logprobs = {"logprobs": {"content": [{**offered[0], "top_logprobs": offered}]}} if offered else {}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "toy", **counted,
            "choices": [{"index": 0, "finish_reason": finish, **logprobs,
                         "message": {"role": "assistant", "content": content, **message}}]}


def said(content: str | None, tokens: tuple[int, int] | None = TOKENS, finish: str = "stop",
         headers: dict[str, str] | None = None, **message: Any) -> Answer:
    """A good reply; without ``tokens`` the server counts none."""
    body = json.dumps(completion(content, tokens, finish, **message))
    return Answer(body=body, headers=headers or {}, tokens=tokens or (0, 0))


def refused(status: int, code: Any = "x", message: str = f"Incorrect API key provided: {SECRET}",
            **headers: str) -> Answer:
    """An error in OpenAI's protocol; its message repeats the key, as some servers' do."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps({"error": {"message": message, "code": code, "type": code, "param": None}}), named)


def truncated(answer: Answer) -> Answer:
    """A whole response whose JSON ends early."""
    return replace(answer, body=answer.body[:40])


def broken_off(answer: Answer) -> Answer:
    """A response during which the connection breaks."""
    return replace(answer, sent=20)


#: Named faults, each made from the good answer that it spoils. A billed one had a reply that never arrived.
FAULTS: dict[str, Callable[[Answer], Answer]] = {
    "429 with Retry-After": lambda good: refused(429, Retry_After="0.02"),
    "429 with milliseconds": lambda good: refused(429, retry_after_ms="20"),
    "429": lambda good: refused(429),
    "500": lambda good: refused(500),
    "503 in HTML": lambda good: Answer(503, "<html>busy</html>", {"Content-Type": "text/html"}),
    "dropped": lambda good: replace(good, sent=0),
    "broken off": broken_off,
    "stalled": lambda good: replace(good, stalls=True),
    "truncated": truncated,
    "not JSON": lambda good: replace(good, body="upstream error"),
    "no choices": lambda good: replace(good, body='{"choices": []}'),
    "null choices": lambda good: replace(good, body='{"choices": null, "error": {"message": "overloaded"}}'),
    "null message": lambda good: replace(good, body='{"choices": [{"message": null}]}'),
    "an array": lambda good: replace(good, body="[]"),
}


class Server(ThreadingHTTPServer):
    """Answers with ``answer(prompt, before)`` and keeps what it was asked, when, and what it billed.

    A batch job is done after ``polls`` looks at it and ends as ``ends(number of the job)`` says; ``lines(line, good,
    number)`` makes its output lines from a request line and the good output line. ``once`` holds answers that replace
    the next ones to a method and path; those in ``lost`` are sent after the deed is done.
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Callable[[str, int], Answer] = lambda prompt, before: said(prompt.upper())
        self.asked: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.billed: list[tuple[str, int, int]] = []
        self.keys: set[str] = set()
        self.busy = self.most_busy = 0
        self.delay = 0.0
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"
        self.files: dict[str, bytes] = {}
        self.jobs: list[dict[str, Any]] = []
        self.looks: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.polls = 1
        self.ends: Callable[[int], str] = lambda number: "completed"
        self.lines: Callable[[dict[str, Any], dict[str, Any], int], list[Any]] = lambda line, good, number: [good]
        self.shuffle: Callable[[list[Any]], None] = lambda lines: None
        self.broken: list[str] = []
        self.once: dict[str, list[Answer]] = {}
        self.lost: dict[str, list[Answer]] = {}
        self.tunings: list[dict[str, Any]] = []
        self.tuned: Callable[[int], str] = lambda number: "succeeded"
        self.trained: list[float] = [2.0, 1.0, 0.5, 0.25]
        self.checkpoints = True

    @property
    def prompts(self) -> list[str]:
        """The prompts that came, in order."""
        return [body["messages"][-1]["content"] for body in self.asked]

    @property
    def tokens(self) -> int:
        """What was billed in all."""
        return sum(prompt + reply for _, prompt, reply in self.billed)

    def bill(self, prompt: str, tokens: tuple[int, int]) -> None:
        if sum(tokens):
            self.billed.append((prompt, *tokens))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong in a test's own answer; that a client has gone is nothing wrong."""
        if not isinstance(sys.exception(), ConnectionError):
            self.broken.append(traceback.format_exc())

    # --- fine-tuning

    def start_tuning(self, wanted: dict[str, Any]) -> dict[str, Any] | None:
        """Start a fine-tuning job on an uploaded file: it is paid, whether anybody looks or not."""
        if wanted["training_file"] not in self.files:
            return None
        chosen = {"batch_size": 4, "learning_rate_multiplier": 1.8, **wanted["method"]["supervised"]["hyperparameters"]}
        job = {"id": f"ftjob-{len(self.tunings)}", "object": "fine_tuning.job", "created_at": int(time.time()) - 90,
               "finished_at": None, "error": None, "fine_tuned_model": None, "organization_id": "org",
               "result_files": [], "status": "validating_files", "trained_tokens": None, "validation_file": None,
               "method": {"type": "supervised", "supervised": {"hyperparameters": chosen}},
               **{name: wanted.get(name) for name in ("model", "seed", "suffix", "training_file", "metadata")}}
        self.tunings.append(job)
        return job

    def look_at_tuning(self, name: str) -> dict[str, Any] | None:
        """A fine-tuning job as it stands: queued, running, then what ``tuned`` says."""
        job = next((job for job in self.tunings if job["id"] == name), None)
        if job is None or job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        self.looks[name] += 1
        job["status"] = "queued" if self.looks[name] == 1 else "running"
        if self.looks[name] > self.polls:
            job["status"] = self.tuned(self.tunings.index(job))
        if job["status"] == "failed":
            job["error"] = {"code": "invalid_training_file", "param": "training_file",
                            "message": f"Line 3 is unsafe.\n{SECRET}"}
        elif job["status"] == "succeeded":
            job |= {"finished_at": job["created_at"] + 60, "trained_tokens": 1200,
                    "fine_tuned_model": f"ft:{job['model']}:org:{job['suffix']}:{name}"}
        return job

    def tuning_events(self, name: str) -> list[dict[str, Any]]:
        """What happened to a job, the newest first: more with each look, all at its end."""
        job = next(job for job in self.tunings if job["id"] == name)
        told: list[tuple[str, str, Any]] = [("message", f"Created fine-tuning job: {name} for {SECRET}", None)]
        for step, loss in enumerate(self.trained, start=1):
            told.append(("metrics", f"Step {step}: training loss={loss}",
                         {"step": step, "train_loss": loss, "total_steps": len(self.trained)}))
        told += [("message", said, None) for said in ("New fine-tuned model created", "The job is done")]
        if job["status"] not in ("succeeded", "failed", "cancelled"):
            told = told[: 1 + max(0, self.looks[name] - 1)]
        return [{"id": f"ftevent-{number}", "object": "fine_tuning.job.event", "created_at": number, "level": "info",
                 "type": kind, "message": message, "data": data}
                for number, (kind, message, data) in enumerate(told)][::-1]

    # --- batches

    def start_job(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Start a job: it is done, and billed, whether anybody looks or not."""
        number = len(self.jobs)
        output: list[Any] = []
        errors: list[Any] = []
        for raw in self.files[wanted["input_file_id"]].decode().splitlines():
            line = json.loads(raw)
            prompt = line["body"]["messages"][-1]["content"]
            answer = self.answer(prompt, number)
            good = {"id": "r", "custom_id": line["custom_id"], "error": None,
                    "response": {"status_code": answer.status, "request_id": "q", "body": json.loads(answer.body)}}
            for made in self.lines(line, good, number):
                fine = not isinstance(made, dict) or (made["response"] or {}).get("status_code") == 200
                if fine and isinstance(made, dict) and made is good:
                    self.bill(prompt, answer.tokens)
                (output if fine else errors).append(made)
        self.shuffle(output)
        job = {"id": f"batch_{number}", "object": "batch", "endpoint": wanted["endpoint"], "errors": None,
               "input_file_id": wanted["input_file_id"], "completion_window": "24h", "status": "validating",
               "output_file_id": None, "error_file_id": None, "created_at": int(time.time()),
               "metadata": wanted.get("metadata"), "request_counts": {"total": 1, "completed": 0, "failed": 0}}
        for kind, made in (("output", output), ("error", errors)):
            if made:
                self.files[f"{kind}-{number}"] = "".join(
                    (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n" for line in made
                ).encode()
        self.jobs.append(job)
        return job

    def look(self, name: str) -> dict[str, Any] | None:
        """A job as it stands."""
        job = next((job for job in self.jobs if job["id"] == name), None)
        if job is None:
            return None
        self.looks[name] += 1
        if self.looks[name] <= self.polls:
            return job | {"status": "in_progress"}
        number = self.jobs.index(job)
        job["status"] = self.ends(number)
        if job["status"] == "failed":
            job["errors"] = {"object": "list", "data": [{"code": "invalid_json_line", "line": 3, "message": SECRET}]}
        else:
            job |= {f"{kind}_file_id": f"{kind}-{number}" for kind in ("output", "error")
                    if f"{kind}-{number}" in self.files}
        return job


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if len(data) < int(self.headers["Content-Length"]):  # the client was killed while it sent
            self.close_connection = True
        else:
            self._serve(data)

    def _serve(self, data: bytes) -> None:
        server, path = self.server, urlsplit(self.path).path
        deed = f"{self.command} {path.removeprefix('/v1')}"
        with server.lock:
            server.keys.add(self.headers["Authorization"])
            server.calls[deed] += 1
            instead = server.once.get(deed, [])
            answer = instead.pop(0) if instead else None
        if answer is None and path.endswith("/chat/completions"):
            answer = self._chat(json.loads(data))
        elif answer is None:
            with server.lock:
                answer = self._batches(deed, data)
                lost = server.lost.get(deed, [])
                answer = lost.pop(0) if lost else answer
        self._send(answer)

    def _chat(self, body: dict[str, Any]) -> Answer:
        server, prompt = self.server, body["messages"][-1]["content"]
        with server.lock:
            before = len(server.asked)
            server.asked.append(body | {"path": self.path})
            server.times.append(time.monotonic())
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        time.sleep(server.delay)
        answer = server.answer(prompt, before)
        with server.lock:
            server.busy -= 1
            server.bill(prompt, answer.tokens)
        return answer

    def _batches(self, deed: str, data: bytes) -> Answer:
        server = self.server
        match deed.split("/"):
            case ["POST ", "files"]:
                form = message_from_bytes(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + data)
                parts = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
                         for part in form.get_payload()}
                purpose = parts["purpose"].decode()
                assert purpose in ("batch", "fine-tune")
                name = f"file-{len(server.files)}"
                server.files[name] = parts["file"]
                found: Any = {"id": name, "object": "file", "bytes": len(parts["file"]), "created_at": 1,
                              "filename": "x", "purpose": purpose, "status": "processed"}
            case ["GET ", "files", name, "content"]:
                return Answer(body=server.files[name].decode(), headers={"Content-Type": "application/octet-stream"})
            case ["POST ", "batches"]:
                found = server.start_job(json.loads(data))
            case ["GET ", "batches"]:
                found = self._page(server.jobs[::-1])
            case ["GET ", "batches", name]:
                found = server.look(name)
            case ["GET ", "files", name]:
                found = {"id": name, "object": "file", "bytes": 1, "created_at": 1, "filename": "x",
                         "purpose": "fine-tune", "status": "processed"} if name in server.files else None
            case ["POST ", "fine_tuning", "jobs"]:
                found = server.start_tuning(json.loads(data))
            case ["GET ", "fine_tuning", "jobs"]:
                found = self._page(server.tunings[::-1])
            case ["GET ", "fine_tuning", "jobs", name]:
                found = server.look_at_tuning(name)
            case ["POST ", "fine_tuning", "jobs", name, "cancel"]:
                found = next((job for job in server.tunings if job["id"] == name), None)
                found and found.update(status="cancelled")
            case ["GET ", "fine_tuning", "jobs", name, "events"]:
                found = self._page(server.tuning_events(name))
            case ["GET ", "fine_tuning", "jobs", name, "checkpoints"]:
                points = [{"id": f"ftckpt-{step}", "object": "fine_tuning.job.checkpoint", "created_at": step,
                           "fine_tuned_model_checkpoint": f"ft:{name}:step-{step}", "fine_tuning_job_id": name,
                           "metrics": {"step": step}, "step_number": step} for step in (2, 1)]
                found = self._page(points) if server.checkpoints else None
            case _:
                found = None
        return refused(404) if found is None else Answer(body=json.dumps(found))

    def _page(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The part of a list that a request asks for."""
        wanted = parse_qs(urlsplit(self.path).query)
        names = [row["id"] for row in rows]
        start = names.index(wanted["after"][0]) + 1 if "after" in wanted else 0
        size = int(wanted["limit"][0])
        return {"object": "list", "data": rows[start : start + size], "has_more": len(names) > start + size}

    def _send(self, answer: Answer) -> None:
        data = answer.body.encode()
        if answer.stalls:
            self.server.released.wait()
        if answer.stalls or answer.sent == 0:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)),
                            **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: answer.sent])
        self.close_connection = self.close_connection or answer.sent is not None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(name="server")
def running_server(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server, a key, a cache of the test's own, and short pauses. In the end the key is in no file."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(live, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(batch, "FIRST_POLL", 0.005)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.released.set()
        made.shutdown()
        thread.join()
    assert not made.broken
    no_key_in(own_cache.parent)


def no_key_in(folder: Path) -> None:
    """No file holds the key."""
    for path in folder.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def knobs(server: Server | str, **changed: Any) -> Chat:
    """Settings of a chat client."""
    base_url = server if isinstance(server, str) else server.base_url
    return Chat(**({
        "chat_backend": "openai", "chat_model": "toy", "base_url": base_url, "temperature": 0.7, "max_concurrency": 4,
        "request_timeout": 20.0, "max_reply_tokens": 16, "unusable_retries": 0, "price_input": 0.0, "price_output": 0.0,
        "budget_tokens": 0, "budget_money": 0.0} | changed))


def request(prompt: str, system: str = "Shout.", schema: dict[str, Any] | None = None, attempt: int = 0) -> Request:
    return Request(prompt, "toys", prompts.chat(system, prompt), schema or {}, attempt)


def texts(client: Client, *wanted: str) -> list[str]:
    """The texts of the replies to some prompts."""
    return [reply.text for reply in client.ask([request(prompt) for prompt in wanted])]


def ask(server: Server, *wanted: str, **settings: Any) -> list[str]:
    """The texts of the replies to some prompts, by a new live client."""
    return texts(live.OpenAI(knobs(server, **settings)), *wanted)


def complaint(call: Callable[..., object], *arguments: Any, **settings: Any) -> str:
    """What a user is told, in one sentence; neither it nor the traceback, local variables and all, holds the key."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    for chain in (True, False):
        told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert SECRET not in "".join(told.format(chain=chain))
    context = caught.value.__context__
    while context:
        assert SECRET not in repr(context)
        context = context.__context__
    return str(caught.value)


#: A run in a process of its own: the prompts and settings come as JSON, the replies go out as JSON.
RUN = """
import json, sys
from culturellm_utils import batch, client, live, prompts
from culturellm_utils.parameters import Chat
given = json.loads(sys.argv[1])
live.FIRST_PAUSE, batch.FIRST_POLL = 0.005, 0.005
requests = [client.Request(text, "toys", prompts.chat("Shout.", text), given["schema"]) for text in given["prompts"]]
print(json.dumps([reply.text for reply in client.connect(Chat(**given["settings"])).ask(requests)]))
"""


def start(settings: Chat, wanted: list[str], schema: dict[str, Any] | None = None) -> subprocess.Popen[str]:
    """Ask in a process of its own."""
    given = {"prompts": wanted, "settings": settings.model_dump(), "schema": schema or {}}
    return subprocess.Popen([sys.executable, "-c", RUN, json.dumps(given)], env=os.environ.copy(), cwd=paths.ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(run: subprocess.Popen[str], seconds: float = 60) -> list[str]:
    """The replies of such a process."""
    output, errors = run.communicate(timeout=seconds)
    assert run.returncode == 0, errors
    assert SECRET not in output + errors
    return json.loads(output)


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something to become true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.002)
