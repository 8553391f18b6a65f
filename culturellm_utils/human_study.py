"""The human study: do samples still say what their seed says? Pairs, a rating form, ratings, agreement.

A row of ``pairs.csv``, blinded: neither the id nor the order tells the source, the similarity or the checks::

    pair_id,seed,text
    p3fa91c07be,Not working makes people lazy.,People grow idle when they have no job.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, zip_longest
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from culturellm_utils import imports, paths, rating_form, ratings, records, wordings
from culturellm_utils.errors import UserError
from culturellm_utils.ratings import AUTOMATIC, Rating
from culturellm_utils.records import Augmented, Pair, Question, Row

#: The scale, as people and models are shown it.
RUBRIC: dict[int, str] = rating_form.texts("en")["rubric"]


class PairKey(Row):
    """``pairs_key.json``: what a pair is. ``check`` is empty for real pairs; ``same`` and ``different`` mark
    attention checks: identical texts, and a seed with a sample of another topic."""

    question_id: str
    candidate_id: str
    check: Literal["", "same", "different"]


Key = dict[str, PairKey]


def sample_pairs(augmented: Iterable[Augmented], questions: Iterable[Question], pairs: int = 100,
                 attention_checks: int = 10, seed: int = 0) -> tuple[list[Pair], Key]:
    """Up to ``pairs`` (seed, sample) pairs spread evenly over the questions, checks among them, all shuffled.

    Samples are the stage 2 rows, or where there is none, the templates. Half of the checks are ``same``, the others
    (and the odd one) ``different``.
    A pair's id is a hash of its texts, so that ratings of one draw never pass for ratings of another. Raises
    UserError when a question is unknown or the checks cannot be made.
    """
    draw = random.Random(seed)
    known = {question.question_id: question for question in questions}
    strata: dict[str, list[Augmented]] = {}
    texts = {question.question for question in known.values()}
    rows = list(augmented)
    wanted = {row.candidate_id for row in wordings.products(rows)}
    for row in sorted(rows, key=lambda row: row.candidate_id):
        if row.question_id not in known:
            raise UserError(f"augmented.jsonl: {row.candidate_id} belongs to question {row.question_id}, which is not "
                            "among the seed questions: rerun 02 and 03 with the same questions")
        if row.candidate_id in wanted and row.text not in texts:
            texts.add(row.text)
            strata.setdefault(row.question_id, []).append(row)
    if not strata:
        raise UserError("augmented.jsonl has no wordings but the seeds': lower tau in 03_filtering and rerun it")
    for rows in strata.values():
        draw.shuffle(rows)
    order = draw.sample(sorted(strata), len(strata))
    ranked = [row for turn in zip_longest(*(strata[name] for name in order)) for row in turn if row]

    drawn = [(known[row.question_id], row.text, row.candidate_id, "") for row in ranked[:pairs]]
    same, unseen = attention_checks // 2, ranked[pairs:] + ranked[:pairs]
    drawn += [(known[name], known[name].question, "", "same") for name in order[:same]]
    for name in cycle(order[same:] + order[:same]):
        other = next((row for row in unseen if known[row.question_id].topic != known[name].topic), None)
        if len(drawn) == len(ranked[:pairs]) + attention_checks or other is None:
            break
        unseen.remove(other)
        drawn.append((known[name], other.text, other.candidate_id, "different"))
    if len(drawn) < len(ranked[:pairs]) + attention_checks:
        raise UserError(f"06_human_study: {attention_checks} attention_checks cannot be made from {len(ranked)} "
                        f"samples of {len(order)} questions: ask for fewer")
    draw.shuffle(drawn)
    made, key = [], {}
    for question, text, candidate_id, check in drawn:
        name = "p" + hashlib.sha256(f"{question.question}\n{text}".encode()).hexdigest()[:12]
        made.append(Pair(pair_id=name, seed=question.question, text=text))
        key[name] = PairKey(question_id=question.question_id, candidate_id=candidate_id, check=check)
    return made, key


def pairs_of(folder: Path, augmented: Iterable[Augmented], questions: Iterable[Question], pairs: int,
             attention_checks: int, seed: int) -> tuple[list[Pair], Key, bool]:
    """The pairs of a study and whether they were kept: those in ``folder`` stay once people have rated."""
    if people_files(folder) and (folder / "pairs.csv").is_file():
        return *read_pairs(folder), True
    return *sample_pairs(augmented, questions, pairs, attention_checks, seed), False


def write_pairs(folder: Path, pairs: Sequence[Pair], key: Key, language: str = "en", consent_path: str = "",
                completion_url: str = "") -> None:
    """Write ``pairs.csv`` and ``pairs_key.json``, the form ``rating_form.html`` and the same for Label Studio.

    ``language`` is the form's (ISO 639-1); the others are ``rating_form.page``'s.
    """
    records.write_json(folder / "pairs_key.json", {name: entry.model_dump() for name, entry in key.items()})
    ratings.write_csv(folder / "pairs.csv", tuple(Pair.model_fields), pairs)
    form = rating_form.page(pairs, language, consent_path, completion_url)
    records.write_text(folder / "rating_form.html", form)
    imports.write_label_studio(folder, pairs, language)


def read_pairs(folder: Path) -> tuple[list[Pair], Key]:
    """What ``write_pairs`` wrote. Raises UserError when the two files do not belong together."""
    path = folder / "pairs.csv"
    header, rows = ratings.read_csv(path)
    pairs = [Pair(**{name: ratings.undo(cells[name]) for name in Pair.model_fields}) for _, cells in rows
             if set(header) == set(Pair.model_fields)]
    try:
        key = TypeAdapter(Key).validate_python(records.read_json(folder / "pairs_key.json"))
    except ValidationError:
        key = {}
    if not pairs or len(key) != len(pairs) or key.keys() != {pair.pair_id for pair in pairs}:
        raise UserError(f"{paths.shown(path)} and pairs_key.json do not name the same pairs: put back the two files "
                        "that the rating form was made with")
    return pairs, key


def cosines(pairs: Sequence[Pair], encode: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """Cosine of the two texts of each pair, shape (pairs,); ``encode`` gives unit rows (texts, dimension)."""
    rows = encode([pair.seed for pair in pairs] + [pair.text for pair in pairs])
    return (rows[: len(pairs)] * rows[len(pairs):]).sum(axis=1)


def overlaps(pairs: Sequence[Pair]) -> np.ndarray:
    """Word overlap of each pair, shape (pairs,): Jaccard index of the sets of lower-case words, 0 to 1."""
    def words(text: str) -> set[str]:
        return set(re.findall(r"\w+", text.lower()))
    both = [(words(pair.seed), words(pair.text)) for pair in pairs]
    return np.array([len(a & b) / max(len(a | b), 1) for a, b in both])


def rate(name: str, pairs: Sequence[Pair], scores: np.ndarray) -> list[Rating]:
    """Ratings of the automatic rater ``name``: scores 0 to 1 laid on the scale in equal steps, whatever the data.

    ``rating = 1 + 4 score``, rounded half up, scores beyond 0 and 1 cut off: from 0.125, 0.375, 0.625 and 0.875
    on a score gets 2, 3, 4 and 5.
    """
    rater = AUTOMATIC + re.sub(r"[^\w ./:-]", "_", name)[:80]
    values = np.floor(1.5 + 4 * np.clip(scores, 0, 1)).astype(int).tolist()
    return [Rating(rater_id=rater, pair_id=pair.pair_id, rating=value)
            for pair, value in zip(pairs, values, strict=True)]


def people_files(folder: Path) -> list[Path]:
    """The rating files that people put into ``folder/ratings``."""
    return [path for path in imports.files(folder) if not path.name.startswith("automatic_")]


def write_automatic(folder: Path, made: Iterable[Rating]) -> None:
    """Replace ``ratings/automatic_*.csv``, one file a rater; other files there are never touched.

    Raises UserError when such a file holds a person's ratings.
    """
    by_rater: dict[str, list[Rating]] = {}
    for rating in made:
        by_rater.setdefault(rating.rater_id, []).append(rating)
    old = set((folder / "ratings").glob("automatic_*.csv"))
    for path in sorted(old):
        if any(not cells.get("rater_id", "").startswith(AUTOMATIC) for _, cells in ratings.read_csv(path)[1]):
            raise UserError(f"{paths.shown(path)} holds a person's ratings: give it another name, for files that begin "
                            "with automatic_ are rewritten")
    for rater, rows in by_rater.items():
        name = re.sub(r"[^a-z0-9]+", "_", rater.lower()).strip("_")
        old.discard(ratings.write_csv(folder / "ratings" / f"{name}.csv", ratings.COLUMNS, rows))
    for path in old:
        path.unlink()


def read_ratings(folder: Path, pairs: Iterable[Pair]) -> list[Rating]:
    """Every rating in ``folder/ratings``, from whatever ``imports`` reads.

    Raises UserError with one sentence for each row that is wrong (the first five), naming file and line.
    """
    known = {pair.pair_id for pair in pairs}
    found: list[Rating] = []
    wrong: list[str] = []
    seen: dict[tuple[str, str], str] = {}
    for path in imports.files(folder):
        for where, cells in imports.rows(path):
            try:
                rating = ratings.rating(cells, where)
                if rating.automatic != path.name.startswith("automatic_"):
                    raise UserError(f"{where}: rater '{rating.rater_id}' is in the wrong file: automatic raters, and "
                                    "they alone, are in files that begin with automatic_")
                if rating.pair_id not in known:
                    raise UserError(f"{where}: there is no pair '{rating.pair_id[:40]}': put back the pairs.csv and "
                                    "pairs_key.json that this rater's form was made with, or take the file away")
                if (first := seen.setdefault((rating.rater_id, rating.pair_id), where)) != where:
                    raise UserError(f"{where}: rater '{rating.rater_id}' has rated {rating.pair_id} before ({first}): "
                                    "keep one of the two; two people need two rater ids")
            except UserError as error:
                wrong.append(str(error))
            else:
                found.append(rating)
    if wrong:
        more = [f"{len(wrong) - 5} more rows are wrong."] if len(wrong) > 5 else []
        raise UserError(*wrong[:5], *more)
    return found
