"""The damage check: did careless substitution break a sentence, lose its object or change what it is about?

Language models that swap words leave sentences such as "Making my parents has been a goal", whose cosine to the
seed is high::

    >>> damage("Owning a gun makes a home safer.", "Owning a gun makes a home.")
    'lost (safer)'
    >>> damage("Owning a gun makes a home safer.", "Owning an gun makes a home safer.")
    'broken grammar (an gun)'

Some rules look at the text alone (articles, doubled words, a modal before "forced"). The others compare it with
the sentence it was made from: words that went and left nothing in their place, one word in another form or for
another thing. They are sharpest on small edits, so a sample is better checked against its template than against
its seed. English only.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from culturellm_utils import prompts
from culturellm_utils.stance_words import ENTRIES, LISTS, PUNCTUATION, stem, words

Words = Sequence[str]

_GRAMMAR = {name: frozenset(listed.split()) for name, listed in LISTS["grammar"].items()}
_DETERMINERS = _GRAMMAR["determiners"]
_PREPOSITIONS = _GRAMMAR["prepositions"]
_AUXILIARIES = _GRAMMAR["auxiliaries"]
_CONJUNCTIONS = _GRAMMAR["conjunctions"]
_MODALS = _GRAMMAR["modals"]
_RELATIVES = _GRAMMAR["relatives"]
_OBJECT_OPENERS = _DETERMINERS | _GRAMMAR["object_openers"]
_BEFORE_YOU = _AUXILIARIES | _MODALS | _CONJUNCTIONS | _RELATIVES | {"as", "since", "unless"}
_ENDS = frozenset(".?!")
_FILLER = frozenset(map(stem, LISTS["filler"].split()))
#: Fields whose words have few synonyms, so that a swap for an unknown word is a change.
_CLOSED = ("kin", "role")
#: Fields and axes whose words a paraphrase cannot do without.
_NEEDED_FIELDS = frozenset(LISTS["needed_fields"].split())
_OPTIONAL_AXES = frozenset(LISTS["optional_axes"].split())


def _field_groups() -> dict[str, frozenset[tuple[str, int]]]:
    """The (field, group) places of each listed word."""
    places: dict[str, set[tuple[str, int]]] = {}
    for field, listed in LISTS["fields"].items():
        for number, group in enumerate(listed.split("|")):
            for word in group.split():
                places.setdefault(stem(word), set()).add((field, number))
    return {word: frozenset(found) for word, found in places.items()}


_GROUPS = _field_groups()
_NOWHERE: frozenset[tuple[str, int]] = frozenset()


def damage(seed: str, text: str) -> str:
    """What is broken in ``text``, in a few words; "" when no rule sees damage.

    ``seed`` is the sentence that ``text`` was made from: its seed question or its template. About 0.1 ms a pair.
    """
    a, b = words(seed), words(text)
    if seed == text:
        return ""
    if not b:
        return "lost (everything)"
    if seed[:1].isupper() and text[:1].islower():
        return "broken grammar (begins in lower case)"
    if "  " in text.strip():
        return "broken grammar (gap)"
    if a == b:
        return ""
    return _ungrammatical(a, b) or _edited(a, b) or _changed(_content(seed), _content(text)) or _lost(seed, text)


# --- grammar


def _ungrammatical(a: Words, b: Words) -> str:
    """Pairs of neighbours that no sentence has, unless the seed has them too."""
    known = frozenset(pairwise(a))
    objects = _with_objects(a)
    relative = False
    if b[1:2] == ("you",) and b[0] not in _BEFORE_YOU:
        return f"broken grammar ({b[0]} you)"
    for i, (v, w) in enumerate(pairwise(b)):
        relative = relative or v in _RELATIVES or (i > 0 and v in _GRAMMAR["subjects"])
        if (v, w) in known:
            continue
        if _never_neighbours(v, w) or (v in _MODALS and i and _not_a_verb(b, i + 1)) or _disagrees(b, i):
            return f"broken grammar ({v} {w})"
        if w == "than" and not any(_comparative(x) for x in b[: i + 1]):
            return "lost (the comparison)"
        if v in _PREPOSITIONS and not relative:
            stranded = w in _ENDS and v in _GRAMMAR["strands"] and not b[i - 1].endswith("ed")
            stranded = stranded or (i == 0 and w == ",")
            follows = w in PUNCTUATION or w in _CONJUNCTIONS or (w in _AUXILIARIES and v != "to")
            if stranded or (i and (b[i - 1], v) in objects and (follows or w in ("in", "of", "for", "with", "from"))):
                return f"lost (what follows {v})"
    return ""


def _never_neighbours(v: str, w: str) -> bool:
    if v == w:
        return v not in ("had", "that") and v not in PUNCTUATION
    if v in ("a", "an") and w not in PUNCTUATION and prompts.article(w) != v:
        return True
    if v in _DETERMINERS and (w in _AUXILIARIES or w in _CONJUNCTIONS or w in PUNCTUATION or w in _PREPOSITIONS
                              or w in ("that", "who", "which")):
        return True
    if v in ("than", "and", "or") and w in _ENDS:
        return True
    return (v == "more" and bool(re.fullmatch(r"better|worse|\w+ier", w))) or (v == "only" and w == "that")


def _not_a_verb(b: Words, i: int) -> bool:
    """Whether what follows a modal, adverbs aside, cannot be an infinitive."""
    while i < len(b) - 1 and (b[i].endswith("ly") or b[i] in ("not", "never", "always", "also", "often", "only")):
        i += 1
    word = b[i]
    past = word.endswith("ed") and word not in _GRAMMAR["not_past"]
    return past or word in ("to", "is", "are", "was", "has", "does")


def _disagrees(b: Words, i: int) -> bool:
    """A plural subject at the start with a singular verb: "Young people has"."""
    if b[i + 1] not in ("is", "has", "was", "does") or b[i] not in _GRAMMAR["plurals"]:
        return False
    return i == 0 or (i == 1 and not b[0].endswith("ing") and b[0] not in _PREPOSITIONS and b[0] not in _RELATIVES)


def _with_objects(a: Words) -> frozenset[tuple[str, str]]:
    """Words of the seed with a preposition that has an object there: ("outside", "of") in "outside of services"."""
    empty = PUNCTUATION | _PREPOSITIONS | _AUXILIARIES | _CONJUNCTIONS | {"more", "most"}
    return frozenset((u, v) for u, v, w in zip(a, a[1:], a[2:], strict=False) if v in _PREPOSITIONS and w not in empty)


def _comparative(word: str) -> bool:
    return word in _GRAMMAR["comparatives"] or word.endswith("er")


# --- small edits


def _edited(a: Words, b: Words) -> str:
    """Words dropped, moved, or one word replaced, in a text that is otherwise its seed."""
    x, y = [w for w in a if w not in PUNCTUATION], [w for w in b if w not in PUNCTUATION]
    if len(y) < len(x) and _is_part(y, x):
        rest = list(x)
        for word in y:
            rest.remove(word)
        gone = [w for w in rest if stem(w) not in _FILLER]
        gone = gone or [w for w in rest if w in _AUXILIARIES or w in ("be", "being")]
        return f"lost ({' '.join(gone)})" if gone else ""
    start = next((i for i, (v, w) in enumerate(zip(x, y, strict=False)) if v != w), min(len(x), len(y)))
    room = min(len(x), len(y)) - start
    end = next((i for i in range(room) if x[-1 - i] != y[-1 - i]), room)
    old, new = x[start : len(x) - end], y[start : len(y) - end]
    if len(old) == len(new) <= 3 and len(old) > 1 and sorted(old) == sorted(new):
        return "broken grammar (word order)"
    if not old and new == ["to"]:
        return "broken grammar (to)"
    if len(old) == len(new) == 1:
        before = y[start - 1] if start else ""
        after = y[start + 1] if start + 1 < len(y) else ""
        asked = before and not {"do", "does", "did"}.isdisjoint(y[: start - 1]) and before not in _DETERMINERS
        return _replaced(old[0], new[0], before, after, asked and not before.endswith("'s"))
    return ""


def _is_part(short: Words, long: Words) -> bool:
    """Whether ``short`` is ``long`` with words left out."""
    rest = iter(long)
    return all(word in rest for word in short)


def _replaced(old: str, new: str, before: str, after: str, asked: bool) -> str:
    """One word for another between the same neighbours: another form of it, or another thing.

    ``asked`` says that "do" stands before, so that a verb must be plain: "do the police interferes".
    """
    p, q = stem(_bare(old)), stem(_bare(new))
    short = min(len(p), len(q))
    if p == q or (short > 4 and p[:5] == q[:5]) or (short == 4 and p[:4] == q[:4]):
        number = p == q and (old.rstrip("s") == new.rstrip("s") or {old, new} == {"life", "lives"})
        verb = after in _OBJECT_OPENERS or before in _MODALS or before == "to" or before.endswith("ly")
        verb = verb or (asked and new == old + "s")
        return "" if number and not verb else f"broken grammar ({new} for {old})"
    mine, theirs = _GROUPS.get(p, _NOWHERE), _GROUPS.get(q, _NOWHERE)
    closed = any(field in _CLOSED for field, _ in mine)
    return f"changed subject ({old} / {new})" if closed and not mine & theirs else ""


# --- what the sentence is about


def _bare(word: str) -> str:
    return word[:-2] if word.endswith("'s") else word.rstrip("'")


@lru_cache(maxsize=1 << 12)
def _content(text: str) -> dict[str, str]:
    """Stems of the words that carry content, each with the word as written."""
    found = {stem(_bare(word)): word for word in words(text) if word not in PUNCTUATION}
    return {s: word for s, word in found.items() if s not in _FILLER}


def _changed(a: dict[str, str], b: dict[str, str]) -> str:
    """One thing of a field went and another came: "mother" for "father"."""
    there = {place for s in a for place in _GROUPS.get(s, _NOWHERE)}
    here = {place for s in b for place in _GROUPS.get(s, _NOWHERE)}
    gone = {field: word for s, word in a.items() if s not in b
            for field, group in _GROUPS.get(s, _NOWHERE) if (field, group) not in here and field not in _CLOSED}
    for s, word in b.items():
        places = _GROUPS.get(s, _NOWHERE)
        if s not in a and not places & there:
            for field, _ in places:
                if field in gone:
                    return f"changed subject ({gone[field]} / {word})"
    return ""


def _lost(seed: str, text: str) -> str:
    """Content that went with nothing in its place, or a listed word without any word of its kind left."""
    a, b = _content(seed), _content(text)
    missing = {s for s in a if not any(s[:5] == t[:5] for t in b)}
    novel = sum(not any(s[:5] == t[:5] for s in a) for t in b)
    if len(missing) > 1 and not novel:
        return f"lost ({' '.join(a[s] for s in sorted(missing))})"
    if novel < len(missing):
        kept = {stem(_bare(word)) for word in words(text)}
        here = {place for s in kept for place in _GROUPS.get(s, _NOWHERE)} | {_axis(s) for s in kept}
        for s in sorted(missing):
            needed = {place for place in _GROUPS.get(s, _NOWHERE) if place[0] in _NEEDED_FIELDS} or {_axis(s)} - {""}
            if _said_by_negation(s) and not _GRAMMAR["negations"].isdisjoint(kept):
                continue
            if needed and not needed & here:
                return f"lost ({a[s]})"
    return ""


def _said_by_negation(word: str) -> bool:
    """Whether a word is one that "not" can say in another way: "unacceptable"."""
    entry = ENTRIES.get((word,))
    return bool(entry and entry.axis and entry.axis[1] < 0)


def _axis(word: str) -> str:
    """The axis of a stem; "" when it has none or one that sentences can do without."""
    entry = ENTRIES.get((word,))
    return entry.axis[0] if entry and entry.axis and entry.axis[0] not in _OPTIONAL_AXES else ""
