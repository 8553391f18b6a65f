"""What a full disk, a forbidden folder, a jumping clock or a second run leave: one sentence, and nothing half done."""

import contextlib
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import reports
import toys
from chat_server import ask, complaint, knobs, refused, request, running_server, said, texts  # noqa: F401
from filelock import FileLock
from nbformat.v4 import new_code_cell, new_notebook

from culturellm_utils import (
    cleaning,
    encoder,
    encoding,
    models,
    parameters,
    paths,
    protocol,
    rating_form,
    records,
    remote,
    report,
    run,
    studies,
    survey,
    training,
)
from culturellm_utils.live import OpenAI
from culturellm_utils.records import Pair
from culturellm_utils.store import Store

NOBODY = 65534
DAY, YEAR = 86400, 365 * 86400
FREE = "free some space there and rerun (what was written or paid before is kept)"
PAIRS = [Pair(pair_id="a", seed="Tea?", text="Some tea?")]


class Disk:
    """A disk of a megabyte, which can be filled."""

    def __init__(self, place: Path) -> None:
        self.place, self.filler = place, place / "filler"

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes free, about."""
        with self.filler.open("ab", buffering=0) as file:
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            file.truncate(self.filler.stat().st_size - free)

    def free(self) -> None:
        self.filler.unlink()

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.place)) for path in self.place.rglob("*") if path != self.filler)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield Disk(place)
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose way is open to everybody."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user to whom permissions apply: they do not to root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may become larger than ``size`` bytes: a full disk for those who may not mount one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes back a day and forward a year, from one look to the next."""
    now, jumps = time.time, itertools.cycle([0, -DAY, YEAR])
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))


WRITERS: dict[str, Callable[[Path, int], object]] = {
    "text": lambda path, size: records.write_text(path, "x" * size),
    "rows": lambda path, size: records.write_rows(path, PAIRS * (size // 20)),
    "json": lambda path, size: records.write_json(path, ["x" * size]),
    "table": lambda path, size: records.write_table(path, pd.DataFrame({"a": ["x" * size]})),
}


# --- a full disk


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_keeps_the_file_that_was_there(disk, kind):
    path, write = disk.place / "new" / "a.txt", WRITERS[kind]
    write(path, 100)
    before = path.read_bytes()
    disk.fill()
    assert complaint(write, path, 50_000) == f"disk/new/a.txt cannot be written (No space left on device): {FREE}"
    assert (disk.names(), path.read_bytes()) == (["new", "new/a.txt"], before)
    disk.free()
    write(path, 50_000)
    assert path.stat().st_size > 50_000 - 100


@pytest.mark.parametrize("kind", WRITERS)
def test_a_limit_on_files_keeps_the_file_that_was_there(tmp_path, kind):
    path, write = tmp_path / "a.txt", WRITERS[kind]
    write(path, 100)
    before = path.read_bytes()
    with small_files(20_000):
        assert complaint(write, path, 50_000) == f"a.txt cannot be written (File too large): {FREE}"
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_under_the_outputs_is_named_with_the_way_out(disk, monkeypatch):
    monkeypatch.setenv("CULTURELLM_OUTPUTS", str(disk.place / "outputs"))
    folder = paths.stage_dir("toy", "korean")
    disk.fill()
    assert complaint(records.write_text, folder / "a.txt", "x" * 9999) == (
        f"outputs/toy/main/korean/a.txt cannot be written (No space left on device): {FREE}, or set CULTURELLM_OUTPUTS "
        "to another folder")


def test_a_cache_on_a_full_disk_keeps_what_it_has(disk):
    store = Store(disk.place / "a.sqlite")
    store.put({"old": b"1"})
    disk.fill()
    assert complaint(store.put, {"new": bytes(90_000)}) == (
        f"disk/a.sqlite cannot be used as a cache (database or disk is full); {FREE}, or set CULTURELLM_CACHE to "
        "another folder")
    assert store.get(["old", "new"]) == {"old": b"1"}
    disk.free()
    store.put({"new": bytes(90_000)})
    assert store.get(["old", "new"]) == {"old": b"1", "new": bytes(90_000)}
    assert disk.names() == ["a.sqlite"]


def test_a_cache_beside_a_limit_on_files_keeps_what_it_has(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    store.put({"old": b"1"})
    with small_files(20_000):
        assert "a.sqlite cannot be used as a cache (" in complaint(store.put, {"new": bytes(90_000)})
    assert store.get(["old", "new"]) == {"old": b"1"}


def test_every_reply_that_comes_while_the_disk_fills_up_is_kept(disk, server, monkeypatch):
    monkeypatch.setenv("CULTURELLM_CACHE", str(disk.place))
    wanted = [f"prompt {number}" for number in range(20)]

    def answer(prompt: str, before: int):
        disk.fill()
        return said("x" * 3000)  # as long a reply as the settings let it have

    server.answer = answer
    sentence = complaint(ask, server, *wanted, max_concurrency=4, max_reply_tokens=1000)
    assert FREE in sentence
    paid = list(server.prompts)
    assert 1 <= len(paid) < 20
    disk.free()
    server.answer = lambda prompt, before: said(prompt.upper())
    replies = ask(server, *wanted, max_concurrency=4, max_reply_tokens=1000)
    assert sorted(server.prompts) == sorted(wanted)  # none was asked for twice
    assert replies == ["x" * 3000 if prompt in paid else prompt.upper() for prompt in wanted]
    assert not [name for name in disk.names() if "sqlite" not in name and "lock" not in name]


def test_nothing_is_asked_for_when_the_disk_is_full_already(disk, server, monkeypatch):
    monkeypatch.setenv("CULTURELLM_CACHE", str(disk.place))
    chat = OpenAI(knobs(server))
    disk.fill()
    assert FREE in complaint(texts, chat, "a")
    assert server.prompts == []


def test_room_is_given_back(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    with store.room(3, 1_000_000):
        store.put({"a": b"1"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.sqlite"]
    assert store.get("a") == {"a": b"1"}


def test_a_model_that_finds_no_room_leaves_the_earlier_one(disk, tmp_path):
    tokenizer = toys.tokenizer()
    tuned = models.add_lora(toys.model(tokenizer), 2, 4, 0.0, 0)
    tuned.config.save_pretrained(tmp_path / "base")
    tuned.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    folder = disk.place / "korean" / "model"
    models.save_adapter(tuned, tokenizer, folder, "first")
    before = disk.names()
    for free in (0, 8192, 32768):  # the folder, the weights, the tokenizer
        disk.fill(free)
        assert complaint(models.save_adapter, tuned, tokenizer, folder, "second").endswith(FREE)
        assert (disk.names(), (folder / "README.md").read_text()) == (before, "first")
        disk.free()
    models.save_adapter(tuned, tokenizer, folder, "second")
    assert (disk.names(), (folder / "README.md").read_text()) == (before, "second")


def test_training_goes_on_from_the_last_whole_checkpoint_once_there_is_room(disk, tmp_path):
    tokenizer = toys.tokenizer()
    rows = [encoding.encode(tokenizer, toys.chat("Do you agree? " * (1 + i % 3), "2"), 512) for i in range(12)]

    def train(place: Path, show: Callable[[str], object] = str) -> training.Run:
        tuned = models.add_lora(toys.model(tokenizer), 2, 4, 0.0, 0)
        return training.train(tuned, tokenizer, rows, epochs=2, batch_size=4, learning_rate=0.01, checkpoint_steps=2,
                              checkpoints=place, show=show)

    undisturbed = train(tmp_path / "plain")
    sizes = [sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
             for place in (tmp_path / "plain").iterdir()]
    disk.fill(int(1.5 * max(sizes)))
    sentence = complaint(train, disk.place / "checkpoints")
    assert sentence.startswith("disk/checkpoints cannot be written (")
    assert sentence.endswith(FREE)
    assert [path.name for path in (disk.place / "checkpoints").iterdir()] == ["checkpoint-2"]
    disk.free()
    told: list[str] = []
    resumed = train(disk.place / "checkpoints", told.append)
    assert told[0] == "resumed from step 2 of 6"
    assert [row["loss"] for row in resumed.log] == [row["loss"] for row in undisturbed.log]


def test_a_notebook_that_finds_no_room_says_so_and_runs_once_there_is(disk, monkeypatch):
    monkeypatch.setenv("CULTURELLM_OUTPUTS", str(disk.place / "outputs"))
    folder = paths.stage_dir("toy", "korean")
    copy, log = folder / "01_seed_extraction.ipynb", folder / "log" / "01_seed_extraction.ipynb"
    source = disk.place / "01_seed_extraction.ipynb"
    reports.put(source, new_notebook(cells=[new_code_cell(
        "from culturellm_utils import paths, records\n"
        "records.write_text(paths.stage_dir('toy', 'korean') / 'seeds.jsonl', 'x' * 70_000)")]))
    disk.fill()
    assert complaint(run.run, source, copy, log, {}).endswith(f"{FREE}, or set CULTURELLM_OUTPUTS to another folder")
    disk.free()
    disk.fill(65_536)
    assert complaint(run.run, source, copy, log, {}) == (
        "01_seed_extraction stopped: outputs/toy/main/korean/seeds.jsonl cannot be written (No space left on device): "
        f"{FREE}, or set CULTURELLM_OUTPUTS to another folder (the notebook up to there: "
        "outputs/toy/main/korean/log/01_seed_extraction.ipynb)")
    assert sorted(path.name for path in folder.iterdir()) == ["log"]
    disk.free()
    run.run(source, copy, log, {})
    assert sorted(path.name for path in folder.iterdir()) == ["01_seed_extraction.ipynb", "log", "seeds.jsonl"]


def test_what_a_library_could_not_write_in_a_notebook_is_a_sentence_too(tmp_path):
    source = tmp_path / "01_seed_extraction.ipynb"
    reports.put(source, new_notebook(cells=[new_code_cell("raise OSError(28, 'No space left on device', 'a.bin')")]))
    sentence = complaint(run.run, source, tmp_path / "out" / "a.ipynb", tmp_path / "log" / "a.ipynb", {})
    assert f"stopped: OSError: [Errno 28] No space left on device: 'a.bin': {FREE} (the notebook" in sentence


@pytest.mark.parametrize("free", [0, 60_000, 300_000])
def test_a_report_that_finds_no_room_leaves_the_earlier_one(disk, monkeypatch, free):
    monkeypatch.setenv("CULTURELLM_OUTPUTS", str(disk.place / "outputs"))
    home = disk.place / "outputs" / "laptop"
    reports.study(home)
    reports.write(home / "report" / "index.html", "the earlier one")
    before = disk.names()
    disk.fill(free)
    sentence = complaint(report.build, "laptop", ["korean"])
    assert "outputs/laptop/" in sentence
    assert FREE in sentence
    assert (disk.names(), (home / "report" / "index.html").read_text()) == (before, "the earlier one")


# --- forbidden places


def test_where_writing_is_forbidden_the_folder_is_named(open_folder, monkeypatch):
    monkeypatch.setenv("CULTURELLM_OUTPUTS", str(open_folder / "outputs"))
    os.chmod(open_folder, 0o555)
    refusal = "cannot be written (Permission denied): allow that and rerun, or set CULTURELLM_OUTPUTS to another folder"
    with as_nobody():
        assert complaint(paths.stage_dir, "toy", "korean") == f"outputs/toy/main/korean {refusal}"
        path = paths.outputs() / "a.txt"
        assert complaint(records.write_rows, path, PAIRS) == f"outputs/a.txt {refusal}"
    assert list(open_folder.iterdir()) == []


def test_a_read_only_disk_is_named(disk):
    path = records.write_text(disk.place / "a.txt", "old")
    subprocess.run(["mount", "-o", "remount,ro", disk.place], check=True)
    assert complaint(records.write_text, path, "new") == (
        "disk/a.txt cannot be written (Read-only file system): allow that and rerun")
    assert path.read_text() == "old"


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "korean").write_text("not a folder")
    sentence = complaint(records.write_text, tmp_path / "korean" / "a.txt", "x")
    assert sentence.startswith("korean/a.txt cannot be written (")


@pytest.mark.parametrize("read", [
    lambda path: records.read_rows(path, Pair), lambda path: records.read_json(path),
    lambda path: survey.questions(str(path)), lambda path: survey.counts(["KOR"], [], str(path), False),
    lambda path: studies.read_yaml(path), lambda path: cleaning.rules(str(path)),
    lambda path: rating_form.consent(path=str(path))], ids=[
    "rows", "json", "questions", "survey", "yaml", "rules", "consent"])
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_file_that_may_not_be_read_is_named(open_folder, read, closed):
    path = open_folder / "folder" / "a.csv"
    reports.write(path, "{}")
    os.chmod(path if closed == "file" else path.parent, 0)
    with as_nobody():
        assert "a.csv cannot be read (Permission denied)" in complaint(read, path)
    os.chmod(path.parent, 0o755)


def test_a_cache_that_may_only_be_read_answers_what_it_has(open_folder, server, monkeypatch):
    """As one that a cluster's users share."""
    monkeypatch.setenv("CULTURELLM_CACHE", str(open_folder))
    vectors = encoder.load(encoder.BUNDLED).encode(["Tea?"])
    assert ask(server, "a") == ["A"]
    for path in open_folder.iterdir():
        os.chmod(path, 0o444)
    os.chmod(open_folder, 0o555)
    with as_nobody():
        assert ask(server, "a") == ["A"]
        assert np.array_equal(encoder.load(encoder.BUNDLED).encode(["Tea?"]), vectors)
        for refused_to, call in (("chat.sqlite", lambda: OpenAI(knobs(server)).store.put({"a": b"1"})),
                                 ("", lambda: ask(server, "b"))):
            sentence = complaint(call)
            assert refused_to in sentence
            assert "set CULTURELLM_CACHE to another folder" in sentence
    assert server.prompts == ["a"]  # what could not be kept was not paid
    os.chmod(open_folder, 0o755)


# --- clocks


@pytest.mark.parametrize("wrong", [0, -DAY, YEAR])
def test_a_pause_until_a_date_counts_by_the_servers_clock(monkeypatch, wrong):
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000 + wrong)
    headers = {"retry-after": "Sun, 09 Sep 2001 01:46:47 GMT", "date": "Sun, 09 Sep 2001 01:46:40 GMT"}
    assert protocol.asked_pause(SimpleNamespace(response=SimpleNamespace(headers=headers))) == 7.0


@pytest.mark.parametrize("backend", ["openai", "batch"])
def test_replies_come_whatever_the_clock_does(server, monkeypatch, backend):
    from culturellm_utils import batch, client, live

    monkeypatch.setattr(batch, "FIRST_POLL", 0.005)
    monkeypatch.setattr(live, "FIRST_PAUSE", 0.005)
    jumping(monkeypatch)
    server.answer = lambda prompt, before: refused(503) if before == 0 and backend == "openai" else said(prompt.upper())
    began = time.monotonic()
    chat = client.connect(knobs(server, chat_backend=backend))
    assert texts(chat, "a", "b") == ["A", "B"]
    assert time.monotonic() - began < 30


def test_a_job_that_names_no_end_is_timed_by_its_servers_clock(monkeypatch):
    jumping(monkeypatch)
    found = parameters.FineTuning(**studies.defaults("04_fine_tuning") | studies.merged(
        "04_fine_tuning", "smoke", "korean", "main"))
    job = SimpleNamespace(id="j", finished_at=None, created_at=100, trained_tokens=1200, method=None,
                          hyperparameters=None, fine_tuned_model="m")
    done = SimpleNamespace(job=job, checkpoints=[], events=[
        SimpleNamespace(created_at=stamp, type="message", data=None) for stamp in (110, 160)])
    result = remote._result(found, remote.Cost(10, 1, 1200, 1200, 0.0), done)
    assert (result["seconds"], result["tokens_per_second"]) == (60, 20)


# --- two runs at once


def test_a_notebook_is_run_by_one_run_at_a_time(outputs):
    folder = paths.stage_dir("toy", "korean")
    log = folder / "log" / "01_seed_extraction.ipynb"
    log.parent.mkdir()
    began = time.monotonic()
    with FileLock(log.with_suffix(".lock")):
        assert complaint(run.run, paths.NOTEBOOKS / log.name, folder / log.name, log, {}) == (
            "outputs/toy/main/korean/01_seed_extraction.ipynb is being made by another run: wait for it, or end it")
    assert time.monotonic() - began < 60
    assert not (folder / log.name).exists()


BUILD = """
import sys, time
from pathlib import Path
from culturellm_utils import stand_in
def build(place, epochs):
    with open(sys.argv[1], "a") as file:
        file.write("built\\n")
    time.sleep(1)
    (place / "config.json").write_text("{}")
build.__module__ = stand_in.__name__  # whose source names the folder
stand_in.build = build
print(stand_in.folder("stand-in"))
"""


def test_two_processes_build_the_stand_in_once(own_cache, tmp_path):
    both = [subprocess.Popen([sys.executable, "-c", BUILD, tmp_path / "built"], cwd=paths.ROOT, text=True,
                             stdout=subprocess.PIPE) for _ in range(2)]
    first, second = [process.communicate(timeout=120)[0] for process in both]
    assert first == second
    assert first.strip()
    assert (tmp_path / "built").read_text() == "built\n"


SLEEPY = """
rule all:
    input: "out.txt"
rule copy:
    input: "in.txt"
    output: update("out.txt")
    shell: "touch begun; while [ -e hold ]; do sleep 0.1; done; cp {input} {output}"
"""


def snakemake(folder: Path) -> subprocess.Popen[str]:
    """Snakemake as the Makefile calls it."""
    line, = [line for line in (paths.ROOT / "Makefile").read_text().splitlines() if line.startswith("RUN = ")]
    words = line.partition("&& snakemake ")[2].split()
    options = [word for word in words[: words.index("--config")] if "$" not in word and word != "--cores"]
    return subprocess.Popen([sys.executable, "-m", "snakemake", "--cores", "1", *options], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_second_run_of_a_study_is_refused_and_the_first_goes_on(tmp_path):
    (tmp_path / "Snakefile").write_text(SLEEPY)
    (tmp_path / "in.txt").write_text("tea")
    (tmp_path / "hold").touch()
    first = snakemake(tmp_path)
    while not (tmp_path / "begun").exists():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    second = snakemake(tmp_path)
    told = second.communicate(timeout=120)[0]
    assert second.returncode == 1
    assert "no other Snakemake process is trying to create the same files" in told
    assert "Traceback" not in told
    (tmp_path / "hold").unlink()
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert (tmp_path / "out.txt").read_text() == "tea"


def test_an_input_from_the_future_is_refused_and_used_once_its_date_is_mended(tmp_path):
    (tmp_path / "Snakefile").write_text(SLEEPY)
    (tmp_path / "in.txt").write_text("tea")
    os.utime(tmp_path / "in.txt", (time.time() + YEAR,) * 2)
    first = snakemake(tmp_path)
    assert "out.txt has older modification time" in first.communicate(timeout=120)[0]
    assert first.returncode == 1
    os.utime(tmp_path / "in.txt")
    assert snakemake(tmp_path).wait(timeout=120) == 0
    assert (tmp_path / "out.txt").read_text() == "tea"
