"""Words and scripts of the world's languages: tokens that can be replaced, and whether a text is in a language at all.

Tokens follow Unicode's word boundaries, with ICU's dictionaries for scripts that write no spaces::

    >>> tokens("让父母骄傲是我的目标。", "Chinese")
    ['让', '父母', '骄傲', '是', '我的', '目标', '。']

A token keeps its clitics, particles and endings: a substitute brings its own ("부모님을", "çocukların", "وأهدافي").
"""

import re
import unicodedata
from functools import cache, lru_cache

import regex
from babel import Locale
from babel.core import get_global
from icu4py.breakers import WordBreaker
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from culturellm_utils.errors import UserError

#: Hyphens, apostrophes, and the middle dots and quotes of Catalan and Hebrew, when they stand inside a word.
_INNER = "-‐‑'’·׳״"
#: Letters with their marks and joiners; other invisible signs (soft hyphens, directions) belong to a word inside alone.
_LETTERS = r"[\p{L}\p{N}_](?:[\p{L}\p{N}\p{M}_\u200c\u200d]|\p{Cf}+(?=[\p{L}\p{M}]))*"
_TOKEN = regex.compile(rf"(?P<word>{_LETTERS}(?:[{_INNER}]{_LETTERS})*)|[^\s\p{{Cf}}]\p{{M}}*")
#: Scripts without spaces between words.
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
#: Scripts that Unicode has under other names.
_SCRIPTS = {"Kore": r"\p{Hangul}", "Jpan": r"[\p{Hiragana}\p{Katakana}\p{Han}]", "Hans": r"\p{Han}",
            "Hant": r"\p{Han}"}
#: Names that CLDR does not have.
_ALIASES = {"bengali": "bn", "mandarin": "zh", "mandarin chinese": "zh", "farsi": "fa", "tagalog": "tl",
            "kirghiz": "ky", "slovene": "sl", "panjabi": "pa", "dhivehi": "dv"}
#: What py3langid calls a language, and the varieties that it tells apart where a short text does not.
_VARIETIES = {"ar": {"ary", "arz"}, "zh": {"yue", "wuu"}, "uz": {"uzs"}, "no": {"nn", "da"}, "nb": {"no", "nn", "da"},
              "id": {"ms", "jv"}, "ms": {"id"}, "hr": {"bs", "sr"}, "bs": {"hr", "sr"}, "sr": {"bs", "hr"},
              "ku": {"sdh"}, "fil": {"tl"}}
#: The Turkish question particle with its endings, and "de" (also), which stand apart and follow the word before them.
_ENCLITIC = re.compile(
    "m[ıiuü](?:y[ıiuü]m|s[ıiuü]n(?:[ıiuü]z)?|y[ıiuü]z|d[ıiuü]r(?:l[ae]r)?|y(?:d[ıiuü]|s[ae])(?:m|n|k|n[ıiuü]z|l[ae]r)?"
    "|ym[ıiuü]ş(?:l[ae]r|s[ıiuü]n(?:[ıiuü]z)?|[ıiuü]m|[ıiuü]z)?)?|d[ae]")
_CLOSE = {"a": "ı", "â": "ı", "ı": "ı", "o": "u", "u": "u", "û": "u", "e": "i", "i": "i", "î": "i", "ö": "ü", "ü": "ü"}


@cache
def code(language: str) -> str:
    """The ISO 639 code of a language by its English name. Raises UserError when it is none.

    >>> code("Korean")
    'ko'
    """
    wanted = " ".join(language.split()).lower()
    names = _ALIASES | {name.lower(): found for found, name in Locale("en").languages.items()}
    if wanted in names:
        return names[wanted]
    raise UserError(f"culture_language '{language}' is no language's English name; write it as in 'Korean' or 'Greek'")


def spans(text: str, language: str = "English") -> list[tuple[int, int]]:
    """Start and end of each token: words, and every other visible sign by itself."""
    found = []
    for match in _TOKEN.finditer(text):
        if match["word"] and _UNSPACED.search(match["word"]):
            found += _segments(text, *match.span(), language)
        elif not match.group().isspace():
            found.append(match.span())
    return found


def _segments(text: str, start: int, end: int, language: str) -> list[tuple[int, int]]:
    """The words inside a run of letters without spaces."""
    found, at = [], start
    for part in WordBreaker(text[start:end], code(language)):
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


def plain(word: str, language: str = "English") -> str:
    """A word as it is compared with another: lower case, one spelling of composed letters and of apostrophes, without
    Arabic vowel signs and joiners."""
    word = unicodedata.normalize("NFC", lower(word, language)).replace("’", "'")
    return re.sub("[\u064b-\u065f\u0670\u0640\u200c\u200d]", "", word)


def holding(phrase: str, text: str, language: str) -> set[int]:
    """Positions of the tokens of ``text`` that a phrase is part of, with whatever endings or clitics.

    >>> holding("부모님", "나는 부모님을 사랑한다.", "Korean")
    {1}
    """
    whole, owner, end = "", [], 0
    for position, (start, stop) in enumerate(spans(text, language)):
        piece = (" " if start > end else "") + plain(text[start:stop], language)
        whole, end = whole + piece, stop
        owner += [position] * len(piece)
    wanted = " ".join(plain(phrase, language).split())
    if code(language) == "tr" and len(wanted) > 3:
        wanted = re.sub("[çkpt]$", "", wanted)  # çocuk, çocuğun
    if code(language) == "ar" and len(wanted) > 3:
        wanted = re.sub("ة$", "", wanted)       # حكومة, حكومتنا
    found: set[int] = set()
    at = whole.find(wanted) if wanted else -1
    while at >= 0:
        found.update(owner[at : at + len(wanted)])
        at = whole.find(wanted, at + 1)
    return found


def question_particle(word: str, particle: str) -> str:
    """The Turkish question particle (mi, mı, mu, mü with its endings), or "de" (also), in harmony with the word before
    it; any other word as it is.

    >>> question_particle("doğru", "mi"), question_particle("önemli", "mıdır")
    ('mu', 'midir')
    """
    vowels = [letter for letter in lower(word, "Turkish") if letter in _CLOSE]
    if not vowels or not _ENCLITIC.fullmatch(particle):
        return particle
    close = _CLOSE[vowels[-1]]
    return re.sub("[ae]", "a" if close in "ıu" else "e", re.sub("[ıiuü]", close, particle))


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _letter(language: str) -> regex.Pattern:
    """A letter of the script that a language is mostly written in."""
    likely, name = get_global("likely_subtags"), code(language)
    script = next((part for part in [*name.split("_")[1:], *likely.get(name, likely.get(name.partition("_")[0], ""))
                                     .split("_")[1:]] if len(part) == 4), "")
    return regex.compile(_SCRIPTS.get(script, rf"\p{{Script={script}}}" if script else r"\p{L}"))


def written(text: str, language: str) -> bool:
    """Whether at least half of a text's letters are of the script that ``language`` is mostly written in."""
    letters = regex.findall(r"\p{L}", text)
    return 2 * sum(bool(_letter(language).match(letter)) for letter in letters) >= len(letters)


@lru_cache(maxsize=1 << 16)
def plausible(text: str, language: str) -> bool:
    """Whether a text may be in ``language``: py3langid names it, or is in doubt, or does not know that language; then
    the script decides."""
    wanted = code(language).partition("_")[0]
    fitting = {wanted} | _VARIETIES.get(wanted, set())
    known = not fitting.isdisjoint(_identifier().labels)
    found, probability = _identifier().classify(text)
    return found in fitting or ((not known or probability < 0.5) and written(text, language))
