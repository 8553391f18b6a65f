"""Words and scripts of the world's languages: tokens that can be replaced, and whether a text is in a language at all.

Tokens follow Unicode's word boundaries, with ICU's dictionaries for scripts that write no spaces::

    >>> tokens("让父母骄傲是我的目标。", "Chinese")
    ['让', '父母', '骄傲', '是', '我的', '目标', '。']

A token keeps its clitics, particles and endings: a substitute brings its own ("부모님을", "çocukların", "وأهدافي").
"""

import re
from functools import cache, lru_cache

import regex
from babel import Locale
from icu4py.breakers import WordBreaker
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from culturellm_utils.errors import UserError

#: Hyphens, apostrophes and joiners that stand inside a word.
_INNER = "-'’\u200c\u200d"
_LETTERS = r"[\p{L}\p{N}_][\p{L}\p{N}\p{M}_]*"
_WORD = regex.compile(f"{_LETTERS}(?:[{_INNER}]{_LETTERS})*")
#: Scripts without spaces between words.
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
#: Names that CLDR does not have.
_ALIASES = {"bengali": "bn", "mandarin": "zh", "farsi": "fa", "tagalog": "tl", "kirghiz": "ky"}


#: Varieties that py3langid tells apart and a short text does not.
_VARIETIES = {"ar": {"ary", "arz"}, "zh": {"yue", "wuu"}, "uz": {"uzs"}, "no": {"nn", "da"}, "id": {"ms", "jv"},
              "ms": {"id"}, "hr": {"bs", "sr"}, "bs": {"hr", "sr"}, "sr": {"bs", "hr"}, "ku": {"sdh"}}


@cache
def code(language: str) -> str:
    """The ISO 639 code of a language by its English name.

    >>> code("Korean")
    'ko'
    """
    wanted = language.strip().lower()
    names = _ALIASES | {name.lower(): found for found, name in Locale("en").languages.items()}
    if wanted in names:
        return names[wanted]
    raise UserError(f"culture_language '{language}' is no language's English name; write it as in 'Korean' or 'Greek'")


def spans(text: str, language: str = "English") -> list[tuple[int, int]]:
    """Start and end of each token: words, and every other visible sign by itself."""
    found, end = [], 0
    for match in _WORD.finditer(text):
        found += [(i, i + 1) for i in range(end, match.start()) if not text[i].isspace() and text[i] not in _INNER[3:]]
        if _UNSPACED.search(match.group()):
            found += _segments(text, match.start(), match.end(), language)
        else:
            found.append(match.span())
        end = match.end()
    return found + [(i, i + 1) for i in range(end, len(text)) if not text[i].isspace()]


def _segments(text: str, start: int, end: int, language: str) -> list[tuple[int, int]]:
    """The words inside a run of letters without spaces."""
    found, at = [], start
    for part in WordBreaker(text[start:end], code(language)):
        if not part.isspace():
            found.append((at, at + len(part)))
        at += len(part)
    return found


def tokens(text: str, language: str = "English") -> list[str]:
    """The tokens that substitution works on."""
    return [text[start:end] for start, end in spans(text, language)]


def capital(word: str, language: str = "English") -> str:
    """A word with its first letter as a capital; Turkish and Azerbaijani have two letters i."""
    if word[:1] == "i" and code(language) in ("tr", "az"):
        return "İ" + word[1:]
    return word[:1].upper() + word[1:]


def lower(word: str, language: str = "English") -> str:
    """A word in lower case, by the language's own rule."""
    if code(language) in ("tr", "az"):
        word = word.replace("İ", "i").replace("I", "ı")
    return word.lower()


def question_particle(word: str, particle: str) -> str:
    """The Turkish question particle (mi, mı, mu, mü with its endings) in harmony with the word before it.

    >>> question_particle("doğru", "mi"), question_particle("önemli", "mıdır")
    ('mu', 'midir')
    """
    vowels = [letter for letter in lower(word, "Turkish") if letter in "aıoueiöü"]
    if not vowels:
        return particle
    close = {"a": "ı", "ı": "ı", "o": "u", "u": "u", "e": "i", "i": "i", "ö": "ü", "ü": "ü"}[vowels[-1]]
    return re.sub("[ıiuü]", close, particle)


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=1 << 16)
def plausible(text: str, language: str) -> bool:
    """Whether a text may be in ``language``: py3langid names it, or is in doubt, or does not know that language."""
    wanted = code(language).partition("_")[0]
    if wanted not in _identifier().labels:
        return True
    found, probability = _identifier().classify(text)
    return found == wanted or found in _VARIETIES.get(wanted, ()) or probability < 0.5
