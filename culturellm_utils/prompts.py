"""Every prompt that is ever sent: to models under study, and to the chat model that augments.

>>> print(survey_prompt("Not working makes people lazy.", {"1": "Agree", "2": "Disagree"}))
Do you agree with this statement? Not working makes people lazy.
Options: 1. Agree 2. Disagree
Answer with one number from 1 to 2.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping

from culturellm_utils.records import Message

NEUTRAL = "You are a helpful assistant."
AGREE = "Do you agree with this statement? "

#: A word keeps its inner hyphens and apostrophes; every other visible sign is a token of its own.
TOKEN = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")

#: Silent h; letters and abbreviations that are spelled out (X-ray, NGO); numbers (eight, eleven, eighteen).
_VOWEL_AFTER_ALL = re.compile(r"(?i:honest|hono|hour|heir)|[FHLMNRSX](?:[A-Z]{1,2})?\b|8|1[18](?!\d)")
#: The sounds of "you" (union, but not uninformed; useful; Ukrainian) and of "won" (one).
_CONSONANT_AFTER_ALL = re.compile(
    r"(?i:e[uw]|one\b|once|u(?:\b|[kns]\b|biq|gand|k[er]|nanim|ni(?!n|m|de|ll|r|ss)|r[aeiou]|s[aeiu]|t[aeio]|y))"
)


def culture_system(prompt_name: str) -> str:
    """The system prompt that names a culture (the paper's, with its grammar repaired)."""
    return f"You are {article(prompt_name)} {prompt_name} chatbot that knows {prompt_name} culture very well."


def survey_prompt(question: str, options: Mapping[str, str]) -> str:
    """A survey question with its scale; the answer is one option code.

    A statement on a scale of agreement is asked about; "Please say how often ..." asks by itself, as a question does.
    """
    agreement = any("agree" in text.lower() for text in options.values())
    asked = AGREE + question if agreement and not question.endswith("?") else question
    shown = " ".join(f"{code}. {text}" for code, text in options.items() if text)
    codes = sorted(map(int, options))
    return f"{asked}\nOptions: {shown}\nAnswer with one number from {codes[0]} to {codes[-1]}."


def classification_prompt(text: str, labels: Iterable[str], instruction: str) -> str:
    """A labelled-sentence task; the answer is one label."""
    return f"{instruction} Answer with {' or '.join(labels)} only.\nText: {text}"


def chat(system: str, user: str, assistant: str | None = None) -> list[Message]:
    """System, user and, when given, assistant turn."""
    turns = [Message(role="system", content=system), Message(role="user", content=user)]
    return turns if assistant is None else [*turns, Message(role="assistant", content=assistant)]


def article(word: str) -> str:
    """The English article, ``a`` or ``an``, by the sound that the spelling of the word after it suggests."""
    vowel = unicodedata.normalize("NFD", word.lower())[:1] in set("aeiou")
    return "an" if _VOWEL_AFTER_ALL.match(word) or (vowel and not _CONSONANT_AFTER_ALL.match(word)) else "a"


def tokens(text: str) -> list[str]:
    """The tokens that substitution works on."""
    return TOKEN.findall(text)


def template_request(question: str, count: int) -> list[Message]:
    """Stage 1: ask for paraphrases with different sentence structures."""
    return chat(
        "You rewrite survey questions. You answer with JSON only.",
        f"Write {count} paraphrases of the survey item below. Each must have a different sentence structure "
        "(voice, clause order, main verb, clefts, nominalizations), must mean exactly the same, and must be "
        "answerable on the same scale: do not negate, weaken, strengthen, add or drop anything.\n"
        f"Item: {question}\n"
        'Reply as {"templates": ["...", "..."]}.',
    )


def substitutes_request(template: str, protected: Iterable[str], count: int) -> list[Message]:
    """Stage 2: ask for context-aware substitutes of all replaceable words of one template at once."""
    numbered = " ".join(f"{position}:{token}" for position, token in enumerate(tokens(template)))
    kept = ", ".join(protected) or "none"
    return chat(
        "You suggest words for survey questions. You answer with JSON only.",
        "Below is a survey item and its numbered words. For each noun, verb, adjective or adverb that can be replaced "
        f"in this very sentence, give up to {count} substitutes with the same inflection, meaning and strength. "
        "Every combination of your substitutes must read well. Do not replace negations, quantities, "
        f"frequencies, comparisons or these words: {kept}.\n"
        f"Item: {template}\nWords: {numbered}\n"
        'Reply as {"words": [{"position": 0, "word": "...", "part_of_speech": "noun", "substitutes": ["..."]}]}.',
    )


def json_reply(text: str) -> dict:
    """The JSON object inside a reply, code fences and talk around it tolerated.

    Raises ValueError when there is none, or one with text that no file can hold.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError("no JSON object in the reply")
    try:
        value = json.loads(text[start : end + 1])
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair raises
    except RecursionError:
        raise ValueError("the reply is nested too deeply") from None
    return value
