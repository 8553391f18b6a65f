"""Every reader and parser, fed what is damaged, hostile or nonsense: it gives a result, or one sentence for the user.

No other exception, no endless loop, no memory without bound. By default some thousand inputs; for 100,000::

    pytest -m slow tests/test_fuzz.py
"""

import json
import random
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzzing
import httpx
import nbformat
import pandas as pd
import pyreadstat
import pytest
import reports
import yaml
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import (
    answerers,
    augmentation,
    batch,
    borrowing,
    cleaning,
    client,
    comparison,
    filtering,
    guard,
    harness,
    human_study,
    imports,
    job,
    languages,
    lexicon,
    open_answers,
    open_ended,
    paper,
    parameters,
    paths,
    prompts,
    protocol,
    raters,
    rating_form,
    ratings,
    records,
    released,
    remote,
    remote_job,
    replies,
    studies,
    survey,
    tasks,
    translation,
    wordings,
    wvs,
)
from culturellm_utils.errors import UserError
from culturellm_utils.records import Message, Row
from culturellm_utils.report import executed, headline

Read = Callable[[bytes, Path], Any]


@dataclass(frozen=True)
class Reader:
    """What reads an input, from its bytes and an empty folder; valid inputs, their kind, and its share of all inputs
    (1: as many as most have)."""

    name: str
    kind: fuzzing.Kind
    corpus: list[bytes]
    read: Read
    share: float = 1.0


READERS: list[Reader] = []


def reader(kind: fuzzing.Kind, *corpus: str | bytes, share: float = 1.0) -> Callable[[Read], Read]:
    """Register a function as a reader of inputs like those of the ``corpus``."""
    def register(read: Read) -> Read:
        valid = [one.encode() if isinstance(one, str) else one for one in corpus]
        READERS.append(Reader(read.__name__, kind, valid, read, share))
        return read
    return register


def placed(folder: Path, name: str, content: bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def as_text(content: bytes) -> str:
    """An input as the text that a program holds: halves of surrogate pairs among it, as JSON may bring them."""
    return content.decode("utf-8", "surrogatepass" if b"\xed" in content else "replace") if _decodes(content) else (
        content.decode("latin-1"))


def _decodes(content: bytes) -> bool:
    try:
        content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


# --- JSON Lines: a row of every model ---------------------------------------------------------------------------

CHAT = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "Tea?"}]
CANDIDATE = {"candidate_id": "Q1-t01-s1", "question_id": "Q1", "stage": 2, "template_id": "Q1-t01", "text": "Tea.",
             "substitutions": [{"position": 0, "word": "Coffee", "substitute": "Tea"}], "source": "recorded"}
OPTIONS = {"1": "Agree", "2": "Disagree"}
ROWS: dict[type[Row], dict[str, Any]] = {
    records.Question: {"question_id": "Q1", "topic": "Tea", "question": "Tea helps.", "options": OPTIONS,
                       "protected": ["Tea"]},
    records.Seed: {"question_id": "Q1", "topic": "Tea", "question": "Tea helps.", "options": OPTIONS,
                   "culture": "korean", "countries": ["KOR"], "respondents": 3, "distribution": {"1": 0.6, "2": 0.4},
                   "label": "1", "label_rule": "mode"},
    records.Substitution: CANDIDATE["substitutions"][0],
    records.Candidate: CANDIDATE,
    records.Augmented: CANDIDATE | {"similarity": 0.9},
    records.Rejected: CANDIDATE | {"similarity": 0.1, "reason": "similarity: at most 0.80"},
    records.ReplyRow: {"key": "ab", "purpose": "templates", "subject": "Q1", "attempt": 0, "outcome": "used",
                       "detail": "", "prompt_tokens": 9, "completion_tokens": 3, "text": ""},
    records.Translation: {"name": "Q1", "kind": "question", "english": "Tea helps.", "text": "차가 돕는다.",
                          "protected": ["차"], "back": "Tea helps.", "similarity": 1.0, "source": "m", "reason": ""},
    records.Message: CHAT[0],
    records.TrainRow: {"messages": [*CHAT, {"role": "assistant", "content": "1"}]},
    records.TargetRow: {"question_id": "Q1", "wording_id": "Q1-t01", "distribution": {"1": 0.6, "2": 0.4}},
    records.Answer: {"probabilities": {"1": 0.5, "2": 0.5}, "reply": "1", "label": "1"},
    records.Prediction: {"item_id": "Q1-t01", "part": "held_out_wording", "culture": "korean", "system": "base",
                         "question_id": "Q1", "messages": CHAT, "probabilities": {"1": 1.0}, "reply": "1",
                         "label": None, "gold": "1", "gold_distribution": {"1": 0.6, "2": 0.4}},
    records.TaskItem: {"item_id": "a", "culture": "korean", "task": "rude", "split": "test", "text": "Tea!",
                       "label": "RUDE", "english": "Tea!"},
    records.Pair: {"pair_id": "p1", "seed": "Tea helps.", "text": "Coffee helps."},
    survey._Released: {"topic": "TEA", "q_id": "27", "q_content": "Tea helps.", "option": "1. Agree 2. No"},
    translation.Own: {"name": "Q1", "text": "차가 돕는다.", "protected": ["차"]},
    guard.LabelledPair: {"seed": "Tea helps.", "text": "Tea hurts.", "label": "flipped", "note": "", "origin": "toy"},
    harness.HarnessRow: {"item_id": "gsm8k-1", "task": "gsm8k", "messages": CHAT, "reply": "#### 4", "label": "4",
                         "gold": "4"},
    human_study.PairKey: {"question_id": "Q1", "candidate_id": "Q1-t01-s1", "check": ""},
    imports.Participant: {"rater_id": "anna", "status": "APPROVED", "seconds": 9.5},
    open_ended.OpenQuestion: {"question_id": "O1", "topic": "Tea", "question": "Is tea good?"},
    open_ended.OpenAnswer: {"question_id": "O1", "culture": "korean", "system": "base", "text": "Tea is good."},
    open_ended.Judgement: {"question_id": "O1", "culture": "korean", "system": "adapter", "rival": "base",
                           "judge": "toy", "order": "model first", "asked": 1, "choice": "A", "reply": "A"},
    ratings.Rating: {"rater_id": "anna", "pair_id": "p1", "rating": 4, "seconds": 2.5, "position": 1},
    cleaning.Rules: {"same_at_least": 4, "failed_checks": 1, "share_of_pairs": 0.5, "statuses": ["REJECTED"]},
    client.Reply: {"text": "Tea.", "finish": "stop", "refusal": "", "prompt_tokens": 4, "completion_tokens": 2,
                   "logprobs": {"Tea": -0.5}},
    client.Recording: {"key": "a" * 64, "purpose": "templates", "question_id": "Q1", "reply": "{}"},
    tasks.LabelledText: {"item_id": "spam-1", "culture": "korean", "task": "spam", "text": "Tea!", "label": "Spam",
                         "file_label": "1"},
    remote.Model: {"model": "ft:tea", "job": "job-1", "base_model": "tea", "base_url": ""},
}


def models() -> set[type[Row]]:
    """Every row model of the package but those of headline.json, a document that ``run_before`` reads."""
    found, new = set(), [Row]
    while new:
        new = [kind for parent in new for kind in parent.__subclasses__()]
        found |= set(new)
    return {kind for kind in found - {headline.Run, headline._Runs} if kind.__module__.startswith("culturellm_utils.")}


def test_every_row_model_has_an_example():
    assert models() == set(ROWS)


def _rows(model: type[Row]) -> Reader:
    line = json.dumps(ROWS[model], ensure_ascii=False)

    def read(content: bytes, folder: Path) -> None:
        rows = records.read_rows(placed(folder, "rows.jsonl", content), model)
        again = records.read_rows(records.write_rows(folder / "again.jsonl", rows), model)
        assert again == rows, "what was read is written otherwise"

    return Reader(f"rows of {model.__name__}", "jsonl", [f"{line}\n".encode(), f"{line}\n\n{line}".encode()], read, 0.5)


READERS += [_rows(model) for model in ROWS]


@reader("jsonl", '{"seed": "Tea helps.", "text": "Coffee helps.", "more": [1, null]}\n')
def pairs_to_filter(content: bytes, folder: Path) -> None:
    for row in filtering.read_pairs(placed(folder, "pairs.jsonl", content)):
        filtering._line(row).encode()


@reader("json", json.dumps({"a": [1, 2.5, {"b": None}], "c": "차"}))
def json_document(content: bytes, folder: Path) -> None:
    found = records.read_json(placed(folder, "found.json", content))
    records.write_json(folder / "again.json", found)


# --- survey: questions and answers ------------------------------------------------------------------------------


@reader("jsonl", json.dumps(ROWS[records.Question]), json.dumps(ROWS[survey._Released]),
        json.dumps(ROWS[survey._Released] | {"q_id": "Q31", "option": "1. Good 2. Bad 4. Fine 4. Poor"}),
        json.dumps(ROWS[survey._Released] | {"option": "1. Never 10. Always"}))
def questions(content: bytes, folder: Path) -> None:
    asked = survey.questions(str(placed(folder, "questions.jsonl", content)))
    table = pd.DataFrame([("KOR", q.question_id, int(next(iter(q.options))), 2, 2, 2.0) for q in asked], columns=[
        "country_alpha", "question", "answer_code", "respondents", "first_1000", "weight"])
    for rule in ("mode", "mean", "paper"):
        survey.seeds("korean", ["KOR"], asked, table, rule, "equal")
    for one in asked:
        prompts.survey_prompt(one.question, one.options)


RESPONDENTS = pd.DataFrame({
    "A_WAVE": [7] * 6, "B_COUNTRY": [410, 410, 410, 840, 840, 840], "B_COUNTRY_ALPHA": ["KOR"] * 3 + ["USA"] * 3,
    "W_WEIGHT": [1.0, 0.5, 1.5, 1.0, 1.0, 1.0], "Q1": [1, 2, -1, 2, 1, -4], "Q2": [1, 1, 2, -2, -5, 2]})
ASKED = [records.Question(question_id=name, topic="Tea", question="Tea helps.", options=OPTIONS)
         for name in ("Q1", "Q2")]


def counted(path: Path) -> None:
    """Read an official file as 01 does: its countries, with weights and without."""
    with pd.option_context("mode.chained_assignment", "raise"):
        for weights in (False, True):
            table = survey.counts(["KOR", "USA"], ASKED, str(path), weights)
            survey.seeds("korean", ["KOR", "USA"], ASKED, table, "mode", "respondents")
            survey.seeds("korean", ["KOR"], ASKED, table, "paper", "equal")
        wvs.countries(path)


@reader("csv", RESPONDENTS.to_csv(index=False), RESPONDENTS.to_csv(index=False, sep=";", decimal=","),
        RESPONDENTS.drop(columns="B_COUNTRY_ALPHA").to_csv(index=False))
def survey_csv(content: bytes, folder: Path) -> None:
    counted(placed(folder, "wvs.csv", content))


def official(ending: str) -> bytes:
    """A small official file of SPSS or Stata."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"wvs.{ending}")
        getattr(pyreadstat, f"write_{ending}")(RESPONDENTS, path)
        return path.read_bytes()


def _official(ending: str) -> Reader:
    def read(content: bytes, folder: Path) -> None:
        counted(placed(folder, f"wvs.{ending}", content))

    return Reader(f"survey_{ending}", "bytes", [official(ending)], read)


READERS += [_official("sav"), _official("dta")]


# --- labelled sets ----------------------------------------------------------------------------------------------

REGISTRY = """
defaults: {text_field: text, label_field: label, metric: macro-F1, version: 1}
kinds:
  spam: {labels: {"0": NOT_Spam, "1": Spam}, instruction: "Is it spam?", paper_parser: {spam: "1"}, paper_labels: ["0"]}
tasks:
- {culture: korean, task: spam_detect, kind: spam, path: data/spam.jsonl, counts: {"0": 1, "1": 2}}
- {culture: korean, task: other, kind: spam, path: data/o.jsonl, prompt: "Spam? {text}", instruction: "", corpus: c}
- {culture: korean, task: third, kind: spam, path: data/t.jsonl, duplicate_of: spam_detect, defects: ["old"]}
"""


@reader("yaml", REGISTRY, share=0.7)
def registry(content: bytes, folder: Path) -> None:
    placed(folder, "data/spam.jsonl", b'{"text": "Tea!", "label": "1"}\n{"text": "Hello.", "label": 0}')
    path = placed(folder, "tasks.yaml", content)
    for task in tasks.registry(path):
        task.ask("Tea!")
        if task.paper_parser:
            released.paper_parse(task, "SPAM!")
    json.dumps(tasks.overview(folder, path))
    tasks.available("korean", folder, path)


SPAM = tasks.Task.model_validate(yaml.safe_load(REGISTRY)["defaults"] | yaml.safe_load(REGISTRY)["kinds"]["spam"] | {
    "culture": "korean", "task": "spam_detect", "path": "spam.jsonl"})


@reader("jsonl", '{"text": "Tea!", "label": "1"}\n{"text": "Hello.", "label": 0}\n{"text": "Tea!", "label": 0}')
def task_file(content: bytes, folder: Path) -> None:
    placed(folder, "spam.jsonl", content)
    found = tasks.load(SPAM, folder)
    assert found.rows >= len(found.items)
    json.dumps([found.warnings, found.label_counts, found.set_aside], ensure_ascii=False).encode()
    tasks.sample(found, 1, 0)


@reader("text", "Spam", ' "not_spam."', "Label: Spam", "The label is **Spam**, I think.", share=0.5)
def released_replies(content: bytes, folder: Path) -> None:
    text = as_text(content)
    assert released.strict_parse(SPAM.words, text) in (*SPAM.words, None)
    released.paper_parse(SPAM, text)


# --- model replies ----------------------------------------------------------------------------------------------

REQUEST = client.Request("Q1", "templates", prompts.chat("You are helpful.", "Item: Tea helps."))
TEMPLATE = "Most people should drink a cup of green tea."


def usable(verdict: replies.Verdict) -> None:
    """Whatever is used can be written to a file."""
    json.dumps(verdict.value, ensure_ascii=False).encode()
    assert isinstance(verdict.worth, int)
    assert verdict.outcome in records.OUTCOMES


@reader("json", '{"texts": ["Tea is good for people.", "People say that tea is good."]}',
        '```json\n{"texts": ["Tea is good."]}\n```', "<think>Tea?</think>\n1. Tea is good.\n2. People like tea.",
        '{"synonyms": ["brew", "drink"]}', "I'm sorry, but I can't help with that.")
def listed_texts(content: bytes, folder: Path) -> None:
    text = as_text(content)
    for language in ("English", "Korean", "Arabic"):
        usable(replies.texts(text, 2, language))
    usable(paper._listed(REQUEST, client.Reply.model_construct(text=text, prompt_tokens=1, completion_tokens=1)))
    replies._unusable(client.Reply.model_construct(text=text, prompt_tokens=1, completion_tokens=1))


@reader("json", json.dumps({"words": [{"position": 3, "word": "drink", "substitutes": ["have", "sip", "take in"]},
                                      {"position": 6, "word": "of", "substitutes": ["from"]},
                                      {"position": 8, "word": "tea", "substitutes": ["brew"]}]}))
def substitutes(content: bytes, folder: Path) -> None:
    for template, language in ((TEMPLATE, "English"), ("차를 마시면 좋다.", "Korean"), ("ชาดีต่อคน", "Thai")):
        verdict = augmentation.usable_substitutes(as_text(content), template, ["green tea"], language)
        usable(verdict)
        for choice in augmentation.draw(verdict.value or {}, 5, random.Random(0)):
            augmentation.substitute(template, choice, language)


@reader("json", '{"choice": "A"}', "B", '{"choice": "tie"}', '{"rating": 4}', "5", share=0.7)
def judgements(content: bytes, folder: Path) -> None:
    reply = client.Reply.model_construct(text=as_text(content), prompt_tokens=1, completion_tokens=1)
    for judge in (open_ended._read, raters._read):
        verdict = judge(REQUEST, reply)
        assert verdict.outcome in records.OUTCOMES


@reader("json", json.dumps({"texts": [{"text": "차는 사람에게 좋다.", "protected": ["차"]},
                                      {"text": "그렇다", "protected": []}]}, ensure_ascii=False))
def translations(content: bytes, folder: Path) -> None:
    row = records.Translation.model_validate(ROWS[records.Translation])
    reply = client.Reply.model_construct(text=as_text(content), prompt_tokens=1, completion_tokens=1)
    for language in ("Korean", "English", "Turkish"):
        verdict = translation._read(reply, [row, row], language)
        usable(verdict)
        for text, protected in verdict.value or []:
            translation._lack(row, row.model_copy(update={"text": text, "protected": protected}), language)


@reader("text", "Germans always save, as most of them say. It depends. I hope so!", "네, 그렇습니다.", "“No.”",
        "As an AI, I cannot answer.", "A", "", "**Tea** [x](y) <b>", "你好。" * 3, share=0.6)
def free_answers(content: bytes, folder: Path) -> None:
    text = as_text(content)
    for language in ("English", "Korean", "Chinese"):
        open_answers._measured(text, "Is tea good?", language, ["german", "germans"])
        spans = languages.spans(text, language)
        assert all(start < stop for start, stop in spans)
    wordings.plain(text)
    client.key([Message.model_construct(role="user", content=text.encode(errors="replace").decode())])


# --- what servers send ------------------------------------------------------------------------------------------


@reader("json", json.dumps({"choices": [{"message": {"content": "Yes", "refusal": None}, "finish_reason": "stop",
                                         "logprobs": {"content": [{"token": "Y", "logprob": -0.1, "top_logprobs": [
                                             {"token": "N", "logprob": -2.5}]}]}}],
                            "usage": {"prompt_tokens": 9, "completion_tokens": 1}}))
def chat_replies(content: bytes, folder: Path) -> None:
    try:
        reply = protocol.read_body(content, REQUEST)
    except protocol.NoReply:
        return
    assert client.Reply.model_validate_json(reply.model_dump_json().encode()) == reply


@reader("jsonl", json.dumps({"custom_id": "a", "error": None, "response": {"status_code": 200, "body": {
    "choices": [{"message": {"content": "Yes"}}]}}}) + "\n" + json.dumps({"custom_id": "b", "response": {
        "status_code": 429, "body": {"error": {"code": "rate_limit_exceeded", "message": "slow"}}}}))
def batch_output(content: bytes, folder: Path) -> None:
    told: dict[str, client.Reply] = {}
    waiting = types.SimpleNamespace(keep=told.update, count=lambda replies, progress: None, schemas=True)
    failed = batch.Batch._take(waiting, content, {"a": REQUEST, "b": REQUEST}, None)
    assert set(told) | set(failed) <= {"a", "b"}


@reader("json", json.dumps([{"step": 2, "train_loss": 1.5, "total_steps": 8}, {"step": 4, "train_loss": 1}]), share=0.5)
def training_events(content: bytes, folder: Path) -> None:
    data = records.read_json(placed(folder, "events.json", content))
    events = [types.SimpleNamespace(type="metrics", data=one) for one in (data if isinstance(data, list) else [data])]
    json.dumps(remote_job.losses(events, 4), allow_nan=False)


@reader("json", '{"retry-after": "3", "retry-after-ms": "120"}', '{"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}',
        '{"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0.5s"}', share=0.5)
def pauses(content: bytes, folder: Path) -> None:
    try:
        headers = {str(name): str(value) for name, value in json.loads(content).items()}
        response = httpx.Response(429, headers=headers)
    except (ValueError, AttributeError, RecursionError):
        return
    for said in (protocol.asked_pause(types.SimpleNamespace(response=response)), protocol.exhausted(response.headers)):
        assert said is None or said >= 0


# --- people's ratings -------------------------------------------------------------------------------------------

PAIRS = [records.Pair(pair_id=name, seed="Tea helps.", text="Coffee helps.") for name in ("p1", "p2")]
PROLIFIC = "Submission id,Participant id,Status,Time taken\ns1,anna,APPROVED,93\ns2,bo,TIMED OUT,\n"


@reader("csv", "rater_id,pair_id,rating,seconds,position\nanna,p1,5,6.2,1\nanna,p2,3,,2\n",
        'annotator,pair_id,rating,lead_time,created_at\na@b.org,p1,"{""choices"": [""5""]}",3.5,2026-01-02\n3,p2,4,,\n',
        PROLIFIC)
def rating_tables(content: bytes, folder: Path) -> None:
    placed(folder, "ratings/anna.csv", content)
    people = imports.participants(folder)
    key = {pair.pair_id: human_study.PairKey(question_id="Q1", candidate_id="c", check="") for pair in PAIRS}
    rated = human_study.read_ratings(folder, PAIRS)
    cleaning.clean(rated, key, participants=people)
    ratings.write_csv(folder / "again.csv", (*ratings.COLUMNS, *ratings.OPTIONAL), rated)
    assert [ratings.rating(cells, where) for where, cells in ratings.read_csv(folder / "again.csv")[1]] == rated


@reader("json", json.dumps([{"id": 1, "data": {"pair_id": "p1"}, "annotations": [
    {"completed_by": {"email": "a@b.org"}, "lead_time": 3.5, "created_at": "2026-01-02", "was_cancelled": False,
     "result": [{"from_name": "rating", "value": {"choices": ["5"]}}]}]}]),
        json.dumps([{"pair_id": "p1", "rating": "4", "annotator": 3, "lead_time": 2.5, "created_at": "2026-01-02"},
                    {"pair_id": "p2", "rating": [{"rating": 5}], "annotator": "a@b.org"}]))
def label_studio(content: bytes, folder: Path) -> None:
    placed(folder, "ratings/export.json", content)
    human_study.read_ratings(folder, PAIRS)


@reader("csv", "pair_id,seed,text\np1,Tea helps.,'=Coffee\np2,Tea,Coffee\n")
def pairs(content: bytes, folder: Path) -> None:
    placed(folder, "pairs.csv", content)
    records.write_json(folder / "pairs_key.json", dict.fromkeys(("p1", "p2"), ROWS[human_study.PairKey]))
    human_study.read_pairs(folder)


@reader("json", json.dumps(dict.fromkeys(("p1", "p2"), ROWS[human_study.PairKey])))
def pairs_key(content: bytes, folder: Path) -> None:
    placed(folder, "pairs.csv", b"pair_id,seed,text\np1,Tea helps.,Coffee\np2,Tea,Coffee\n")
    placed(folder, "pairs_key.json", content)
    human_study.read_pairs(folder)


@reader("csv", "rater_id,pair_id,rating\nautomatic: word overlap,p1,3\n", share=0.5)
def automatic_ratings(content: bytes, folder: Path) -> None:
    placed(folder, "ratings/automatic_word_overlap.csv", content)
    human_study.write_automatic(folder, human_study.rate("word overlap", PAIRS, human_study.overlaps(PAIRS)))


@reader("text", "Who we are.\n\nWhat we keep.\n", share=0.3)
def consent_text(content: bytes, folder: Path) -> None:
    rating_form.page(PAIRS, "en", str(placed(folder, "consent.txt", content))).encode()


@reader("yaml", "failed_checks: 1\nmedian_seconds: 2.5\nstatuses: [REJECTED]\n", share=0.7)
def cleaning_rules(content: bytes, folder: Path) -> None:
    found = cleaning.rules(str(placed(folder, "rules.yaml", content)))
    found.in_words()
    cleaning.state(folder, found, False)


@reader("json", json.dumps({"digest": "ab", "before_ratings": True, "rules": cleaning.Rules().model_dump(),
                            "in_words": []}))
def stated_rules(content: bytes, folder: Path) -> None:
    placed(folder, "cleaning_rules.json", content)
    cleaning.state(folder, cleaning.Rules(), True)


# --- what people set: cultures, studies, parameters, words ------------------------------------------------------

CULTURE = ("culture: korean\ncountries: [KOR]\nculture_language: Korean\nprompt_name: Korean\n"
           "culture_context: Tea is old.\nepochs: 3\n")
STUDY = ("title: Tea\nquestion: Does tea help?\ncultures: [korean]\ncompare: [epochs]\nseeds: [0, 1]\none: true\n"
         "parameters: {epochs: 3, random_seed: 1}\nvariants:\n  main: &main {epochs: 2}\n  b: {<<: *main, tau: 0.5}\n")


def set_up(content: bytes, folder: Path, name: str) -> None:
    """Everything that a run takes from the files under ``params/``, ``content`` being that of ``name``."""
    placed(folder, "korean.yaml", CULTURE.encode())
    placed(folder, "one.yaml", (paths.PARAMS / "one.yaml").read_bytes())
    placed(folder, "studies/tea.yaml", STUDY.encode())
    placed(folder, name, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "PARAMS", folder)
        plan = studies.study("tea")
        f"{plan['title']} {plan['question']}".split()
        studies.culture("korean")
        studies.arms("tea")
        studies.base_models("tea")
        studies.homes("tea", plan["cultures"])


@reader("yaml", CULTURE, share=0.1)
def culture_file(content: bytes, folder: Path) -> None:
    set_up(content, folder, "korean.yaml")


@reader("yaml", STUDY, share=0.1)
def study_file(content: bytes, folder: Path) -> None:
    set_up(content, folder, "studies/tea.yaml")


def _parameters(notebook: str) -> Reader:
    model = parameters.MODELS[notebook]

    def read(content: bytes, folder: Path) -> None:
        values = records.read_json(placed(folder, "values.json", content))
        if isinstance(values, dict):
            knobs = parameters.validate(model, values)
            assert len(knobs.digest) == 12
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CULTURELLM_OUTPUTS", str(folder))
                knobs.folder("common")

    return Reader(f"parameters of {notebook}", "json", [json.dumps(studies.defaults(notebook)).encode()], read, 0.3)


READERS += [_parameters(notebook) for notebook in parameters.MODELS]


@reader("text", "0.8", "[korean, german]", "'a: b'", "2026-01-02", share=0.4)
def value_on_the_command_line(content: bytes, folder: Path) -> None:
    comparison._value("tau", as_text(content))


@reader("text", "../WVS_7.csv", "~/wvs.sav", "questions.jsonl", "data", share=0.4)
def paths_that_users_write(content: bytes, folder: Path) -> None:
    text = as_text(content)
    for read in (survey.questions, lambda text: survey.counts(["KOR"], ASKED, text, False), translation._own,
                 cleaning.rules, lambda text: rating_form.consent("en", text), tasks.registry,
                 lambda text: tasks.load(SPAM, text), lambda text: tasks.available("korean", text),
                 lambda text: borrowing.everyone(ASKED, text, False), studies.culture, studies.study):
        try:
            read(text)
        except UserError as error:
            str(error).encode()


@reader("yaml", (paths.DATA / "lexicon.yaml").read_bytes(), share=0.02)
def lexicon_file(content: bytes, folder: Path) -> None:
    placed(folder, "lexicon.yaml", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "DATA", folder)
        words = lexicon.shipped.__wrapped__()
        patch.setattr(lexicon, "shipped", lambda: words)
        for kept in (lexicon._words, lexicon._generic_pattern, lexicon._heads):
            kept.cache_clear()
        lexicon.count("Germans always save. Not all of them.", ["german", "germans"])
        lexicon.declines("I'm sorry, but I cannot answer that.")
    for kept in (lexicon._words, lexicon._generic_pattern, lexicon._heads):
        kept.cache_clear()


@reader("yaml", (paths.DATA / "zones.yaml").read_bytes(), share=0.1)
def zones_file(content: bytes, folder: Path) -> None:
    placed(folder, "zones.yaml", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "DATA", folder)
        zones = borrowing.zones.__wrapped__()
    assert all(isinstance(part, str) for pair in zones.items() for part in pair)


@reader("yaml", yaml.safe_dump({"en": rating_form.languages()["en"]}, sort_keys=False), share=0.1)
def rating_form_file(content: bytes, folder: Path) -> None:
    placed(folder, "rating_form.yaml", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "DATA", folder)
        words = rating_form.languages.__wrapped__()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rating_form, "languages", lambda: words)
        rating_form.page(PAIRS)
        imports.write_label_studio(folder, PAIRS)


# --- jobs, models, the cache ------------------------------------------------------------------------------------

JOB = {"title": "CultureLLM, Korean", "knobs": studies.defaults("04_fine_tuning")}


@reader("json", json.dumps(JOB), share=0.5)
def job_file(content: bytes, folder: Path) -> None:
    job._read_job(placed(folder, "job.json", content))


@reader("json", json.dumps(ROWS[remote.Model]), share=0.5)
def remote_model(content: bytes, folder: Path) -> None:
    placed(folder, "model/remote.json", content)
    remote.load(folder)


@reader("jsonl", json.dumps(ROWS[records.Answer]), share=0.5)
def kept_answers(content: bytes, folder: Path) -> None:
    path = placed(folder, "answers.jsonl", content)
    assert len(answerers.Kept._read(path, 1)) in (0, 1)
    harness._kept(path)


# --- executed notebooks, and the run before ---------------------------------------------------------------------


@reader("json", nbformat.writes(reports.notebook("07_summary", {"epochs": 2}, ("matrix",))).encode(), share=0.15)
def executed_notebook(content: bytes, folder: Path) -> None:
    found = executed.read(placed(folder, "07_summary.ipynb", content), "run it")
    executed.stamp(found)
    executed.title(found)
    executed.sentences(found)
    anchors = dict.fromkeys(executed.saved_figures(found), "a")
    nbformat.writes(executed.for_readers(found, "Korean", anchors, {})).encode()


RUN = {"run": "5d0c", "ran": "2026-01-02 03:04:05", "revision": ["1a2b3c4"], "cultures": ["korean"],
       "parameters": {"korean/04_fine_tuning": {"epochs": 4}}, "figures": {"Held-out wordings, adapter": 0.9}}


@reader("json", json.dumps({"now": RUN, "before": RUN | {"run": "4c0b"}}))
def run_before(content: bytes, folder: Path) -> None:
    placed(folder, "headline.json", content)
    headline.section(RUN, headline.remember(folder, RUN))


# --- the tests --------------------------------------------------------------------------------------------------

#: Inputs in all, by default and at length.
FEW, MANY = 6_000, 100_000


def counts(total: int) -> dict[str, int]:
    """How many inputs each reader gets, at least ``total`` in all."""
    whole = sum(reader.share for reader in READERS)
    return {reader.name: int(total * reader.share / whole) + 1 for reader in READERS}


def emptied(folder: Path) -> Path:
    """The folder without what the last input left in it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return folder


def check(reader: Reader, folder: Path, count: int) -> None:
    """Feed a reader ``count`` inputs. Another count is another set of inputs, the same one the same."""
    found = fuzzing.faults(lambda content: reader.read(content, emptied(folder)),
                           fuzzing.inputs(count, reader.corpus, reader.kind, count))
    assert not found, "\n".join(f"{said}\n  {content[:300]!r}" for said, content in found.items())


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_valid_inputs_are_read(reader, tmp_path):
    for content in reader.corpus:
        reader.read(content, emptied(tmp_path))


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_reader_gives_a_result_or_one_sentence(reader, tmp_path):
    check(reader, tmp_path, counts(FEW)[reader.name])


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_reader_fed_many_inputs(reader, tmp_path):
    check(reader, tmp_path, counts(MANY)[reader.name])


def test_there_are_as_many_inputs_as_are_said():
    assert sum(counts(MANY).values()) >= MANY


# --- what the harness itself must see ---------------------------------------------------------------------------


def _refuses(sentence: str) -> Callable[[bytes], None]:
    def read(content: bytes) -> None:
        raise UserError(sentence)
    return read


def _for_ever(content: bytes) -> None:
    while True:
        pass


@pytest.mark.parametrize(("read", "said"), [
    (lambda content: content, ""), (_refuses("a.csv is empty"), ""), (_refuses(" "), "cannot be printed"),
    (lambda content: json.loads(content), "JSONDecodeError at"), (lambda content: {}["a"], "KeyError at"),
    (lambda content: "a" * (8 << 30), "MemoryError at"), (_for_ever, "more than"),
])
def test_the_harness_tells_results_from_faults(read, said, monkeypatch):
    monkeypatch.setattr(fuzzing, "SECONDS", 0.2)
    found = list(fuzzing.faults(read, [b"x"]))
    assert [one.startswith(said) or said in one for one in found] == [True] if said else not found


# --- properties -------------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(codec=None)), min_size=1, max_size=3))
def test_an_error_has_as_many_lines_as_sentences(sentences):
    lines = str(UserError(*sentences)).split("\n")
    assert len(lines) == len(sentences)
    assert all(line.isprintable() or not line for line in lines)
    "".join(lines).encode()


def test_an_error_is_short_whatever_it_quotes():
    said = str(UserError(f"tea.csv line 3: '{'x' * 10**6}' is no number; write one"))
    assert said.startswith("tea.csv line 3: 'xx")
    assert said.endswith("x' is no number; write one")
    assert len(said) < 1100


@given(st.dictionaries(st.text(max_size=5), max_size=4, values=st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda part: st.lists(part, max_size=3))))
def test_yaml_is_read_as_it_was_meant(value):
    assert studies.parse_yaml(yaml.safe_dump(value), "tea.yaml") == value


def test_yaml_that_makes_much_out_of_little_is_refused():
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    assert studies.parse_yaml("\n".join(lines[:3]), "tea.yaml")["a2"] == [[["x", "x"]] * 2] * 2
    with pytest.raises(UserError, match=r"tea\.yaml is too large: it has more than 100,000 values"):
        studies.parse_yaml("\n".join(lines), "tea.yaml")


@pytest.mark.parametrize("text", ["&a [*a]", "[" * 5000, "!!bool x", "!!timestamp x", "!!int ''", "2024-13-45",
                                  "{[a]: b}", "a: !!python/object/apply:os.system [id]"])
def test_yaml_that_pyyaml_stumbles_over_is_refused(text):
    with pytest.raises(UserError, match=r"^tea\.yaml"):
        studies.parse_yaml(text, "tea.yaml")


@given(st.lists(st.from_regex(r"\A[A-Za-z]{1,9}\Z"), min_size=2, max_size=10))
def test_numbered_options_are_read_as_written(texts):
    written = " ".join(f"{number}. {text}" for number, text in enumerate(texts, 1))
    assert survey.parse_options(written) == {str(number): text for number, text in enumerate(texts, 1)}


def test_a_scale_of_a_thousand_million_steps_is_no_scale():
    with pytest.raises(ValueError, match="999999999"):
        survey.parse_options("1. Never 999999999. Always")
