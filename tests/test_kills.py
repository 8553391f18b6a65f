"""Runs killed at random moments: started again they end with an undisturbed run's files, and pay for nothing twice.

``pytest -m slow tests/test_kills.py`` kills programs, notebooks and the whole study some sixty times; ``KILL_SEED``
chooses other moments. Left out of the comparison, because no two runs share them: times, where a training went on, and
what 02 says of the requests that are still to be sent (see ``kills.TIMES``, ``TIMED``, ``ON_THE_WAY``).

Requests: a reply that is stored is never asked for again. One that had left the server when the client was killed
cannot be told from one that had not: it is asked again, at each kill as many as are in flight at most.
"""

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import kills
import pytest
from chat_server import Answer, Server, completion, knobs, running_server
from kills import Killer

from culturellm_utils import client, paths, records
from culturellm_utils.store import Store

__all__ = ["running_server"]  # the fixture `server`

BEGIN = "import sys\n{imports}\nprint('ready', flush=True)\n"
PROMPTS = [f"prompt {number}" for number in range(80)]


def program(text: str, imports: str, *arguments: object) -> list[str]:
    """A Python program that says when its imports are over."""
    return [sys.executable, "-c", BEGIN.format(imports=imports) + text, *map(str, arguments)]


# --- programs

#: Longer, in seconds, than the latest moment of a kill: a quick disk would end a count of writes before.
LASTS = 1.0

STORING = """
store, end = Store(Path(sys.argv[1])), time.monotonic() + float(sys.argv[2])
for number in itertools.count():
    if time.monotonic() > end:
        break
    if str(number) not in store.get([str(number)]):
        store.put({str(number): bytes([number % 256]) * 5000})
        print("stored", number, flush=True)
"""


def check_store(tmp_path: Path, trial: int, killer: Killer, most: int) -> None:
    path, log = tmp_path / f"{trial}.sqlite", tmp_path / f"{trial}.log"

    def check() -> None:
        said = re.findall(r"^stored (\d+)\n", log.read_text(), re.MULTILINE)  # a kill may cut a line at a page's end
        assert len(said) == len(set(said)), "a stored value was lost"
        found = Store(path).get([str(number) for number in range(len(said) + killer.kills + 1)])
        assert set(said) <= found.keys()
        assert all(value == bytes([int(name) % 256]) * 5000 for name, value in found.items())

    needs = "import itertools, time; from pathlib import Path; from culturellm_utils.store import Store"
    killer.until_done(program(STORING, needs, path, LASTS), log, LASTS / 2, most, kills.said(log), check,
                      cwd=paths.ROOT)
    assert re.search(r"^stored \d+\n", log.read_text(), re.MULTILINE)


WRITING = """
folder, end = Path(sys.argv[1]), time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    for text in ("a", "b"):
        records.write_text(folder / "a.txt", text * 300_000)
        records.write_json(folder / "a.json", [text] * 30_000)
        with parts.replacing(folder / "model", folder=True) as beside:
            for name in "xyz":
                (beside / name).write_text(text * 10_000)
"""


def check_records(tmp_path: Path, trial: int, killer: Killer, most: int) -> None:
    folder, log = tmp_path / f"records{trial}", tmp_path / "log"

    def check() -> None:
        if (folder / "a.txt").exists():
            assert (folder / "a.txt").read_text() in ("a" * 300_000, "b" * 300_000)
        if (folder / "a.json").exists():
            assert json.loads((folder / "a.json").read_text()) in (["a"] * 30_000, ["b"] * 30_000)
        model = [(path.name, path.read_text()) for path in sorted((folder / "model").glob("*"))]
        assert model in ([], *([(name, text * 10_000) for name in "xyz"] for text in "ab"))

    needs = "import time; from pathlib import Path; from culturellm_utils import parts, records"
    killer.until_done(program(WRITING, needs, folder, LASTS), log, LASTS / 2, most, kills.said(log), check,
                      cwd=paths.ROOT)
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a.txt", "model"]


ASKING = """
given = json.loads(sys.argv[1])
requests = [client.Request(text, "toys", prompts.chat("Shout.", text), {}) for text in given["prompts"]]
found = client.connect(Chat(**given["settings"])).ask(requests)
Path(sys.argv[2]).write_text(json.dumps([reply.text for reply in found]))
"""
ASKING_NEEDS = ("import json; from pathlib import Path; from culturellm_utils import client, live, prompts; "
                "from culturellm_utils.parameters import Chat")


class Paid:
    """What the server was asked since, held against what the client had stored when it was killed."""

    def __init__(self, server: Server, cache: Path, in_flight: int, killer: Killer) -> None:
        self.server, self.store, self.in_flight, self.killer = server, cache / "chat.sqlite", in_flight, killer
        self.begun, self.kills, self.stored = len(server.asked), killer.kills, dict[str, int]()

    def asked(self) -> list[str]:
        """The names of the requests that came, as the client stores them."""
        return [client.key([records.Message(**message) for message in body["messages"]], model=body["model"],
                           base_url=self.server.base_url, temperature=body["temperature"], attempt=0,
                           max_reply_tokens=body["max_tokens"],
                           schema=body.get("response_format", {}).get("json_schema", {}).get("schema", {}))
                for body in self.server.asked[self.begun :]]

    def look(self) -> None:
        """After a kill, and at the end."""
        asked = self.asked()
        for name, times in self.stored.items():
            assert asked.count(name) == times, "a stored reply was asked for again"
        self.stored = {name: asked.count(name) for name in Store(self.store).get(set(asked))}
        again = len(asked) - len(set(asked))
        assert again <= self.in_flight * (self.killer.kills - self.kills), "more came again than were in flight"

    def end(self, requests: int) -> None:
        """Each of so many requests is stored; says how many came again."""
        asked = self.asked()
        assert len(self.stored) == len(set(asked)) == requests
        print(f"{self.killer.kills - self.kills} kills, {requests} requests, {len(asked) - requests} came again")


def check_client(tmp_path: Path, trial: int, killer: Killer, most: int, server: Server) -> None:
    wanted = [f"{trial} {prompt}" for prompt in PROMPTS]
    settings, replies = knobs(server), tmp_path / f"replies{trial}.json"
    server.delay = 0.02
    paid = Paid(server, paths.cache(), settings.max_concurrency, killer)
    given = json.dumps({"prompts": wanted, "settings": settings.model_dump()})
    killer.until_done(program(ASKING, ASKING_NEEDS, given, replies), tmp_path / "log", 0.4, most,
                      lambda: len(server.asked), paid.look, cwd=paths.ROOT)
    assert json.loads(replies.read_text()) == [prompt.upper() for prompt in wanted]
    paid.end(len(wanted))


@pytest.mark.parametrize("check", [check_store, check_records])
def test_a_few_kills(tmp_path, check):
    killer = Killer(name=check.__name__)
    check(tmp_path, 0, killer, most=2)
    assert killer.kills == 2


def test_a_few_kills_of_a_client(tmp_path, server):
    killer = Killer(name="client")
    check_client(tmp_path, 0, killer, 1, server)
    assert killer.kills


def several(killer: Killer, wanted: int, check, *more) -> None:
    """Trial after trial until so many were killed."""
    for trial in range(4 * wanted):
        if killer.kills < wanted:
            check(trial, killer, min(6, wanted - killer.kills), *more)
    assert killer.kills == wanted


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_store, check_records])
def test_many_kills(tmp_path, check):
    several(Killer(name=f"many {check.__name__}"), 10, lambda *given: check(tmp_path, *given))


@pytest.mark.slow
def test_many_kills_of_a_client(tmp_path, server):
    several(Killer(name="many client"), 10, lambda *given: check_client(tmp_path, *given), server)


@pytest.mark.slow
def test_kills_of_a_training(tmp_path, outputs, server):
    import toys
    from test_job import ROWS, knobs_of

    base = str(tmp_path / "base")
    toys.model(toys.tokenizer()).save_pretrained(base)
    toys.tokenizer().save_pretrained(base)
    wanted = knobs_of(base, checkpoint_steps=3, lora_dropout=0.2, epochs=16)
    code = checkout(tmp_path / "code", server)  # without git, so without a revision that changes meanwhile
    threads = "import torch; torch.set_num_threads(1); from pathlib import Path; from culturellm_utils import job"

    def trained(folder: Path, killer: Killer, most: int) -> dict:
        records.write_json(folder / "job.json", {"title": "Toy", "knobs": wanted.model_dump()})
        records.write_rows(folder / "train.jsonl", [row for row, _ in ROWS])
        records.write_rows(folder / "targets.jsonl", [aim for _, aim in ROWS])
        killer.until_done(
            program("job.train(Path(sys.argv[1]))", threads, folder), tmp_path / "log", 4, most,
            kills.said(tmp_path / "log"), lambda: all(map(kills.is_whole, kills.results(folder))), cwd=code)
        assert not kills.unfinished(folder)
        assert not (folder / "checkpoints").exists()
        return {name: found for name, found in kills.contents(folder).items() if name != "model/README.md"}

    whole = trained(outputs / "whole", Killer(name="undisturbed"), 0)
    assert whole["training_log.json"]["log"][-1]["step"] == 64
    several(Killer(name="training"), 5, lambda trial, killer, most: kills.same(
        trained(outputs / f"cut{trial}", killer, most), whole))


# --- notebooks

def replayed(server: Server) -> None:
    """The server says what is recorded, as a live model would."""
    known = {row.key: row.reply for row in records.read_rows(paths.DATA / "recordings.jsonl", client.Recording)}

    def answer(_: str, before: int) -> Answer:
        messages = [records.Message(**message) for message in server.asked[before]["messages"]]
        return Answer(body=json.dumps(completion(known[client.key(messages)])), tokens=(10, 5))

    server.answer = answer


def checkout(place: Path, server: Server) -> Path:
    """A copy of what runs, with a study of its own, and the base model in its cache."""
    from culturellm_utils import stand_in

    for name in ("notebooks", "culturellm_utils", "params"):
        shutil.copytree(paths.ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(paths.ROOT / name, place / name)
    lines = (paths.DATA / "questions.jsonl").read_text().splitlines(keepends=True)
    (place / "few.jsonl").write_text("".join(lines[::4]))
    (place / "params" / "studies" / "kills.yaml").write_text(STUDY.format(url=server.base_url))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CULTURELLM_CACHE")  # the shared one, where it is built but once
        kept = stand_in.folder("stand-in-tiny")
    shutil.copytree(kept, place / "cache" / kept.name)
    return place


FEW = {"study": "kills", "questions_path": "few.jsonl"}  # 13 of the 50
SMALL = FEW | {"cultures": ["korean"]}
NOTEBOOKS = {
    "01_seed_extraction": FEW,
    "02_augmentation": SMALL | {"chat_backend": "openai", "chat_model": "toy", "samples_drawn": 1},
    "03_filtering": FEW | {"perplexity_model": "", "samples_per_template": 1},
    "04_fine_tuning": SMALL | {"base_model": "stand-in-tiny", "templates_per_seed": 2, "held_out_from": 11, "epochs": 4,
                               "held_out_questions": 2, "ablations": ["seeds"], "checkpoint_steps": 5},
}


def run_notebook(name: str, place: Path, server: Server, killer: Killer, longest: float, most: int, check) -> None:
    """A notebook; 02 is killed while it asks."""
    folder = place / "outputs" / "kills" / "main" / ("korean" if name[:2] in ("01", "04") else "common")
    given = NOTEBOOKS[name] | ({"base_url": server.base_url} if name[:2] == "02" else {})
    command = [sys.executable, "-m", "culturellm_utils.run", f"notebooks/{name}.ipynb", folder / f"{name}.ipynb",
               "--log", folder / "log" / f"{name}.ipynb", "--parameters", json.dumps(given)]
    work, longest = (lambda: len(server.asked), 4) if name[:2] == "02" else (None, longest)
    killer.until_done(command, place / "said", longest, most, work, check, cwd=place,
                      env=kills.environment(place, place))


@pytest.mark.slow
def test_kills_of_notebooks(tmp_path, server):
    replayed(server)
    server.delay = 0.2
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for place in (whole, cut):
        checkout(place, server)
    killer = Killer(name="notebooks")
    for name in NOTEBOOKS:
        begun, asked = time.monotonic(), len(server.asked)
        run_notebook(name, whole, server, Killer(name="undisturbed"), 0, 0, lambda: None)
        longest, asked = time.monotonic() - begun, len(server.asked) - asked
        paid, before = Paid(server, cut / "cache", 8, killer), killer.kills

        def check(paid=paid) -> None:
            assert all(map(kills.is_whole, kills.results(cut / "outputs")))
            paid.look()

        while killer.kills < before + 3:
            run_notebook(name, cut, server, killer, 0.6 * longest, before + 3 - killer.kills, check)
        paid.end(asked)
    kills.same(kills.contents(cut / "outputs"), kills.contents(whole / "outputs"))
    assert not kills.unfinished(cut / "outputs", cut / "cache")
    assert killer.kills == 12


# --- the whole study

STUDY = """
title: "Killed"
question: "Is anything lost when everything is killed?"
cultures: [korean]
parameters:
  questions_path: few.jsonl
  held_out_questions: 2
  base_model: stand-in-tiny
  perplexity_model: ""
  chat_backend: openai
  chat_model: toy
  base_url: {url}
  samples_drawn: 1
  samples_per_template: 1
  templates_per_seed: 1
  held_out_from: 12
  epochs: 1
  checkpoint_steps: 5
  ability_items: 4
  open_questions: 7
  open_reply_tokens: 8
  bootstrap_samples: 100
  pairs: 6
  robustness: false
  ablations: [seeds]
"""


def run_study(place: Path, killer: Killer, longest: float, most: int, check=lambda: None) -> int:
    """The study, as the Makefile runs it."""
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return killer.until_done(
        ["bash", "-c", "python -m culturellm_utils.unlocking && exec snakemake --cores 2 --rerun-incomplete --quiet "
                       "reason host --config study=kills"],
        place / "said", longest, most, check=check, cwd=place, env=kills.environment(place, place, PATH=tools))


@pytest.mark.slow
def test_kills_of_the_whole_study(tmp_path, server):
    replayed(server)
    server.delay = 0.2
    whole, cut = checkout(tmp_path / "whole", server), checkout(tmp_path / "cut", server)
    run_study(whole, Killer(name="undisturbed"), 0, 0)
    asked = len(server.asked)
    killer = Killer(name="study")
    paid = Paid(server, cut / "cache", 8, killer)

    def check() -> None:
        assert all(map(kills.is_whole, kills.results(cut / "outputs")))
        paid.look()

    run_study(cut, killer, 24, 10, check)
    paid.end(asked)
    kills.same(kills.contents(cut / "outputs"), kills.contents(whole / "outputs"))
    assert not kills.unfinished(cut / "outputs", cut / "cache")
    assert killer.kills >= 7
