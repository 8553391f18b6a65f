"""Fine-tuning on a server on the loopback: what is sent, what it costs, every way a job can end, and killed runs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_server import (
    SECRET,
    Answer,
    Server,
    complaint,
    refused,
    running_server,  # noqa: F401
    wait_until,
)
from hypothesis import given
from hypothesis import strategies as st
from openai.types.fine_tuning import FineTuningJobEvent

from culturellm_utils import batch, live, paths, prompts, provenance, records, remote, remote_job
from culturellm_utils.parameters import FineTuning
from culturellm_utils.records import TargetRow, TrainRow
from culturellm_utils.store import Store

KNOBS: dict[str, Any] = {
    "study": "toy", "variant": "main", "random_seed": 7, "culture": "south_korean", "language": "english",
    "cultures": ["south_korean"], "prompt_name": "Korean", "questions_path": "", "base_model": "gpt-toy",
    "precision": "auto", "model_backend": "openai", "model_url": "", "ablations": [], "held_out_questions": 0,
    "held_out_from": 7, "target": "label", "loss_on": "answer", "stages": "samples", "templates_per_seed": 5,
    "generated_texts": -1, "training_budget": 0,
    "epochs": 2, "batch_size": 4, "gradient_accumulation": 1, "gradient_checkpointing": False, "learning_rate": 2e-4,
    "lr_schedule": "constant", "warmup_ratio": 0.0, "weight_decay": 0.0, "max_grad_norm": 1.0,
    "optimizer": "adamw_torch", "lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_targets": "all-linear",
    "max_length": 64, "checkpoint_steps": 0, "launch": "", "price_training": 0.0, "budget_money": 0.0}
#: A row of 8 + 12 + 1 bytes: 3 + 4 + 1 estimated tokens, and 3 messages around them.
ROW_BYTES, ROW_TOKENS = 8 + 12 + 1 + 3 * 8, 3 + 4 + 1 + 3 * 4


def knobs(server: Server, **changed: Any) -> FineTuning:
    return FineTuning(**(KNOBS | {"model_url": server.base_url} | changed))


def pairs(number: int = 10) -> list[tuple[TrainRow, TargetRow]]:
    """Training rows of the same size, each with another question."""
    return [(TrainRow(messages=prompts.chat("You are.", f"Is it no. {n:02}", str(n % 4 + 1))),
             TargetRow(question_id=f"Q{n}", wording_id=f"Q{n}-t01", distribution={"1": 1.0})) for n in range(number)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "toy" / "main" / "south_korean"


def tune(server: Server, folder: Path, shown: list[str] | None = None, number: int = 10, **changed: Any
         ) -> dict[str, Any]:
    lines = [] if shown is None else shown
    return remote.tune(knobs(server, **changed), folder, "A toy", pairs(number), lines.append)


# --- what it costs, and what is refused before anything is sent


def test_the_estimate_by_hand():
    cost = remote.estimate([row for row, _ in pairs(10)], epochs=3, price=8.0)
    assert (cost.tokens, cost.most) == (3 * 10 * ROW_TOKENS, 3 * 10 * ROW_BYTES)
    assert cost.money == pytest.approx(600 * 8 / 1e6)
    assert cost.most_money == pytest.approx(1350 * 8 / 1e6)
    dear = remote.estimate([row for row, _ in pairs(10)], epochs=3, price=8000.0)
    assert dear.sentence() == "10 rows in 3 epochs: about 600 training tokens ($4.80, at most $10.80)"
    free = remote.estimate([row for row, _ in pairs(10)], epochs=3, price=0.0)
    assert free.sentence() == "10 rows in 3 epochs: about 600 training tokens (set price_training to see the cost)"


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=5), st.integers(1, 9))
def test_the_estimate_is_never_more_than_the_most_and_grows_with_the_rows(texts, epochs):
    rows = [TrainRow(messages=prompts.chat(text, text, text)) for text in texts]
    cost, more = (remote.estimate(some, epochs, 1.0) for some in (rows, rows + rows[:1]))
    assert 0 < cost.tokens <= cost.most
    assert more.tokens > cost.tokens
    assert more.most > cost.most


@pytest.mark.parametrize(("budget", "rows", "epochs"), [(0, 10, 2), (30, 10, 3), (34, 10, 3), (36, 10, 4), (3, 10, 1)])
def test_a_server_is_asked_for_the_epochs_nearest_to_the_budget(server, folder, budget, rows, epochs):
    wanted = knobs(server, training_budget=budget)
    assert remote.passes(wanted, rows) == epochs
    shown: list[str] = []
    tune(server, folder, shown, training_budget=budget)
    (job,) = server.tunings
    assert job["method"]["supervised"]["hyperparameters"]["n_epochs"] == epochs
    assert shown[0].startswith(f"10 rows in {epochs} epochs")


def test_rows_that_a_job_takes():
    remote.check_rows([row for row, _ in pairs(10)], max_length=ROW_TOKENS)


@pytest.mark.parametrize(("change", "told"), [
    (lambda rows: rows[:9], "train.jsonl has 9 rows, and a fine-tuning job takes 10 or more: check stages, "
                            "held_out_questions and augmented.jsonl"),
    (lambda rows: [*rows[:3], TrainRow(messages=rows[0].messages[::-1]), *rows],
     "train.jsonl line 4: the roles are assistant, user, system: write system, user, assistant"),
    (lambda rows: [*rows, TrainRow(messages=prompts.chat("You are.", "Is it?", " "))],
     "train.jsonl line 11: the assistant message is empty: fill it, or leave the row out"),
    (lambda rows: [rows[0], TrainRow(messages=prompts.chat("You are.", "Is it no. 01 now?", "1")), *rows],
     "train.jsonl line 2 has about 21 tokens, more than max_length 20: raise it if base_model takes longer rows, or "
     "shorten the question")])
def test_rows_that_no_job_takes(change, told):
    assert complaint(remote.check_rows, change([row for row, _ in pairs(10)]), ROW_TOKENS) == told


def test_a_file_that_is_too_large(monkeypatch):
    rows = [row for row, _ in pairs(10)]
    size = sum(len(row.model_dump_json()) + 1 for row in rows)
    monkeypatch.setattr(remote, "LARGEST_FILE", size)
    remote.check_rows(rows, 64)
    monkeypatch.setattr(remote, "LARGEST_FILE", size - 1)
    assert "a fine-tuning job takes" in complaint(remote.check_rows, rows, 64)


@pytest.mark.parametrize(("changed", "told"), [
    ({"target": "distribution"}, "target 'distribution' needs model_backend local, as a server learns one answer "
                                 "per row: set target to label"),
    ({"base_model": "stand-in"}, "base_model 'stand-in' is trained here alone: set model_backend to local, or "
                                 "base_model to a model that the server fine-tunes"),
    ({"epochs": 51}, "epochs is 51, and a fine-tuning job takes 1 to 50"),
    ({"model_url": "localhost:8000"}, "model_url 'localhost:8000' is not a web address: write one such as "
                                      "https://api.openai.com/v1"),
    ({"budget_money": 1.0}, "budget_money needs price_training (US dollars per million training tokens), or nothing "
                            "could be counted against it")])
def test_knobs_that_no_server_serves(server, folder, changed, told):
    assert complaint(tune, server, folder, **changed) == told
    assert not server.calls
    assert not folder.exists()


def test_a_key_is_needed_and_must_be_one(server, folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\n")
    assert complaint(tune, server, folder) == ("OPENAI_API_KEY holds a space, a line break or a sign that no key has: "
                                               "set it again")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "needs the environment variable OPENAI_API_KEY" in complaint(tune, server, folder, model_url="")
    tune(server, folder)  # a server that asks for none
    assert server.keys == {"Bearer none"}


def test_the_budget_is_held_against_the_most_and_the_cost_is_shown_first(server, folder):
    most = 2 * 10 * ROW_BYTES * 1000 / 1e6
    shown: list[str] = []
    told = complaint(tune, server, folder, shown, price_training=1000.0, budget_money=most - 0.001)
    assert told == ("budget_money $0.90 is too small for this job: 10 rows in 2 epochs: about 400 training tokens "
                    "($0.40, at most $0.90); no job was started, so raise it, or lower epochs or "
                    "templates_per_seed, and rerun")
    assert shown[0] == "10 rows in 2 epochs: about 400 training tokens ($0.40, at most $0.90)"
    assert not server.calls
    assert tune(server, folder, price_training=1000.0, budget_money=most)["money"] == pytest.approx(1.2)  # 1200 billed


def test_a_job_that_runs_is_followed_though_the_budget_has_shrunk(server, folder):
    tune(server, folder, price_training=1000.0)
    tune(server, folder, price_training=1000.0, budget_money=0.01)
    assert len(server.tunings) == 1


# --- a job that goes well


def test_what_is_sent(server, folder):
    tune(server, folder)
    (job,) = server.tunings
    assert {name: job[name] for name in ("model", "seed", "suffix", "training_file")} == {
        "model": "gpt-toy", "seed": 7, "suffix": "culturellm-south-korean", "training_file": "file-0"}
    assert job["method"]["supervised"]["hyperparameters"]["n_epochs"] == 2
    assert job["metadata"]["title"] == "A toy"
    assert server.files["file-0"] == (folder / "train.jsonl").read_bytes()
    assert json.loads(server.files["file-0"].split(b"\n")[0]) == {"messages": [
        {"role": "system", "content": "You are."}, {"role": "user", "content": "Is it no. 00"},
        {"role": "assistant", "content": "1"}]}
    assert server.keys == {f"Bearer {SECRET}"}
    assert server.calls["POST /fine_tuning/jobs"] == server.calls["POST /files"] == 1


def test_the_job_is_asked_for_with_nothing_but_epochs_and_seed(server, folder, monkeypatch):
    asked: list[dict[str, Any]] = []
    start = server.start_tuning
    monkeypatch.setattr(server, "start_tuning", lambda wanted: asked.append(wanted) or start(wanted))
    tune(server, folder)
    assert asked[0] == {
        "model": "gpt-toy", "training_file": "file-0", "seed": 7, "suffix": "culturellm-south-korean",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        "metadata": {"culturellm": asked[0]["metadata"]["culturellm"], "title": "A toy"}}
    assert len(asked[0]["metadata"]["culturellm"]) == 64


def test_what_is_written(server, folder, outputs):
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "adapter_config.json").write_text("{}")
    result = tune(server, folder, price_training=5.0)
    assert records.read_rows(folder / "train.jsonl", TrainRow) == [row for row, _ in pairs()]
    assert records.read_rows(folder / "targets.jsonl", TargetRow) == [aim for _, aim in pairs()]
    assert records.read_json(folder / "training_log.json") == result == {
        "seconds": 60.0, "rows": 10, "tokens": 1200, "tokens_per_second": 20, "trained_weights": None,
        "weights": None, "precision": None, "processes": None, "job": "ftjob-0",
        "model": "ft:gpt-toy:org:culturellm-south-korean:ftjob-0", "money": 0.006, "resumed_from": 0,
        "hyperparameters": {"batch_size": 4, "learning_rate_multiplier": 1.8, "n_epochs": 2},
        **provenance.record(knobs(server, price_training=5.0)),
        "checkpoints": [{"step": 1, "model": "ft:ftjob-0:step-1"}, {"step": 2, "model": "ft:ftjob-0:step-2"}],
        "log": [{"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": None},
                {"step": 2, "epoch": 1.0, "loss": 1.0, "learning_rate": None},
                {"step": 3, "epoch": 1.5, "loss": 0.5, "learning_rate": None},
                {"step": 4, "epoch": 2.0, "loss": 0.25, "learning_rate": None}]}
    assert records.read_json(folder / "model" / "remote.json") == {
        "model": result["model"], "job": "ftjob-0", "base_model": "gpt-toy", "base_url": server.base_url}
    assert remote.load(folder) == remote.Model(**records.read_json(folder / "model" / "remote.json"))
    assert sorted(path.name for path in (folder / "model").iterdir()) == ["README.md", "remote.json"]
    card = (folder / "model" / "README.md").read_text()
    assert "# A toy" in card
    assert f'model="{result["model"]}"' in card
    assert f'OpenAI(base_url="{server.base_url}")' in card
    assert "| learning_rate_multiplier | 1.8 |" in card


def test_a_folder_without_a_remote_model(folder):
    assert "remote.json is missing" in complaint(remote.load, folder)
    records.write_json(folder / "model" / "remote.json", {"model": "x"})
    assert "names no remote model" in complaint(remote.load, folder)


def test_progress(server, folder):
    server.polls = 4
    shown: list[str] = []
    tune(server, folder, shown)
    assert shown == [
        "10 rows in 2 epochs: about 400 training tokens (set price_training to see the cost)",
        "the server chooses batch size, learning rate and adapter; the loss counts on the answer alone",
        "ftjob-0: Created fine-tuning job: ftjob-0 for ...",
        "ftjob-0: validating_files, after 0 s; a rerun resumes it",
        "ftjob-0: queued, after 0 s; a rerun resumes it",
        "ftjob-0: running, step 1: loss 2.000, after 0 s; a rerun resumes it",
        "ftjob-0: running, step 2: loss 1.000, after 0 s; a rerun resumes it",
        "ftjob-0: running, step 3: loss 0.500, after 0 s; a rerun resumes it",
        "ftjob-0: New fine-tuned model created",
        "ftjob-0: The job is done",
        "ftjob-0: succeeded, step 4: loss 0.250, after 0 s; a rerun resumes it"]


def test_looks_become_rarer(server, folder, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(batch.time, "sleep", pauses.append)
    monkeypatch.setattr(batch, "FIRST_POLL", 2.0)
    server.polls = 11
    tune(server, folder)
    assert pauses[:4] == [2.0, 3.0, 4.5, 6.75]
    assert pauses[9:] == [60.0, 60.0, 60.0]


def test_many_events_and_no_checkpoints(server, folder):
    server.trained = [1 / step for step in range(1, 251)]
    server.checkpoints = False
    result = tune(server, folder)
    assert [row["step"] for row in result["log"]] == list(range(1, 251))
    assert result["log"][124]["epoch"] == 1.0
    assert result["checkpoints"] == []


def event(kind: str, data: Any) -> FineTuningJobEvent:
    return FineTuningJobEvent(id="e", created_at=1, level="info", message="", object="fine_tuning.job.event", type=kind,
                              data=data)


def test_metrics_without_a_loss_are_passed_over():
    odd = [None, [], {}, {"step": 2}, {"step": 3, "train_loss": None}, {"step": 4, "train_loss": float("nan")},
           {"step": "5", "train_loss": 1.0}, {"step": 0, "train_loss": 1.0}]
    good = event("metrics", {"step": 2, "train_loss": 1, "total_steps": 8})
    found = remote_job.losses([*(event("metrics", data) for data in odd), good,
                               event("message", {"step": 6, "train_loss": 1.0})], epochs=4)
    assert found == [{"step": 2, "epoch": 1.0, "loss": 1.0, "learning_rate": None}]
    assert remote_job.losses([], 4) == []


def test_a_message_repeats_no_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "whole-key")
    assert remote_job._told("bad\n whole-key and sk-pr***a9c.") == "bad ... and ..."
    monkeypatch.delenv("OPENAI_API_KEY")
    assert remote_job._told("none of them") == "none of them"
    assert len(remote_job._told("x" * 999)) == 300


# --- the same job again, or another


def test_a_rerun_pays_nothing_even_after_outputs_and_cache_are_gone(server, folder, own_cache):
    first = tune(server, folder)
    (folder / "model" / "remote.json").unlink()
    assert tune(server, folder) == first
    (own_cache / "chat.sqlite").unlink()
    assert tune(server, folder) == first
    assert server.calls["POST /fine_tuning/jobs"] == server.calls["POST /files"] == 1


@pytest.mark.parametrize("changed", [{"epochs": 3}, {"random_seed": 8}, {"base_model": "gpt-other"}, {"number": 11},
                                     {"culture": "korean"}])
def test_other_rows_or_settings_are_another_job(server, folder, changed):
    tune(server, folder)
    tune(server, folder, **changed)
    assert len(server.tunings) == 2
    assert len({job["metadata"]["culturellm"] for job in server.tunings}) == 2


@pytest.mark.parametrize("changed", [{"lora_rank": 8}, {"learning_rate": 1e-3}, {"loss_on": "all"}, {"study": "other"},
                                     {"price_training": 1.0}])
def test_what_is_not_sent_makes_no_other_job(server, folder, changed):
    tune(server, folder)
    tune(server, folder, **changed)
    assert len(server.tunings) == 1


def test_a_job_that_the_server_has_lost_is_started_again(server, folder):
    tune(server, folder)
    server.tunings[0] |= {"id": "another", "metadata": None, "training_file": "file-x"}
    tune(server, folder)
    assert len(server.tunings) == 2
    assert server.calls["POST /files"] == 1


# --- jobs that end otherwise


def test_a_failed_job_is_explained_and_a_rerun_starts_another(server, folder):
    server.tuned = lambda number: "succeeded" if number else "failed"
    assert complaint(tune, server, folder) == (
        f"fine-tuning job ftjob-0 failed at {server.base_url} (invalid_training_file: Line 3 is unsafe. ...); the rows "
        "are outputs/toy/main/south_korean/train.jsonl, and a rerun starts a new job")
    assert not (folder / "model").exists()
    assert tune(server, folder)["job"] == "ftjob-1"
    assert server.calls["POST /files"] == 1


def test_a_job_cancelled_on_the_way(server, folder):
    server.polls = 10**9
    shown: list[str] = []

    def show(line: str) -> None:
        shown.append(line)
        if "step 1" in line:
            with openai.OpenAI(base_url=server.base_url) as other:
                other.fine_tuning.jobs.cancel("ftjob-0")

    assert complaint(remote.tune, knobs(server), folder, "A toy", pairs(), show) == (
        f"fine-tuning job ftjob-0 was cancelled at {server.base_url}: a rerun starts a new one")
    assert any("step 1" in line for line in shown)
    server.polls = 1
    assert tune(server, folder)["job"] == "ftjob-1"


def test_a_paused_job_is_followed_once_it_is_resumed(server, folder):
    server.tuned = lambda number: "paused"
    assert complaint(tune, server, folder) == (
        f"fine-tuning job ftjob-0 is paused at {server.base_url}: resume it there and rerun, which follows it")
    server.tuned = lambda number: "succeeded"
    assert tune(server, folder)["job"] == "ftjob-0"
    assert len(server.tunings) == 1


def test_a_job_that_names_no_model_yet(server, folder):
    done = {"status": "succeeded", "fine_tuned_model": None}
    look = server.look_at_tuning
    server.look_at_tuning = lambda name: look(name) | done
    assert "has succeeded" in complaint(tune, server, folder)
    server.look_at_tuning = look
    assert tune(server, folder)["job"] == "ftjob-0"
    assert len(server.tunings) == 1


def test_a_file_that_is_read_late_and_one_that_cannot_be_read(server, folder):
    state = {"id": "file-0", "object": "file", "bytes": 1, "created_at": 1, "filename": "x", "purpose": "fine-tune"}
    late, bad = (Answer(body=json.dumps(state | {"status": status})) for status in ("pending", "error"))
    server.lost, server.once = {"POST /files": [late]}, {"GET /files/file-0": [late, bad]}
    assert "could not read it: rerun, which sends it again" in complaint(tune, server, folder)
    assert server.tunings == []
    late = Answer(body=json.dumps(state | {"id": "file-1", "status": "pending"}))
    server.lost, server.once = {"POST /files": [late]}, {}
    assert tune(server, folder)["job"] == "ftjob-0"
    assert server.tunings[0]["training_file"] == "file-1"


# --- a server with faults

DEEDS = ["POST /files", "POST /fine_tuning/jobs", "GET /fine_tuning/jobs", "GET /fine_tuning/jobs/ftjob-0",
         "GET /fine_tuning/jobs/ftjob-0/events", "GET /fine_tuning/jobs/ftjob-0/checkpoints"]


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("fault", [refused(500), refused(429, Retry_After="0.02"), Answer(body="{half")])
def test_a_call_that_fails_once_is_made_again(server, folder, deed, fault):
    server.once = {deed: [fault]}
    assert tune(server, folder)["job"] == "ftjob-0"
    assert server.calls[deed] > 1
    assert len(server.tunings) == 1


@pytest.mark.parametrize("metadata", [True, False])
def test_a_job_whose_start_was_answered_with_500_has_started(server, folder, monkeypatch, metadata):
    start = server.start_tuning
    if not metadata:
        monkeypatch.setattr(server, "start_tuning", lambda wanted: start(wanted | {"metadata": None}))
    server.lost = {"POST /fine_tuning/jobs": [refused(500)]}
    assert tune(server, folder)["job"] == "ftjob-0"
    assert len(server.tunings) == 1


@pytest.mark.parametrize(("answer", "told"), [
    (refused(401, f"bad {SECRET}"), "answered 401 for model gpt-toy (check OPENAI_API_KEY); a job that has started "
                                    "goes on, and a rerun follows it"),
    (refused(429, "insufficient_quota"), "answered 429 (insufficient_quota) for model gpt-toy; "),
    (Answer(200, "<html>", {"Content-Type": "text/html"}), "sent no such reply (AttributeError: check model_url, "),
    (Answer(200, "[]"), ": check model_url, which mostly ends in /v1) for model gpt-toy; ")])
@pytest.mark.parametrize("deed", DEEDS)
def test_a_server_that_refuses(server, folder, answer, told, deed):
    server.once = {deed: [answer] * live.TRIES}
    assert told in complaint(tune, server, folder)
    assert server.calls[deed] == 1
    server.once = {}
    assert tune(server, folder)["job"] == "ftjob-0"
    assert len(server.tunings) == 1


def test_a_model_or_a_server_that_does_not_fine_tune(server, folder):
    server.once = {"POST /fine_tuning/jobs": [refused(400, "model_not_available")]}
    assert complaint(tune, server, folder) == (
        f"the fine-tuning server at {server.base_url} answered 400 (model_not_available) for model gpt-toy (check "
        "base_model: a server fine-tunes only some); a job that has started goes on, and a rerun follows it")
    server.once = {"GET /fine_tuning/jobs": [refused(404)]}
    assert "(check model_url and base_model: not every server fine-tunes)" in complaint(tune, server, folder)
    server.once = {"POST /fine_tuning/jobs": [refused(403)]}
    assert "answered 403 for model gpt-toy (the key may not fine-tune); " in complaint(tune, server, folder)
    assert server.tunings == []


def test_a_server_that_cannot_be_reached(folder, own_cache, monkeypatch):
    monkeypatch.setattr(live, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    settings = FineTuning(**(KNOBS | {"model_url": "http://127.0.0.1:9/v1"}))
    assert "cannot be reached" in complaint(remote.tune, settings, folder, "A toy", pairs(), print)


# --- runs that are killed


class Killed(BaseException):
    """Stands for the end of the process at one very line."""


def dies(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("moment", ["before the id is stored", "while it is followed", "before the result is written"])
def test_a_run_killed_after_it_started_a_job_finds_it(server, folder, monkeypatch, moment):
    with monkeypatch.context() as patch:
        if moment == "before the id is stored":
            put = Store.put
            patch.setattr(Store, "put", lambda store, items: dies() if server.tunings else put(store, items))
        elif moment == "while it is followed":
            patch.setattr(batch.time, "sleep", dies)
        else:
            patch.setattr(records, "write_json", dies)
        with pytest.raises(Killed):
            tune(server, folder)
    assert len(server.tunings) == 1
    result = tune(server, folder)
    assert (result["job"], len(result["log"])) == ("ftjob-0", 4)
    assert server.calls["POST /fine_tuning/jobs"] == server.calls["POST /files"] == 1


def test_a_run_killed_after_the_upload_does_not_upload_again(server, folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(server, "start_tuning", lambda wanted: None)
        complaint(tune, server, folder)
    assert tune(server, folder)["job"] == "ftjob-0"
    assert server.calls["POST /files"] == 1


def test_a_job_is_found_among_many(server, folder, own_cache):
    tune(server, folder)
    (own_cache / "chat.sqlite").unlink()
    others = [server.tunings[0] | {"id": f"other_{number}", "metadata": None} for number in range(250)]
    server.tunings += others
    assert tune(server, folder)["job"] == "ftjob-0"
    assert server.calls["GET /fine_tuning/jobs"] == 1 + 3
    assert server.calls["POST /fine_tuning/jobs"] == 1


RUN = """
import json, sys
from pathlib import Path
from culturellm_utils import batch, live, records, remote
from culturellm_utils.parameters import FineTuning
live.FIRST_PAUSE, batch.FIRST_POLL, batch.LONGEST_POLL = 0.005, 0.005, 0.05
given = json.loads(sys.argv[1])
rows = [(records.TrainRow(**row), records.TargetRow(**aim)) for row, aim in given["rows"]]
show = lambda line: print(line, flush=True)
print(remote.tune(FineTuning(**given["knobs"]), Path(given["folder"]), "A toy", rows, show)["job"])
"""


def start(settings: FineTuning, folder: Path) -> subprocess.Popen[str]:
    """Tune in a process of its own."""
    given = {"knobs": settings.model_dump(), "folder": str(folder),
             "rows": [[row.model_dump(), aim.model_dump()] for row, aim in pairs()]}
    return subprocess.Popen([sys.executable, "-c", RUN, json.dumps(given)], env=os.environ.copy(), cwd=paths.ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("stored", [False, True])
def test_a_process_killed_after_it_started_a_job_pays_once(server, folder, stored):
    server.polls = 10**9
    run = start(knobs(server), folder)
    wait_until(lambda: len(server.looks) > 0 if stored else len(server.tunings) > 0)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    server.polls = 1
    assert tune(server, folder)["job"] == "ftjob-0"
    assert len(server.tunings) == 1


def test_two_runs_at_once_start_one_job(server, folder):
    server.polls = 10**9
    first = start(knobs(server), folder / "a")
    wait_until(lambda: len(server.tunings) > 0)
    second = start(knobs(server), folder / "b")
    while "another run is training on these rows: waiting for it" not in second.stdout.readline():
        assert second.poll() is None
    server.polls = 1
    for run in (first, second):
        output, errors = run.communicate(timeout=60)
        assert (run.returncode, output.splitlines()[-1]) == (0, "ftjob-0"), errors
        assert SECRET not in output + errors
    assert len(server.tunings) == 1
