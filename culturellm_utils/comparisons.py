"""Who stands above whom in a sentence, and which things changed places in its paraphrase.

"Men are better than women" and "women are worse than men" are one comparison; "men are no better than women" and
"women are better than men" are others::

    >>> from culturellm_utils.stance_words import parse
    >>> compare(parse("Men are better than women."), parse("Women are worse than men."))[0]
    False
    >>> compare(parse("Men are better than women."), parse("Women are better than men."))[0]
    True

Read are "than", "as ... as", words of order ("ahead of", "rather than") and verbs ("surpass", also passive).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from culturellm_utils.stance_words import BREAKS, FUNCTION, NEAR_NONE, PUNCTUATION, Token, content, stems

Tokens = Sequence[Token]

_JOINTS = frozenset(",;") | stems("and but while whereas")
_ENDS_SIDE = PUNCTUATION | stems("when if because while will would should be do")
_NOT_COMPARATIVE = stems(
    """mother father daughter brother sister worker leader employer voter other over after never under ever order power
    gender water paper number member officer teacher customer farmer banker manager whether neither either however
    together another matter answer buyer owner player user computer consumer career danger offer suffer consider
    prefer remember enter cover differ minister soldier neighbor stranger elder"""
)
#: What a comparison becomes when it is denied, and when its sides change places.
_DENIED = {">": "<=", "<": ">=", "=": "<", ">=": "<", "<=": ">"}
_TURNED = {">": "<", "<": ">", "=": "=", ">=": "<=", "<=": ">="}
#: What a paraphrase of each comparison may say: "no worse than" will do for "as good as".
_AGREES = {">": (">",), "<": ("<",), "=": ("=", ">="), ">=": (">=", "="), "<=": ("<=",)}


class Comparison(NamedTuple):
    """``kind`` relates what is on the left to what is on the right; ``sign`` is -1 for "as bad as"."""

    kind: str
    sign: int
    left: frozenset[str]
    right: frozenset[str]
    used: frozenset[int]
    first: str


def compare(a: Tokens, b: Tokens) -> tuple[bool, frozenset[int], frozenset[int]]:
    """Whether ``b`` reverses a comparison of ``a``, and the positions of the tokens of each sentence that the
    comparison accounts for (empty when the two share none)."""
    none: frozenset[int] = frozenset()
    for x in comparisons_in(a):
        for y in comparisons_in(b):
            turn = _orientation(x, y)
            if turn:
                kind = y.kind if turn > 0 else _TURNED[y.kind]
                fits = kind in _AGREES[x.kind] and (x.kind != "=" or x.sign == y.sign)
                return not fits, x.used, y.used
        if x.kind != "=" and (_favored(x, b) < 0 or _leveled(a, b)):
            return True, none, none
    return False, none, none


@lru_cache(maxsize=1 << 12)
def comparisons_in(tokens: tuple[Token, ...]) -> list[Comparison]:
    """Comparisons by "than", "as ... as", and words of order ("ahead of", "surpass"), in order of appearance."""
    found = []
    for k, token in enumerate(tokens):
        if token.stem == "than" and k and tokens[k - 1].stem not in ("rather", "other"):
            reach = range(k - 1, max(-1, k - 12), -1)
            degree = next((j for j in reach if _known_comparative(tokens[j])), None)
            if degree is None:
                degree = next((j for j in reach if is_comparative(tokens[j])), None)
            if degree is not None:
                used, sign = {degree}, _sign(tokens[degree])
                measured = _measured(tokens, degree, k)
                if measured is not None:
                    used.add(measured)
                    sign *= _sign(tokens[measured])
                found.append(_comparison(tokens, k, degree, ">" if sign > 0 else "<", 1, used))
        elif token.stem == "as":
            end = next((m for m in range(k + 1, min(len(tokens), k + 8)) if tokens[m].stem == "as"), None)
            if end and end > k + 1 and not any(t.stem in BREAKS for t in tokens[k + 1 : end]):
                used = {j for j in range(k + 1, end) if tokens[j].entry.axis}
                sign = 1
                for j in used:
                    sign *= _sign(tokens[j])
                found.append(_comparison(tokens, end, k, "=", sign, used))
        elif token.entry.order:
            found.append(_comparison(tokens, k, k, ">" if token.entry.order > 0 else "<", 1, {k}))
    return found


def _measured(tokens: Tokens, degree: int, than: int) -> int | None:
    """The position of what "more" or "greater" is the degree of, if it has a pole: "more dangerous than", "the danger
    is greater than"; not in "more harm than good", where the poles themselves are compared."""
    if tokens[degree].stem not in ("mor", "less", "fewer") and (tokens[degree].entry.axis or ("",))[0] != "amount":
        return None
    near = [degree + 1, *range(degree - 1, max(-1, degree - 7), -1)]
    for j in near:
        axis = tokens[j].entry.axis
        if axis and axis[0] != "amount" and j != than:
            opposite = any((t.entry.axis or ("",))[:2] == (axis[0], -axis[1]) for t in tokens[than + 1 :])
            return None if opposite else j
    return None


def _comparison(tokens: Tokens, at: int, degree: int, kind: str, sign: int, used: set[int]) -> Comparison:
    """The comparison whose sides meet at ``at``. "Surpassed by" turns the sides; a negation before denies it."""
    left, right = content(tokens[:at]), _right_side(tokens, at + 1)
    if tokens[at].entry.order and "_" not in tokens[at].stem and at + 1 < len(tokens) and tokens[at + 1].stem == "by":
        left, right = right, left
    for j in range(degree - 1, -1, -1):
        if tokens[j].stem in BREAKS:
            break
        nobody = tokens[j].stem in NEAR_NONE and degree - j > 2  # "no other form is as good as"
        if nobody or (tokens[j].entry.negator and degree - j < 5):
            kind = "<" if nobody and kind != "<" else _DENIED[kind] if kind != "=" or sign > 0 else ">"
            used = used | {j}
            break
    before = [t.stem for t in tokens[:degree] if t.stem not in FUNCTION]
    if at + 1 < len(tokens) and tokens[at + 1].stem == "for":
        before = [t.stem for t in tokens[:at] if t.stem not in FUNCTION]
    return Comparison(kind, sign, left, right, frozenset(used), before[-1] if before else "")


def is_comparative(token: Token) -> bool:
    return token.stem in ("mor", "less", "wors") or (
        len(token.stem) > 4 and token.stem.endswith("er") and not token.stem.endswith("ever")
        and token.stem not in _NOT_COMPARATIVE
    )


def _known_comparative(token: Token) -> bool:
    """A comparative also when no "than" follows: many nouns end in -er too."""
    return token.stem in ("mor", "less") or (token.entry.axis is not None and is_comparative(token))


def _sign(token: Token) -> int:
    return token.entry.axis[1] if token.entry.axis else 1


def _right_side(tokens: Tokens, start: int) -> frozenset[str]:
    """The words compared with, up to the end of their phrase."""
    side: set[str] = set()
    for j in range(start, len(tokens)):
        token = tokens[j]
        relative = token.stem == "be" and tokens[j - 1].stem in ("who", "which", "that")
        if side and token.stem in _ENDS_SIDE and not relative:
            break
        if token.stem not in FUNCTION and not token.entry.negator:
            side.add(token.stem)
    return frozenset(side)


def _orientation(x: Comparison, y: Comparison) -> int:
    """+1 when the sides of ``y`` hold the words of the same sides of ``x``, -1 when of the other, 0 if unclear."""
    first, second = x.left - x.right, x.right - x.left
    left, right = y.left - y.right, y.right - y.left
    straight = bool(first & left and second & right) or bool(second & right and not first & right)
    swapped = bool(second & left and first & right) or bool(first & right and not second & right)
    return int(straight) - int(swapped)


def _leveled(a: Tokens, b: Tokens) -> bool:
    """Whether ``b`` compares no more but speaks of equals, as ``a`` does not: "sons and daughters inherit the same"."""
    def equals(tokens: Tokens) -> bool:
        return any((t.entry.axis or ("",))[:2] == ("equal", 1) for t in tokens)

    return equals(b) and not equals(a) and not any(_known_comparative(t) or t.entry.order for t in b)


def _favored(x: Comparison, tokens: Tokens) -> int:
    """For a text without "than" that names both things compared: +1 when the one nearest to its comparative is the
    upper one of ``x``, -1 when it is the lower one, 0 if unclear. A break between them counts as ten words."""
    if not x.first or len(x.right) != 1 or any(t.stem == "than" or t.entry.order for t in tokens):
        return 0
    (second,) = x.right
    k = next((k for k, t in enumerate(tokens) if _known_comparative(t)), None)
    if k is None or {x.first, second} - {t.stem for t in tokens}:
        return 0
    near = min((abs(j - k) + 10 * sum(t.stem in PUNCTUATION for t in tokens[min(j, k) : max(j, k)]), t.stem)
               for j, t in enumerate(tokens) if t.stem in (x.first, second))
    upper = x.first if ">" in x.kind else second
    return (1 if near[1] == upper else -1) * _sign(tokens[k]) * x.sign


def exchanged(a: Tokens, b: Tokens) -> bool:
    """Whether what the two poles of one axis belong to changed places ("too much of X, too little of Y")."""
    poles = {t.entry.axis[:2] for t in a if t.entry.axis}
    for axis in {name for name, sign in poles if (name, -sign) in poles}:
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


def swapped(a: Tokens, b: Tokens) -> bool:
    """Whether two words around a third changed places and all else is as before ("parents owe children respect")."""
    if any(t.stem == "by" for t in b) or sum(t.stem == "be" for t in a) != sum(t.stem == "be" for t in b):
        return False
    x, y = ([t.stem for t in tokens if t.stem not in FUNCTION] for tokens in (a, b))
    changed = [i for i, (v, w) in enumerate(zip(x, y, strict=False)) if v != w]
    return (len(x) == len(y) and len(changed) == 2 and changed[1] - changed[0] > 1
            and x[changed[0]] == y[changed[1]] and x[changed[1]] == y[changed[0]])


def other_subject(a: Tokens, b: Tokens) -> bool:
    """Whether a shared predicate is now said of another thing of the seed ("science is always right")."""
    x, y = _subjects(a), _subjects(b)
    shared = [p for p in x.keys() & y.keys() if x[p] != y[p]]
    return any(any(t.stem == y[p] for t in a) and any(t.stem == x[p] for t in b) for p in shared)


@lru_cache(maxsize=1 << 12)
def _subjects(tokens: tuple[Token, ...]) -> dict[str, str]:
    """Predicates after "be", each with the one-word subject that opens its clause."""
    found = {}
    for i, token in enumerate(tokens):
        if token.stem != "be" or not i or tokens[i - 1].stem in FUNCTION:
            continue
        if i == 1 or tokens[i - 2].stem in BREAKS or tokens[i - 2].stem in ("the", "that"):
            for said in tokens[i + 1 : i + 4]:
                if said.stem not in FUNCTION and not said.entry.light and not said.entry.rung:
                    found[said.stem] = tokens[i - 1].stem
                    break
    return found
