"""The same requests by OpenAI's Batch API, at half the price: write the file, submit, poll, fetch, resume.

The request file lies in the cache, one line a request, named by the same hash as a live reply::

    {"custom_id": "5f0c...", "method": "POST", "url": "/v1/chat/completions", "body": {"model": ..., "messages": ...}}

Before a job is started, a mark that the job itself will carry is on disk for each of its requests, and the job's id as
soon as it is known: a run that was killed at any moment finds its jobs again and pays for none twice.
"""

import json
import time
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import openai
from openai.types import Batch as Job

from culturellm_utils import client, live, paths, protocol
from culturellm_utils.client import Reply
from culturellm_utils.errors import UserError
from culturellm_utils.live import Missing, OpenAI
from culturellm_utils.protocol import NoReply, api_key, filtered, read_body
from culturellm_utils.records import write_text
from culturellm_utils.usage import Prices, Progress, Usage, duration

#: What the API takes in one job, and how often lines that failed are sent in a new one.
LARGEST_JOB, ROUNDS = 50_000, 3
LARGEST_FILE = 190_000_000  # bytes; the API's limit is 200 MB
FIRST_POLL, LONGEST_POLL = 2.0, 60.0  # seconds
OPEN = ("validating", "in_progress", "finalizing", "cancelling")
LOOKED_THROUGH = 1000  # jobs, newest first, among which one whose id was never stored is looked for
T = TypeVar("T")


class Batch(OpenAI):
    """A client whose new requests go out as batch jobs; what is on disk, the keys and the replies are the live ones."""

    def prices(self) -> Prices:
        """Half the live price."""
        return Prices(self.settings.price_input / 2, self.settings.price_output / 2)

    def fetch(self, missing: Missing, progress: Progress) -> None:
        """Run jobs until every request is answered. Raises UserError when the budget does not allow all of them, the
        API refuses a job, somebody cancels one, or lines fail ``ROUNDS`` times: replies that came are kept."""
        failure = None
        try:
            with openai.OpenAI(base_url=self.settings.base_url or live.OFFICIAL, max_retries=0, api_key=api_key(),
                               timeout=self.settings.request_timeout) as server:
                self._run(server, missing, progress)
        except Exception as error:
            failure = self.explained(error)
        if failure:
            raise failure

    def _run(self, server: openai.OpenAI, missing: Missing, progress: Progress) -> None:
        for mark, begun in self._begun(missing).items():
            job = self._found(server, mark)
            if job:
                self._finish(server, mark, job, begun, progress)
            else:
                self._forget(mark, begun)
        fault = ""
        for _ in range(ROUNDS):
            missing = self._unanswered(missing)
            for part in self._parts(missing):
                mark, job = self._submit(server, part)
                fault = self._finish(server, mark, job, part, progress) or fault
        left = self._unanswered(missing)
        if left:
            raise UserError(f"{len(left)} requests of the batch failed {ROUNDS} times{fault and f' ({fault})'} at "
                            f"{self.address} for model {self.source}; replies that came are kept, so rerun when it is "
                            "fixed")

    def _begun(self, missing: Missing) -> dict[str, Missing]:
        """The requests that a killed run had put into jobs, by the job's mark."""
        marks = self.store.get(f"batch of {name}" for name in missing)
        begun: dict[str, Missing] = {}
        for name, request in missing.items():
            if mark := marks.get(f"batch of {name}"):
                begun.setdefault(mark.decode(), {})[name] = request
        return begun

    def _found(self, server: openai.OpenAI, mark: str) -> Job | None:
        """The job with this mark: by its id when that is known, otherwise among the newest jobs."""
        known = self.store.get([f"batch {mark}"]).get(f"batch {mark}")
        try:
            if known:
                return self._patiently(lambda: server.batches.retrieve(known.decode()))
        except openai.NotFoundError:
            return None
        return self._patiently(lambda: next((job for job in islice(server.batches.list(limit=100), LOOKED_THROUGH)
                                             if (job.metadata or {}).get("mark") == mark), None))

    def _parts(self, missing: Missing) -> list[Missing]:
        """Requests in parts that the API takes as one job."""
        parts: list[Missing] = []
        size = 0
        for name, request in missing.items():
            line = len(json.dumps(self._line(name, request))) + 1
            if not parts or len(parts[-1]) == LARGEST_JOB or size + line > LARGEST_FILE:
                parts.append({})
                size = 0
            parts[-1][name] = request
            size += line
        return parts

    def _line(self, name: str, request: client.Request) -> dict[str, Any]:
        return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": self.body(request)}

    def _file(self, mark: str) -> Path:
        return paths.cache() / "batches" / f"{mark}.jsonl"

    def _submit(self, server: openai.OpenAI, part: Missing) -> tuple[str, Job]:
        """Write the request file, upload it, start the job; nothing is sent when the budget might not allow all."""
        most = sum((self.most(request) for request in part.values()), start=Usage())
        if not self.budget.allows(most):
            raise self.budget.too_small(most)
        mark = uuid4().hex
        lines = [json.dumps(self._line(name, request)) + "\n" for name, request in part.items()]
        path = write_text(self._file(mark), "".join(lines))
        uploaded = self._patiently(lambda: server.files.create(file=path, purpose="batch"))
        self.store.put({f"batch of {name}": mark.encode() for name in part})
        tries = count()

        def start() -> Job:
            # A start whose answer was lost has started all the same.
            begun = self._found(server, mark) if next(tries) else None
            return begun or server.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions",
                                                  completion_window="24h", metadata={"mark": mark})

        job = self._patiently(start)
        self.store.put({f"batch {mark}": job.id.encode()})
        return mark, job

    def _finish(self, server: openai.OpenAI, mark: str, job: Job, part: Missing, progress: Progress) -> str:
        """Wait for a job, keep its replies, forget it: what it left unanswered goes into a new one. What was wrong with
        those lines is returned."""
        started, pause = time.monotonic(), FIRST_POLL
        while job.status in OPEN:
            done = job.request_counts.completed if job.request_counts else 0
            progress.show(f"batch {job.id}: {job.status}, {done} of {len(part)} done after "
                          f"{duration(time.monotonic() - started)}; it may take up to 24 h, and a rerun resumes it")
            time.sleep(pause)
            pause = min(LONGEST_POLL, pause * 1.5)
            job = self._patiently(lambda name=job.id: server.batches.retrieve(name))
        failed: dict[str, str] = {}
        for file in filter(None, (job.output_file_id, job.error_file_id)):
            content = self._patiently(lambda file=file: server.files.content(file)).content
            if content.lstrip()[:1] == b"<":
                raise protocol.web_page(self.address)
            failed |= self._take(content, part, progress)
        if job.status == "completed":
            unread = self._unanswered(part).keys() - failed.keys()
            self.budget.lost += sum((self.most(part[name]) for name in unread), start=Usage())
        self._forget(mark, part)
        if job.status == "failed":
            said = job.errors.data[0] if job.errors and job.errors.data else None
            reason = protocol.plain(said.code) if said else ""
            line = f", line {said.line}" if said and said.line else ""
            raise UserError(f"batch {job.id} was refused at {self.address} ({reason or 'no reason given'}{line}); the "
                            f"request file is {paths.shown(self._file(mark))}")
        if job.status == "cancelled":
            raise UserError(f"batch {job.id} was cancelled at {self.address}; replies that came are kept, and a rerun "
                            "sends the rest in a new job")
        return next(iter(failed.values()), "")

    def _forget(self, mark: str, part: Missing) -> None:
        self.store.remove([f"batch {mark}", *(f"batch of {name}" for name in part)])

    def _take(self, content: bytes, part: Missing, progress: Progress) -> dict[str, str]:
        """Keep the replies of an output file, its lines in any order, repeated or broken ones passed over. What was
        wrong with a request that failed is returned."""
        replies: dict[str, Reply] = {}
        failed: dict[str, str] = {}
        for line in content.split(b"\n"):
            try:
                row = json.loads(line)
                name, answer = row["custom_id"], row["response"] or {"status_code": "", "body": row}
                status, body = answer["status_code"], answer["body"]
                if name not in part or name in replies:
                    continue
                if status == 200:
                    replies[name] = read_body(json.dumps(body), part[name])
                    continue
                code = protocol.plain((body.get("error") or {}).get("code"))
                if code == "content_filter":
                    replies[name] = filtered(part[name])
                    continue
                failed[name] = " ".join(filter(None, (str(status), code)))
                if status in (400, 422):
                    self.schemas = False  # the next job asks without
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, NoReply):
                continue
        self.keep(replies)
        self.count(replies, progress)
        return failed

    def _patiently(self, call: Callable[[], T]) -> T:
        answer = patiently(call)
        if isinstance(answer, str):
            raise protocol.web_page(self.address)
        return answer


def patiently(call: Callable[[], T]) -> T:
    """A call to the API, tried again when its fault may pass."""
    for tries in count(1):
        try:
            return call()
        except (openai.OpenAIError, ValueError) as error:
            if tries == live.TRIES or not (live.transient(error) or isinstance(error, ValueError)):
                raise
            pause = max(live.backoff(tries), min(live.LONGEST_ASKED, protocol.asked_pause(error) or 0))
        time.sleep(pause)
