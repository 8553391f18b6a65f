"""500 chat requests to a server that takes 100 ms for each, in a process of its own.

Plain: one after another with the openai client. Limit: 100 ms for each round of as many as are in flight.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai

from benchmarks.measuring import Result, alternate
from culturellm_utils import client, prompts
from culturellm_utils.parameters import Chat

REQUESTS, LATENCY, IN_FLIGHT, ONE_BY_ONE, REPEATS = 500, 0.1, 32, 30, 3
#: Answers each prompt in capitals after the pause; GET says how often it was asked. Prints its port.
SERVER = """
import asyncio, json, sys

async def serve(reader, writer):
    global asked
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\\r\\n")[1:] if line)
            data = await reader.readexactly(int(fields.get("content-length", 0)))
            if data:
                asked += 1
                await asyncio.sleep(float(sys.argv[1]))
                said = json.loads(data)["messages"][-1]["content"].upper()
                body = {"id": "x", "object": "chat.completion", "created": 1, "model": "toy",
                        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
                        "choices": [{"index": 0, "finish_reason": "stop",
                                     "message": {"role": "assistant", "content": said}}]}
            else:
                body = {"asked": asked}
            text = json.dumps(body).encode()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: "
                         + str(len(text)).encode() + b"\\r\\n\\r\\n" + text)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=500)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asked = 0
asyncio.run(main())
"""


@contextlib.contextmanager
def server(latency: float) -> Iterator[str]:
    """The address of a running server."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(latency)], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.communicate()


def asked(address: str) -> int:
    """How many requests the server has had."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as reply:
        return int(reply.read().split(b":")[1].strip(b" }"))


def ours(address: str, wanted: list[str]) -> list[str]:
    """The replies, by this project's client in this process's cache."""
    knobs = Chat(chat_backend="openai", chat_model="toy", base_url=address, temperature=0.7, max_concurrency=IN_FLIGHT,
                 request_timeout=60.0, max_reply_tokens=16, unusable_retries=0, price_input=0.0, price_output=0.0,
                 budget_tokens=0, budget_money=0.0)
    requests = [client.Request(text, "toys", prompts.chat("Shout.", text)) for text in wanted]
    return [reply.text for reply in client.connect(knobs).ask(requests)]


def plain(address: str, wanted: list[str]) -> list[str]:
    """The replies, one after another."""
    found = []
    with openai.OpenAI(base_url=address, api_key="none") as library:
        for text in wanted:
            messages = [{"role": "system", "content": "Shout."}, {"role": "user", "content": text}]
            made = library.chat.completions.create(model="toy", temperature=0.7, max_tokens=16, messages=messages)
            found.append(made.choices[0].message.content)
    return found


@contextlib.contextmanager
def fresh() -> Iterator[None]:
    """An empty cache, and no proxy between this machine and itself."""
    changed = ("CULTURELLM_CACHE", "NO_PROXY")
    before = {name: os.environ.get(name) for name in changed}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(CULTURELLM_CACHE=str(Path(folder)), NO_PROXY="127.0.0.1")
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def measure() -> list[Result]:
    """Ours from an empty cache, a part of the plain way and a rerun of ours, in alternation."""
    wanted = [f"Say number {number}." for number in range(REQUESTS)]
    expected = [text.upper() for text in wanted]

    def first() -> None:
        with fresh():
            assert ours(address, wanted) == expected

    def again() -> None:
        before = asked(address)
        assert ours(address, wanted) == expected
        assert asked(address) == before, "a rerun asked the server"

    with server(LATENCY) as address, fresh():
        ours(address, wanted)
        assert asked(address) == REQUESTS
        assert plain(address, wanted[:2]) == expected[:2]
        mine, slow, rerun = alternate(first, lambda: plain(address, wanted[:ONE_BY_ONE]), again, repeats=REPEATS)
    slow *= REQUESTS / ONE_BY_ONE
    return [Result(f"requests: {REQUESTS} at {IN_FLIGHT} in flight", mine, slow, 25, LATENCY * REQUESTS / IN_FLIGHT,
                   1 / 1.3, REPEATS, f"plain: {ONE_BY_ONE} of {REQUESTS}, scaled; server: {LATENCY * 1000:g} ms"),
            Result(f"requests: {REQUESTS} asked again", rerun, slow, repeats=REPEATS,
                   note="nothing is sent: the server counts")]
