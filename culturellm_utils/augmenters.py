"""Ways to reword a question behind one face: the two stages, parts of them, and simpler ones to compare them with.

Each takes a :class:`Job` and gives candidates; `two_stage` is this project's, `paper` the released procedure::

    >>> augment(Job(writer, questions, knobs))[0].candidate_id
    'Q27-t01'

    python -m culturellm_utils.comparison --per-question 2      # all of them on equal numbers, as a table
"""

import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain

from culturellm_utils import augmentation, encoder, languages, paper, prompts
from culturellm_utils.augmentation import Writer, texts_schema
from culturellm_utils.client import Client, Reply, Request, Show, quiet
from culturellm_utils.errors import UserError
from culturellm_utils.packed import Packed
from culturellm_utils.parameters import Augmentation
from culturellm_utils.records import Candidate, Question
from culturellm_utils.usage import Usage, estimated_tokens

#: Languages that a round trip goes through, in this order, one text each.
PIVOTS = ("German", "Spanish", "Chinese", "Turkish", "French", "Russian", "Arabic", "Hindi", "Japanese", "Korean",
          "Portuguese", "Indonesian")
#: Share of a sentence's words that EDA changes, and its four operations (Wei and Zou, 2019).
EDA_SHARE, EDA_OPERATIONS = 0.1, ("replace", "insert", "swap", "delete")
#: What the recordings say of replies to come: the share of a sentence's tokens that get substitutes, the tokens of five
#: synonyms, and the different words of five templates for each of their question's.
REPLACED_SHARE, TOKENS_OF_SYNONYMS, NEW_WORDS = 0.2, 20, 2.2


@dataclass(frozen=True)
class Job:
    """What an augmenter works on; questions are in the language of the writer's phrasebook."""

    writer: Writer
    questions: list[Question]
    knobs: Augmentation


def two_stage(job: Job) -> Packed[Candidate]:
    """Templates of other structure, then samples with other words in them."""
    templates, knobs = paraphrase(job), job.knobs
    made = Packed(Candidate, templates)
    made.extend(augmentation.make_samples(job.writer, templates, job.questions, knobs.substitutes_requested,
                                          knobs.samples_drawn, knobs.random_seed))
    return made


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
    place = {question.question_id: number for number, question in enumerate(job.questions)}
    return sorted(made, key=lambda candidate: place[candidate.question_id])


def translation_request(subject: str, text: str, source: str, target: str) -> Request:
    """The request that translates one text."""
    return Request(subject, "translation", prompts.chat(
        "You translate survey questions faithfully. You answer with JSON only.",
        f"Translate from {source} into {target}.\nItem: {text}\nReply as {{\"texts\": [\"...\"]}}."),
        texts_schema("texts"))


def eda(job: Job) -> list[Candidate]:
    """Random word operations (EDA, Wei and Zou 2019); synonyms come from the chat model in the place of WordNet."""
    words = {q.question_id: paper.replaceable(q.question) for q in job.questions}
    known = paper.synonyms(job.writer, chain(*words.values()))
    made = []
    for question in job.questions:
        chance = random.Random(f"{job.knobs.random_seed}:{question.question_id}")
        listed = {word.lower(): known[word.lower(), tag] for word, tag in words[question.question_id]}
        made += [job.writer.candidate(question, number,
                                      disturbed(question.question, EDA_OPERATIONS[number % 4], listed, chance))
                 for number in range(1, job.knobs.templates_requested + 1)]
    return made


def disturbed(text: str, operation: str, synonyms: dict[str, list[str]], chance: random.Random) -> str:
    """A sentence after one of EDA's operations on a tenth of its words, at least one; as it was when it has too few
    words or none with a synonym (``synonyms`` has them by word in lower case)."""
    words = text.split()
    for _ in range(max(1, round(EDA_SHARE * len(words)))):
        known = [i for i, word in enumerate(words) if synonyms.get(_bare(word).lower())]
        if operation == "swap" and len(words) > 1:
            i, j = chance.sample(range(len(words)), 2)
            words[i], words[j] = words[j], words[i]
        elif operation == "delete" and len(words) > 1:
            del words[chance.randrange(len(words))]
        elif operation in ("replace", "insert") and known:
            i = chance.choice(known)
            new = chance.choice(synonyms[_bare(words[i]).lower()])
            if operation == "replace":
                words[i] = words[i].replace(_bare(words[i]), new)
            else:
                words.insert(chance.randint(0, len(words)), new)
    return " ".join(words)


def _bare(word: str) -> str:
    return word.strip(".,;:?!()")


def released(job: Job) -> list[Candidate]:
    """The released procedure."""
    return paper.augment(job.writer, job.questions, encoder.load(job.knobs.encoder), job.knobs.tau,
                         job.knobs.random_seed)


AUGMENTERS: dict[str, Callable[[Job], Sequence[Candidate]]] = {
    "two_stage": two_stage, "paraphrase": paraphrase, "free": free, "round_trip": round_trip, "eda": eda,
    "paper": released,
}
#: Those whose rules or requests are English.
ENGLISH_ONLY = ("free", "round_trip", "eda", "paper")


def augment(job: Job) -> Sequence[Candidate]:
    """Candidates by the augmenter that the parameters name."""
    name, language = job.knobs.augmenter, job.writer.book.language
    if name in ENGLISH_ONLY and languages.code(language) != "en":
        raise UserError(f"augmenter '{name}' works in English only: set language to english, or augmenter to two_stage")
    return AUGMENTERS[name](job)


@dataclass(frozen=True)
class Plan:
    """What a run will ask, before it starts: requests and tokens in all (estimated while some replies are not on disk),
    the requests that are certain by now, those of them that are answered on disk, what is left to pay in US dollars,
    and seconds if the model writes 40 tokens a second."""

    usage: Usage
    certain: int
    known: int
    money: float
    seconds: float


def plan(job: Job) -> Plan:
    """What the augmenter will ask. It runs on the replies that are on disk, as far as they go; nothing is sent."""
    disk = _Disk(job.writer.client)
    looked = Writer(disk, job.writer.book)
    try:
        augment(Job(looked, job.questions, job.knobs))
    except _NotOnDisk:
        usage = expected(job)[1]
    else:
        usage = Usage(len(looked.replies), sum(row.prompt_tokens for row in looked.replies),
                      sum(row.completion_tokens for row in looked.replies))
    known = disk.known(disk.asked)
    left = max(0.0, 1 - known / max(1, usage.requests)) if known < len(disk.asked) else 0.0
    seconds = (usage.completion_tokens / 40 + usage.requests / 2) * left / job.knobs.max_concurrency
    return Plan(usage, len(disk.asked), known, disk.budget.prices.money(usage) * left, seconds)


class _NotOnDisk(Exception):
    """What is asked has no reply yet."""


class _Disk:
    """A client that reads replies and sends nothing; the client that it is made from stays as it is."""

    def __init__(self, client: Client) -> None:
        self._client = deepcopy(client)
        self.source, self.retries, self.budget = client.source, client.retries, client.budget
        self.asked: list[Request] = []

    def known(self, requests: list[Request]) -> int:
        return self._client.known(requests)

    def ask(self, requests: list[Request], show: Show = quiet) -> list[Reply]:
        self.asked += requests
        if self.known(requests) < len(requests):
            raise _NotOnDisk
        return self._client.ask(requests)


def expected(job: Job) -> tuple[list[Request], Usage]:
    """The first requests of an augmenter, and an estimate of all that it will ask: requests and tokens.

    Sentences that are to come are taken to be as long as their questions, and to bring about as many new words as the
    shipped ones do.
    """
    knobs, book, questions = job.knobs, job.writer.book, job.questions
    count = knobs.templates_requested
    size = sum(estimated_tokens(q.question) + 6 for q in questions)
    if knobs.augmenter == "free":
        first = [_free_request(q, count) for q in questions]
        return first, _cost(first, count * size)
    if knobs.augmenter == "round_trip":
        first = [translation_request(q.question_id, q.question, "English", pivot)
                 for pivot in PIVOTS[:count] for q in questions]
        there = _cost(first, len(PIVOTS[:count]) * size)
        return first, there + there
    if knobs.augmenter in ("eda", "paper"):
        words = dict.fromkeys((word.lower(), tag) for q in questions for word, tag in paper.replaceable(q.question))
        asked = [paper.synonyms_request(*word) for word in words]
        synonyms = _cost(asked, len(asked) * TOKENS_OF_SYNONYMS)
        if knobs.augmenter == "eda":
            return asked, synonyms
        first = [paper.sentences_request(q) for q in questions]
        return first, _cost(first, paper.TEMPLATES * size) + _times(NEW_WORDS, synonyms)
    first = augmentation.template_requests(questions, count, book)
    usage = _cost(first, count * size)
    if knobs.augmenter == "two_stage":
        # The questions in the place of the templates.
        second = augmentation.substitutes_requests([job.writer.candidate(q, 0, q.question).model_copy(
            update={"template_id": q.question_id}) for q in questions], questions, knobs.substitutes_requested, book)
        length = sum(len(languages.tokens(q.question, book.language)) for q in questions)
        each = _cost(second, length * REPLACED_SHARE * (22 + 4 * knobs.substitutes_requested))
        usage += _times(count, each)
    return first, usage


def _cost(requests: list[Request], completion_tokens: float) -> Usage:
    prompt = sum(estimated_tokens(message.content) for request in requests for message in request.messages)
    return Usage(len(requests), prompt, round(completion_tokens))


def _times(factor: float, usage: Usage) -> Usage:
    return Usage(round(factor * usage.requests), round(factor * usage.prompt_tokens),
                 round(factor * usage.completion_tokens))
