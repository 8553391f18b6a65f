"""What 09 looks for in open-ended answers: refusals, generalising and hedging words, names of a culture.

The words are those of ``data/lexicon.yaml``, which says where they come from. They are found, not understood::

    >>> lexicon.count("Germans always save. Not all of them, after all.", lexicon.names(studies.culture("german")))
    Counter({'generalising': 1, 'hedging': 1, 'generic': 1})
    >>> lexicon.declines("I'm sorry, but I cannot answer that.")
    'refusal'
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Literal

import regex
from babel import Locale, UnknownLocaleError
from babel.core import get_global
from pydantic import BaseModel, ConfigDict, ValidationError

from culturellm_utils import languages, paths
from culturellm_utils.errors import UserError
from culturellm_utils.studies import Culture, read_yaml

#: A refusal stands at the head of an answer: among so many of its sentences.
HEAD = 2
#: Shorter names count as whole words alone ("usa" is no "usage"); longer ones with endings ("German", "Germans").
SHORT = 4
_SENTENCE = re.compile(r"(?<=[.!?。！？؟।])\s*|\n+")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|『[^』]*』")
_LABELLED = re.compile(r"^(?:assistant|answer|a)\s+(?=\S)")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Phrases(_Strict):
    """The phrases of one language: ``opens`` begin a sentence, ``holds`` stand anywhere in one; each of ``cannot`` with
    each of ``answer`` begins one too."""

    opens: list[str] = []
    holds: list[str] = []
    cannot: list[str] = []
    answer: list[str] = []

    @property
    def heads(self) -> list[str]:
        """All that may begin a sentence."""
        return [*self.opens, *(f"{first} {then}" for first, then in product(self.cannot, self.answer))]


class Lexicon(_Strict):
    """``data/lexicon.yaml``: words by what they do, in lists of any length."""

    generalising: list[list[str]]
    hedging: list[list[str]]
    neither: list[list[str]]
    people: list[str]
    claims: list[str]
    also_called: dict[str, list[str]]
    refusal: dict[str, Phrases]
    lead_ins: list[str]
    disclaimer: dict[str, Phrases]


@cache
def shipped() -> Lexicon:
    """The lexicon that ships with the package."""
    path = paths.DATA / "lexicon.yaml"
    try:
        return Lexicon.model_validate(read_yaml(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{paths.shown(path)}: {where}: {problem['msg']}; reinstall the package") from None


def names(culture: Culture) -> list[str]:
    """What a culture, its language and its countries are called, in English and in that language, in lower case."""
    found = [culture.prompt_name, culture.culture_language]
    spoken = languages.code(culture.culture_language)
    try:
        own = Locale.parse(spoken)
    except (UnknownLocaleError, ValueError):  # a language without names of its own in CLDR
        own = Locale("en")
    found.append(own.languages.get(spoken.partition("_")[0], ""))
    for country in culture.countries:
        short = get_global("territory_aliases").get(country, [country])[0]
        found += [Locale("en").territories.get(short, ""), own.territories.get(short, "")]
        found += shipped().also_called.get(country, [])
    return list(dict.fromkeys(_plain(name) for name in found if name))


def named(text: str, names: Sequence[str]) -> bool:
    """Whether a text says one of the names."""
    return bool(_name_pattern(tuple(names)).search(_plain(text)))


def count(text: str, names: Sequence[str]) -> Counter[str]:
    """How many ``generalising`` and ``hedging`` words and phrases an English text holds, each word counted once and the
    longest phrase first ("not all" hedges, "after all" is neither); and ``generic`` statements about the people that
    ``names`` name ("Germans always save")."""
    text = _plain(text)
    pattern, kinds = _words()
    found = Counter(kind for match in pattern.finditer(text) if (kind := kinds[match.group()]) != "neither")
    if generic := len(_generic_pattern(tuple(names)).findall(text)):
        found["generic"] = generic
    return found


def declines(text: str) -> Literal["refusal", "disclaimer", ""]:
    """Whether a text, in one of the lexicon's languages, refuses to answer, or says that a machine is speaking, in its
    first two sentences. What it quotes does not count. A text that does both refuses."""
    head = [part for part in _SENTENCE.split(_QUOTED.sub(" ", text)) if re.search(r"\w", part)][:HEAD]
    for kind in ("refusal", "disclaimer"):
        if any(_fits(sentence, language, phrases) for sentence in head
               for language, phrases in getattr(shipped(), kind).items()):
            return kind
    return ""


def _fits(sentence: str, language: str, phrases: Phrases) -> bool:
    bare = _LABELLED.sub("", _bare(sentence, language))
    if any(_bare(phrase, language) in bare for phrase in phrases.holds):
        return True
    heads = _heads(language, tuple(phrases.heads))
    while not (found := heads.match(bare)):
        shorter = _heads(language, tuple(shipped().lead_ins)).sub("", bare, count=1).strip()
        if shorter == bare:
            break
        bare = shorter
    return bool(found)


@cache
def _heads(language: str, phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the phrases at the head of a sentence."""
    return re.compile(rf"^(?:{_either(_bare(phrase, language) for phrase in phrases)})(?!\w)")


@lru_cache(maxsize=1 << 16)
def _bare(text: str, language: str) -> str:
    """Words alone, as they are compared."""
    return " ".join(regex.sub(r"[^\w\p{M}\s']", " ", languages.plain(text, language)).split())


def _plain(text: str) -> str:
    return " ".join(languages.plain(text).split())


def _either(phrases: Iterable[str]) -> str:
    """A pattern of any of the phrases, the longest first."""
    return "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True)) or r"(?!)"


@cache
def _words() -> tuple[re.Pattern[str], dict[str, str]]:
    """What finds the words of the three lists, and the list of each."""
    kinds = {word: kind for kind in ("generalising", "hedging", "neither")
             for words in getattr(shipped(), kind) for word in words}
    return re.compile(rf"(?<![\w'-])(?:{_either(kinds)})(?![\w-])"), kinds


@cache
def _name_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    parts = []
    for name in names:
        if name.upper() == name:  # a script without capitals: endings and clitics adjoin on both sides
            parts.append(re.escape(name))
        else:
            parts.append(rf"(?<!\w){re.escape(name)}" + (r"\w*" if len(name) >= SHORT else r"(?!\w)"))
    return re.compile("|".join(parts) or r"(?!)")


@cache
def _generic_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    words = shipped()
    people = _either(part.replace("{name}", name) for part, name in product(words.people, names))
    return re.compile(rf"(?<![\w'-])(?:{people}) (?:{_either(words.claims)})(?![\w-])")
