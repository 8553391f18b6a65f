"""Which candidates are kept: similarity to the seed above tau, no duplicates, meaning unchanged, diverse samples.

A rejected row keeps its similarity and says why::

    {"candidate_id": "Q39-t04", ..., "similarity": 0.64, "reason": "similarity: at most 0.66"}

Outside a study, any file of rows ``{"seed": ..., "text": ...}`` is filtered by::

    python -m culturellm_utils.filtering pairs.jsonl > filtered.jsonl
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from culturellm_utils import encoder as encoders
from culturellm_utils import paths
from culturellm_utils.encoder import Encoder
from culturellm_utils.errors import UserError, command_line
from culturellm_utils.guard import Entailment, Guard
from culturellm_utils.packed import Packed
from culturellm_utils.records import Augmented, Candidate, Question, Rejected, numbered_lines, write_text
from culturellm_utils.wordings import plain

#: The calibrated tau of the bundled encoder (calibration.py, data/tau_curve.csv).
BUNDLED_TAU = 0.66
#: Candidates whose vectors are held at a time.
BLOCK = 4096


class Judge(Protocol):
    """A guard: for each (seed, text) why it is not kept, or ""."""

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[str]: ...


class Guards:
    """Several guards, one after the other; the first objection counts. None of them lets everything through."""

    def __init__(self, trained: bool, nli_model: str = "") -> None:
        self._guards: list[Judge] = ([Guard()] if trained else []) + ([Entailment(nli_model)] if nli_model else [])
        self._judged: dict[tuple[str, str], str] = {}

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """For each (seed, text): why it is not kept, or "". Each pair is judged once, however often it comes."""
        reasons = {pair: "" for pair in pairs if pair not in self._judged}
        for guard in self._guards:
            passed = [pair for pair, reason in reasons.items() if not reason]
            reasons |= dict(zip(passed, guard.judge(passed), strict=True))
        self._judged |= reasons
        return [self._judged[pair] for pair in pairs]


def filter_candidates(
    candidates: Sequence[Candidate],
    questions: Sequence[Question],
    encoder: Encoder,
    *,
    tau: float,
    near_duplicate: float,
    guard: Judge,
    samples_per_template: int,
) -> tuple[Packed[Augmented], Packed[Rejected]]:
    """Split candidates into accepted and rejected, in their order.

    A candidate passes when its cosine to its seed question is above ``tau`` (strictly, as in the paper), no text
    of the same question before it is the same or closer than ``near_duplicate``, ``guard`` has no objection, and, for a
    sample, its template passed and it is among the ``samples_per_template`` most different ones.
    """
    seeds = {question.question_id: question.question for question in questions}
    by_question: dict[str, list[int]] = defaultdict(list)
    for place, candidate in enumerate(candidates):
        if candidate.question_id not in seeds:
            raise UserError(f"candidate {candidate.candidate_id} belongs to no question: rerun 02_augmentation "
                            "with the same questions_path")
        by_question[candidate.question_id].append(place)
    similarity, reasons = [0.0] * len(candidates), [""] * len(candidates)
    for places in _blocks(by_question.values()):
        block = [candidates[place] for place in places]
        about = {candidate.question_id for candidate in block}
        asked = {name: text for name, text in seeds.items() if name in about}
        cosines, said = _judged(block, asked, encoder, tau, near_duplicate, guard, samples_per_template)
        for place, cosine, reason in zip(places, cosines, said, strict=True):
            similarity[place], reasons[place] = cosine, reason

    accepted, rejected = Packed(Augmented), Packed(Rejected)
    for candidate, cosine, reason in zip(candidates, similarity, reasons, strict=True):
        row = candidate.model_dump() | {"similarity": round(cosine, 6)}
        if reason:
            rejected.append(Rejected(**row, reason=reason))
        else:
            accepted.append(Augmented(**row))
    return accepted, rejected


def _blocks(by_question: Iterable[list[int]]) -> list[list[int]]:
    """Places of candidates, in their order, in portions of whole questions: these do not touch each other, so that only
    the vectors of a portion need be held."""
    blocks: list[list[int]] = []
    for places in by_question:
        if blocks and len(blocks[-1]) + len(places) <= BLOCK:
            blocks[-1] += places
        else:
            blocks.append([*places])
    return [sorted(block) for block in blocks]


def _judged(candidates: Sequence[Candidate], seeds: dict[str, str], encoder: Encoder, tau: float, near_duplicate: float,
            guard: Judge, samples_per_template: int) -> tuple[list[float], list[str]]:
    """Of each candidate its cosine to its seed, and why it is rejected ("" when it is not)."""
    vectors = encoder.encode([*seeds.values(), *(candidate.text for candidate in candidates)])
    seed_vectors = dict(zip(seeds, vectors, strict=False))
    own = vectors[len(seeds) :]
    similarity = [float(vector @ seed_vectors[c.question_id]) for c, vector in zip(candidates, own, strict=True)]
    close = [i for i, cosine in enumerate(similarity) if cosine > tau]
    objections = dict(zip(close, guard.judge([(seeds[candidates[i].question_id], candidates[i].text) for i in close]),
                          strict=True))

    reasons = [""] * len(candidates)
    kept_texts = {name: {plain(text)} for name, text in seeds.items()}
    # A question's kept vectors lie in one piece, so that a candidate is compared with all of them at once.
    kept_vectors = {name: np.empty((count, own.shape[1]), own.dtype)
                    for name, count in Counter(candidate.question_id for candidate in candidates).items()}
    kept = dict.fromkeys(seeds, 0)
    passed: set[str] = set()
    pools: dict[str, list[int]] = defaultdict(list)
    for i, candidate in enumerate(candidates):
        question = candidate.question_id
        words = plain(candidate.text)
        if candidate.stage == 2 and candidate.template_id not in passed:
            reasons[i] = "template: its template was rejected"
        elif words in kept_texts[question]:
            reasons[i] = "duplicate: same words as an earlier text"
        elif similarity[i] <= tau:
            reasons[i] = f"similarity: at most {tau:.2f}"
        elif objections[i]:
            reasons[i] = objections[i]
        elif kept[question] and (kept_vectors[question][: kept[question]] @ own[i]).max() >= near_duplicate:
            reasons[i] = f"near-duplicate: cosine to an earlier text at least {near_duplicate:.3f}"
        if reasons[i]:
            continue
        kept_texts[question].add(words)
        kept_vectors[question][kept[question]] = own[i]
        kept[question] += 1
        if candidate.stage == 1:
            passed.add(candidate.template_id)
        else:
            pools[candidate.template_id].append(i)

    templates = {c.template_id: i for i, c in enumerate(candidates) if c.stage == 1}
    for template, pool in pools.items():
        start = [seed_vectors[candidates[pool[0]].question_id], own[templates[template]]]
        chosen = most_different(own[pool], np.stack(start), samples_per_template)
        for place, i in enumerate(pool):
            if place not in chosen:
                reasons[i] = f"selection: not among the {samples_per_template} most different samples of its template"
    return similarity, reasons


def most_different(pool: np.ndarray, chosen: np.ndarray, count: int) -> set[int]:
    """Indices of ``count`` rows of ``pool``, picked one by one as the farthest (cosine) from all picked so far and
    from the rows of ``chosen``: greedy max-min dispersion."""
    nearest = (pool @ chosen.T).max(1)
    picked: set[int] = set()
    while len(picked) < min(count, len(pool)):
        best = int(nearest.argmin())
        picked.add(best)
        nearest = np.maximum(nearest, pool @ pool[best])
        nearest[best] = np.inf
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


def filter_pairs(rows: Sequence[dict], encoder: Encoder, tau: float, guard: Judge) -> list[dict]:
    """Rows with ``seed`` and ``text``, each with ``similarity``, ``kept`` and ``reason`` ("" when kept) added."""
    if not rows:
        return []
    pairs = [(row["seed"], row["text"]) for row in rows]
    cosines = (encoder.encode(seed for seed, _ in pairs) * encoder.encode(text for _, text in pairs)).sum(1)
    reasons = ["" if cosine > tau else f"similarity: at most {tau:.2f}" for cosine in cosines]
    close = [i for i, reason in enumerate(reasons) if not reason]
    for i, reason in zip(close, guard.judge([pairs[i] for i in close]), strict=True):
        reasons[i] = reason
    return [{**row, "similarity": round(float(cosine), 6), "kept": not reason, "reason": reason}
            for row, cosine, reason in zip(rows, cosines, reasons, strict=True)]


def read_pairs(path: Path) -> list[dict]:
    """The rows of a file of pairs. Raises UserError naming file and line for one without the texts seed and text, or
    one that JSON in UTF-8 cannot hold (NaN, half a surrogate pair)."""
    if not path.is_file():
        raise UserError(f"{paths.shown(path)} does not exist; give a JSON Lines file of rows with seed and text")
    rows = []
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
            if not isinstance(row["seed"], str) or not isinstance(row["text"], str):
                raise TypeError
            _line(row).encode()
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{paths.shown(path)} line {number}: no JSON object with the texts seed and text; repair "
                            "or remove the line") from None
        rows.append(row)
    return rows


def _line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


@command_line
def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m culturellm_utils.filtering", description="Filter paraphrases.")
    parser.add_argument("pairs", type=Path, help='JSON Lines file of rows {"seed": ..., "text": ...}')
    parser.add_argument("--output", type=Path, help="where the rows go; by default to standard output")
    parser.add_argument("--encoder", default=encoders.BUNDLED, help="sentence-transformers name or folder")
    parser.add_argument("--tau", type=float, default=BUNDLED_TAU, help="least cosine, exclusive (default %(default)s)")
    parser.add_argument("--no-guard", action="store_true", help="leave the trained (English) guard out")
    parser.add_argument("--nli-model", default="", help="NLI cross-encoder as a further guard: hub name or folder")
    arguments = parser.parse_args()
    rows = filter_pairs(read_pairs(arguments.pairs), encoders.load(arguments.encoder), arguments.tau,
                        Guards(not arguments.no_guard, arguments.nli_model))
    text = "".join(map(_line, rows))
    if arguments.output:
        write_text(arguments.output, text)
    else:
        sys.stdout.buffer.write(text.encode())  # UTF-8 wherever it goes
        sys.stdout.buffer.flush()
    print(f"{sum(row['kept'] for row in rows)} of {len(rows)} kept", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
