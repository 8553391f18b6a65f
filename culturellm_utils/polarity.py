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
    BREAKS,
    ENTRIES,
    LISTS,
    NEAR_NONE,
    PUNCTUATION,
    REASONS,
    Token,
    parse,
    stems,
)

Tokens = Sequence[Token]

_TOP = stems("always every all invariably only") | {"at_all_time"}
_COUNTED = stems("to that of how too so as the")
_MODALS = stems("can could may might")
_CONDITIONS = stems("if only unless without")
_EXCEPT = stems("except besides") | {"other_than", "apart_from"}
_PREFIX = re.compile(r"(?:un|in|im(?!migr)|ir|il|dis|non-?|mis)(?=[a-z]{4})")
_NOT_PREFIXED = stems(
    "inform information impress import imprison discover discount inside indeed invest intend mission"
)
_BASES = stems(LISTS["bases"])


def stance_change(seed: str, text: str) -> str:
    """Why ``text`` does not keep the stance of ``seed``, in a few words; "" when no rule sees a change.

    Both are English sentences. About 0.1 ms a pair.
    """
    a, b = parse(seed), parse(text)
    stems_a, stems_b = _all_stems(a), _all_stems(b)
    if (reason := _hedged(a, b, stems_a)) or (reason := _ladder(a, b)):
        return reason
    reversed_, used_a, used_b = comparisons.compare(a, b)
    if reversed_:
        return "comparison reversed"
    if comparisons.exchanged(a, b) or (not used_a and comparisons.other_subject(a, b)):
        return "exchanged who or what is meant"
    swapped = not used_a and comparisons.swapped(a, b)
    return _turned(_signs(a, stems_b, used_a), _signs(b, stems_a, used_b), swapped)


@lru_cache(maxsize=1 << 12)
def _all_stems(tokens: tuple[Token, ...]) -> frozenset[str]:
    """Stems of words and of phrases, and of the words in phrases."""
    found = {t.stem for t in tokens}
    return frozenset(found.union(*(s.split("_") for s in found if "_" in s)))


# --- hedges, quantity, frequency


def _hedged(a: Tokens, b: Tokens, seed_stems: frozenset[str]) -> str:
    """A hedge in ``b``, when ``a`` has none."""
    if any(t.entry.hedge and t.stem not in _MODALS for t in a):
        return ""
    question = a[-1:] and a[-1].stem == "?"
    loose = question or any(t.entry.loose or t.entry.rung == "most" for t in a)
    rare = any(t.entry.rung == "few" for t in a)
    for i, token in enumerate(b):
        if token.stem in seed_stems:
            continue
        if token.entry.hedge and not (rare and token.entry.axis) and not _harmless(b, i, seed_stems, bool(question)):
            return f"hedged ({token.word})"
        if token.entry.loose and not loose:
            return f"hedged ({token.word})"
        following = b[i + 1].stem if i + 1 < len(b) else "."
        if token.stem == "certain" and "certainli" not in seed_stems and following not in _COUNTED | PUNCTUATION:
            return "hedged (certain)"
    return ""


def _harmless(b: Tokens, i: int, seed_stems: frozenset[str], question: bool) -> bool:
    """Whether a word that hedges elsewhere does not here: manners, denied ability, a condition the seed has."""
    following = b[i + 1] if i + 1 < len(b) else None
    if b[i].stem in ("unless", "only_if", "only_when"):
        return not _CONDITIONS.isdisjoint(seed_stems)
    if b[i].stem not in _MODALS or following is None:
        return False
    if following.stem in ("you", "i", "we"):  # "could you say how often"
        return True
    if b[i].stem == "can" and question:
        return True
    # "cannot", "no country can"
    return b[i].stem in ("can", "could") and (following.entry.negator or any(t.stem in NEAR_NONE for t in b[:i]))


def _ladder(a: Tokens, b: Tokens) -> str:
    """All, most, few: a rung lost from the top, or a lower one gained."""
    question = a[-1:] and a[-1].stem == "?"
    loose = any(t.entry.loose for t in a)
    rungs = {t.entry.rung for t in a}
    for i, token in enumerate(b):
        if token.entry.rung == "few" and "few" not in rungs:
            return f"frequency flipped ({token.word})"
        if token.entry.rung == "most" and not rungs & {"most", "all"} and not question:
            superlative = token.stem == "most" and not (i + 1 < len(b) and _plural(b[i + 1].word))
            counted = token.stem == "mani" and i and b[i - 1].stem in _COUNTED
            if not superlative and not counted and not (loose and token.entry.loose):
                return f"hedged ({token.word})"
    top = next((t.word for t in a if t.stem in _TOP), "")
    if top and not any(t.entry.rung == "all" or t.entry.negator for t in b):
        return f"weakened ({top} is gone)"
    return ""


def _plural(word: str) -> bool:
    return word in ("people", "men", "women", "children") or (word[-1] == "s" and word[-2:] not in ("ss", "us", "is"))


# --- signed words


class Sign(NamedTuple):
    """A word with its pole after the negations that govern it; ``turns`` when it counts by itself."""

    axis: str
    sign: int
    turns: bool
    denied: bool
    word: str


def _signs(tokens: Tokens, other: frozenset[str], used: frozenset[int]) -> dict[str, list[Sign]]:
    """Signed words by axis; negations that govern no signed word are under the axis "not"."""
    skipped = used | _superlative(tokens)
    signs: dict[str, list[Sign]] = {}
    negations: list[Token] = []

    def note(axis: str, sign: int, turns: bool, denied: bool, word: str) -> None:
        signs.setdefault(axis, []).append(Sign(axis, sign, turns, denied, word))

    def drop_negations() -> None:
        if len(negations) % 2:
            note("not", -1, True, True, negations[-1].word)
        negations.clear()

    for n, token in enumerate(tokens):
        entry = token.entry
        if entry.neutral or n in skipped:
            continue
        if entry.negator or entry.denier or _lessens(tokens, n):
            negations.append(token)
        elif negations and _not_enough(tokens, n):
            continue
        elif (axis := entry.axis or _prefixed(token.stem, other)) and not ("/" in axis[0] and token.stem in other):
            odd = len(negations) % 2 == 1
            sign = -axis[1] if odd else axis[1]
            turns = sign < 0 and (odd or (axis[2] and not any(token.stem in o for o in other)))
            note(axis[0], sign, turns, odd, token.word)
            negations.clear()
        elif negations and _denied_later(tokens, n, negations[-1]):
            continue
        elif token.stem in BREAKS or not (entry.light or entry.hedge or entry.rung or entry.loose):
            drop_negations()
    drop_negations()
    return signs


def _lessens(tokens: Tokens, n: int) -> bool:
    """Whether a word of low degree denies the next word: "little importance", "less safe"."""
    following = tokens[n + 1].entry.axis if n + 1 < len(tokens) else None
    return tokens[n].stem in ("littl", "less", "least", "low") and bool(following)


def _not_enough(tokens: Tokens, n: int) -> bool:
    """Whether a negation reaches past token ``n`` to an "enough": "do not care enough"."""
    ahead = [t.stem for t in tokens[n + 1 : n + 5]]
    return "enough" in ahead and BREAKS.isdisjoint(ahead[: ahead.index("enough")])


def _denied_later(tokens: Tokens, n: int, negation: Token) -> bool:
    """Whether a negation reaches past the plain word ``n``: "prevent people from being dishonest", "fail to
    treat the poor as equals", "do not make criminals better"."""
    if negation.stem in ("fail", "refus"):
        ahead = [t for t in tokens[n + 1 : n + 5] if t.entry.axis or t.stem in BREAKS]
        return bool(ahead and ahead[0].entry.axis)
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
    """The tokens that deny nothing in "few things matter more than X" and "none other than X"."""
    for i, token in enumerate(tokens):
        if token.stem in NEAR_NONE or token.stem == "never":
            for k in range(i + 1, len(tokens)):
                if tokens[k].stem in _EXCEPT:
                    return frozenset({i})
                if token.stem != "never" and (tokens[k].stem == "than" or (tokens[k].stem == "as" and k > i + 2)):
                    return frozenset({i, *(j for j in range(i, k) if comparisons.is_comparative(tokens[j]))})
                if tokens[k].stem in PUNCTUATION:
                    break
    return frozenset()


def _turned(x: dict[str, list[Sign]], y: dict[str, list[Sign]], swapped: bool) -> str:
    """The reason when signs disagree: opposite poles of an axis, or an odd number of turns that only one has.
    Two things that changed places are one turn."""
    odd, reason = swapped, "exchanged who or what is meant" if swapped else ""
    for axis in sorted(x.keys() | y.keys()):
        mine, theirs = x.get(axis, []), y.get(axis, [])
        if axis == "not":
            unmatched = (len(mine) + len(theirs)) % 2
            why = "negated"
        else:
            a, b = {s.sign for s in mine}, {s.sign for s in theirs}
            why = REASONS.get(axis, f"turned round ({(theirs or mine)[0].word})")
            opposite = len(a) == len(b) == 1 and a != b
            if opposite and not any(s.denied for s in mine + theirs):
                return why
            unmatched = opposite or any(s.turns for s in mine + theirs if s.sign in a ^ b)
        if unmatched:
            odd, reason = not odd, reason or why
    return reason if odd else ""
