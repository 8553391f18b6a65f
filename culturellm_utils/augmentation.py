"""Two-stage semantic augmentation: templates with other sentence structures, then context-aware substitutes.

Stage 1 asks for paraphrases of a seed question (templates). Stage 2 asks, with the whole template in the
request, for substitutes of all its words at once, and draws samples by replacing tokens at their positions::

    template  "Few goals have driven me as strongly in life as making my parents proud."
    sample    "Few aims have motivated me as strongly in life as making my parents proud."
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from sys import intern
from typing import Any

from culturellm_utils import languages, prompts, replies
from culturellm_utils.client import Client, Reply, Request, Show, quiet
from culturellm_utils.packed import Packed
from culturellm_utils.prompts import ENGLISH, Phrasebook
from culturellm_utils.records import Candidate, Question, ReplyRow, Substitution
from culturellm_utils.replies import Judge, Verdict

#: Words that carry polarity, quantity, frequency or comparison: replacing one changes what is asked.
GUARDED = frozenset(
    """a an the one two three few many much little several half twice
    not no never nor neither none nobody nothing nowhere without cannot hardly barely scarcely rarely seldom
    often frequently frequent sometimes always usually how more most less least fewer fewest better best worse worst
    too very quite enough only all every each any some both either than as should must may might can could
    ought would will definitely probably""".split()  # noqa: SIM905
)

Substitutes = dict[int, list[str]]  # token position -> words that fit there


def texts_schema(name: str) -> dict[str, Any]:
    """The JSON schema of a reply that is a list of texts under ``name``."""
    return _object({name: {"type": "array", "items": {"type": "string"}}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SUBSTITUTES_SCHEMA = _object({"words": {"type": "array", "items": _object({
    "position": {"type": "integer"}, "word": {"type": "string"}, "part_of_speech": {"type": "string"},
    "substitutes": {"type": "array", "items": {"type": "string"}}})}})


@dataclass
class Writer:
    """A chat model that rewords questions in one language, and the record of all its replies."""

    client: Client
    book: Phrasebook = ENGLISH
    show: Show = quiet
    replies: list[ReplyRow] = field(default_factory=list)

    def settle(self, requests: list[Request], judge: Judge) -> list[Any]:
        """The usable value of each request, None where there is none."""
        values, rows = replies.settle(self.client, requests, judge, self.show)
        self.replies += rows
        return values

    def sentences(self, requests: list[Request], count: int, name: str) -> list[list[str]]:
        """Up to ``count`` usable sentences for each request, from replies that list them under ``name``."""
        found = self.settle(requests, lambda request, reply: replies.texts(reply.text, count, self.book.language, name))
        return [texts or [] for texts in found]

    def candidate(self, question: Question, number: int, text: str) -> Candidate:
        """A candidate that was made from the question itself."""
        name = f"{question.question_id}-t{number:02d}"
        return Candidate(candidate_id=name, question_id=question.question_id, stage=1, template_id=name, text=text,
                         substitutions=[], source=self.client.source)


def template_requests(questions: list[Question], count: int, book: Phrasebook = ENGLISH) -> list[Request]:
    """The requests of stage 1."""
    return [Request(q.question_id, "templates", prompts.template_request(q.question, count, book),
                    texts_schema("templates")) for q in questions]


def substitutes_requests(templates: list[Candidate], questions: list[Question], count: int,
                         book: Phrasebook = ENGLISH) -> list[Request]:
    """The requests of stage 2."""
    protected = {question.question_id: question.protected for question in questions}
    return [Request(t.template_id, "substitutes",
                    prompts.substitutes_request(t.text, protected[t.question_id], count, book), SUBSTITUTES_SCHEMA)
            for t in templates]


def make_templates(writer: Writer, questions: list[Question], count: int) -> list[Candidate]:
    """Stage 1: up to ``count`` templates for each question."""
    found = writer.sentences(template_requests(questions, count, writer.book), count, "templates")
    return [writer.candidate(question, number, text)
            for question, texts in zip(questions, found, strict=True) for number, text in enumerate(texts, start=1)]


def make_samples(writer: Writer, templates: list[Candidate], questions: list[Question], count: int, draws: int,
                 seed: int) -> Packed[Candidate]:
    """Stage 2: up to ``draws`` different samples of each template.

    ``count`` is the number of substitutes asked for per word. The draw is determined by ``seed`` and template.
    """
    language = writer.book.language
    protected = {question.question_id: question.protected for question in questions}
    by_id = {template.template_id: template for template in templates}

    def judge(request: Request, reply: Reply) -> Verdict:
        template = by_id[request.subject]
        return usable_substitutes(reply.text, template.text, protected[template.question_id], language)

    samples = Packed(Candidate)
    for template, found in zip(templates, writer.settle(
            substitutes_requests(templates, questions, count, writer.book), judge), strict=True):
        chosen = draw(found or {}, draws, random.Random(f"{seed}:{template.template_id}"))
        for number, choice in enumerate(chosen, start=1):
            text, made = substitute(template.text, choice, language)
            samples.append(template.model_copy(update={
                "candidate_id": f"{template.template_id}-s{number}", "stage": 2, "text": text, "substitutions": made,
            }))
    return samples


def usable_substitutes(reply: str, template: str, protected: Iterable[str], language: str = "English") -> Verdict:
    """The substitutes of a reply that may be used in ``template``, by position; the detail says what was refused.

    Refused: words not at the stated position, guarded or protected words, and substitutes that are empty, of more than
    three words, not plain words, or in another script. A reply without any usable substitute is not used.
    """
    words = languages.tokens(template, language)
    locked = protected_positions(template, protected, language)

    def plain(word: str) -> str:
        return languages.plain(word, language)

    usable: Substitutes = {}
    problems = []
    try:
        entries = [(int(e["position"]), str(e["word"]), _list(e["substitutes"]))
                   for e in _list(replies.json_object(reply)["words"])]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        return replies.not_json(reply, error)
    for position, word, offered in entries:
        if not 0 <= position < len(words) or plain(words[position]) != plain(word):
            problems.append(f"'{word:.40}' is not word {position} of the template")
        elif position in locked:
            problems.append(f"'{word}' is protected")
        else:
            fitting = [s for s in offered
                       if isinstance(s, str) and _fits(s, word, language) and plain(s) != plain(word)]
            if len(fitting) < len(offered):
                problems.append(f"'{word}': {len(offered) - len(fitting)} substitutes are not plain words")
            if fitting:
                usable[position] = list({plain(s): intern(s) for s in fitting}.values())  # words come again and again
    return Verdict(usable or None, len(usable), "used" if usable else "unusable", "; ".join(problems)[:1000])


def protected_positions(template: str, protected: Iterable[str], language: str = "English") -> set[int]:
    """Positions (from 0) that substitution never touches: punctuation, numbers, and every token of each protected
    phrase wherever it stands. In English also the guarded words, and the phrase as a possessive; in other languages the
    phrase with any ending, particle or clitic."""
    words = languages.tokens(template, language)
    locked = {i for i, word in enumerate(words) if not word[0].isalpha()}
    if languages.code(language) != "en":
        return locked.union(*(languages.holding(phrase, template, language) for phrase in protected))
    low = [languages.plain(word) for word in words]
    bare = [word.removesuffix("'s") for word in low]
    locked |= {i for i, word in enumerate(low) if word in GUARDED or word.endswith("n't")}
    for phrase in protected:
        part = [languages.plain(token) for token in languages.tokens(phrase)]
        for start in range(len(low) - len(part) + 1):
            stop = start + len(part)
            if part in (low[start:stop], bare[start:stop]):
                locked.update(range(start, stop))
    return locked


def draw(substitutes: Substitutes, draws: int, chance: random.Random) -> list[dict[int, str]]:
    """Up to ``draws`` different choices; each word is kept or replaced with equal weight per alternative, and at
    least one word is replaced. All choices there are, in random order, when there are no more than ``draws``."""
    positions = sorted(substitutes)
    alternatives = [[None, *substitutes[position]] for position in positions]
    total = prod(map(len, alternatives)) - 1
    if total <= draws:
        picked = [choice for choice in product(*alternatives) if any(choice)]
        chance.shuffle(picked)
    else:
        seen: dict[tuple, None] = {}
        while len(seen) < draws:
            choice = tuple(chance.choice(options) for options in alternatives)
            if any(choice):
                seen.setdefault(choice)
        picked = list(seen)
    return [{p: word for p, word in zip(positions, choice, strict=True) if word} for choice in picked]


def substitute(template: str, choice: Mapping[int, str], language: str = "English") -> tuple[str, list[Substitution]]:
    """Replace tokens by position; the first letter's case is kept, and what depends on the new word is adapted: a/an
    before it, in Turkish the question particle after it."""
    spans = languages.spans(template, language)
    words = [template[start:stop] for start, stop in spans]
    new, made = list(words), []
    for position, word in sorted(choice.items()):
        old = words[position]
        new[position] = languages.capital(word, language) if old[0].isupper() else word
        made.append(Substitution(position=position, word=old, substitute=new[position]))
        if languages.code(language) == "en" and position and words[position - 1].lower() in {"a", "an"}:
            article = prompts.article(word)
            new[position - 1] = article.capitalize() if words[position - 1][0].isupper() else article
        after = "".join(words[position + 1 : position + 2])
        # In harmony with the old word: otherwise it is a noun that looks like a particle (müdür, director).
        if languages.code(language) == "tr" and after and languages.question_particle(old, after) == after:
            new[position + 1] = languages.question_particle(word, after)
    pieces, end = [], 0
    for (start, stop), word in zip(spans, new, strict=True):
        pieces += [template[end:start], word]
        end = stop
    return "".join([*pieces, template[end:]]), made


def _fits(new: str, old: str, language: str) -> bool:
    """Whether ``new`` is one to three words, in the script of the word that it stands for."""
    parts = languages.tokens(new, language)
    return (bool(parts) and len(new.split()) <= 3 and len(parts) <= 4 and new == " ".join(new.split())
            and all(part[0].isalnum() or part[0] == "_" for part in parts)
            and (languages.written(new, language) or not languages.written(old, language)))


def _list(value: object) -> list:
    """A reply's list; a text in its place would be taken letter by letter."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} is not a list")
    return value
