"""Which candidates are kept: similarity to the seed above tau, no duplicates, stance unchanged, diverse samples.

A rejected row keeps its similarity and says why::

    {"candidate_id": "Q39-t04", ..., "similarity": 0.74, "reason": "similarity: at most 0.80"}
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from culturellm_utils.damage import damage
from culturellm_utils.encoder import Encoder
from culturellm_utils.errors import UserError
from culturellm_utils.polarity import stance_change
from culturellm_utils.records import Augmented, Candidate, Question, Rejected

# A sweep over tau asks the same of the same texts again.
_stance_change = lru_cache(maxsize=1 << 17)(stance_change)
_damage = lru_cache(maxsize=1 << 17)(damage)


def filter_candidates(
    candidates: Sequence[Candidate],
    questions: Sequence[Question],
    encoder: Encoder,
    *,
    tau: float,
    near_duplicate: float,
    guards: bool,
    samples_per_template: int,
) -> tuple[list[Augmented], list[Rejected]]:
    """Split candidates into accepted and rejected, in their order.

    A candidate passes when its cosine to its seed question is above ``tau`` (strictly, as in the paper), no text
    of the same question before it is the same or closer than ``near_duplicate``, with ``guards`` its stance is the
    seed's and its sentence whole (a sample is read against its template, where a lost word shows), and, for a sample,
    its template passed and it is among the ``samples_per_template`` most different ones.
    """
    seeds = {question.question_id: question.question for question in questions}
    for candidate in candidates:
        if candidate.question_id not in seeds:
            raise UserError(f"candidate {candidate.candidate_id} belongs to no question: rerun 02_augmentation "
                            "with the same questions_path")
    vectors = encoder.encode([*seeds.values(), *(candidate.text for candidate in candidates)])
    seed_vectors = dict(zip(seeds, vectors, strict=False))
    own = vectors[len(seeds) :]
    similarity = [float(vector @ seed_vectors[c.question_id]) for c, vector in zip(candidates, own, strict=True)]

    reasons: dict[int, str] = {}
    kept_texts: dict[str, set[str]] = defaultdict(set)
    kept_vectors: dict[str, list[np.ndarray]] = defaultdict(list)
    for name, text in seeds.items():
        kept_texts[name].add(_plain(text))
    passed: set[str] = set()
    origin: dict[str, str] = {}  # accepted templates: what their samples are read against for damage
    pools: dict[str, list[int]] = defaultdict(list)
    for i, candidate in enumerate(candidates):
        question = candidate.question_id
        reason = ""
        if candidate.stage == 2 and candidate.template_id not in passed:
            reason = "template: its template was rejected"
        elif _plain(candidate.text) in kept_texts[question]:
            reason = "duplicate: same words as an earlier text"
        elif similarity[i] <= tau:
            reason = f"similarity: at most {tau:.2f}"
        elif guards and (change := _stance_change(seeds[question], candidate.text)):
            reason = f"polarity: {change}"
        elif guards and (broken := _damage(origin.get(candidate.template_id, seeds[question]), candidate.text)):
            reason = f"damage: {broken}"
        elif kept_vectors[question] and (np.stack(kept_vectors[question]) @ own[i]).max() >= near_duplicate:
            reason = f"near-duplicate: cosine to an earlier text at least {near_duplicate:.3f}"
        if reason:
            reasons[i] = reason
            continue
        kept_texts[question].add(_plain(candidate.text))
        kept_vectors[question].append(own[i])
        if candidate.stage == 1:
            passed.add(candidate.template_id)
            origin[candidate.template_id] = candidate.text
        else:
            pools[candidate.template_id].append(i)

    templates = {c.template_id: i for i, c in enumerate(candidates) if c.stage == 1}
    for template, pool in pools.items():
        start = [seed_vectors[candidates[pool[0]].question_id], own[templates[template]]]
        chosen = most_different(own[pool], np.stack(start), samples_per_template)
        for place, i in enumerate(pool):
            if place not in chosen:
                reasons[i] = f"selection: not among the {samples_per_template} most different samples of its template"

    accepted, rejected = [], []
    for i, candidate in enumerate(candidates):
        row = candidate.model_dump() | {"similarity": round(similarity[i], 6)}
        if i in reasons:
            rejected.append(Rejected(**row, reason=reasons[i]))
        else:
            accepted.append(Augmented(**row))
    return accepted, rejected


def most_different(pool: np.ndarray, chosen: np.ndarray, count: int) -> set[int]:
    """Indices of ``count`` rows of ``pool``, picked one by one as the farthest (cosine) from all picked so far and
    from the rows of ``chosen``: greedy max-min dispersion."""
    nearest = (pool @ chosen.T).max(1)
    picked: set[int] = set()
    while len(picked) < min(count, len(pool)):
        free = np.where([i in picked for i in range(len(pool))], np.inf, nearest)
        best = int(free.argmin())
        picked.add(best)
        nearest = np.maximum(nearest, pool @ pool[best])
    return picked


def sweep(
    candidates: Sequence[Candidate], questions: Sequence[Question], encoder: Encoder, taus: Sequence[float], **knobs
) -> tuple[pd.DataFrame, dict[float, list[str]]]:
    """What each ``tau`` would keep: the columns tau, templates, samples, kept (share of all candidates) and
    diversity_gain (of the samples over the seeds; missing when none is kept); and the texts of the samples by tau.
    ``knobs`` are the other arguments of :func:`filter_candidates`."""
    seeds = encoder.encode(question.question for question in questions)
    rows, texts = [], {}
    for tau in taus:
        accepted, _ = filter_candidates(candidates, questions, encoder, tau=tau, **knobs)
        texts[tau] = [row.text for row in accepted if row.stage == 2]
        gain = diversity_gain(encoder.encode(texts[tau]), seeds) if texts[tau] else float("nan")
        rows.append((tau, len(accepted) - len(texts[tau]), len(texts[tau]), len(accepted) / len(candidates), gain))
    return pd.DataFrame(rows, columns=["tau", "templates", "samples", "kept", "diversity_gain"]), texts


def diversity_gain(new: np.ndarray, base: np.ndarray) -> float:
    """Mean over ``new`` (m, d) of the Euclidean distance to the nearest row of ``base`` (n, d), CultureLLM C.1.2."""
    squared = (new**2).sum(1)[:, None] + (base**2).sum(1) - 2 * new @ base.T
    return float(np.sqrt(squared.min(1).clip(min=0)).mean())


def _plain(text: str) -> str:
    """A text without case, punctuation and spacing, to tell whether two say the same words."""
    return " ".join("".join(sign if sign.isalnum() else " " for sign in text.casefold()).split())
