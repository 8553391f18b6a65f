"""The same requests by OpenAI's Batch API, at half the price: write the file, submit, poll, fetch, resume by id.

The request file lies in the cache, one line a request, named by the same hash as a live reply::

    {"custom_id": "5f0c...", "method": "POST", "url": "/v1/chat/completions", "body": {"model": ..., "messages": ...}}

The job's id is on disk before the first poll, and the job itself carries a digest of its requests, so that a run that
was killed at any moment finds its job again and pays for none twice.
"""

import hashlib
import json
import time

import openai

from culturellm_utils import paths
from culturellm_utils.client import Reply
from culturellm_utils.errors import UserError
from culturellm_utils.live import FIRST_PAUSE, TRIES, Missing, NoReply, OpenAI, api_key, read_body, transient
from culturellm_utils.records import write_text
from culturellm_utils.usage import Prices, Progress, duration

#: What the API takes in one job, and how often lines that failed are sent in a new one.
LARGEST_JOB, ROUNDS = 50_000, 3
LARGEST_FILE = 190_000_000  # bytes; the API's limit is 200 MB
FIRST_POLL, LONGEST_POLL = 2.0, 60.0  # seconds
OPEN = ("validating", "in_progress", "finalizing", "cancelling")


class Batch(OpenAI):
    """A client whose new requests go out as batch jobs; what is on disk, the keys and the replies are the live ones."""

    def prices(self) -> Prices:
        """Half the live price."""
        return Prices(self.settings.price_input / 2, self.settings.price_output / 2)

    def fetch(self, missing: Missing, progress: Progress) -> None:
        """Run jobs until every request is answered. Raises UserError when the budget does not allow all of them, the
        API refuses a job, or lines fail ``ROUNDS`` times: replies that came are kept."""
        with openai.OpenAI(base_url=self.settings.base_url or None, max_retries=0,
                           timeout=self.settings.request_timeout, api_key=api_key()) as server:
            for _ in range(ROUNDS):
                for job in self._jobs(missing):
                    self._run(server, job, progress)
                missing = self._unanswered(missing)
                if not missing:
                    return
        raise UserError(f"{len(missing)} requests of the batch failed {ROUNDS} times at {self.address} for model "
                        f"{self.source}; replies that came are kept, so rerun when it is fixed")

    def _jobs(self, missing: Missing) -> list[Missing]:
        """Requests in jobs that the API takes."""
        jobs: list[Missing] = [{}]
        size = 0
        for name, request in missing.items():
            bytes_ = len(json.dumps(self.body(request))) + 150
            if jobs[-1] and (len(jobs[-1]) == LARGEST_JOB or size + bytes_ > LARGEST_FILE):
                jobs.append({})
                size = 0
            jobs[-1][name] = request
            size += bytes_
        return jobs

    def _run(self, server: openai.OpenAI, job: Missing, progress: Progress) -> None:
        digest = hashlib.sha256("\n".join(sorted(job)).encode()).hexdigest()
        known = self.store.get([f"job {digest}"]).get(f"job {digest}")
        batch = self._patiently(lambda: server.batches.retrieve(known.decode())) if known else self._find(server, digest)
        if batch is None:
            batch = self._submit(server, job, digest)
        self.store.put({f"job {digest}": batch.id.encode()})
        started, pause = time.monotonic(), FIRST_POLL
        while batch.status in OPEN:
            counts = batch.request_counts
            progress.show(f"batch {batch.id}: {batch.status}, {counts.completed if counts else 0} of {len(job)} done "
                          f"after {duration(time.monotonic() - started)}; it may take up to 24 h, and a rerun resumes it")
            time.sleep(pause)
            pause = min(LONGEST_POLL, pause * 1.5)
            batch = self._patiently(lambda: server.batches.retrieve(batch.id))
        if batch.output_file_id:
            text = self._patiently(lambda: server.files.content(batch.output_file_id)).text
            self._take(text, job, progress)
        self.store.put({f"done {batch.id}": b""})  # what is still unanswered goes into a new job
        self.store.remove([f"job {digest}"])
        if batch.status == "failed":
            said = batch.errors.data[0] if batch.errors and batch.errors.data else None
            raise UserError(f"batch {batch.id} was refused ({said.code if said else 'no reason given'}"
                            f"{f', line {said.line}' if said and said.line else ''}) at {self.address}; the request file "
                            f"is {paths.shown(self._file(digest))}")

    def _file(self, digest: str):
        return paths.cache() / "batches" / f"{digest[:16]}.jsonl"

    def _submit(self, server: openai.OpenAI, job: Missing, digest: str):
        """Write the request file, upload it, start the job; nothing is sent when the budget might not allow all."""
        most = sum((self.most(request) for request in job.values()), start=self.budget.reserved)
        if not self.budget.allows(most):
            raise self.over_budget()
        lines = [{"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": self.body(request)}
                 for name, request in job.items()]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path = write_text(self._file(digest), text)
        uploaded = self._patiently(lambda: server.files.create(file=path, purpose="batch"))

        def start():
            # A start whose answer was lost has started all the same.
            return self._find(server, digest) or server.batches.create(
                input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h",
                metadata={"requests": digest})
        return self._patiently(start)

    def _find(self, server: openai.OpenAI, digest: str):
        """An open or finished job of these requests that a killed run left, if there is one whose replies are new."""
        for batch in self._patiently(lambda: server.batches.list(limit=100)).data:
            if (batch.metadata or {}).get("requests") == digest and batch.status in (*OPEN, "completed"):
                return None if self.store.get([f"done {batch.id}"]) else batch
        return None

    def _take(self, text: str, job: Missing, progress: Progress) -> None:
        """Keep the replies of an output file: lines in any order, repeated or broken ones passed over."""
        taken: set[str] = set()
        for line in text.split("\n"):
            try:
                row = json.loads(line)
                name, answer = row["custom_id"], row["response"]
                if name not in job or name in taken or answer["status_code"] != 200:
                    continue
                reply: Reply = read_body(json.dumps(answer["body"]), job[name])
            except (ValueError, KeyError, TypeError, NoReply):
                continue
            taken.add(name)
            self.keep(name, reply)
            progress.count(reply.usage)

    def _patiently(self, call):
        """A call to the API, tried again when its fault may pass."""
        for attempt in range(1, TRIES + 1):
            try:
                return call()
            except (openai.OpenAIError, ValueError) as error:
                if attempt == TRIES or not transient(error):
                    raise self.explained(error) from None
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        raise AssertionError("the last try returns or raises")
