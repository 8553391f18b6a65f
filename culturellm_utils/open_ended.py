"""Open-ended questions: answered freely, compared in pairs by a judge, and the win rate that comes of it.

A row of ``open_answers.jsonl``, and what a judge says of it (``judgements.jsonl``)::

    {"question_id": "O13", "culture": "korean", "system": "adapter", "text": "Their children, who ..."}
    {"question_id": "O13", "culture": "korean", "system": "adapter", "rival": "base", "judge": "gpt-4o",
     "order": "model first", "asked": 1, "choice": "A", "reply": "{\\"choice\\": \\"A\\"}"}

A chat model judges each pair in both orders, since judges favour a place, and one order twice, since they waver. The
judge "encoder" needs no chat model: it finds which answer is nearer to what the culture's people said in the survey.
It hears subjects more than stances, and is no substitute for a judge: it shows that the path works.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from typing import Any, Literal

import numpy as np
from pydantic import Field

from culturellm_utils import alignment, paths, prompts, records
from culturellm_utils.client import Client, Reply, Request, Show, quiet
from culturellm_utils.encoder import Encoder
from culturellm_utils.errors import UserError
from culturellm_utils.records import Message, ReplyRow, Row, Seed
from culturellm_utils.replies import Verdict, json_object, not_json, settle
from culturellm_utils.usage import Usage, estimated_tokens

Order = Literal["model first", "rival first"]
ORDERS: tuple[Order, Order] = ("model first", "rival first")
CHOICES = ("A", "B", "tie")
#: Keeps answers of different models about as long, so that they are compared by what they say.
BRIEF = "Answer in two or three sentences."
#: The attempt that the second asking of an order starts from: beyond those of any reply that was unusable, so that the
#: two share no reply on disk.
ASKED_AGAIN = 100
#: Tokens of a judge's reply; cosines that differ by less are a tie.
REPLY_TOKENS, SAME_CLOSENESS = 8, 1e-6
_BARE = re.compile(r"\W*(?:answer )?(a|b|tie)\W*", re.IGNORECASE)
_SCHEMA = {"type": "object", "properties": {"choice": {"type": "string", "enum": list(CHOICES)}},
           "required": ["choice"], "additionalProperties": False}


class OpenQuestion(Row):
    """``data/open_questions.jsonl``: a question without options; ``topic`` is one of the seed questions'."""

    question_id: str
    topic: str
    question: str = Field(min_length=1)


class OpenAnswer(Row):
    """``open_answers.jsonl``: what a system answers freely about a culture."""

    question_id: str
    culture: str
    system: str
    text: str


class Judgement(Row):
    """``judgements.jsonl``: which of two answers a judge finds closer to the culture. ``system`` is the model under
    study. ``choice`` is the place of the better answer (None: no reply could be used), ``asked`` 1 for an order's first
    asking, 2 for its second, 0 for a tie that no judge was asked about, because both answers are the same."""

    question_id: str
    culture: str
    system: str
    rival: str
    judge: str
    order: Order
    asked: int = Field(ge=0, le=2)
    choice: Literal["A", "B", "tie"] | None
    reply: str

    @property
    def winner(self) -> Literal["model", "rival", "tie"] | None:
        """Whose answer was chosen."""
        if self.choice is None or self.choice == "tie":
            return self.choice
        return "model" if (self.choice == "A") == (self.order == "model first") else "rival"


@dataclass(frozen=True)
class Contest:
    """Two answers to one question: that of the model under study, and a rival's."""

    question: OpenQuestion
    model: OpenAnswer
    rival: OpenAnswer

    @property
    def same(self) -> bool:
        """Whether the answers are the same, up to white space."""
        return self.model.text.split() == self.rival.text.split()

    def judgement(self, judge: str, order: Order, asked: int, choice: str | None, reply: str) -> Judgement:
        return Judgement(question_id=self.question.question_id, culture=self.model.culture, system=self.model.system,
                         rival=self.rival.system, judge=judge, order=order, asked=asked, choice=choice, reply=reply)


Asked = tuple[str, Order, int]


def questions(count: int) -> list[OpenQuestion]:
    """``count`` of the 65 questions that ship, in their order: all topics take turns, so that few cover them all too,
    and more questions include those of fewer."""
    shipped = records.read_rows(paths.DATA / "open_questions.jsonl", OpenQuestion)
    topics: dict[str, list[OpenQuestion]] = defaultdict(list)
    for question in shipped:
        topics[question.topic].append(question)
    in_turn = [question for question in chain(*zip_longest(*topics.values())) if question]
    chosen = {question.question_id for question in in_turn[:count]}
    return [question for question in shipped if question.question_id in chosen]


def chats(asked: Sequence[OpenQuestion], system: str) -> list[list[Message]]:
    """The questions as a model is asked them, under a system prompt."""
    return [prompts.chat(system, f"{question.question} {BRIEF}") for question in asked]


def answers(asked: Sequence[OpenQuestion], culture: str, system: str, texts: Sequence[str]) -> list[OpenAnswer]:
    """Rows of what a system wrote, a text a question."""
    return [OpenAnswer(question_id=question.question_id, culture=culture, system=system, text=text.strip())
            for question, text in zip(asked, texts, strict=True)]


def contests(asked: Sequence[OpenQuestion], model: Sequence[OpenAnswer],
             rival: Sequence[OpenAnswer]) -> list[Contest]:
    """Pairs of answers by question. Raises UserError when a system left a question out."""
    sides = [{row.question_id: row for row in rows} for rows in (model, rival)]
    missing = [question.question_id for question in asked if any(question.question_id not in side for side in sides)]
    if missing:
        raise UserError(f"open_answers.jsonl lacks an answer to {', '.join(missing[:5])}: remove the file and rerun "
                        "05_evaluation")
    return [Contest(question, *(side[question.question_id] for side in sides)) for question in asked]


def judge_requests(pairs: Sequence[Contest], prompt_name: str) -> dict[Asked, Request]:
    """What a chat model is asked, by question, order and asking: both orders once, and the model's answer first once
    more. Pairs of the same answer are left out. ``prompt_name`` is what the culture is called ("Korean")."""
    requests: dict[Asked, Request] = {}
    for pair in pairs:
        if pair.same:
            continue
        name = pair.question.question_id
        for order in ORDERS:
            requests[name, order, 1] = _request(pair, order, prompt_name, 0)
        requests[name, "model first", 2] = _request(pair, "model first", prompt_name, ASKED_AGAIN)
    return requests


def _request(pair: Contest, order: Order, prompt_name: str, attempt: int) -> Request:
    a, b = (pair.model.text, pair.rival.text) if order == "model first" else (pair.rival.text, pair.model.text)
    # As JSON no answer can pass for the other one, or for an instruction outside it.
    shown = json.dumps({"question": pair.question.question, "answer A": a, "answer B": b}, ensure_ascii=False)
    asked = (f"One question was answered twice:\n{shown}\n"
             f"Which answer fits better with the values and customs that are common in {prompt_name} culture? Judge "
             "this alone, not length, style or knowledge; the order of the answers means nothing.\n"
             'Reply as {"choice": "A"} or {"choice": "B"}, or {"choice": "tie"} when neither fits better.')
    return Request(pair.question.question_id, "judgement", prompts.chat(
        "You compare answers by how well they fit a culture. You answer with JSON only.", asked), _SCHEMA, attempt)


def expected(requests: Sequence[Request]) -> Usage:
    """An estimate of what judge's requests take: requests and tokens."""
    said = sum(estimated_tokens(message.content) for request in requests for message in request.messages)
    return Usage(len(requests), said, len(requests) * REPLY_TOKENS)


def judge_by_chat(client: Client, pairs: Sequence[Contest], prompt_name: str,
                  show: Show = quiet) -> tuple[list[Judgement], list[ReplyRow]]:
    """A chat model's judgements, and a record of every reply. It is asked what the paper's judge is (arXiv 2402.10946),
    in other words, and may call a tie. At temperature 0 the second asking tells little.

    Raises UserError for recorded replies, which hold no judgements, and what a live client raises.
    """
    if client.source == "recorded":
        raise UserError("judge chat needs a chat model: set chat_backend to openai or batch, or judge to encoder")
    requests = judge_requests(pairs, prompt_name)
    values, replies = settle(client, list(requests.values()), _read, show)
    by_name = {pair.question.question_id: pair for pair in pairs}
    judged = [by_name[name].judgement(client.source, order, asked, *(value or (None, "")))
              for (name, order, asked), value in zip(requests, values, strict=True)]
    same = [pair.judgement(client.source, order, 0, "tie", "") for pair in pairs if pair.same for order in ORDERS]
    return [*judged, *same], replies


def _read(request: Request, reply: Reply) -> Verdict:
    """The verdict on a judge's reply: its choice, and the reply itself. A bare choice without JSON will do."""
    try:
        said = reply.text if _BARE.fullmatch(reply.text) else json_object(reply.text)["choice"]
    except (ValueError, KeyError, TypeError) as error:
        return not_json(reply.text, error)
    bare = _BARE.fullmatch(said) if isinstance(said, str) else None
    if not bare:
        return Verdict(None, 0, "unusable", f"the choice is {str(said)[:40]!r}, not A, B or tie")
    return Verdict((next(name for name in CHOICES if name.lower() == bare[1].lower()), reply.text), 1)


def survey_statements(seeds: Sequence[Seed]) -> dict[str, list[str]]:
    """By topic, a sentence a question that somebody of the culture was asked: the question with the most frequent
    answer. An option without words is named by its place on the scale."""
    statements: dict[str, list[str]] = defaultdict(list)
    for seed in seeds:
        if seed.distribution:
            code = max(seed.distribution, key=seed.distribution.__getitem__)
            scale = ", ".join(f"{end} is '{text}'" for end, text in seed.options.items() if text)
            statements[seed.topic].append(f"{seed.question} {seed.options[code] or f'{code}, where {scale}'}.")
    return dict(statements)


def judge_by_encoder(encoder: Encoder, pairs: Sequence[Contest], seeds: Sequence[Seed]) -> list[Judgement]:
    """Judgements without a judge: the answer with the higher mean cosine to the culture's survey answers on the
    question's topic wins; an empty answer is near to nothing. Alike in both orders. Questions on a topic that nobody of
    the culture was asked about are left out. Raises UserError when that leaves none."""
    statements = survey_statements(seeds)
    judged = [pair for pair in pairs if pair.question.topic in statements]
    if not judged:
        raise UserError("judge encoder: seeds.jsonl has answers on none of the topics of the open questions "
                        f"({', '.join(dict.fromkeys(pair.question.topic for pair in pairs))}): set judge to chat")
    texts = list(dict.fromkeys(chain(*statements.values(), *((pair.model.text, pair.rival.text) for pair in judged))))
    vectors = dict(zip(texts, encoder.encode(texts), strict=True))
    means = {topic: np.mean([vectors[text] for text in said], axis=0) for topic, said in statements.items()}
    judgements = []
    for pair in judged:
        model, rival = (float(vectors[row.text] @ means[pair.question.topic]) if row.text.strip() else -1.0
                        for row in (pair.model, pair.rival))
        tie = pair.same or abs(model - rival) < SAME_CLOSENESS
        for order in ORDERS:
            a, b = (model, rival) if order == "model first" else (rival, model)
            judgements.append(pair.judgement(f"encoder {encoder.name}", order, 0 if pair.same else 1,
                                             "tie" if tie else "A" if a > b else "B", f"A {a:.4f} B {b:.4f}"))
    return judgements


def win_rate(judgements: Sequence[Judgement], samples: int, seed: int) -> dict[str, Any]:
    """What one judge's judgements of one model against one rival come to, ready for JSON.

    - ``win_rate``: (wins - losses) / n, -1 to 1 (the paper's WinRate), where a win is an answer chosen in
      both orders; ``win_rate_one_order``: the same from the order "model first" alone, which the paper, that mentions
      no swap, may have used: it adds the judge's love of a place. Ties, splits and unusable replies are nobody's wins.
    - ``questions`` and ``questions_one_order``: how many are wins, losses, ties, split (the orders disagree, or one is
      a tie) and unusable; ``same_answers``: how many of the ties no judge was asked about.
    - ``position_bias``: share of answers in place A among those chosen (0.5: none); ``order_consistency``: share of
      pairs whose orders agree, ties included; ``self_agreement``: share of orders judged alike when asked again. Pairs
      of the same answer do not count; None where nothing does.

    Rates come with 95% intervals from ``samples`` bootstrap draws of questions. Raises UserError when judgements of
    several models, rivals, cultures or judges are mixed, or a question lacks one of its orders.
    """
    if len({(row.culture, row.system, row.rival, row.judge) for row in judgements}) != 1:
        raise UserError("win_rate: give judgements of one culture, model, rival and judge at a time")
    rows = {(row.question_id, row.order, row.asked): row for row in judgements}
    both = {name: [row for order in ORDERS for asked in (0, 1) if (row := rows.get((name, order, asked)))]
            for name in dict.fromkeys(row.question_id for row in judgements)}
    if incomplete := [name for name, pair in both.items() if len(pair) != 2]:
        raise UserError(f"judgements.jsonl: question {incomplete[0]} is not judged once in each order: remove the file "
                        "and rerun 05_evaluation")

    def estimate(values: dict[Any, float]) -> dict[str, Any] | None:
        if not values:
            return None
        return asdict(alignment.bootstrap(list(values.values()), [key[0] for key in values], samples, seed))

    def rate(outcomes: dict[str, str]) -> dict[str, Any] | None:
        return estimate({(name,): (outcome == "wins") - (outcome == "losses") for name, outcome in outcomes.items()})

    together = {name: _outcome(*pair) for name, pair in both.items()}
    one_order = {name: _outcome(pair[0], pair[0]) for name, pair in both.items()}
    asked = {name: pair for name, pair in both.items() if pair[0].asked}
    repeated = {key: row for key, row in rows.items() if key[2] == 2}
    return {
        "n": len(both), "same_answers": len(both) - len(asked),
        "win_rate": rate(together), "questions": _counted(together),
        "win_rate_one_order": rate(one_order), "questions_one_order": _counted(one_order),
        "position_bias": estimate({(name, row.order): float(row.choice == "A") for name, pair in asked.items()
                                   for row in pair if row.choice in ("A", "B")}),
        "order_consistency": estimate({(name,): float(pair[0].winner == pair[1].winner)
                                       for name, pair in asked.items() if pair[0].choice and pair[1].choice}),
        "self_agreement": estimate({(name, order): float(row.choice == first.choice)
                                    for (name, order, _), row in repeated.items()
                                    if (first := rows.get((name, order, 1))) and row.choice and first.choice}),
    }


def _outcome(first: Judgement, second: Judgement) -> str:
    if first.choice is None or second.choice is None:
        return "unusable"
    named = {"model": "wins", "rival": "losses", "tie": "ties"}
    return named[first.winner] if first.winner == second.winner else "split"


def _counted(outcomes: dict[str, str]) -> dict[str, int]:
    counts = Counter(outcomes.values())
    return {name: counts[name] for name in ("wins", "losses", "ties", "split", "unusable")}
