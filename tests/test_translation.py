"""The study in Korean, translated by a server that has a dictionary, and checked by translating back."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import Server, complaint, running_server, said  # noqa: F401
from chat_server import knobs as chat_knobs
from test_paper import Bag

from culturellm_utils import augmenters, parameters, prompts, studies, survey, translation, wordings
from culturellm_utils.augmentation import Writer
from culturellm_utils.client import Recorded
from culturellm_utils.live import OpenAI
from culturellm_utils.parameters import Augmentation
from culturellm_utils.records import Question, Translation
from culturellm_utils.translation import Own, translate, wanted

PARENTS = "Making my parents proud is a goal of mine."
WORK = "Work is a duty towards society."
QUESTIONS = [
    Question(question_id="Q1", topic="Values", question=PARENTS, options={"1": "Agree", "2": "Disagree"},
             protected=["parents"]),
    Question(question_id="Q2", topic="Values", question=WORK, options={"1": "Agree", "2": "Disagree", "3": ""}),
]
SYSTEM = prompts.culture_system("Korean")
#: English, Korean, and the words that stand for protected ones.
KOREAN = {
    PARENTS: ("부모님을 자랑스럽게 하는 것이 나의 목표다.", "부모님"),
    WORK: ("일은 사회에 대한 의무이다.",),
    "Agree": ("동의한다",), "Disagree": ("동의하지 않는다",),
    prompts.PHRASES["agree"]: ("다음 진술에 동의하십니까?",),
    prompts.PHRASES["options"]: ("보기:",),
    prompts.PHRASES["answer"]: ("{low}에서 {high} 사이의 숫자 하나로 답하십시오.",),
    prompts.PHRASES["rewriter"]: ("당신은 설문 문항을 고쳐 씁니다. JSON으로만 답합니다.",),
    prompts.PHRASES["templates"]: ("아래 설문 문항을 같은 뜻으로 {count}가지 다른 문장 구조로 쓰십시오.",),
    prompts.PHRASES["suggester"]: ("당신은 설문 문항의 단어를 제안합니다. JSON으로만 답합니다.",),
    prompts.PHRASES["substitutes"]: ("단어마다 대신할 말을 {count}개까지 쓰되 {protected}은 그대로 두십시오.",),
    prompts.PHRASES["none"]: ("없음",), prompts.PHRASES["item"]: ("문항:",),
    prompts.PHRASES["words"]: ("단어:",), prompts.PHRASES["reply"]: ("답 형식:",),
    SYSTEM: ("당신은 한국 문화를 아주 잘 아는 한국어 챗봇입니다.",),
}


class Translator:
    """Answers translation requests by a dictionary; ``wrong`` holds (text, words), or None for no text, that replace
    what it says of a text, the next of them each time it is asked."""

    def __init__(self) -> None:
        self.there = {english: (korean, words) for english, (korean, *words) in KOREAN.items()}
        self.back = {korean: english for english, (korean, *_) in KOREAN.items()}
        self.wrong: dict[str, list[Any]] = {}
        self.sizes: list[int] = []

    def __call__(self, prompt: str, before: int) -> Any:
        items = json.loads(prompt.partition("Items: ")[2].partition("\n")[0])
        self.sizes.append(len(items))
        texts = []
        for item in items:
            english = item["text"]
            text, words = self.there[english] if english in self.there else (self.back[english], [])
            if self.wrong.get(english):
                text, words = self.wrong[english].pop(0)
            texts.append({"text": text, "protected": words})
        return said(json.dumps({"texts": texts}, ensure_ascii=False))


class ToyGuard:
    """Objects where one of two sentences has a "not"; keeps what it judged."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        self.pairs += pairs
        return ["polarity: flipped" if (" not " in a) != (" not " in b) else "" for a, b in pairs]


@pytest.fixture
def translator(server: Server) -> Translator:
    server.answer = Translator()
    return server.answer


def rows() -> list[Translation]:
    return wanted(QUESTIONS, ["Korean"])


def into_korean(server: Server, own: Sequence[Own] = (), retries: int = 0, least: float = 0.6,
                asked: list[Translation] | None = None, language: str = "Korean",
                scales: Sequence[Sequence[str]] = (("Agree", "Disagree"),)) -> dict[str, Translation]:
    """The translations by name."""
    client = OpenAI(chat_knobs(server, unusable_retries=retries))
    found, record = translate(client, asked or rows(), own, language, Bag(), ToyGuard(), least, scales=scales)
    assert [row.name for row in found] == [row.name for row in asked or rows()]
    assert {row.purpose for row in record} <= {"translation", "back-translation"}
    return {row.name: row for row in found}


# --- what is translated


def test_all_that_a_study_says_is_wanted():
    kinds = {kind: [row.name for row in rows() if row.kind == kind] for kind in ("question", "option", "phrase")}
    assert kinds == {"question": ["Q1", "Q2"], "option": ["Agree", "Disagree"],
                     "phrase": [*prompts.PHRASES, "system Korean"]}
    assert {row.english for row in rows()} == KOREAN.keys()
    assert rows()[0].protected == ["parents"]


def test_texts_go_there_and_back_in_groups_of_ten(server, translator):
    found = into_korean(server)
    assert sorted(translator.sizes) == [6, 6, 10, 10]
    for row in found.values():
        assert (row.text, *row.protected) == KOREAN[row.english]
        assert (row.back, row.similarity, row.source, row.reason) == (row.english, 1.0, "toy", "")


def test_the_requests_in_full(server, translator):
    into_korean(server, asked=[row for row in rows() if row.name == "Q1"], scales=())
    there, back = server.prompts
    assert "from English into Korean" in there
    assert json.dumps([{"text": PARENTS, "protected": ["parents"]}]) in there
    assert "from Korean into English" in back
    assert "부모님을 자랑스럽게 하는 것이 나의 목표다." in back
    assert PARENTS not in back  # without sight of the original
    assert server.asked[0]["response_format"]["json_schema"]["schema"]["properties"].keys() == {"texts"}


def test_a_rerun_asks_nothing_and_finds_the_same(server, translator):
    translator.wrong = {WORK: [("일은 즐거움이다.", [])]}
    translator.back["일은 즐거움이다."] = "Work is fun."
    one = into_korean(server, retries=1)
    asked = len(server.asked)
    assert into_korean(server, retries=1) == one
    assert len(server.asked) == asked


def test_english_needs_no_translation(server, translator):
    found = into_korean(server, language="English")
    assert server.asked == []
    assert all((row.text, row.source, row.reason) == (row.english, "original", "") for row in found.values())
    assert found["Q1"].protected == ["parents"]


# --- what is wrong with a translation


@pytest.mark.parametrize(("english", "first", "noted"), [
    (prompts.PHRASES["answer"], ("{low}부터 숫자 하나로 답하십시오.", []), "lacks the blank {high}"),
    (PARENTS, ("부모님을 자랑스럽게 하는 것이 나의 목표다.", ["자녀"]), "lacks its protected word '자녀'"),
    (PARENTS, ("부모님을 자랑스럽게 하는 것이 나의 목표다.", []), "names no protected word"),
    (WORK, ("일은 즐거움이다.", []), "similarity of the back-translation: at most 0.60"),
    (WORK, ("일은 사회에 대한 의무가 아니다.", []), "the back-translation changes it (polarity: flipped)"),
    ("Agree", ("동의하지 않아요", []), "the back-translation changes it (polarity: flipped)"),
])
def test_what_fails_is_translated_again_with_its_reason(server, translator, english, first, noted):
    translator.back |= {"일은 즐거움이다.": "Work is fun.", "동의하지 않아요": "Not agree",
                        "일은 사회에 대한 의무가 아니다.": "Work is not a duty towards society."}
    translator.wrong = {english: [first]}
    found = {row.english: row for row in into_korean(server, retries=1).values()}
    assert {row.reason for row in found.values()} == {""}
    assert (found[english].text, *found[english].protected) == KOREAN[english]
    again = [prompt for prompt in server.prompts if "An earlier reply to this could not be used" in prompt]
    assert again
    assert all(noted in prompt for prompt in again)
    assert all(len(json.loads(prompt.partition("Items: ")[2].partition("\n")[0])) <= 2 for prompt in again)


@pytest.mark.parametrize(("korean", "reason"), [
    ("그렇다", "the back-translation says 'Strongly agree'"), ("매우 동의한다", "the same text as 'Strongly agree'")])
def test_options_of_a_scale_that_cannot_be_told_apart_are_translated_again(server, translator, korean, reason):
    translator.wrong = {"Agree": [(korean, [])]}
    translator.there["Strongly agree"] = ("매우 동의한다", [])
    translator.back |= {"매우 동의한다": "Strongly agree", "그렇다": "Strongly agree"}
    scale = {"1": "Agree", "2": "Disagree", "3": "Strongly agree"}
    asked = wanted([QUESTIONS[0].model_copy(update={"options": scale})], [])
    found = into_korean(server, retries=1, asked=asked, least=0.5, scales=[list(scale.values())])
    assert [found[name].text for name in scale.values()] == ["동의한다", "동의하지 않는다", "매우 동의한다"]
    assert any(reason in prompt for prompt in server.prompts)


def test_options_of_different_scales_may_have_one_text(server, translator):
    translator.there["I agree"], translator.back["동의한다"] = ("동의한다", []), "I agree"
    asked = wanted([QUESTIONS[0], QUESTIONS[1].model_copy(update={"options": {"1": "I agree", "2": "Disagree"}})], [])
    found = into_korean(server, asked=asked, scales=[["Agree", "Disagree"], ["I agree", "Disagree"]])
    assert found["Agree"].text == found["I agree"].text == "동의한다"


def test_a_question_that_stays_wrong_has_a_reason_and_is_left_out(server, translator):
    translator.there[WORK] = ("일은 즐거움이다.", [])
    translator.back["일은 즐거움이다."] = "Work is fun."
    found = into_korean(server, retries=2)
    assert found["Q2"].reason == "similarity of the back-translation: at most 0.60"
    assert found["Q2"].back == "Work is fun."
    assert found["Q2"].similarity == pytest.approx(2 / (6 * 3) ** 0.5, abs=1e-6)  # two of six and of three words
    assert len([prompt for prompt in server.prompts if "into Korean" in prompt]) == 2 + 2
    questions = wordings.in_language(QUESTIONS, list(found.values()))
    assert [(q.question_id, q.question, q.protected) for q in questions] == [
        ("Q1", "부모님을 자랑스럽게 하는 것이 나의 목표다.", ["부모님"])]
    assert questions[0].options == QUESTIONS[0].options  # the phrasebook has them


@pytest.mark.parametrize(("english", "wrong", "reason"), [
    ("Disagree", "동의하지 않을 리 없다", "the back-translation changes it (polarity: flipped)"),
    (prompts.PHRASES["answer"], "숫자 하나로 답하십시오.", "lacks the blank {high}"),
])
def test_an_option_or_phrase_that_stays_wrong_stops_in_one_sentence(server, translator, english, wrong, reason):
    translator.there[english] = (wrong, [])
    translator.back[wrong] = "Surely agree"
    name = "answer" if "{" in english else english
    assert complaint(into_korean, server, retries=1, least=-1.0) == (
        f"1 texts have no usable translation into Korean, such as '{name}' ({reason}); word them yourself in "
        "translations_path, or use another chat_model")


@pytest.mark.parametrize(("reply", "outcome"), [
    ("no idea", "not JSON"), ('{"texts": []}', "wrong count"), ('{"texts": "x"}', "not JSON"),
    ('{"texts": [{"text": 5, "protected": []}]}', "not JSON"),
    ('{"texts": [{"text": "일은 의무이다.", "protected": "일"}]}', "not JSON"),
    ('{"texts": ["일은 의무이다."]}', "not JSON"),
    ('{"texts": [{"text": "", "protected": []}]}', "empty"),
    ('{"texts": [{"text": "**일은** 의무이다.", "protected": []}]}', "markup"),
    ('{"texts": [{"text": "Work is a duty towards all of society.", "protected": []}]}', "another language"),
])
def test_replies_that_cannot_be_used_are_recorded(server, reply, outcome):
    server.answer = lambda prompt, before: said(reply)
    client = OpenAI(chat_knobs(server, unusable_retries=1))
    (found,), record = translate(client, [row for row in rows() if row.name == "Q2"], [], "Korean", Bag(), ToyGuard(),
                                 0.6)
    assert (found.text, found.back, found.similarity, found.reason) == ("", None, None, "no usable reply")
    assert [(row.subject, row.purpose, row.outcome) for row in record] == [("Q2", "translation", outcome)] * 4
    assert len(server.asked) == 4  # each of two translations is asked for twice


def test_a_text_of_a_group_in_another_language_is_the_only_one_that_is_lost(server, translator):
    translator.there[WORK] = ("Work is a duty towards all of society.", [])
    found = into_korean(server)
    assert {row.name: row.reason for row in found.values() if row.reason} == {"Q2": "no usable reply"}


def test_a_back_translation_that_never_comes_is_a_reason(server, translator):
    translator.back["일은 사회에 대한 의무이다."] = "일은 사회에 대한 의무이다."
    assert into_korean(server)["Q2"].reason == "no usable back-translation"


def test_the_guard_judges_what_came_back(server, translator):
    guard = ToyGuard()
    translate(OpenAI(chat_knobs(server)), [row for row in rows() if row.kind == "question"], [], "Korean", Bag(), guard,
              0.6)
    assert guard.pairs == [(PARENTS, PARENTS), (WORK, WORK)]


@pytest.mark.parametrize(("protected", "text", "lost"), [
    (["부모님"], "우리 부모님을 기쁘게 한다.", ""), (["부모님", "목표"], "부모님께 간다.", "its protected word '목표'"),
    ([""], "부모님", "its protected word ''"), ([], "부모님", ""),
])
def test_a_protected_word_is_there_with_any_particle(protected, text, lost):
    row = Translation(name="Q1", kind="question", english="x", text=text, protected=protected, source="")
    assert translation.missing(row, "Korean") == lost


# --- a user's own wordings


def test_own_wordings_are_taken_as_they_are_and_cost_nothing(server, translator):
    own = [Own(name="Q2", text="노동은 의무다."), Own(name="Agree", text="네"),
           Own(name="Q1", text="부모님이 자랑스럽다.", protected=["부모님"])]
    found = into_korean(server, own)
    for given in own:
        row = found[given.name]
        assert (row.text, row.protected, row.source, row.back, row.similarity, row.reason) == (
            given.text, given.protected, "user", None, None, "")
    assert found["Disagree"].source == "toy"
    assert sorted(translator.sizes) == [3, 3, 10, 10]
    assert not any(text in prompt for prompt in server.prompts for text in (PARENTS, WORK, "노동은", '"Agree"'))


def test_with_all_of_them_nothing_is_asked(server, translator):
    own = [Own(name=row.name, text=KOREAN[row.english][0], protected=list(KOREAN[row.english][1:])) for row in rows()]
    assert {row.source for row in into_korean(server, own).values()} == {"user"}
    assert server.asked == []


@pytest.mark.parametrize(("own", "problem"), [
    ([Own(name="Q9", text="x")], "'Q9' is no question, option or phrase of this study; its names are question ids, "
                                 "English options, and those in prompts.PHRASES"),
    ([Own(name="Q1", text="x"), Own(name="Q1", text="y")], "'Q1' comes twice; keep one of them"),
    ([Own(name="answer", text="{low} 부터")], "the text of 'answer' lacks the blank {high}"),
    ([Own(name="Q1", text="목표다.", protected=["부모님"])], "the text of 'Q1' lacks its protected word '부모님'"),
])
def test_a_mistake_in_them_is_said_in_one_sentence(server, translator, own, problem):
    assert complaint(into_korean, server, own) == f"translations_path: {problem}"
    assert server.asked == []


# --- from a notebook's parameters


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded."""
    monkeypatch.setattr(translation, "load", lambda name: Bag())
    monkeypatch.setattr(translation, "Guard", ToyGuard)


def parameters_of(server: Server | None = None, **changed: Any) -> Augmentation:
    live = {"chat_backend": "openai", "base_url": server.base_url} if server else {}
    return parameters.validate(Augmentation, studies.defaults("02_augmentation") | {
        "language": "local", "culture": "korean", "cultures": ["korean"], "templates_requested": 2,
        "substitutes_requested": 2, "samples_drawn": 3} | live | changed)


def test_in_english_all_stays_as_it_is():
    assert translation.prepare(parameters_of(language="english"), Recorded(), QUESTIONS) == (
        QUESTIONS, prompts.ENGLISH, [], [])


@pytest.mark.usefixtures("toys")
def test_without_a_live_model_or_a_language_it_stops_in_one_sentence(tmp_path: Path):
    assert complaint(translation.prepare, parameters_of(), Recorded(), QUESTIONS).startswith(
        "no recorded reply for the translation")
    assert complaint(translation.prepare, parameters_of(culture_language="Klingonese"), Recorded(), QUESTIONS) == (
        "culture_language 'Klingonese' is no language's English name; write it as in 'Korean' or 'Greek'")
    nowhere = tmp_path / "none.jsonl"
    assert complaint(translation.prepare, parameters_of(translations_path=str(nowhere)), Recorded(), QUESTIONS) == (
        "translations_path: none.jsonl does not exist; give a JSON Lines file of rows with name and text, or '' to "
        "have all translated")
    nowhere.write_text('{"name": "Q1", "text": ""}\n', encoding="utf-8")
    assert "none.jsonl line 1: field 'text'" in complaint(
        translation.prepare, parameters_of(translations_path=str(nowhere)), Recorded(), QUESTIONS)


TEMPLATES = ["나의 목표는 부모님을 자랑스럽게 하는 것이다.", "부모님이 자랑스러워하시는 것이 나의 목표다."]
SUBSTITUTES = {"나의 목표는": [(1, "목표는", ["꿈은", "goal"]), (2, "부모님을", ["어른을"]), (9, "것이다", ["일이다"])],
               "부모님이": [(3, "나의", ["저의"]), (4, "목표다", ["꿈이다"])]}


@pytest.mark.usefixtures("toys")
def test_two_stages_in_korean_from_end_to_end(server, translator, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text('{"name": "item", "text": "질문:"}\n', encoding="utf-8")

    def answer(prompt: str, before: int) -> Any:
        if "Items: " in prompt:
            return translator(prompt, before)
        text = prompt.partition("질문: ")[2].partition("\n")[0]
        for start, words in SUBSTITUTES.items():
            if text.startswith(start):
                return said(json.dumps({"words": [{"position": p, "word": w, "part_of_speech": "", "substitutes": s}
                                                  for p, w, s in words]}))
        return said(json.dumps({"templates": TEMPLATES if "부모님" in text else ["I work hard for all of society."]}))

    server.answer = answer
    knobs = parameters_of(server, translations_path=str(own), unusable_retries=0)
    chat = OpenAI(knobs)
    questions, book, rows, record = translation.prepare(knobs, chat, QUESTIONS)
    assert [question.question for question in questions] == [KOREAN[PARENTS][0], KOREAN[WORK][0]]
    assert (book.language, book.text("Agree"), book.say("item")) == ("Korean", "동의한다", "질문:")
    assert len(rows) == len(KOREAN)
    assert {row.outcome for row in record} == {"used"}
    assert book.text(SYSTEM) == KOREAN[SYSTEM][0]
    translated = len(server.asked)

    writer = Writer(chat, book)
    job = augmenters.Job(writer, questions, knobs)
    assert augmenters.plan(job).certain == 2
    made = augmenters.augment(job)
    # The second question's template came in English, so it has none.
    assert [row.text for row in made if row.stage == 1] == TEMPLATES
    assert [(row.subject, row.purpose, row.outcome) for row in writer.replies] == [
        ("Q1", "templates", "used"), ("Q2", "templates", "another language"),
        ("Q1-t01", "substitutes", "used"), ("Q1-t02", "substitutes", "used")]
    assert {row.text for row in made if row.stage == 2} == {
        "나의 꿈은 부모님을 자랑스럽게 하는 것이다.",  # the protected word, English and a wrong place are left alone
        "부모님이 자랑스러워하시는 것이 저의 목표다.", "부모님이 자랑스러워하시는 것이 나의 꿈이다.",
        "부모님이 자랑스러워하시는 것이 저의 꿈이다."}
    for body in server.asked[translated:]:
        system, user = (message["content"] for message in body["messages"])
        assert system in {KOREAN[prompts.PHRASES[name]][0] for name in ("rewriter", "suggester")}
        assert not re.search("[a-z]", "".join(line for line in user.splitlines() if "{" not in line))
    assert any("2개까지 쓰되 부모님은 그대로" in prompt for prompt in server.prompts)

    # Again: all is on disk.
    asked = len(server.asked)
    again = translation.prepare(knobs, OpenAI(knobs), QUESTIONS)
    assert (again[0], again[2], again[3]) == (questions, rows, record)
    assert augmenters.augment(augmenters.Job(Writer(OpenAI(knobs), book), questions, knobs)) == made
    assert len(server.asked) == asked
    # And it is asked in Korean.
    assert prompts.survey_prompt(made[0].text, questions[0].options, book) == (
        "다음 진술에 동의하십니까? 나의 목표는 부모님을 자랑스럽게 하는 것이다.\n보기: 1. 동의한다 2. 동의하지 않는다\n"
        "1에서 2 사이의 숫자 하나로 답하십시오.")


def test_what_ships_can_be_wanted():
    names = [row.name for row in wanted(survey.questions(""), ["Korean", "Turkish", "Korean"])]
    assert len(names) == len(set(names))
    assert names[-2:] == ["system Korean", "system Turkish"]
