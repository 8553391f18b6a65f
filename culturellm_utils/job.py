"""One training job: rows in, adapter out, in this process or in several that ``accelerate`` launches.

>>> run(knobs, folder, "CultureLLM, Korean", rows)["log"][-1]
{'step': 92, 'epoch': 4.0, 'loss': 0.71, 'learning_rate': 1.2e-05}

``folder`` holds all that a job is made of (``job.json``, ``train.jsonl``, ``targets.jsonl``), so that it can also be
launched by hand, on several machines too::

    accelerate launch --config_file params/profiles/ddp.yaml -m culturellm_utils.job outputs/laptop/main/korean
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout
from pydantic import ValidationError

from culturellm_utils import encoding, models, paths, provenance, records, training
from culturellm_utils.errors import UserError, command_line
from culturellm_utils.parameters import FineTuning
from culturellm_utils.records import TargetRow, TrainRow

Rows = list[tuple[TrainRow, TargetRow]]
Show = Callable[[str], object]
FILES = ("job.json", "train.jsonl", "targets.jsonl")


def run(knobs: FineTuning, folder: Path, title: str, rows: Rows, show: Show = print) -> dict[str, Any]:
    """Train an adapter on ``rows`` in ``folder`` and return what ``training_log.json`` then holds.

    Written: train.jsonl, targets.jsonl, job.json, training_log.json, and model/ (adapter, tokenizer, card). The dict
    has seconds, rows, tokens (trained on in these seconds), tokens_per_second, trained_weights, weights, precision,
    processes, resumed_from (a step, 0 for a run from the start) and log (rows of step, epoch, loss, learning_rate).
    With ``knobs.launch`` the training runs in the processes of ``params/profiles/<launch>.yaml``.
    A job that was interrupted goes on from its last checkpoint (``knobs.checkpoint_steps``) when it is the same job.
    Raises UserError when rows, knobs, base model or profile do not allow it.
    """
    if not rows:
        raise UserError("there are no training rows: check stages, held_out_questions and augmented.jsonl")
    records.write_json(folder / "job.json", {"title": title, "knobs": knobs.model_dump()})
    records.write_rows(folder / "train.jsonl", [row for row, _ in rows])
    records.write_rows(folder / "targets.jsonl", [aim for _, aim in rows])
    if knobs.launch:
        _launch(knobs.launch, folder, show)
    else:
        train(folder, show)
    return records.read_json(folder / "training_log.json")


def train(folder: Path, show: Show = print) -> None:
    """Do the job that lies in ``folder``: in the only process, or in each of those that were launched.

    Raises UserError when a file is missing or broken, or when another process is at the same job.
    """
    knobs, title = _read_job(folder / "job.json")
    rows = list(zip(records.read_rows(folder / "train.jsonl", TrainRow),
                    records.read_rows(folder / "targets.jsonl", TargetRow), strict=True))
    first = os.environ.get("RANK", "0") == "0"
    checkpoints = folder / "checkpoints"
    lock = FileLock(checkpoints / "lock")
    with paths.writing(checkpoints):
        checkpoints.mkdir(parents=True, exist_ok=True)
        try:
            if first:
                lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{paths.shown(folder)} is being trained by another process: wait for it, or end it"
                            ) from None
    try:
        # Each job has a place of its own, so that nobody resumes from another job's checkpoint.
        digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in FILES)).hexdigest()[:12]
        if first:
            for place in checkpoints.iterdir():
                if place.is_dir() and place.name != digest:
                    show("the checkpoints of another job are removed: training starts anew")
                    forget(place)
            # Trainer keeps the newest by the time of their folders, which a half removed one has from its removal.
            last = training._last_checkpoint(checkpoints / digest)
            for place in checkpoints.glob(f"{digest}/checkpoint-*"):
                if place != last:
                    forget(place)
        _train(knobs, title, folder, rows, checkpoints / digest, first, show)
        if first:
            forget(checkpoints)
    finally:
        lock.release()


def forget(place: Path) -> None:
    """Remove a checkpoint or a folder of some. Their marks go first: killed meanwhile, none is taken for whole."""
    for mark in place.glob(f"**/{training.COMPLETE}"):
        mark.unlink()
    shutil.rmtree(place)


def _read_job(path: Path) -> tuple[FineTuning, str]:
    job = records.read_json(path)
    try:
        return FineTuning.model_validate(job["knobs"]), str(job["title"])
    except ValidationError as error:
        raise UserError(f"{paths.shown(path)} does not fit this version ({records.problem(error)}): rerun "
                        "04_fine_tuning") from None
    except (KeyError, TypeError):
        raise UserError(f"{paths.shown(path)} is no job: rerun 04_fine_tuning") from None


def _train(knobs: FineTuning, title: str, folder: Path, rows: Rows, checkpoints: Path, first: bool, show: Show) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=not torch.cuda.is_available())  # processes know each other: with FSDP one reads the weights
    base, tokenizer = models.load(knobs.base_model, knobs.precision)
    model = models.add_lora(base, knobs.lora_rank, knobs.lora_alpha, knobs.lora_dropout, knobs.random_seed,
                            knobs.lora_targets)
    trained, total = models.trained_weights(model)
    try:
        done = training.train(
            model, tokenizer, examples(knobs, tokenizer, rows), epochs=knobs.epochs, budget=knobs.training_budget,
            batch_size=knobs.batch_size, learning_rate=knobs.learning_rate, lr_schedule=knobs.lr_schedule,
            warmup_ratio=knobs.warmup_ratio, weight_decay=knobs.weight_decay, max_grad_norm=knobs.max_grad_norm,
            optimizer=knobs.optimizer, gradient_accumulation=knobs.gradient_accumulation,
            gradient_checkpointing=knobs.gradient_checkpointing, checkpoint_steps=knobs.checkpoint_steps,
            checkpoints=checkpoints, seed=knobs.random_seed, show=show,
        )
    except torch.OutOfMemoryError:
        raise UserError("the GPU is out of memory: raise gradient_accumulation, set gradient_checkpointing, or lower "
                        "the precision to 4bit") from None
    if first:
        card = models.card(title, knobs.base_model, folder / "model", len(rows), knobs.model_dump())
        models.save_adapter(model, tokenizer, folder / "model", card, done.adapter)
        records.write_json(folder / "training_log.json", {
            "seconds": round(done.seconds, 1), "rows": len(rows), "tokens": done.tokens,
            "tokens_per_second": round(done.tokens / done.seconds), "trained_weights": trained, "weights": total,
            "precision": models.resolved(knobs.precision), "processes": done.processes,
            "resumed_from": done.resumed_from, "log": done.log, **provenance.record(knobs),
        })


def examples(knobs: FineTuning, tokenizer: Any, rows: Rows) -> list[encoding.Example]:
    """What the model is trained on: ``rows`` as tokens, with the target and the loss that the knobs ask for."""
    if knobs.target == "label":
        found = [encoding.encode(tokenizer, row.messages, knobs.max_length) for row, _ in rows]
    else:
        found = [example for row, aim in rows if aim.distribution for example in encoding.encode_distribution(
            tokenizer, row.messages, aim.distribution, knobs.max_length)]
    return [replace(example, whole=True) for example in found] if knobs.loss_on == "all" else found


def _launch(profile: str, folder: Path, show: Show) -> None:
    """The job by ``accelerate launch``; its progress is shown as it comes. Raises UserError when it fails."""
    path = paths.PARAMS / "profiles" / f"{profile}.yaml"
    if not path.is_file():
        have = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(f"launch: there is no {paths.shown(path)}: add it (accelerate config writes one), or use one "
                        f"of {have}")
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", str(path),
               "-m", "culturellm_utils.job", str(folder)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace") as process:
            try:
                for line in process.stdout:
                    show(line.rstrip())
            except BaseException:
                process.terminate()  # accelerate ends its processes
                raise
        if process.returncode:
            errors.seek(0)
            lines = errors.read().splitlines()
            said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
            raise UserError(said[0] if said else
                            f"training by 'accelerate launch' with {paths.shown(path)} ended with code "
                            f"{process.returncode}: {' / '.join(lines[-5:])}")


@command_line
def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m culturellm_utils.job", description="Train the job in a folder.")
    parser.add_argument("folder", type=Path, help="a culture's folder that 04_fine_tuning wrote job.json to")
    try:
        train(parser.parse_args().folder, lambda line: print(line, flush=True))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
