"""The released augmentation procedure, for comparison: a request a word, five synonyms, ten rounds, most similar kept.

What it does, and this module repeats under a seed: stage 1 asks for n sentences and keeps those whose cosine to the
seed is above tau, up to ten times until n are kept, then falls back on the seed itself. Stage 2 asks for five synonyms
of each noun, adjective, adverb and verb, given without its sentence. In each of ten rounds the words are gone through
in order, and each is kept or replaced by a random synonym wherever its letters stand; every sentence on the way that is
above tau to the *template* counts. The samples most similar to the seed are kept.
"""

import random
from collections import Counter
from collections.abc import Iterable
from itertools import chain

from textblob.en import tag

from culturellm_utils import replies
from culturellm_utils.augmentation import Writer, texts_schema
from culturellm_utils.client import Reply, Request
from culturellm_utils.encoder import Encoder
from culturellm_utils.prompts import chat
from culturellm_utils.records import Candidate, Question, ReplyRow
from culturellm_utils.replies import Verdict
from culturellm_utils.usage import Usage

#: Templates asked for and kept, synonyms of a word, rounds of replacement, requests for templates at most, and samples
#: kept of each question, which its templates share equally.
TEMPLATES, SYNONYMS, ROUNDS, TRIES, SAMPLES = 5, 5, 10, 10, 10
#: The tags that the released code replaces (Penn Treebank), and what it calls them when it asks.
REPLACED = {"NN": "noun", "NNS": "plural noun", "NNP": "proper noun", "JJ": "adjective", "RB": "adverb", "VB": "verb",
            "VBD": "verb, past tense", "VBG": "verb, present participle", "VBN": "verb, past participle"}


def sentences_request(question: Question, attempt: int = 0) -> Request:
    """Stage 1's request; the same again has another ``attempt``."""
    return Request(question.question_id, "sentences", chat(
        "You are a helpful assistant.",
        f"Could you write {TEMPLATES} sentences that (1) differ in their sentence structure and (2) mean the same as "
        f"this sentence?\nItem: {question.question}\nReply as {{\"sentences\": [\"...\"]}}."),
        texts_schema("sentences"), attempt)


def synonyms_request(word: str, tag_: str) -> Request:
    """Stage 2's request: the word and its part of speech, without the sentence."""
    return Request(f"{word} ({REPLACED[tag_]})", "synonyms", chat(
        "You are a helpful assistant.",
        f"Give {SYNONYMS} synonyms of a word.\nItem: {word} ({REPLACED[tag_]})\nReply as {{\"synonyms\": [\"...\"]}}."),
        texts_schema("synonyms"))


def replaceable(sentence: str) -> list[tuple[str, str]]:
    """The words of a sentence that the procedure replaces, each with its tag, in order; pieces of "don't" are none."""
    return [(word, tag_) for word, tag_ in tag(sentence) if tag_ in REPLACED and word.replace("-", "").isalpha()
            and len(word) > 1 and word not in ("re", "ve", "ll")]


def synonyms(writer: Writer, words: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    """Five synonyms of each word. The released code asks anew for every word of every template; a request that is the
    same is sent once here, and counted by :func:`requests_sent` as often as the procedure sends it."""
    wanted = list(dict.fromkeys((word.lower(), tag_) for word, tag_ in words))
    found = writer.settle([synonyms_request(*word) for word in wanted], _listed)
    return {word: listed or [] for word, listed in zip(wanted, found, strict=True)}


def _listed(request: Request, reply: Reply) -> Verdict:
    """The verdict on a reply that should list synonyms: as many as there are will do."""
    try:
        found = replies.json_object(reply.text)["synonyms"]
        if not isinstance(found, list):
            raise TypeError("'synonyms' is no list")
        words = [" ".join(word.split()) for word in found if isinstance(word, str) and word.strip()]
    except (ValueError, KeyError, TypeError) as error:
        return replies.not_json(reply.text, error)
    return Verdict(words[:SYNONYMS] or None, len(words), "used" if words else "wrong count")


def augment(writer: Writer, questions: list[Question], encoder: Encoder, tau: float, seed: int) -> list[Candidate]:
    """Templates and samples by the released procedure. English only."""
    templates = _templates(writer, questions, encoder, tau)
    words = [replaceable(t.text) for t in templates]
    known = synonyms(writer, (word for listed in words for word in listed))
    texts = [_samples(t.text, listed, known, random.Random(f"{seed}:{t.template_id}"))
             for t, listed in zip(templates, words, strict=True)]
    seeds = {question.question_id: question.question for question in questions}
    wanted = list(dict.fromkeys([*seeds.values(), *(t.text for t in templates), *chain(*texts)]))
    vectors = dict(zip(wanted, encoder.encode(wanted), strict=True))
    shared = Counter(t.question_id for t in templates)
    made: list[Candidate] = list(templates)
    for template, found in zip(templates, texts, strict=True):
        own, seed_vector = vectors[template.text], vectors[seeds[template.question_id]]
        passed = [text for text in found if vectors[text] @ own > tau]
        passed.sort(key=lambda text: -float(vectors[text] @ seed_vector))
        made += [template.model_copy(update={"candidate_id": f"{template.template_id}-s{number}", "stage": 2,
                                             "text": text})
                 for number, text in enumerate(passed[: SAMPLES // shared[template.question_id]], start=1)]
    return made


def _templates(writer: Writer, questions: list[Question], encoder: Encoder, tau: float) -> list[Candidate]:
    kept: dict[str, list[str]] = {question.question_id: [] for question in questions}
    seeds = {q.question_id: v for q, v in zip(questions, encoder.encode(q.question for q in questions), strict=True)}
    for attempt in range(TRIES):
        short = [q for q in questions if len(kept[q.question_id]) < TEMPLATES]
        if not short:
            break
        asked = [sentences_request(question, attempt) for question in short]
        for question, texts in zip(short, writer.sentences(asked, TEMPLATES, "sentences"), strict=True):
            name = question.question_id
            vectors = encoder.encode(texts) if texts else []
            good = [text for text, v in zip(texts, vectors, strict=True) if v @ seeds[name] > tau]
            kept[name] = (kept[name] + [text for text in good if text not in kept[name]])[:TEMPLATES]
    return [writer.candidate(question, number, text) for question in questions
            for number, text in enumerate(kept[question.question_id] or [question.question], start=1)]


def _samples(template: str, words: list[tuple[str, str]], known: dict[tuple[str, str], list[str]],
             chance: random.Random) -> list[str]:
    """Every different sentence on the way of ten rounds of replacement, the released code's slips included: synonyms
    in lower case at the start too, and letters replaced inside other words."""
    found: dict[str, None] = {}
    for _ in range(ROUNDS):
        text = template
        for word, tag_ in words:
            listed = known[word.lower(), tag_]
            choice = chance.randint(0, len(listed) + 1)
            if choice < len(listed):
                text = text.replace(word, listed[choice].lower())
                found.setdefault(text)
    found.pop(template, None)
    return list(found)


def requests_sent(candidates: list[Candidate], rows: list[ReplyRow]) -> Usage:
    """What the released procedure sends: the requests of stage 1, and one for each replaceable word of each template
    wherever it stands, each at what it cost here."""
    often = Counter(synonyms_request(word.lower(), tag_).subject for candidate in candidates if candidate.stage == 1
                    for word, tag_ in replaceable(candidate.text))
    spent = Usage()
    for row in rows:
        times = {"sentences": 1, "synonyms": often[row.subject]}.get(row.purpose, 0)
        spent += Usage(times, times * row.prompt_tokens, times * row.completion_tokens)
    return spent
