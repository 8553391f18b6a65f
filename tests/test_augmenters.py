"""Six augmenters behind one face: what they make, ask and cost, with recorded replies and with a live client."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations

import pytest
from chat_server import Server, complaint, running_server, said  # noqa: F401
from test_paper import Bag

from culturellm_utils import augmenters, client, languages, parameters, studies, survey
from culturellm_utils.augmentation import Writer, substitute
from culturellm_utils.augmenters import AUGMENTERS, Job, augment, disturbed, expected, plan
from culturellm_utils.client import Recorded, Reply, Request, Show, quiet
from culturellm_utils.comparison import REQUESTED
from culturellm_utils.parameters import Augmentation
from culturellm_utils.prompts import Phrasebook
from culturellm_utils.records import Candidate, Question
from culturellm_utils.usage import Budget, Usage

QUESTIONS = survey.questions("")


@pytest.fixture(autouse=True)
def toy_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's procedure filters while it writes."""
    monkeypatch.setattr(augmenters.encoder, "load", lambda name: Bag())


def knobs(augmenter: str = "two_stage", **changed: object) -> Augmentation:
    """The shipped parameters, with as many texts asked for as were recorded."""
    return parameters.validate(Augmentation, studies.defaults("02_augmentation") | {
        "augmenter": augmenter, "templates_requested": REQUESTED[augmenter], "tau": 0.3} | changed)


def job(augmenter: str = "two_stage", count: int = 3, language: str = "English", **changed: object) -> Job:
    return Job(Writer(Recorded(), Phrasebook(language)), QUESTIONS[:count], knobs(augmenter, **changed))


class Asked:
    """A client that answers by the prompt, and keeps what it was asked."""

    source, retries = "asked", 0

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer, self.budget = answer, Budget()
        self.prompts: list[str] = []

    def known(self, requests: list[Request]) -> int:
        return 0

    def ask(self, requests: list[Request], show: Show = quiet) -> list[Reply]:
        wanted = [request.messages[-1].content for request in requests]
        self.prompts += wanted
        return [Reply(text=self.answer(prompt), prompt_tokens=1, completion_tokens=1) for prompt in wanted]


# --- what they make


@pytest.mark.parametrize("name", AUGMENTERS)
def test_each_gives_candidates_by_recorded_replies(name):
    made = augment(job(name))
    assert made == [Candidate.model_validate(row.model_dump()) for row in made]
    assert len({row.candidate_id for row in made}) == len(made)
    assert {row.source for row in made} == {"recorded"}
    templates = {row.template_id: row for row in made if row.stage == 1}
    assert all(row.candidate_id == row.template_id for row in templates.values())
    assert Counter(row.question_id for row in templates.values()) == {
        question.question_id: REQUESTED[name] for question in QUESTIONS[:3]}
    samples = [row for row in made if row.stage == 2]
    assert bool(samples) == (name in ("two_stage", "paper"))
    assert all(row.question_id == templates[row.template_id].question_id for row in samples)


def test_two_stages_are_templates_and_four_samples_of_each():
    made = augment(job())
    templates = {row.template_id: row.text for row in made if row.stage == 1}
    samples = [row for row in made if row.stage == 2]
    assert Counter(row.template_id for row in samples) == dict.fromkeys(templates, 4)
    for row in samples:
        choice = {made.position: made.substitute for made in row.substitutions}
        assert row.text == substitute(templates[row.template_id], choice)[0]
    assert [row for row in made if row.stage == 1] == augment(job("paraphrase"))


@pytest.mark.parametrize("name", AUGMENTERS)
def test_the_seed_alone_decides_what_is_drawn(name):
    one, again, other = (augment(job(name, random_seed=seed)) for seed in (0, 0, 1))
    assert one == again
    assert (one != other) == (name in ("two_stage", "eda", "paper"))


def test_what_is_drawn_for_a_question_does_not_depend_on_the_others():
    for name in ("two_stage", "eda"):
        first = QUESTIONS[0].question_id
        assert augment(job(name, count=1)) == [row for row in augment(job(name)) if row.question_id == first]


# --- round trip


def test_a_round_trip_asks_there_and_back():
    trips = {"Translate from English into German.\nItem: Work is a duty.": "Arbeit ist eine Pflicht für alle.",
             "Translate from English into German.\nItem: Work is good.": "Work is very good for all people.",
             "Translate from German into English.\nItem: Arbeit ist eine Pflicht für alle.": "Work is our duty.",
             "Translate from English into Spanish.\nItem: Work is a duty.": "El trabajo es un deber de todos.",
             "Translate from English into Spanish.\nItem: Work is good.": "El trabajo es bueno para todos.",
             "Translate from Spanish into English.\nItem: El trabajo es un deber de todos.": "Working is a duty.",
             "Translate from Spanish into English.\nItem: El trabajo es bueno para todos.": "Working is good."}
    asked = Asked(lambda prompt: f'{{"texts": ["{trips[prompt.rpartition(chr(10))[0]]}"]}}')
    some = [QUESTIONS[0].model_copy(update={"question_id": name, "question": text})
            for name, text in (("QA", "Work is a duty."), ("QB", "Work is good."))]
    writer = Writer(asked)
    made = augment(Job(writer, some, knobs("round_trip", templates_requested=2)))
    # The German for QB is English, so there is no way back.
    assert [(row.candidate_id, row.text) for row in made] == [
        ("QA-t01", "Work is our duty."), ("QA-t02", "Working is a duty."), ("QB-t02", "Working is good.")]
    assert sorted(prompt.rpartition("\n")[0] for prompt in asked.prompts) == sorted(trips)
    assert Counter(row.outcome for row in writer.replies) == {"used": 6, "another language": 1}


def test_a_round_trip_has_a_language_for_each_text():
    assert len(augmenters.PIVOTS) == len({languages.code(pivot) for pivot in augmenters.PIVOTS}) == 12


# --- EDA


TEXT = "Work makes people happy."
SYNONYMS = {"people": ["persons"], "happy": ["glad", "merry"], "joy": ["fun"]}
WORDS = TEXT.split()


def with_word(place: int, word: str) -> str:
    return " ".join([*WORDS[:place], word, *WORDS[place:]])


def swapped(i: int, j: int) -> str:
    words = list(WORDS)
    words[i], words[j] = words[j], words[i]
    return " ".join(words)


@pytest.mark.parametrize(("operation", "possible"), [
    ("replace", {"Work makes persons happy.", "Work makes people glad.", "Work makes people merry."}),
    ("insert", {with_word(place, word) for place in range(5) for word in ("persons", "glad", "merry")}),
    ("swap", {swapped(i, j) for i, j in combinations(range(4), 2)}),
    ("delete", {"makes people happy.", "Work people happy.", "Work makes happy.", "Work makes people"}),
])
def test_the_four_operations_on_one_word_of_four(operation, possible):
    assert {disturbed(TEXT, operation, SYNONYMS, random.Random(seed)) for seed in range(300)} == possible


def test_a_tenth_of_the_words_is_changed():
    text = " ".join(f"word{number}" for number in range(26))
    for seed in range(9):
        assert len(disturbed(text, "delete", {}, random.Random(seed)).split()) == 26 - 3
        assert len(disturbed(text, "insert", {"word7": ["x"]}, random.Random(seed)).split()) == 26 + 3


@pytest.mark.parametrize(("text", "operation"), [
    ("Work.", "swap"), ("Work.", "delete"), (TEXT, "replace"), (TEXT, "insert")])
def test_what_cannot_be_done_is_not(text, operation):
    assert disturbed(text, operation, {"joy": ["fun"], "happy": []}, random.Random(0)) == text


def test_eda_goes_through_the_four_operations():
    made = [row.text for row in augment(job("eda", count=1))]
    lengths = [len(text.split()) - len(QUESTIONS[0].question.split()) for text in made]
    assert [change > 0 for change in lengths] == [True, False, False, False] * 3  # insert, swap, delete, replace
    assert [change < 0 for change in lengths] == [False, False, True, False] * 3
    assert sorted(made[1].split()) == sorted(QUESTIONS[0].question.split())


# --- languages


@pytest.mark.parametrize("name", augmenters.ENGLISH_ONLY)
def test_those_with_english_rules_refuse_another_language(name):
    assert complaint(augment, job(name, language="Korean")) == (
        f"augmenter '{name}' works in English only: set language to english, or augmenter to two_stage")
    assert augment(job(name, language="english")) == augment(job(name))


# --- what they cost


@pytest.mark.parametrize(("name", "count"), [
    ("two_stage", 50), ("paraphrase", 50), ("free", 50), ("round_trip", 50), ("eda", 50), ("paper", 8),
    ("two_stage", 3), ("round_trip", 3), ("eda", 3), ("paper", 3)])
def test_the_estimate_is_within_a_factor_of_two(name, count):
    work = job(name, count)
    first, usage = expected(work)
    assert work.writer.client.budget.spent == Usage()  # nothing was asked
    augment(work)
    spent = work.writer.client.budget.spent
    assert len(first) <= usage.requests
    for guess, real in ((usage.requests, spent.requests), (usage.prompt_tokens, spent.prompt_tokens),
                        (usage.completion_tokens, spent.completion_tokens)):
        assert real / 2 <= guess <= 2 * real, (usage, spent)


@pytest.mark.parametrize("name", AUGMENTERS)
def test_the_first_requests_are_those_that_are_asked_first(name):
    asked = Asked(lambda prompt: "{}")
    work = Job(Writer(asked), QUESTIONS[:2], knobs(name))
    first = [request.messages[-1].content for request in expected(work)[0]]
    augment(work)
    assert asked.prompts[: len(QUESTIONS[:2])] == first[: len(QUESTIONS[:2])]
    assert set(first) <= set(asked.prompts)


@pytest.mark.parametrize("name", AUGMENTERS)
def test_with_recorded_replies_all_is_known_and_nothing_is_spent(name):
    work = job(name)
    planned = plan(work)
    assert work.writer.client.budget.spent == Usage()
    assert work.writer.replies == []
    augment(work)
    assert planned.usage == work.writer.client.budget.spent
    assert planned.known == planned.certain == planned.usage.requests
    assert (planned.money, planned.seconds) == (0, 0)


class Spy(Recorded):
    """Recorded replies, kept by their prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, str] = {}

    def ask(self, requests: list[Request], show: Show = quiet) -> list[Reply]:
        replies = super().ask(requests)
        self.said |= {q.messages[-1].content: a.text for q, a in zip(requests, replies, strict=True)}
        return replies


def live(server: Server, name: str, count: int = 2, **changed: object) -> Job:
    """The same with a live client, which says what was recorded."""
    spy = Spy()
    augment(Job(Writer(spy), QUESTIONS[:count], knobs(name)))
    server.answer = lambda prompt, before: said(spy.said[prompt])
    own = knobs(name, chat_backend="openai", base_url=server.base_url, price_input=1.0, price_output=2.0, **changed)
    return Job(Writer(client.connect(own)), QUESTIONS[:count], own)


@pytest.mark.parametrize("name", ["two_stage", "round_trip", "eda", "paper"])
def test_the_plan_of_a_live_run_before_and_after(server, name):
    work = live(server, name)
    before = plan(work)
    assert server.asked == []
    first, usage = expected(work)
    assert (before.known, before.usage) == (0, usage)
    assert before.certain == (2 if name == "round_trip" else len(first))  # the first language is asked before the next
    assert before.money == pytest.approx((before.usage.prompt_tokens + 2 * before.usage.completion_tokens) / 1e6)
    assert before.seconds > 0
    made = augment(work)
    sent = len(server.asked)
    again = Job(Writer(client.connect(work.knobs)), work.questions, work.knobs)
    after = plan(again)
    assert after.known == after.certain == after.usage.requests == sent
    assert (after.usage.prompt_tokens, after.usage.completion_tokens) == (10 * sent, 5 * sent)  # as the server counted
    assert (after.money, after.seconds) == (0, 0)
    assert again.writer.client.budget.spent == Usage()  # looking costs nothing
    assert augment(again) == made
    assert len(server.asked) == sent
    assert again.writer.client.budget.spent == after.usage


def test_where_stage_one_is_on_disk_stage_two_is_certain(server):
    work = live(server, "two_stage")
    augment(Job(work.writer, work.questions, work.knobs.model_copy(update={"augmenter": "paraphrase"})))
    assert len(server.asked) == 2
    planned = plan(work)
    assert (planned.known, planned.certain, planned.usage.requests) == (2, 2 + 24, 2 + 24)
    whole = work.writer.client.budget.prices.money(planned.usage)
    assert planned.money == pytest.approx(whole * 24 / 26)
    assert len(server.asked) == 2


def test_an_unusable_reply_on_disk_is_not_asked_again_by_a_plan(server):
    work = live(server, "free", unusable_retries=1)
    good = server.answer
    server.answer = lambda prompt, before: good(prompt.partition("\nAn earlier")[0], 0) if before else said("sorry")
    once = work.knobs.model_copy(update={"unusable_retries": 0})
    augment(Job(Writer(client.connect(once)), work.questions, once))
    assert len(server.asked) == 2
    planned = plan(work)
    assert (planned.known, planned.certain) == (2, 3)  # the request that repeats the first one is certain
    assert len(server.asked) == 2
    assert len(augment(work)) == 16
    assert len(server.asked) == 3


def test_a_killed_run_goes_on_where_it_stopped(server):
    work = live(server, "two_stage")
    few = Job(work.writer, [QUESTIONS[0]], work.knobs)
    augment(few)
    planned = plan(work)
    assert (planned.known, planned.certain) == (1, 2)  # the second question's templates are next


def test_a_question_without_a_template_has_no_samples():
    some: list[Question] = QUESTIONS[:1]
    asked = Asked(lambda prompt: "I cannot help with that.")
    writer = Writer(asked)
    assert augment(Job(writer, some, knobs())) == []
    assert [row.outcome for row in writer.replies] == ["refusal"]
