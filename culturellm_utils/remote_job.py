"""One fine-tuning job on a server: upload, start, follow, and find it again after an interruption.

A job carries a digest of its rows and settings, and its id is on disk as soon as it is known: a run that was killed at
any moment finds its job again, and the same rows are never paid for twice. The key comes from ``OPENAI_API_KEY`` alone.
What is asked for, beside the uploaded ``train.jsonl``::

    {"model": "gpt-4o-mini", "seed": 0, "suffix": "culturellm-korean",
     "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 6}}},
     "metadata": {"culturellm": "5f0c...", "title": "CultureLLM, Korean"}}
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

import openai
from openai.types.fine_tuning import FineTuningJob as Job
from openai.types.fine_tuning import FineTuningJobEvent as Event

from culturellm_utils import batch, live, paths, protocol
from culturellm_utils.client import Show
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import FineTuning
from culturellm_utils.store import Store
from culturellm_utils.usage import duration

TIMEOUT = 120.0  # seconds for one answer
LONGEST_SUFFIX = 64  # characters that the API takes
UNREADY, FILE_LOOKS = ("uploaded", "pending", "running"), 10  # a file that the server has not read yet
GIVEN_UP = ("failed", "cancelled", "canceled")
MARK = "culturellm"  # the entry of the job's metadata that holds the digest


@dataclass(frozen=True)
class Done:
    """A job that succeeded, its events from the oldest on, and its checkpoints: ``{"step": 40, "model": "ft:..."}``."""

    job: Job
    events: list[Event]
    checkpoints: list[dict[str, Any]]


def run(knobs: FineTuning, train: Path, title: str, afford: Callable[[], None], show: Show) -> Done:
    """The job for the rows in ``train``: found again, or else started after ``afford``, which may raise.

    Raises UserError when the server refuses or stays unreachable, or the job fails, is cancelled or is paused.
    """
    tuning, failure = _Tuning(knobs, train, title, show), None
    try:
        with (tuning.store.alone(f"tuning-{tuning.digest[:12]}",
                                 lambda: show("another run is training on these rows: waiting for it")),
              openai.OpenAI(base_url=knobs.model_url or live.OFFICIAL, max_retries=0, api_key=protocol.api_key(),
                            timeout=TIMEOUT) as server):
            return tuning.run(server, afford)
    except Exception as error:
        failure = tuning.explained(error)
    raise failure


def losses(events: list[Event], epochs: int) -> list[dict[str, Any]]:
    """The rows of a training log in the metrics among ``events``: step, epoch, loss, and a learning rate of None, as
    the server tells none. What holds no loss is passed over."""
    found: dict[int, float] = {}
    total = 0
    for event in events:
        data = event.data if event.type == "metrics" and isinstance(event.data, dict) else {}
        step, loss, steps = (data.get(name) for name in ("step", "train_loss", "total_steps"))
        if isinstance(step, int) and step > 0 and isinstance(loss, (int, float)) and -1e9 < loss < 1e9:
            found[step] = float(loss)
            total = max(total, step, steps if isinstance(steps, int) else 0)
    return [{"step": step, "epoch": round(epochs * step / total, 4), "loss": found[step], "learning_rate": None}
            for step in sorted(found)]


class _Tuning:
    """How one job is asked for, found again and followed."""

    def __init__(self, knobs: FineTuning, train: Path, title: str, show: Show) -> None:
        self.knobs, self.train, self.title, self.show = knobs, train, title, show
        self.address = knobs.model_url or "api.openai.com"
        self.body: dict[str, Any] = {
            "model": knobs.base_model, "seed": knobs.random_seed,
            "suffix": f"culturellm-{knobs.culture.replace('_', '-')}"[:LONGEST_SUFFIX],
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": knobs.epochs}}}}
        asked = json.dumps([self.body, knobs.model_url], sort_keys=True).encode()
        self.digest = hashlib.sha256(asked + train.read_bytes()).hexdigest()
        self.store = Store(paths.cache() / "chat.sqlite")

    def run(self, server: openai.OpenAI, afford: Callable[[], None]) -> Done:
        job = self._known(server)
        if not job:
            afford()
            job = self._found(server) or self._start(server)
            self._keep("job", job.id)
        job = self._follow(server, job)
        return Done(job, self._events(server, job.id, set()), self._checkpoints(server, job.id))

    def _known(self, server: openai.OpenAI) -> Job | None:
        """The job whose id is on disk, unless the server has lost it."""
        name = self._kept("job")
        try:
            return batch.patiently(lambda: server.fine_tuning.jobs.retrieve(name)) if name else None
        except openai.NotFoundError:
            return None

    def _found(self, server: openai.OpenAI) -> Job | None:
        """A job for these very rows and settings among the server's newest that was not given up: by the digest that it
        carries, or where a server keeps none, by its file."""
        file = self._kept("file")

        def ours(job: Job) -> bool:
            same = (job.metadata or {}).get(MARK) == self.digest or (file and job.training_file == file)
            return bool(same) and job.status not in GIVEN_UP

        return batch.patiently(lambda: next(filter(ours, islice(
            server.fine_tuning.jobs.list(limit=100), batch.LOOKED_THROUGH)), None))

    def _start(self, server: openai.OpenAI) -> Job:
        file, tries = self._file(server), count()

        def start() -> Job:
            # A start whose answer was lost has started all the same.
            begun = self._found(server) if next(tries) else None
            return begun or server.fine_tuning.jobs.create(
                **self.body, training_file=file, metadata={MARK: self.digest, "title": self.title[:512]})

        return batch.patiently(start)

    def _file(self, server: openai.OpenAI) -> str:
        """The uploaded rows, which an earlier run may have sent."""
        name, file = self._kept("file"), None
        with contextlib.suppress(openai.NotFoundError):
            file = batch.patiently(lambda: server.files.retrieve(name)) if name else None
        if not file:
            content = (f"culturellm-{self.digest[:12]}.jsonl", self.train.read_bytes())
            file = batch.patiently(lambda: server.files.create(file=content, purpose="fine-tune"))
            self._keep("file", file.id)
        for pause in islice(_pauses(), FILE_LOOKS):
            if file.status not in UNREADY:
                break
            time.sleep(pause)
            file = batch.patiently(lambda name=file.id: server.files.retrieve(name))
        if file.status == "error":
            self._forget("file")
            raise UserError(f"{paths.shown(self.train)} was uploaded, and {self.address} could not read it: rerun, "
                            "which sends it again")
        return file.id

    def _follow(self, server: openai.OpenAI, job: Job) -> Job:
        """Wait until the job has succeeded, and tell what happens to it."""
        started, told, where = time.monotonic(), "", ""
        seen: set[str] = set()
        for pause in _pauses():
            fresh = self._events(server, job.id, seen)
            seen |= {event.id for event in fresh}
            for event in fresh:
                if event.type != "metrics":
                    self.show(f"{job.id}: {_told(event.message)}")
            for row in losses(fresh, self.knobs.epochs)[-1:]:
                where = f", step {row['step']}: loss {row['loss']:.3f}"
            if told != f"{job.status}{where}":
                told = f"{job.status}{where}"
                self.show(f"{job.id}: {told}, after {duration(time.monotonic() - started)}; a rerun resumes it")
            if job.status == "succeeded":
                break
            if job.status in GIVEN_UP:
                self._forget("job")
                raise self._given_up(job)
            if job.status.startswith("paus"):
                raise UserError(f"fine-tuning job {job.id} is paused at {self.address}: resume it there and rerun, "
                                "which follows it")
            time.sleep(pause)
            job = batch.patiently(lambda name=job.id: server.fine_tuning.jobs.retrieve(name))
        if not job.fine_tuned_model:
            raise UserError(f"fine-tuning job {job.id} has succeeded at {self.address} but names no model yet: rerun "
                            "in a minute")
        return job

    def _events(self, server: openai.OpenAI, job: str, seen: set[str]) -> list[Event]:
        """The events since those ``seen``, the oldest first; the server sends the newest first."""
        return batch.patiently(lambda: list(takewhile(lambda event: event.id not in seen,
                                                      server.fine_tuning.jobs.list_events(job, limit=100)))[::-1])

    def _checkpoints(self, server: openai.OpenAI, job: str) -> list[dict[str, Any]]:
        """Models of earlier epochs, which can be asked as the final one can; none where a server keeps none."""
        try:
            found = batch.patiently(lambda: list(server.fine_tuning.jobs.checkpoints.list(job, limit=100)))
        except openai.NotFoundError:
            return []
        return [{"step": point.step_number, "model": point.fine_tuned_model_checkpoint}
                for point in sorted(found, key=lambda point: point.step_number)]

    def _given_up(self, job: Job) -> UserError:
        if job.status != "failed":
            return UserError(f"fine-tuning job {job.id} was cancelled at {self.address}: a rerun starts a new one")
        said = [protocol.plain(job.error.code), _told(job.error.message or "")] if job.error else []
        return UserError(f"fine-tuning job {job.id} failed at {self.address} "
                         f"({': '.join(filter(None, said)) or 'no reason given'}); the rows are "
                         f"{paths.shown(self.train)}, and a rerun starts a new job")

    def explained(self, error: Exception) -> UserError:
        """A failure in one sentence. The server's own message stays out, in frames too: it might repeat the key."""
        if isinstance(error, UserError):
            return error.with_traceback(None)
        status = getattr(error, "status_code", None)
        check = {400: " (check base_model: a server fine-tunes only some)", 401: " (check OPENAI_API_KEY)",
                 403: " (the key may not fine-tune)",
                 404: " (check model_url and base_model: not every server fine-tunes)"}
        what = protocol.failure(error, TIMEOUT) or (
            f"sent no such reply ({type(error).__name__}: check model_url, which mostly ends in /v1)")
        return UserError(f"the fine-tuning server at {self.address} {what} for model {self.knobs.base_model}"
                         f"{check.get(status, '')}; a job that has started goes on, and a rerun follows it")

    def _kept(self, what: str) -> str:
        name = f"tuning {what} {self.digest}"
        return self.store.get([name]).get(name, b"").decode()

    def _keep(self, what: str, value: str) -> None:
        self._forget(what)
        self.store.put({f"tuning {what} {self.digest}": value.encode()})

    def _forget(self, what: str) -> None:
        self.store.remove([f"tuning {what} {self.digest}"])


def _pauses() -> Iterator[float]:
    """Seconds between looks, ever longer."""
    pause = batch.FIRST_POLL
    while True:
        yield pause
        pause = min(batch.LONGEST_POLL, pause * 1.5)


def _told(message: str) -> str:
    """A server's message as one short line that repeats no key, whole or in part."""
    key = os.environ.get("OPENAI_API_KEY")
    whole = message.replace(key, "...") if key else message
    return " ".join(re.sub(r"\bsk-[\w*.-]+", "...", whole).split())[:300]
