"""Ways to reword a question behind one face: the two stages, parts of them, and simpler ones to compare them with.

Each takes a :class:`Job` and gives candidates; `two_stage` is this project's, `paper` the released procedure::

    >>> augment(Job(writer, questions, knobs))[0].candidate_id
    'Q27-t01'

    python -m culturellm_utils.augmenters --per-question 4      # the comparison on equal numbers, as a table
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from culturellm_utils import augmentation, encoder, languages, paper, prompts
from culturellm_utils.augmentation import Writer, texts_schema
from culturellm_utils.client import Request
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Augmentation
from culturellm_utils.records import Candidate, Question
from culturellm_utils.usage import Usage, estimated_tokens

#: Languages that a round trip goes through, in this order, one text each.
PIVOTS = ("German", "Spanish", "Chinese", "Turkish", "French", "Russian", "Arabic", "Hindi", "Japanese", "Korean",
          "Portuguese", "Indonesian")
#: Share of a sentence's words that EDA changes, and its four operations (Wei and Zou, 2019).
EDA_SHARE, EDA_OPERATIONS = 0.1, ("replace", "insert", "swap", "delete")


@dataclass(frozen=True)
class Job:
    """What an augmenter works on; questions are in the language of the writer's phrasebook."""

    writer: Writer
    questions: list[Question]
    knobs: Augmentation


def two_stage(job: Job) -> list[Candidate]:
    """Templates of other structure, then samples with other words in them."""
    templates = paraphrase(job)
    knobs = job.knobs
    return [*templates, *augmentation.make_samples(job.writer, templates, job.questions, knobs.substitutes_requested,
                                                   knobs.samples_drawn, knobs.random_seed)]


def paraphrase(job: Job) -> list[Candidate]:
    """Stage 1 alone."""
    return augmentation.make_templates(job.writer, job.questions, job.knobs.templates_requested)


def free(job: Job) -> list[Candidate]:
    """Rephrasings by a plain request, without templates or rules."""
    count = job.knobs.templates_requested
    found = job.writer.sentences([_free_request(q, count) for q in job.questions], count, "texts")
    return [job.writer.candidate(question, number, text)
            for question, texts in zip(job.questions, found, strict=True) for number, text in enumerate(texts, start=1)]


def _free_request(question: Question, count: int) -> Request:
    return Request(question.question_id, "rephrasings", prompts.chat(
        "You are a helpful assistant.",
        f"Rephrase this survey item in {count} ways.\nItem: {question.question}\nReply as {{\"texts\": [\"...\"]}}."),
        texts_schema("texts"))


def round_trip(job: Job) -> list[Candidate]:
    """Translation by the chat model into another language and back, one language a text."""
    made = []
    for number, pivot in enumerate(PIVOTS[: job.knobs.templates_requested], start=1):
        there = Writer(job.writer.client, prompts.Phrasebook(pivot), job.writer.show, job.writer.replies)
        abroad = there.sentences([translation_request(q.question_id, q.question, "English", pivot)
                                  for q in job.questions], 1, "texts")
        gone = [(q, texts[0]) for q, texts in zip(job.questions, abroad, strict=True) if texts]
        back = job.writer.sentences([translation_request(q.question_id, text, pivot, "English") for q, text in gone], 1,
                                    "texts")
        made += [job.writer.candidate(q, number, texts[0]) for (q, _), texts in zip(gone, back, strict=True) if texts]
    return sorted(made, key=lambda c: [q.question_id for q in job.questions].index(c.question_id))


def translation_request(subject: str, text: str, source: str, target: str) -> Request:
    """The request that translates one text."""
    return Request(subject, "translation", prompts.chat(
        "You translate survey questions faithfully. You answer with JSON only.",
        f"Translate from {source} into {target}.\nItem: {text}\nReply as {{\"texts\": [\"...\"]}}."),
        texts_schema("texts"))


def eda(job: Job) -> list[Candidate]:
    """Random word operations (EDA, Wei and Zou 2019); synonyms come from the chat model in the place of WordNet."""
    words = [word for q in job.questions for word in paper.replaceable(q.question)]
    known = paper.synonyms(job.writer, words)
    made = []
    for question in job.questions:
        chance = random.Random(f"{job.knobs.random_seed}:{question.question_id}")
        listed = {word.lower(): known[word.lower(), tag] for word, tag in paper.replaceable(question.question)}
        made += [job.writer.candidate(question, number,
                                      _disturbed(question.question, EDA_OPERATIONS[number % 4], listed, chance))
                 for number in range(1, job.knobs.templates_requested + 1)]
    return made


def _disturbed(text: str, operation: str, synonyms: dict[str, list[str]], chance: random.Random) -> str:
    """A sentence after one of EDA's operations on a tenth of its words, at least one."""
    words = text.split()
    for _ in range(max(1, round(EDA_SHARE * len(words)))):
        known = [i for i, word in enumerate(words) if synonyms.get(word.strip(".,?!").lower())]
        if operation == "swap" and len(words) > 1:
            i, j = chance.sample(range(len(words)), 2)
            words[i], words[j] = words[j], words[i]
        elif operation == "delete" and len(words) > 1:
            del words[chance.randrange(len(words))]
        elif known:
            i = chance.choice(known)
            bare = words[i].strip(".,?!")
            new = chance.choice(synonyms[bare.lower()])
            if operation == "replace":
                words[i] = words[i].replace(bare, new)
            else:
                words.insert(chance.randint(0, len(words)), new)
    return re.sub(r"\s+", " ", " ".join(words))


def released(job: Job) -> list[Candidate]:
    """The released procedure."""
    return paper.augment(job.writer, job.questions, encoder.load(job.knobs.encoder), job.knobs.tau,
                         job.knobs.random_seed)


AUGMENTERS: dict[str, Callable[[Job], list[Candidate]]] = {
    "two_stage": two_stage, "paraphrase": paraphrase, "free": free, "round_trip": round_trip, "eda": eda,
    "paper": released,
}
#: Those whose rules or requests are English.
ENGLISH_ONLY = ("free", "round_trip", "eda", "paper")


def augment(job: Job) -> list[Candidate]:
    """Candidates by the augmenter that the parameters name."""
    name, language = job.knobs.augmenter, job.writer.book.language
    if name in ENGLISH_ONLY and language != "English":
        raise UserError(f"augmenter '{name}' works in English only: set language to english, or augmenter to two_stage")
    return AUGMENTERS[name](job)


@dataclass(frozen=True)
class Plan:
    """What a run will ask, before it starts: requests in all, those among ``certain`` ones that are answered on disk,
    tokens and US dollars (estimated), and seconds if the model writes 40 tokens a second."""

    usage: Usage
    certain: int
    known: int
    money: float
    seconds: float


def plan(job: Job) -> Plan:
    """What the augmenter will ask. Where stage 1 is on disk, stage 2 is known too."""
    asked, usage = expected(job)
    client = job.writer.client
    if job.knobs.augmenter == "two_stage" and client.known(asked) == len(asked):
        peek = Job(Writer(client, job.writer.book), job.questions, job.knobs)
        asked = [*asked, *augmentation.substitutes_requests(paraphrase(peek), job.questions,
                                                            job.knobs.substitutes_requested, job.writer.book)]
    known = client.known(asked)
    left = 1 - known / len(asked) if len(asked) == usage.requests else 1.0
    seconds = (usage.completion_tokens / 40 + usage.requests / 2) * left / job.knobs.max_concurrency
    return Plan(usage, len(asked), known, client.budget.prices.money(usage) * left, seconds)


def expected(job: Job) -> tuple[list[Request], Usage]:
    """The first requests of an augmenter, and an estimate of all that it will ask: requests and tokens.

    Replies are estimated by the length of the questions, stage 2 by the questions in the place of the templates.
    """
    knobs, book, questions = job.knobs, job.writer.book, job.questions
    count = knobs.templates_requested
    size = [estimated_tokens(q.question) for q in questions]
    words = [len(languages.tokens(q.question, book.language)) for q in questions]
    first = augmentation.template_requests(questions, count, book)
    stage1 = _cost(first, [count * (s + 6) for s in size])
    synonyms = [len(paper.replaceable(q.question)) for q in questions]
    if knobs.augmenter == "paraphrase":
        return first, stage1
    if knobs.augmenter == "free":
        asked = [_free_request(q, count) for q in questions]
        return asked, _cost(asked, [count * (s + 6) for s in size])
    if knobs.augmenter == "round_trip":
        asked = [translation_request(q.question_id, q.question, "English", pivot)
                 for pivot in PIVOTS[:count] for q in questions]
        once = _cost(asked, [s + 12 for s in size] * min(count, len(PIVOTS)))
        return asked, once + once
    if knobs.augmenter == "eda":
        asked = [paper.synonyms_request(*word) for word in dict.fromkeys(
            (word.lower(), tag) for q in questions for word, tag in paper.replaceable(q.question))]
        return asked, _cost(asked, [30] * len(asked))
    if knobs.augmenter == "paper":
        asked = [paper.sentences_request(q) for q in questions]
        cost = _cost(asked, [paper.TEMPLATES * (s + 6) for s in size])
        per_word = _cost([paper.synonyms_request("word", "NN")], [30])
        for _ in range(paper.TEMPLATES * sum(synonyms)):
            cost += per_word
        return asked, cost
    template = augmentation.Candidate(candidate_id="t", question_id="q", stage=1, template_id="t", text="t",
                                      substitutions=[], source="")
    second = augmentation.substitutes_requests(
        [template.model_copy(update={"question_id": q.question_id, "text": q.question}) for q in questions], questions,
        knobs.substitutes_requested, book)
    once = _cost(second, [n * 0.3 * (22 + 4 * knobs.substitutes_requested) for n in words])
    return first, stage1 + Usage(count * once.requests, count * once.prompt_tokens, count * once.completion_tokens)


def _cost(requests: list[Request], completions: list[float]) -> Usage:
    prompt = sum(estimated_tokens(message.content) for request in requests for message in request.messages)
    return Usage(len(requests), prompt, round(sum(completions)))
