"""Whether a model fits: memory and disk that training or scoring needs, told before anything is downloaded or loaded.

>>> print(estimate("stand-in", training=True, batch_rows=16, longest_tokens=120).sentence())
stand-in in fp32 needs about 0.1 GiB of the machine's memory to train (weights 0.0, adapter 0.0, gradients 0.0,
optimizer 0.0, activations 0.1, logits 0.0); 21.3 GiB are free. To download: 0.0 GiB; to write: 0.0 GiB.

Sizes of weights, adapter, gradients and optimizer states are counted on the model's skeleton. What is alive in between
is counted in a rehearsal (rehearsal.py).
"""

import math
import os
import shutil
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub import constants
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from culturellm_utils import models, paths, rehearsal, studies
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import STAND_INS, FineTuning

GIB = 2**30
#: Memory is cut up and libraries take some of it: what must be free for each byte that is needed.
SPARE = 1.1
#: Columns of logits that an answer needs: an option of up to two tokens, the end of the turn, one before.
ANSWER_COLUMNS = 4
#: Bytes for each logit while its loss is computed: in 32 bits the logit, its log-probability, its gradient, and one
#: copy; a scored logit has no gradient.
LOGIT_BYTES = {True: 16, False: 12}
#: Bytes of a weight in NF4 (bitsandbytes): half a byte, and a 32-bit scale for each 64 weights.
NF4_BYTES = 0.5 + 4 / 64


@dataclass(frozen=True)
class Estimate:
    """Bytes that a model needs on its device (each of ``shards`` devices holds a share of all but the activations and
    logits), and on disk. ``weights_count`` and ``trained_count`` are numbers of weights."""

    base_model: str
    precision: str
    training: bool
    device: str
    batch_rows: int
    gradient_checkpointing: bool
    weights_count: int
    trained_count: int
    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    download: int
    written: int

    @property
    def memory(self) -> int:
        """Bytes that must be free on the device at the worst moment."""
        return sum(getattr(self, part) for part in _PARTS)

    def rows(self) -> list[dict[str, Any]]:
        """A row of a table for each part: ``part``, ``GiB``, ``why``."""
        parts = [{"part": part, "GiB": round(getattr(self, part) / GIB, 3), "why": why} for part, why in _PARTS.items()]
        return [*parts, {"part": "all", "GiB": round(self.memory / GIB, 3), "why": f"of the {_place(self.device)}"},
                {"part": "download", "GiB": round(self.download / GIB, 3), "why": "of the model, once"},
                {"part": "files", "GiB": round(self.written / GIB, 3), "why": "adapter and checkpoints"}]

    def sentence(self) -> str:
        """All of it in words."""
        parts = ", ".join(f"{part} {getattr(self, part) / GIB:.1f}" for part in _PARTS if self.training
                          or part in ("weights", "adapter", "activations", "logits"))
        return (f"{self.base_model} in {self.precision} needs about {self.memory / GIB:.1f} GiB of the "
                f"{_place(self.device)} to {'train' if self.training else 'score'} ({parts}); "
                f"{free_memory(self.device) / GIB:.1f} GiB are free. To download: {self.download / GIB:.1f} GiB; "
                f"to write: {self.written / GIB:.1f} GiB.")


_PARTS = {
    "weights": "of the base model",
    "adapter": "its weights, in 32 bits",
    "gradients": "of the adapter",
    "optimizer": "two moments for each weight of the adapter",
    "activations": "what a pass keeps for the pass back, at the worst moment",
    "logits": "scores of the vocabulary where the loss counts",
}


def estimate(
    base_model: str,
    precision: str = "auto",
    *,
    training: bool,
    batch_rows: int,
    longest_tokens: int,
    lora_rank: int = 16,
    lora_targets: str = "all-linear",
    gradient_checkpointing: bool = False,
    optimizer: str = "adamw_torch",
    loss_on: str = "answer",
    checkpoints: bool = False,
    shards: int = 1,
    device: str | None = None,
) -> Estimate:
    """What ``base_model`` needs for ``batch_rows`` rows (of one process and pass) of ``longest_tokens`` tokens.

    No weight is read or downloaded, only the model's config. ``loss_on`` is answer or all, ``shards`` the number of
    devices that FSDP spreads the model over. Raises UserError when there is no such model.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = models.resolved(precision, device)
    config = _config(base_model)
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # what is loaded later says it again
        model = AutoModelForCausalLM.from_config(config, dtype=models.DTYPES.get(precision, torch.bfloat16))
        size, sizes = sum(weight.numel() for weight in model.parameters()), _stored(model, precision, training)
        model = models.add_lora(model, lora_rank, 1, 0.0, 0, lora_targets)
    trained = [weight for name, weight in model.named_parameters() if "lora_" in name]
    adapter = sum(weight.numel() * weight.element_size() for weight in trained)
    states = sum(_states(weight.numel(), optimizer) for weight in trained)
    gradients = adapter if training else 0
    alive = rehearsal.peak(model, config, precision, training, gradient_checkpointing, batch_rows, longest_tokens)
    columns = longest_tokens if training and loss_on == "all" else min(longest_tokens, ANSWER_COLUMNS)
    return Estimate(
        base_model=base_model, precision=precision, training=training, device=device, batch_rows=batch_rows,
        gradient_checkpointing=gradient_checkpointing, weights_count=size,
        trained_count=sum(weight.numel() for weight in trained), weights=sizes // shards, adapter=adapter // shards,
        gradients=gradients // shards, optimizer=states // shards if training else 0,
        activations=max(0, alive - gradients),
        logits=batch_rows * columns * config.get_text_config().vocab_size * LOGIT_BYTES[training],
        download=_download(base_model, config, size),
        # Two checkpoints are kept while a third is written.
        written=(adapter + 3 * (adapter + states) * checkpoints) if training else 0,
    )


def of_job(knobs: FineTuning, longest_tokens: int) -> Estimate:
    """What each process of a training job needs; ``longest_tokens`` is the length of its longest row."""
    profile = studies.read_yaml(paths.PARAMS / "profiles" / f"{knobs.launch}.yaml") if knobs.launch else {}
    processes = int(profile.get("num_processes", 1))
    return estimate(
        knobs.base_model, knobs.precision, training=True, longest_tokens=longest_tokens,
        batch_rows=math.ceil(knobs.batch_size / knobs.gradient_accumulation / processes), lora_rank=knobs.lora_rank,
        lora_targets=knobs.lora_targets, gradient_checkpointing=knobs.gradient_checkpointing, optimizer=knobs.optimizer,
        loss_on=knobs.loss_on, checkpoints=knobs.checkpoint_steps > 0,
        shards=processes if profile.get("distributed_type") == "FSDP" else 1,
    )


def check(found: Estimate) -> None:
    """Raises UserError, saying what to turn, when the device's free memory or the disk is too small."""
    free = free_memory(found.device)
    if found.memory * SPARE > free:
        turns = {
            "precision to 4bit": found.precision != "4bit",
            "gradient_checkpointing to true": found.training and not found.gradient_checkpointing,
            "gradient_accumulation higher": found.training and found.batch_rows > 1,
            "prompts_per_pass lower": not found.training and found.batch_rows > 1,
            "launch to fsdp on several GPUs": found.training and found.device != "cpu",
            "base_model to a smaller one": True,
        }
        raise UserError(f"{found.sentence()} That does not fit (a tenth more is kept spare): set "
                        f"{', or '.join(name for name, helps in turns.items() if helps)}")
    needed: dict[int, int] = defaultdict(int)  # by disk: both places may lie on one
    places = {constants.HF_HUB_CACHE: found.download, str(paths.outputs()): found.written}
    for place, size in places.items():
        needed[_existing(place).stat().st_dev] += size
    for place, size in places.items():
        there = shutil.disk_usage(_existing(place)).free
        if size and needed[_existing(place).stat().st_dev] > there:
            what = ("the download of the model: free some, or set HF_HOME to a larger disk"
                    if place == constants.HF_HUB_CACHE else "adapter and checkpoints: free some, or set "
                    "checkpoint_steps to 0")
            raise UserError(f"the disk has {there / GIB:.1f} GiB free, and {size / GIB:.1f} GiB are needed for {what}")


def source(base_model: str) -> str:
    """Where a base model is loaded from: its hub id or folder; a stand-in is built when it is not there yet."""
    if base_model not in STAND_INS:
        return base_model
    from culturellm_utils import stand_in

    return str(stand_in.folder(base_model))


def free_memory(device: str) -> int:
    """Bytes that are free now on a GPU (``cuda``) or in the machine's memory (``cpu``)."""
    return torch.cuda.mem_get_info()[0] if device.startswith("cuda") else psutil.virtual_memory().available


def _place(device: str) -> str:
    return "GPU" if device.startswith("cuda") else "machine's memory"


def _existing(place: str) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = Path(place).absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _config(base_model: str) -> PretrainedConfig:
    models.quiet()
    try:
        place, revision = models.located(source(base_model))
        return AutoConfig.from_pretrained(place, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"base_model '{base_model}' has no config that can be read ({reason}): give 'stand-in', the "
                        "folder of a causal language model, or a hub id (gated ones need HF_TOKEN)") from None


def _stored(model: torch.nn.Module, precision: str, training: bool) -> int:
    """Bytes of a base model's weights and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    if precision != "4bit":
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    small = {id(layer.weight): layer.weight.numel() for layer in rehearsal.quantised(model)}
    rest = sum(tensor.numel() for tensor in tensors if id(tensor) not in small)
    return int(sum(small.values()) * NF4_BYTES) + rest * (4 if training else 2)  # peft trains with the rest in 32 bits


def _states(weights: int, optimizer: str) -> int:
    """Bytes of AdamW's two moments for one tensor; in 8 bits each 256 share a scale, and small tensors stay in 32."""
    if optimizer == "adamw_8bit" and weights >= 4096:
        return 2 * (weights + 4 * math.ceil(weights / 256))
    return 8 * weights


def _download(base_model: str, config: PretrainedConfig, weights: int) -> int:
    """Bytes of a hub model that are not in the cache yet: all its weights as they were saved, less what is there."""
    if base_model in STAND_INS or Path(base_model).is_dir():
        return 0
    kept = Path(constants.HF_HUB_CACHE) / f"models--{models.located(base_model)[0].replace('/', '--')}" / "blobs"
    there = sum(entry.stat().st_size for entry in os.scandir(kept)) if kept.is_dir() else 0
    return max(0, weights * (config.dtype or torch.float16).itemsize - there)
