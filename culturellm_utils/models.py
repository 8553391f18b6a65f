"""Base models: the stand-in that the project builds, or any causal language model on the hub or in a folder.

>>> model, tokenizer = load("stand-in")
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from culturellm_utils import paths
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import STAND_INS


def load(base_model: str, device: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer, ready for left-padded batches: bf16 on a GPU that has it, float32 otherwise.

    ``base_model`` is ``stand-in``, a hub id or a folder. Raises UserError when it cannot be loaded.
    """
    quiet()
    if base_model in STAND_INS:
        from culturellm_utils import stand_in

        name = str(stand_in.folder(base_model))
    else:
        name = base_model
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype).to(device)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"base_model '{base_model}' cannot be loaded ({reason}): give 'stand-in', the folder of a "
                        "causal language model, or a hub id (gated ones need HF_TOKEN)") from None
    if tokenizer.chat_template is None:
        raise UserError(f"base_model '{base_model}' has no chat template: use an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


def load_adapter(folder: Path, base_model: str) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """The base model with the adapter saved in ``folder``; ``disable_adapter()`` gives the base back."""
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder.parent.name}/model has no adapter: run notebook 04_fine_tuning for it first")
    from peft import PeftModel

    model, tokenizer = load(base_model)
    return PeftModel.from_pretrained(model, str(folder)).eval(), tokenizer


def add_lora(model: PreTrainedModel, rank: int, alpha: int, dropout: float, seed: int) -> torch.nn.Module:
    """``model`` with a fresh LoRA adapter on every linear layer (arXiv 2106.09685); only the adapter is trained."""
    from peft import LoraConfig, get_peft_model  # seconds to import, and not every notebook trains

    torch.manual_seed(seed)
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear",
                                            task_type="CAUSAL_LM"))


def save_adapter(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, card: str) -> None:
    """Write adapter (safetensors), tokenizer with chat template, and model card to ``folder``, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".model."))
    try:
        model.save_pretrained(scratch)
        _make_portable(scratch / "adapter_config.json")
        tokenizer.save_pretrained(scratch)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        scratch.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
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
