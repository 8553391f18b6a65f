"""Every prompt that is ever sent: to models under study, and to the chat model that augments.

>>> print(survey_prompt("Not working makes people lazy.", {"1": "Agree", "2": "Disagree"}))
Do you agree with this statement? Not working makes people lazy.
Options: 1. Agree 2. Disagree
Answer with one number from 1 to 2.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from culturellm_utils import languages
from culturellm_utils.records import Message

NEUTRAL = "You are a helpful assistant."

#: Silent h; letters and abbreviations that are spelled out (X-ray, NGO); numbers (eight, eleven, eighteen).
_VOWEL_AFTER_ALL = re.compile(r"(?i:honest|hono|hour|heir)|[FHLMNRSX](?:[A-Z]{1,2})?\b|8|1[18](?!\d)")
#: The sounds of "you" (union, but not uninformed; useful; Ukrainian) and of "won" (one).
_CONSONANT_AFTER_ALL = re.compile(
    r"(?i:e[uw]|one\b|once|u(?:\b|[kns]\b|biq|gand|k[er]|nanim|ni(?!n|m|de|ll|r|ss)|r[aeiou]|s[aeiu]|t[aeio]|y))"
)


def culture_system(prompt_name: str) -> str:
    """The system prompt that names a culture (the paper's, with its grammar repaired)."""
    return f"You are {article(prompt_name)} {prompt_name} chatbot that knows {prompt_name} culture very well."


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


#: What frames a question and asks a chat model to reword it; a culture's own language has its own (translation.py).
#: Names in braces are filled in.
PHRASES = {
    "agree": "Do you agree with this statement?",
    "options": "Options:",
    "answer": "Answer with one number from {low} to {high}.",
    "rewriter": "You rewrite survey questions. You answer with JSON only.",
    "templates": (
        "Write {count} paraphrases of the survey item below. Each must have a different sentence structure "
        "(voice, clause order, main verb, clefts, nominalizations), must mean exactly the same, and must be "
        "answerable on the same scale: do not negate, weaken, strengthen, add or drop anything."
    ),
    "suggester": "You suggest words for survey questions. You answer with JSON only.",
    "substitutes": (
        "Below is a survey item and its numbered words. For each noun, verb, adjective or adverb that can be replaced "
        "in this very sentence, give up to {count} substitutes with the same inflection, meaning and strength. "
        "Every combination of your substitutes must read well. Do not replace negations, quantities, "
        "frequencies, comparisons or these words: {protected}."
    ),
    "none": "none",
    "item": "Item:",
    "words": "Words:",
    "reply": "Reply as",
}


AGREE = f"{PHRASES['agree']} "


@dataclass(frozen=True)
class Phrasebook:
    """A language (its English name), and what English texts of the study are called in it: questions, options, system
    prompts and the values of :data:`PHRASES`. A text that it does not have stays English."""

    language: str = "English"
    own: Mapping[str, str] = field(default_factory=dict)

    def text(self, english: str) -> str:
        """What an English text is called."""
        return self.own.get(english, english)

    def say(self, name: str, **filled: object) -> str:
        """A phrase with its blanks filled in."""
        text = self.text(PHRASES[name])
        for blank, value in filled.items():
            text = text.replace("{" + blank + "}", str(value))
        return text


ENGLISH = Phrasebook()


def survey_prompt(question: str, options: Mapping[str, str], book: Phrasebook = ENGLISH) -> str:
    """A survey question with its scale; the answer is one option code. ``question`` is in the language of ``book``,
    ``options`` are English and translated here.

    A statement on a scale of agreement is asked about; "Please say how often ..." asks by itself, as a question does.
    """
    agreement = any("agree" in text.lower() for text in options.values())
    asked = f"{book.say('agree')} {question}" if agreement and question[-1:] not in ("?", "？", "؟", ";") else question
    shown = " ".join(f"{code}. {book.text(text)}" for code, text in options.items() if text)
    codes = sorted(map(int, options))
    return f"{asked}\n{book.say('options')} {shown}\n{book.say('answer', low=codes[0], high=codes[-1])}"


def template_request(question: str, count: int, book: Phrasebook = ENGLISH) -> list[Message]:
    """Stage 1: ask for paraphrases with different sentence structures."""
    return chat(
        book.say("rewriter"),
        f"{book.say('templates', count=count)}\n{book.say('item')} {question}\n"
        f'{book.say("reply")} {{"templates": ["...", "..."]}}.',
    )


def substitutes_request(template: str, protected: Iterable[str], count: int,
                        book: Phrasebook = ENGLISH) -> list[Message]:
    """Stage 2: ask for context-aware substitutes of all replaceable words of one template at once."""
    words = languages.tokens(template, book.language)
    numbered = " ".join(f"{position}:{token}" for position, token in enumerate(words))
    return chat(
        book.say("suggester"),
        f"{book.say('substitutes', count=count, protected=', '.join(protected) or book.say('none'))}\n"
        f"{book.say('item')} {template}\n{book.say('words')} {numbered}\n"
        f'{book.say("reply")} {{"words": [{{"position": 0, "word": "...", "part_of_speech": "noun", '
        '"substitutes": ["..."]}]}.',
    )
