"""English words as the stance and damage guards see them: light stems, phrases, and what each says about stance.

The lists are in ``data/stance_words.yaml``. A sentence becomes a tuple of tokens, phrases joined::

    >>> [(token.stem, token.entry.axis) for token in parse("Too few jobs are unfair.")]
    [('too_few', ('enough', -1, True)), ('job', None), ('be', None), ('unfair', ('fair', -1, True)), ('.', None)]
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import yaml

from culturellm_utils import paths

#: Everything in the data file, by section.
LISTS = yaml.load((paths.DATA / "stance_words.yaml").read_text(encoding="utf-8"),
                  Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
_IRREGULAR = {form: plain for plain, forms in LISTS["irregular"].items() for form in forms.split()}
_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*|[.,;:?!()]")
_VOWEL = re.compile("[aeiouy]")
_CONTRACTIONS = (
    ("can't", "can not"), ("won't", "will not"), ("shan't", "shall not"), ("n't", " not"), ("'s", ""), ("'", " "),
)


@dataclass(slots=True, eq=False)
class Entry:
    """What the lists say about one word or phrase.

    ``axis`` is (name, +1 or -1, whether the word turns a sentence round by itself); ``order`` is +1 for "above"
    and -1 for "below"; ``rung`` is ``all``, ``most`` or ``few``.
    """

    neutral: bool = False
    negator: bool = False
    denier: bool = False
    light: bool = False
    hedge: bool = False
    loose: bool = False
    rung: str = ""
    order: int = 0
    axis: tuple[str, int, bool] | None = None


class Token(NamedTuple):
    """A word or phrase: its stem (words of a phrase joined by _), as written in lower case, and its entry."""

    stem: str
    word: str
    entry: Entry


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The common form of a lower-case English word and its inflections; not always a word itself.

    >>> stem("raises") == stem("raising") == stem("raised") == stem("raise")
    True
    """
    plain = _IRREGULAR.get(word, word)
    if plain is word:
        plain = _without_suffix(word)
    while len(plain) > 3 and plain.endswith("e"):
        plain = plain[:-1]
    if len(plain) > 4 and plain.endswith("ll"):
        plain = plain[:-1]
    return plain[:-1] + "i" if len(plain) > 3 and plain.endswith("y") else plain


def _without_suffix(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 4 and word.endswith(("sses", "xes", "zes", "ches", "shes")):
        word = word[:-2]
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix, plain in (("ied", "y"), ("ing", ""), ("ed", "")):
        base = word[: -len(suffix)]
        if word.endswith(suffix) and len(base) >= 3 and _VOWEL.search(base):
            doubled = len(base) > 3 and base[-1] == base[-2] and base[-1] not in "sl"
            return (base[:-1] if doubled else base) + plain
    return word


@lru_cache(maxsize=1 << 13)
def words(text: str) -> tuple[str, ...]:
    """Words and punctuation in lower case; apostrophes and hyphens inside a word stay."""
    return tuple(_WORD.findall(text.lower().replace("\u2019", "'")))


def _entries() -> tuple[dict[tuple[str, ...], Entry], dict[str, str]]:
    """Entries by stems, and the reason to give for each axis."""
    entries: dict[tuple[str, ...], Entry] = {}
    reasons: dict[str, str] = {}

    def mark(listed: str, field: str, value: object = True) -> None:
        for word in listed.split():
            setattr(entries.setdefault(tuple(stem(part) for part in word.split("_")), Entry()), field, value)

    def axis(name: str, sign: int, listed: str) -> None:
        for word in listed.split():
            mark(word.rstrip("!"), "axis", (name, sign, word.endswith("!")))

    for section, field in (("neutral", "neutral"), ("negators", "negator"), ("deniers", "denier"), ("light", "light"),
                           ("hedges", "hedge"), ("loose", "loose")):
        mark(LISTS[section], field)
    for rung, listed in LISTS["ladder"].items():
        mark(listed, "rung", rung)
    for sign, place in ((1, "above"), (-1, "below")):
        mark(LISTS["order"][place], "order", sign)
    for name, poles in LISTS["axes"].items():
        reasons[name] = poles["reason"]
        axis(name, 1, poles["plus"])
        axis(name, -1, poles["minus"])
    for line in LISTS["opposites"]:
        plus, minus = line.split("|")
        name = f"{plus.split()[0]} / {minus.split()[0]}"
        reasons[name] = f"turned into its opposite ({name})"
        axis(name, 1, plus)
        axis(name, -1, minus)
    return entries, reasons


ENTRIES, REASONS = _entries()
NO_ENTRY = Entry()
_PHRASES: dict[str, list[tuple[str, ...]]] = {}
for _key in sorted(ENTRIES, key=len, reverse=True):
    if len(_key) > 1:
        _PHRASES.setdefault(_key[0], []).append(_key)


@lru_cache(maxsize=1 << 13)
def parse(text: str) -> tuple[Token, ...]:
    """The tokens of a sentence: contractions opened ("n't" is "not"), possessive endings dropped, phrases joined."""
    text = text.lower().replace("\u2019", "'").replace("cannot", "can not")
    if "'" in text:
        for short, long in _CONTRACTIONS:
            text = text.replace(short, long)
    plain = _WORD.findall(text)
    stems = [stem(word) for word in plain]
    tokens, i = [], 0
    while i < len(stems):
        size = 1
        for key in _PHRASES.get(stems[i], ()):
            if tuple(stems[i : i + len(key)]) == key:
                size = len(key)
                break
        joined = stems[i] if size == 1 else "_".join(key)
        entry = ENTRIES.get((joined,) if size == 1 else key) or _derived(joined)
        tokens.append(Token(joined, " ".join(plain[i : i + size]), entry))
        i += size
    return tuple(tokens)


@lru_cache(maxsize=1 << 13)
def _derived(word: str) -> Entry:
    """The axis of a word that is listed under its base only: "safely", "disagreement", "weakness"."""
    for suffix in ("li", "ment", "ness"):
        if word.endswith(suffix):
            for base in (stem(word.removesuffix(suffix)), stem(word.removesuffix(suffix) + "l")):
                if (base,) in ENTRIES and ENTRIES[(base,)].axis:
                    return Entry(axis=ENTRIES[(base,)].axis)
    return NO_ENTRY


def stems(listed: str) -> frozenset[str]:
    """The stems of words separated by spaces."""
    return frozenset(map(stem, listed.split()))


PUNCTUATION = frozenset(",;:.?!()")
#: Where a clause may end, and with it the reach of a negation.
BREAKS = PUNCTUATION | stems("and or but than when whenever because if who which while whereas although")
#: Words that say nothing about what a sentence is about.
FUNCTION = BREAKS | stems(
    """a an the be of in on for to do have at by with from as it that this these those their its his her my our your
    they we i you so there much many very will would should more less better worse not even just one"""
)
#: Words that make "... than X" say that X comes first: "few things matter more than X".
NEAR_NONE = stems("few no nothing nobody none hardly") | {"no_on"}


def content(tokens: Sequence[Token]) -> frozenset[str]:
    """The stems of the words that carry content."""
    return frozenset(t.stem for t in tokens if t.stem not in FUNCTION and not t.entry.negator)
