"""Training jobs: what they write, one process or two, killed and resumed, and refusals as one sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import toys
from accelerate.commands.config.config_args import load_config_from_file
from filelock import FileLock
from safetensors.torch import load_file

from culturellm_utils import job, models, parameters, paths, records, training
from culturellm_utils.errors import UserError
from culturellm_utils.records import TargetRow, TrainRow

KNOBS = {
    "study": "toy", "variant": "main", "random_seed": 0, "culture": "korean", "language": "english",
    "cultures": ["korean"], "prompt_name": "Korean", "questions_path": "", "base_model": "", "precision": "auto",
    "model_backend": "local", "model_url": "", "ablations": [], "held_out_questions": 0, "held_out_from": 7,
    "target": "label", "loss_on": "answer", "stages": "samples", "templates_per_seed": 5,
    "generated_texts": -1, "training_budget": 0, "epochs": 3, "batch_size": 4,
    "gradient_accumulation": 1, "gradient_checkpointing": False, "learning_rate": 0.01, "lr_schedule": "cosine",
    "warmup_ratio": 0.05, "weight_decay": 0.01, "max_grad_norm": 1.0, "optimizer": "adamw_torch", "lora_rank": 4,
    "lora_alpha": 8, "lora_dropout": 0.0, "lora_targets": "all-linear", "max_length": 512, "checkpoint_steps": 0,
    "launch": "", "price_training": 0.0, "budget_money": 0.0,
}
# 14 rows of three lengths and answers of two to six tokens: three steps of four rows an epoch, and one of two.
ROWS = [(TrainRow(messages=toys.chat("Do you agree? " * (1 + i % 3), ("2", "three of them")[i % 2])),
         TargetRow(question_id=f"Q{i}", wording_id=f"Q{i}", distribution={"1": 0.25, "2": 0.75})) for i in range(14)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    place = tmp_path_factory.mktemp("base")
    toys.model(toys.tokenizer()).save_pretrained(place)
    toys.tokenizer().save_pretrained(place)
    return str(place)


@pytest.fixture
def run(base, outputs):
    """A job by its knobs in a folder of its own: ``run("name", epochs=2)``."""
    def done(name="plain", rows=ROWS, **knobs):
        said = []
        found = job.run(knobs_of(base, **knobs), paths.stage_dir("toy", name), "Toy", rows, said.append)
        return found | {"said": said, "folder": paths.stage_dir("toy", name)}

    return done


def knobs_of(base, **knobs):
    return parameters.FineTuning(**KNOBS | {"base_model": base} | knobs)


def adapter(folder):
    return (folder / "model" / "adapter_model.safetensors").read_bytes()


def losses(found):
    return [row["loss"] for row in found["log"]]


def test_a_job_writes_what_it_was_and_what_came_of_it(run, base):
    found = run()
    folder = found["folder"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "job.json", "model", "targets.jsonl", "train.jsonl", "training_log.json"]
    assert records.read_rows(folder / "train.jsonl", TrainRow) == [row for row, _ in ROWS]
    assert records.read_rows(folder / "targets.jsonl", TargetRow) == [aim for _, aim in ROWS]
    assert json.loads((folder / "job.json").read_text()) == {"title": "Toy", "knobs": knobs_of(base).model_dump()}
    tokenizer = toys.tokenizer()
    texts = [tokenizer.apply_chat_template([m.model_dump() for m in row.messages], tokenize=False) for row, _ in ROWS]
    trained = 4 * 4 * (16 + 16) + 3 * 4 * (16 + 32)
    assert found["tokens"] == 3 * sum(len(tokenizer(text)["input_ids"]) for text in texts)
    assert found["tokens_per_second"] > 0
    assert (found["rows"], found["trained_weights"], found["precision"], found["processes"], found["resumed_from"]) == (
        14, trained, "fp32", 1, 0)
    assert found["weights"] == trained + models.trained_weights(toys.model(tokenizer))[1]
    assert [row["step"] for row in found["log"]] == list(range(1, 13))
    assert found["log"][-1]["epoch"] == 3
    assert losses(found)[-1] < losses(found)[0]
    assert found["said"][-1] == f"step 12 of 12: loss {losses(found)[-1]:.3f}"
    assert (folder / "model" / "README.md").read_text().startswith("---\nlibrary_name: peft")
    assert found["parameters"]["lora_rank"] == 4


def test_examples_have_the_target_and_the_loss_that_is_asked_for(base):
    tokenizer = toys.tokenizer()
    one, two = (tokenizer.convert_tokens_to_ids(code) for code in "12")
    nobody = (ROWS[0][0], ROWS[0][1].model_copy(update={"distribution": {}}))

    def made(**knobs):
        found = job.examples(knobs_of(base, **knobs), tokenizer, [ROWS[0], nobody])
        return [(row.shares, row.answer, row.scored - row.answer) for row in found]

    prompt = len(tokenizer.apply_chat_template([m.model_dump() for m in ROWS[0][0].messages[:2]],
                                               add_generation_prompt=True)["input_ids"])
    assert made() == [({}, 2, 0)] * 2
    assert made(loss_on="all") == [({}, 2, prompt - 1)] * 2
    assert made(target="distribution") == [({one: 0.25, two: 0.75}, 2, 0)]
    assert made(target="distribution", loss_on="all") == [({one: 0.25, two: 0.75}, 2, prompt - 1)]


def test_two_processes_have_the_loss_curve_of_one(run):
    one = run()
    two = run("two", launch="ddp", gradient_accumulation=2)
    assert two["processes"] == 2
    assert [row["step"] for row in two["log"]] == [row["step"] for row in one["log"]]
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert two["said"][-1] == one["said"][-1]
    found, expected = (load_file(job["folder"] / "model" / "adapter_model.safetensors") for job in (two, one))
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("stderr", "said"), [
    ("W1 torch warns\\nError: lower it\\nError: lower it\\nTraceback", "^lower it$"),
    ("Traceback\\nKilled", r"with params/profiles/ddp\.yaml ended with code 3: Traceback / Killed"),
])
def test_a_launch_that_fails_is_one_sentence(run, tmp_path, monkeypatch, stderr, said):
    launcher = tmp_path / "python"
    launcher.write_text(f"#!/bin/sh\nprintf '{stderr}' >&2\nexit 3\n")
    launcher.chmod(0o755)
    monkeypatch.setattr(job.sys, "executable", str(launcher))
    with pytest.raises(UserError, match=said):
        run(launch="ddp")


@pytest.mark.slow
def test_what_a_launched_process_refuses_is_one_sentence(run):
    with pytest.raises(UserError, match=r"^batch_size is 3: it must be a multiple of 2 \(2 processes"):
        run(launch="ddp", batch_size=3)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from culturellm_utils import job, training
torch.set_num_threads(1)
plain = training._Progress.on_step_end
def killed(self, arguments, state, control, **kwargs):
    if state.global_step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(self, arguments, state, control, **kwargs)
training._Progress.on_step_end = killed
job.train(Path(sys.argv[1]))
"""


def test_killed_and_rerun_the_weights_are_those_of_an_uninterrupted_run(run, base):
    knobs = {"checkpoint_steps": 3, "lora_dropout": 0.2, "gradient_accumulation": 2}
    whole = run("whole", **knobs)
    folder = paths.stage_dir("toy", "cut")
    records.write_json(folder / "job.json", {"title": "Toy", "knobs": knobs_of(base, **knobs).model_dump()})
    for name in ("train.jsonl", "targets.jsonl"):
        records.write_text(folder / name, (whole["folder"] / name).read_text())
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=os.environ | {"OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (folder / "model").exists()
    (place,) = (path for path in (folder / "checkpoints").iterdir() if path.is_dir())
    (place / "checkpoint-7").mkdir()  # one that was cut off while it was written
    cut = run("cut", **knobs)
    assert cut["said"][0] == "resumed from step 6 of 12"
    assert cut["resumed_from"] == 6
    assert cut["log"] == whole["log"]
    assert adapter(folder) == adapter(whole["folder"])
    assert not (folder / "checkpoints").exists()


def test_a_budget_is_shared_out_and_resumed_like_epochs(run, monkeypatch):
    knobs = {"training_budget": 30, "gradient_accumulation": 2}  # eight steps, the last of two rows; 2.1 passes
    one = run(**knobs)
    two = run("two", launch="ddp", **knobs)
    assert [row["step"] for row in one["log"]] == list(range(1, 9))
    assert one["log"][-1]["epoch"] == pytest.approx(30 / 14)
    assert (one["rows"], one["tokens"]) == (14, run(epochs=1)["tokens"] * 30 // 14)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    whole = run("whole", checkpoint_steps=3, **knobs)

    def broken_off(_, arguments, state, control, **__):
        assert state.global_step < 6

    with monkeypatch.context() as patch:
        patch.setattr(training._Progress, "on_substep_end", broken_off)
        with pytest.raises(AssertionError, match="6 < 6"):
            run("cut", checkpoint_steps=3, **knobs)
    cut = run("cut", checkpoint_steps=3, **knobs)
    assert cut["said"][0] == "resumed from step 6 of 8"
    assert cut["log"] == whole["log"]
    assert adapter(cut["folder"]) == adapter(whole["folder"])


@pytest.mark.parametrize("change", ["rows", "knobs"])
def test_another_job_does_not_go_on_from_a_checkpoint(run, monkeypatch, change):
    with monkeypatch.context() as patch:
        patch.setattr(models, "save_adapter", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("other", checkpoint_steps=5)
    checkpoints = paths.stage_dir("toy", "other") / "checkpoints"
    assert len(list(checkpoints.glob("*/checkpoint-*"))) == 2
    other = {"rows": ROWS[:-1]} if change == "rows" else {"learning_rate": 0.02}
    found = run("other", checkpoint_steps=5, **other)
    assert found["resumed_from"] == 0
    assert found["said"][0] == "the checkpoints of another job are removed: training starts anew"
    assert adapter(found["folder"]) == adapter(run("anew", checkpoint_steps=5, **other)["folder"])


def test_what_is_left_of_checkpoints_when_their_removal_is_cut_off_is_not_gone_on_from(run, monkeypatch):
    def cut_off(*_):
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(models, "save_adapter", cut_off)
        with pytest.raises(InterruptedError):
            run("left", checkpoint_steps=5)
        (place,) = (path for path in (paths.stage_dir("toy", "left") / "checkpoints").iterdir() if path.is_dir())
        (place / "checkpoint-1").mkdir()  # one that was being removed for a newer
        (place / "checkpoint-1" / training.COMPLETE).touch()
        with pytest.raises(InterruptedError):
            run("left", checkpoint_steps=5)
    assert not (place / "checkpoint-1").exists()
    assert (place / "checkpoint-12" / training.COMPLETE).exists()
    with monkeypatch.context() as patch:
        patch.setattr(job.shutil, "rmtree", cut_off)
        with pytest.raises(InterruptedError):
            job.forget(place.parent)
    found = run("left", checkpoint_steps=5)
    assert found["resumed_from"] == 0
    assert adapter(found["folder"]) == adapter(run("anew", checkpoint_steps=5)["folder"])


def test_a_job_under_way_is_not_begun_again(run, outputs):
    checkpoints = paths.stage_dir("toy", "busy") / "checkpoints"
    checkpoints.mkdir()
    with FileLock(checkpoints / "lock"), pytest.raises(UserError, match="toy/main/busy is being trained by another"):
        run("busy")


def test_a_missing_profile_names_those_there_are(run):
    with pytest.raises(UserError, match=r"no params/profiles/eight\.yaml: .* or use one of ddp, fsdp"):
        run(launch="eight")


def test_no_rows_are_refused_before_anything_is_written(run):
    with pytest.raises(UserError, match="no training rows"):
        run("none", rows=[])
    assert not list(paths.stage_dir("toy", "none").iterdir())


@pytest.mark.parametrize(("text", "said"), [
    (None, "job.json is missing"), ("{}", "job.json is no job"), ('{"knobs": {}, "title": ""}', "does not fit")])
def test_a_folder_without_a_job_is_one_sentence(outputs, capsys, monkeypatch, text, said):
    folder = paths.stage_dir("toy", "empty")
    if text:
        (folder / "job.json").write_text(text)
    monkeypatch.setattr(sys, "argv", ["job", str(folder)])
    assert job.main() == 1
    assert said in capsys.readouterr().err


def test_the_command_line_does_the_job_that_lies_in_a_folder(run, capsys, monkeypatch):
    found = run()
    before = adapter(found["folder"])
    shutil.rmtree(found["folder"] / "model")
    monkeypatch.setattr(sys, "argv", ["job", str(found["folder"])])
    assert job.main() == 0
    assert adapter(found["folder"]) == before
    assert found["said"][-1] in capsys.readouterr().out


@pytest.mark.parametrize("profile", sorted((paths.PARAMS / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_profiles_are_accelerates_and_every_key_is_explained(profile):
    config = load_config_from_file(str(profile))
    assert config.num_processes == 2
    assert config.mixed_precision == "no"  # the parameter precision says it
    for line in profile.read_text().splitlines():
        assert not line.strip() or "#" in line or line.startswith(("distributed_type", "fsdp_config", "  fsdp_version"))
