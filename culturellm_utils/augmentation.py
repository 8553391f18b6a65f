"""Two-stage semantic augmentation: templates with other sentence structures, then context-aware substitutes.

Stage 1 asks for paraphrases of a seed question (templates). Stage 2 asks, with the whole template in the
request, for substitutes of all its words at once, and draws samples by replacing tokens at their positions::

    template  "Few goals have driven me as strongly in life as making my parents proud."
    sample    "Few aims have motivated me as strongly in life as making my parents proud."
"""

import random
import re
from collections.abc import Iterable, Mapping
from itertools import product
from math import prod

from culturellm_utils import prompts
from culturellm_utils.client import OpenAI, Recorded
from culturellm_utils.records import Candidate, Question, Substitution

#: Words that carry polarity, quantity, frequency or comparison: replacing one changes what is asked.
GUARDED = frozenset(
    """a an the one two three few many much little several half twice
    not no never nor neither none nobody nothing nowhere without cannot hardly barely scarcely rarely seldom
    often frequently frequent sometimes always usually how more most less least fewer fewest better best worse worst
    too very quite enough only all every each any some both either than as should must may might can could
    ought would will definitely probably""".split()  # noqa: SIM905
)

Substitutes = dict[int, list[str]]  # token position -> words that fit there


def make_templates(client: Recorded | OpenAI, questions: list[Question],
                   count: int) -> tuple[list[Candidate], list[str]]:
    """Stage 1: ``count`` templates for each question, and the problems met (one sentence each)."""
    replies = client.ask([prompts.template_request(question.question, count) for question in questions])
    templates, problems = [], []
    for question, reply in zip(questions, replies, strict=True):
        try:
            texts = [" ".join(text.split()) for text in _list(prompts.json_reply(reply)["templates"])]
            texts = [text for text in texts if text]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{question.question_id}: reply without templates ({error})")
            continue
        if len(texts) != count:
            problems.append(f"{question.question_id}: {len(texts)} templates instead of {count}")
        for number, text in enumerate(texts[:count], start=1):
            name = f"{question.question_id}-t{number:02d}"
            templates.append(Candidate(candidate_id=name, question_id=question.question_id, stage=1, template_id=name,
                                       text=text, substitutions=[], source=client.source))
    return templates, problems


def make_samples(client: Recorded | OpenAI, templates: list[Candidate], questions: list[Question], count: int,
                 draws: int, seed: int) -> tuple[list[Candidate], list[str]]:
    """Stage 2: up to ``draws`` different samples of each template, and the problems met.

    ``count`` is the number of substitutes asked for per word. The draw is determined by ``seed`` and template.
    """
    protected = {question.question_id: question.protected for question in questions}
    replies = client.ask([prompts.substitutes_request(t.text, protected[t.question_id], count) for t in templates])
    samples, problems = [], []
    for template, reply in zip(templates, replies, strict=True):
        substitutes, found = usable_substitutes(reply, template.text, protected[template.question_id])
        problems += [f"{template.template_id}: {problem}" for problem in found]
        chosen = draw(substitutes, draws, random.Random(f"{seed}:{template.template_id}"))
        for number, choice in enumerate(chosen, start=1):
            text, made = substitute(template.text, choice)
            samples.append(template.model_copy(update={
                "candidate_id": f"{template.template_id}-s{number}", "stage": 2, "text": text, "substitutions": made,
            }))
    return samples, problems


def usable_substitutes(reply: str, template: str, protected: Iterable[str]) -> tuple[Substitutes, list[str]]:
    """The substitutes of a reply that may be used in ``template``, and what was refused and why.

    Refused: words not at the stated position, guarded or protected words, and substitutes that are empty, of
    more than three words, or not plain words.
    """
    words = prompts.tokens(template)
    locked = protected_positions(words, protected)
    usable: Substitutes = {}
    problems = []
    try:
        entries = [(int(e["position"]), str(e["word"]), _list(e["substitutes"]))
                   for e in _list(prompts.json_reply(reply)["words"])]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        return {}, [f"reply without words ({error})"]
    for position, word, offered in entries:
        if not 0 <= position < len(words) or words[position].lower() != word.lower():
            problems.append(f"'{word}' is not word {position} of the template")
        elif position in locked:
            problems.append(f"'{word}' is protected")
        else:
            fitting = [s for s in offered if isinstance(s, str) and _plain(s) and s.lower() != word.lower()]
            if len(fitting) < len(offered):
                problems.append(f"'{word}': {len(offered) - len(fitting)} substitutes are not plain words")
            if fitting:
                usable[position] = list({s.lower(): s for s in fitting}.values())
    return usable, problems


def protected_positions(words: list[str], protected: Iterable[str]) -> set[int]:
    """Positions (from 0) that substitution never touches: guarded words, numbers, punctuation, and every token
    of each protected phrase wherever it stands, also as a possessive."""
    low = [word.lower().replace("’", "'") for word in words]
    bare = [word.removesuffix("'s") for word in low]
    locked = {i for i, word in enumerate(low) if word in GUARDED or word.endswith("n't") or not word[0].isalpha()}
    for phrase in protected:
        part = [token.lower().replace("’", "'") for token in prompts.tokens(phrase)]
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


def substitute(template: str, choice: Mapping[int, str]) -> tuple[str, list[Substitution]]:
    """Replace tokens by position; the first letter's case is kept, and a/an before a new word is adapted."""
    spans = [match.span() for match in prompts.TOKEN.finditer(template)]
    words = prompts.tokens(template)
    new, made = list(words), []
    for position, word in sorted(choice.items()):
        old = words[position]
        new[position] = word[0].upper() + word[1:] if old[0].isupper() else word
        made.append(Substitution(position=position, word=old, substitute=new[position]))
        if position and words[position - 1].lower() in {"a", "an"}:
            article = prompts.article(word)
            new[position - 1] = article.capitalize() if words[position - 1][0].isupper() else article
    pieces, end = [], 0
    for (start, stop), word in zip(spans, new, strict=True):
        pieces += [template[end:start], word]
        end = stop
    return "".join([*pieces, template[end:]]), made


def _plain(word: str) -> bool:
    return bool(re.fullmatch(r"\w+(?:[-'’ ]\w+)*", word)) and len(word.split()) <= 3


def _list(value: object) -> list:
    """A reply's list; a text in its place would be taken letter by letter."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} is not a list")
    return value
