"""Base models: the stand-in that the project builds, or any causal language model on the hub or in a folder.

>>> model, tokenizer = load("stand-in")
>>> model, tokenizer = load("meta-llama/Llama-2-7b-chat-hf@main")     # a branch, a tag or, to stay the same, a commit

Weights are read from safetensors alone, and no code from the hub is run.
"""

import importlib.util
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from culturellm_utils import parts, paths
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import STAND_INS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load(
    base_model: str, precision: str = "auto", device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer, ready for left-padded batches.

    ``base_model`` is ``stand-in``, a hub id (with or without ``@revision``) or a folder. ``precision`` is bf16, fp16,
    fp32, 4bit (bitsandbytes NF4, as the paper's released code), or auto: bf16 on a GPU that has it, fp32 otherwise.
    Raises UserError when it cannot be loaded.
    """
    quiet()
    if base_model in STAND_INS:
        from culturellm_utils import stand_in

        name = str(stand_in.folder(base_model))
    else:
        name = base_model
    device = device or (f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    options = _options(resolved(precision, device), device)
    name, revision = located(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(name, revision=revision, use_safetensors=True, **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"base_model '{base_model}' cannot be loaded ({reason}): give 'stand-in', the folder of a "
                        "causal language model, or a hub id (gated ones need HF_TOKEN)") from None
    if tokenizer.chat_template is None:
        raise UserError(f"base_model '{base_model}' has no chat template: use an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


def located(name: str) -> tuple[str, str]:
    """Where a model is loaded from: a hub id or folder, and the revision that follows an ``@`` (else ``main``).

    >>> located("user/name@5f0b1c2"), located("user/name")
    (('user/name', '5f0b1c2'), ('user/name', 'main'))
    """
    place, _, revision = name.rpartition("@")
    return (place, revision) if place and revision and not Path(name).exists() else (name, "main")


def resolved(precision: str, device: str | None = None) -> str:
    """What ``precision`` means on a device (by default a GPU, where there is one): bf16, fp16, fp32 or 4bit."""
    cuda = torch.cuda.is_available() and device != "cpu"
    if precision == "fp16" and not cuda:
        raise UserError("precision fp16 needs a GPU: set precision to auto, fp32 or bf16")
    if precision == "auto":
        return "bf16" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return precision


def _options(precision: str, device: str) -> dict[str, object]:
    """How ``from_pretrained`` loads a model. What is to be sharded over devices stays off them until it is."""
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    options: dict[str, object] = {} if sharded else {"device_map": {"": device}}
    if precision != "4bit":
        return options | {"dtype": DTYPES[precision]}
    need_bitsandbytes("precision 4bit")
    old_gpu = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.float16 if old_gpu else torch.bfloat16  # the paper's: fp16
    options["quantization_config"] = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if sharded else "uint8",  # bytes cannot be sharded
    )
    return options | {"dtype": dtype}


def need_bitsandbytes(what: str) -> None:
    """Raises UserError, naming the extra to install, where bitsandbytes is missing."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f'{what} needs bitsandbytes: pip install -e ".[four-bit]", or choose another')


def compute_dtype(model: torch.nn.Module) -> torch.dtype:
    """What a model calculates in: a 4-bit one's weights are stored otherwise."""
    quantised = getattr(model.config, "quantization_config", None)
    return quantised.bnb_4bit_compute_dtype if quantised else next(model.parameters()).dtype


def load_adapters(
    folders: Mapping[str, Path], base_model: str, precision: str = "auto"
) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """The base model with saved adapters by name: ``set_adapter(name)`` chooses one, at first the first, and
    ``disable_adapter()`` gives the base back. Raises UserError when a folder has none."""
    from peft import PeftModel

    for folder in folders.values():
        if not (folder / "adapter_config.json").is_file():
            raise UserError(f"{folder.parent.name}/model has no adapter: run notebook 04_fine_tuning for it first")
    base, tokenizer = load(base_model, precision)
    (first, place), *others = folders.items()
    model = PeftModel.from_pretrained(base, str(place), adapter_name=first)
    for name, place in others:
        model.load_adapter(str(place), adapter_name=name)
    return model.eval(), tokenizer


def add_lora(
    model: PreTrainedModel, rank: int, alpha: int, dropout: float, seed: int, targets: str = "all-linear"
) -> torch.nn.Module:
    """``model`` with a fresh LoRA adapter (arXiv 2106.09685), which alone is trained.

    ``targets`` is ``all-linear`` or a comma list of linear layers' names. Raises UserError when one does not exist.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training  # seconds to import

    if targets != "all-linear":
        there = {name.rpartition(".")[2] for name, module in model.named_modules()
                 if isinstance(module, (torch.nn.Linear, Conv1D))}
        for name in targets.split(","):
            if name not in there:
                raise UserError(f"lora_targets: the base model has no linear layer '{name}'; it has "
                                f"{', '.join(sorted(there))}")
    if getattr(model, "is_loaded_in_4bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # Trainer switches that on
    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, task_type="CAUSAL_LM",
        target_modules=targets if targets == "all-linear" else targets.split(","),
        revision=getattr(model.config, "_commit_hash", None),  # of the base model, so that the pair stays together
    ))


def save_adapter(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, card: str,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write adapter (safetensors), tokenizer with chat template, and model card to ``folder``, whole or not at all.

    ``weights`` are those of an adapter that is sharded over devices, gathered.
    """
    with parts.replacing(folder, folder=True) as beside:
        model.save_pretrained(beside, state_dict=weights)
        _make_portable(beside / "adapter_config.json")
        tokenizer.save_pretrained(beside)
        (beside / "README.md").write_text(card, encoding="utf-8")


def _make_portable(path: Path) -> None:
    """Name a base model that lies beside the outputs as the card names the adapter, so that both can be moved."""
    config = json.loads(path.read_text(encoding="utf-8"))
    base = Path(config["base_model_name_or_path"])
    if base.is_relative_to(paths.outputs().parent):
        config["base_model_name_or_path"] = str(base.relative_to(paths.outputs().parent))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def trained_weights(model: torch.nn.Module) -> tuple[int, int]:
    """How many weights training changes, and how many the model has."""
    sizes = [(weight.numel() * (2 * weight.element_size() if type(weight).__name__ == "Params4bit" else 1),
              weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def card(title: str, base_model: str, folder: Path, rows: int, knobs: Mapping[str, object]) -> str:
    """The model card that lies beside an adapter: what it is, how to load it, how it was trained."""
    recipe = "\n".join(f"| {name} | {value} |" for name, value in knobs.items())
    warning = ("The base model is the project's stand-in, a toy of a million weights: this adapter shows that the "
               "method runs, and says nothing about real language models.\n\n" if base_model in STAND_INS else "")
    return f"""---
library_name: peft
tags: [culturellm, lora]
---
# {title}

A LoRA adapter trained on {rows} rows of World Values Survey questions, each answered as the people of the culture
answered (CultureLLM, arXiv 2402.10946). It moves answers to value questions; it makes no model an authority on a
culture, and no person's answer is that of their culture.

{warning}```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
model, tokenizer = (kind.from_pretrained("{paths.shown(folder)}") for kind in (AutoPeftModelForCausalLM, AutoTokenizer))
```

| parameter | value |
|---|---|
{recipe}
"""


def quiet() -> None:
    """No progress bars or advice from the libraries on the page."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("httpx", "sentence_transformers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
