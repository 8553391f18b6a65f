"""What the filter and diversity benchmarks work on: the recorded templates and samples of the shipped questions.

A pair is ``("Work is a duty.", "Working is something that one owes.")``: a seed and a candidate.
"""

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from culturellm_utils import augmentation, encoder, survey
from culturellm_utils.client import Recorded
from culturellm_utils.encoder import Encoder


def pairs(count: int) -> list[tuple[str, str]]:
    """``count`` different candidates with their seeds, drawn from what augmentation makes of the recordings by default
    (3,000; the recordings are for 12 templates and 4 substitutes)."""
    asked = survey.questions("")
    writer = augmentation.Writer(Recorded())
    templates = augmentation.make_templates(writer, asked, 12)
    made = [*templates, *augmentation.make_samples(writer, templates, asked, 4, 4, 0)]
    seeds = {question.question_id: question.question for question in asked}
    found = {candidate.text: (seeds[candidate.question_id], candidate.text) for candidate in made}
    return random.Random(0).sample(list(found.values()), count)


@contextmanager
def fresh(model: object) -> Iterator[Encoder]:
    """The bundled encoder with the loaded sentence-transformers ``model`` and nothing seen yet."""
    before = os.environ.get("CULTURELLM_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CULTURELLM_CACHE"] = folder
        try:
            made = encoder.load(encoder.BUNDLED)
            made._model = model
            yield made
        finally:
            os.environ.pop("CULTURELLM_CACHE") if before is None else os.environ.update(CULTURELLM_CACHE=before)


def model() -> object:
    """The bundled sentence-transformers model, loaded, as both ways use it."""
    loaded = encoder.load(encoder.BUNDLED)._load()
    loaded.encode("Warm.")
    return loaded
