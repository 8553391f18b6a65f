"""The stance guard: does a paraphrase still say what its seed says, neither flipped nor hedged away?

A cosine cannot tell "men are better leaders" from "women are better leaders". These rules can, for many such
changes, without a model::

    >>> stance_change("Not working makes people lazy.", "Without work, people become lazy.")
    ''
    >>> stance_change("Not working makes people lazy.", "Working makes people lazy.")
    'negated'

Each sentence is read as signed words. Words of one axis (more / less, often / rarely) are compared pole with pole
after the negations that govern them are applied. What only one sentence has must be even in number: two turns
leave a stance where it was. Comparisons are read as who stands above whom, so "women are worse" agrees with "men
are better". English only. Rules see words, not the world: what is said in other words altogether passes.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from culturellm_utils import comparisons
from culturellm_utils.stance_words import (
    BREAKS, ENTRIES, FUNCTION, LISTS, NEAR_NONE, PUNCTUATION, REASONS, Token, content, parse, stems,
)

Tokens = Sequence[Token]


_JOINTS = frozenset(",;") | stems("and but while whereas")
_TOP = stems("always every all invariably only") | {"at_all_time"}
_COUNTED = stems("to that of how too so as the")
_PREFIX = re.compile(r"(?:un|in|im(?!migr)|ir|il|dis|non-?|mis)(?=[a-z]{4})")
_NOT_PREFIXED = stems("inform information impress import imprison discover discount inside indeed invest intend mission")
_BASES = stems(LISTS["bases"])


def stance_change(seed: str, text: str) -> str:
    """Why ``text`` does not keep the stance of ``seed``, in a few words; "" when no rule sees a change.

    Both are English sentences. About 0.1 ms a pair.
    """
    a, b = parse(seed), parse(text)
    stems_a, stems_b = frozenset(t.stem for t in a), frozenset(t.stem for t in b)
    if (reason := _hedged(a, b, stems_a)) or (reason := _ladder(a, b, stems_a)):
        return reason
    reversed_, used_a, used_b = comparisons.compare(a, b)
    if reversed_:
        return "comparison reversed"
    if _exchanged(a, b) or _other_subject(a, b, stems_a, stems_b) or (not used_a and _swapped(a, b)):
        return "exchanged who or what is meant"
    return _turned(_signs(a, stems_b, used_a), _signs(b, stems_a, used_b))


# --- hedges, quantity, frequency


def _hedged(a: Tokens, b: Tokens, seed_stems: frozenset[str]) -> str:
    """A hedge that the seed does not have."""
    question = a[-1:] and a[-1].stem == "?"
    loose = question or any(t.entry.loose or t.entry.rung == "most" for t in a)
    for i, token in enumerate(b):
        following = b[i + 1].stem if i + 1 < len(b) else ""
        if token.stem in seed_stems:
            continue
        polite = following in ("you", "i", "we")  # "could you say ..."
        denied = token.stem in ("can", "could") and (  # "no country can", "cannot"
            any(t.stem in NEAR_NONE for t in b[:i]) or (i + 1 < len(b) and b[i + 1].entry.negator))
        if (token.entry.hedge and not polite and not denied) or (token.entry.loose and not loose):
            return f"hedged ({token.word})"
        if token.stem == "certain" and "certainli" not in seed_stems and following not in _COUNTED | PUNCTUATION:
            return "hedged (certain)"
    return ""


def _ladder(a: Tokens, b: Tokens, seed_stems: frozenset[str]) -> str:
    """All, most, few: a rung lost from the top, or a lower one gained."""
    question = a[-1:] and a[-1].stem == "?"
    rungs = {t.entry.rung for t in a}
    for i, token in enumerate(b):
        if token.entry.rung == "few" and "few" not in rungs:
            return f"frequency flipped ({token.word})"
        if token.entry.rung == "most" and not rungs & {"most", "all"} and not question:
            superlative = token.stem == "most" and not (i + 1 < len(b) and _plural(b[i + 1].word))
            counted = token.stem == "mani" and i and b[i - 1].stem in _COUNTED
            if not superlative and not counted:
                return f"hedged ({token.word})"
    if lost := sorted(_TOP & seed_stems):
        rungs_b = {t.entry.rung for t in b}
        if "all" not in rungs_b and not any(t.entry.negator for t in b):
            return f"weakened ({next(t.word for t in a if t.stem == lost[0])} is gone)"
    return ""


def _plural(word: str) -> bool:
    return word in ("people", "men", "women", "children") or (word[-1] == "s" and word[-2:] not in ("ss", "us", "is"))


# --- exchanged parts


def _exchanged(a: Tokens, b: Tokens) -> bool:
    """Whether what the two poles of one axis belong to changed places ("too much of X, too little of Y")."""
    for axis in {t.entry.axis[0] for t in a if t.entry.axis}:
        x = _belongings(a, axis)
        if len(set(x.values())) == 2:
            y = _belongings(b, axis)
            shared = x.keys() & y.keys()
            if shared and all(x[word] != y[word] for word in shared):
                return True
    return False


def _belongings(tokens: Tokens, axis: str) -> dict[str, int]:
    """Words that share a part of the sentence with one pole only, with that pole's sign."""
    parts: list[list[Token]] = [[]]
    for token in tokens:
        if token.stem in _JOINTS:
            parts.append([])
        else:
            parts[-1].append(token)
    signs: dict[str, set[int]] = {}
    for part in parts:
        poles = {t.entry.axis[1] for t in part if t.entry.axis and t.entry.axis[0] == axis}
        if len(poles) == 1:
            for word in content(part):
                signs.setdefault(word, set()).update(poles)
    return {word: min(found) for word, found in signs.items() if len(found) == 1}


def _swapped(a: Tokens, b: Tokens) -> bool:
    """Whether two words around a third changed places and all else is as before ("parents owe children respect")."""
    if any(t.stem == "by" for t in b) or sum(t.stem == "be" for t in a) != sum(t.stem == "be" for t in b):
        return False
    x, y = ([t.stem for t in tokens if t.stem not in FUNCTION] for tokens in (a, b))
    changed = [i for i, (v, w) in enumerate(zip(x, y, strict=False)) if v != w]
    return (len(x) == len(y) and len(changed) == 2 and changed[1] - changed[0] > 1
            and x[changed[0]] == y[changed[1]] and x[changed[1]] == y[changed[0]])


def _other_subject(a: Tokens, b: Tokens, stems_a: frozenset[str], stems_b: frozenset[str]) -> bool:
    """Whether a shared predicate is now said of another thing of the seed ("science is always right")."""
    x, y = _subjects(a), _subjects(b)
    return any(x[p] != y[p] and y[p] in stems_a and x[p] in stems_b for p in x.keys() & y.keys())


@lru_cache(maxsize=1 << 12)
def _subjects(tokens: tuple[Token, ...]) -> dict[str, str]:
    """Predicates after "be", each with the one-word subject that opens its clause."""
    found = {}
    for i, token in enumerate(tokens):
        if token.stem == "be" and i and tokens[i - 1].stem not in FUNCTION:
            if i == 1 or tokens[i - 2].stem in BREAKS or tokens[i - 2].stem in ("the", "that"):
                predicate = next((t.stem for t in tokens[i + 1 : i + 4] if t.stem not in FUNCTION
                                  and not t.entry.light and not t.entry.rung), None)
                if predicate:
                    found[predicate] = tokens[i - 1].stem
    return found


# --- signed words


class Sign(NamedTuple):
    """A word with its pole after the negations that govern it; ``turns`` when it counts by itself."""

    axis: str
    sign: int
    turns: bool
    word: str


def _signs(tokens: Tokens, other: frozenset[str], used: frozenset[int]) -> dict[str, list[Sign]]:
    """Signed words by axis; negations that govern no signed word are under the axis "not"."""
    skipped = used | _superlative(tokens)
    signs: dict[str, list[Sign]] = {}
    negations: list[Token] = []

    def note(axis: str, sign: int, turns: bool, word: str) -> None:
        signs.setdefault(axis, []).append(Sign(axis, sign, turns, word))

    def drop_negations() -> None:
        if len(negations) % 2:
            note("not", -1, True, negations[-1].word)
        negations.clear()

    for n, token in enumerate(tokens):
        entry = token.entry
        if entry.neutral or n in skipped:
            continue
        if entry.negator or entry.denier:
            negations.append(token)
        elif negations and _not_enough(tokens, n):
            continue
        elif axis := entry.axis or _prefixed(token.stem, other):
            odd = len(negations) % 2 == 1
            sign = -axis[1] if odd else axis[1]
            note(axis[0], sign, sign < 0 and (axis[2] or odd), token.word)
            negations.clear()
        elif negations and _denied_later(tokens, n, negations[-1]):
            continue
        elif token.stem in BREAKS or not (entry.light or entry.hedge or entry.rung or entry.loose):
            drop_negations()
    drop_negations()
    return signs


def _not_enough(tokens: Tokens, n: int) -> bool:
    """Whether a negation reaches past token ``n`` to an "enough": "do not care enough"."""
    ahead = [t.stem for t in tokens[n + 1 : n + 5]]
    return "enough" in ahead and BREAKS.isdisjoint(ahead[: ahead.index("enough")])


def _denied_later(tokens: Tokens, n: int, negation: Token) -> bool:
    """Whether a negation reaches past the plain word ``n``: "prevent people from being dishonest", "do not make
    criminals better"."""
    if negation.entry.denier:
        return any(t.stem == "from" for t in tokens[n : n + 5])
    return tokens[n - 1].stem in ("mak", "keep", "leav") and n + 1 < len(tokens) and bool(tokens[n + 1].entry.axis)


def _prefixed(word: str, other: frozenset[str]) -> tuple[str, int, bool] | None:
    """The axis of a word turned round by un-, in-, dis- ..., when the other sentence or the list has its base."""
    match = _PREFIX.match(word)
    if not match or word in _NOT_PREFIXED:
        return None
    base = word[match.end() :]
    if base not in _BASES and base not in other and not (len(base) > 6 and any(o.startswith(base[:6]) for o in other)):
        return None
    entry = ENTRIES.get((base,))
    return (entry.axis[0], -entry.axis[1], True) if entry and entry.axis else (f"base {base}", -1, True)


def _superlative(tokens: Tokens) -> frozenset[int]:
    """"Few things matter more than X" says "X matters most": the tokens that mean neither few nor more there."""
    for i, token in enumerate(tokens):
        if token.stem in NEAR_NONE:
            for k in range(i + 1, len(tokens)):
                if tokens[k].stem == "than" or (tokens[k].stem == "as" and k > i + 2):
                    return frozenset({i, *(j for j in range(i, k) if comparisons.is_comparative(tokens[j]))})
                if tokens[k].stem in PUNCTUATION:
                    break
    return frozenset()


def _turned(x: dict[str, list[Sign]], y: dict[str, list[Sign]]) -> str:
    """The reason when signs disagree: opposite poles of an axis, or an odd number of turns that only one has."""
    odd, reason = False, ""
    for axis in sorted(x.keys() | y.keys()):
        mine, theirs = x.get(axis, []), y.get(axis, [])
        if axis == "not":
            unmatched = (len(mine) + len(theirs)) % 2
            why = "negated"
        else:
            a, b = {s.sign for s in mine}, {s.sign for s in theirs}
            why = REASONS.get(axis, f"turned round ({(theirs or mine)[0].word})")
            if len(a) == len(b) == 1 and a != b:
                return why
            unmatched = a != b and any(s.turns for s in mine + theirs if not (s.sign in a and s.sign in b))
        if unmatched:
            odd, reason = not odd, reason or why
    return reason if odd else ""
