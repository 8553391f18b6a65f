"""Judges, and what becomes of replies that cannot be used."""

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from chat_server import knobs, request, running_server, said  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import client, replies
from culturellm_utils.client import Recorded, Reply, Request, Show, quiet
from culturellm_utils.live import OpenAI
from culturellm_utils.replies import Verdict, json_object, problem, settle
from culturellm_utils.replies import texts as judged
from culturellm_utils.usage import Budget

ONE, TWO, THREE = "Hard work pays off in the end.", "My parents should be proud of me.", "People can be trusted."
GERMAN, KOREAN = "Die meisten Menschen sind vertrauenswürdig.", "대부분의 사람들은 믿을 수 있습니다."


def listed(*texts: str, field: str = "texts") -> str:
    return json.dumps({field: texts})


class Script:
    """A client that says what it is told to, by prompt without note and attempt."""

    source = "script"

    def __init__(self, retries: int, says: Callable[[str, int], str | Reply]) -> None:
        self.retries, self.says, self.budget = retries, says, Budget()
        self.asked: list[list[Request]] = []

    def known(self, requests: list[Request]) -> int:
        return 0

    def ask(self, requests: list[Request], show: Show = quiet) -> list[Reply]:
        self.asked.append(requests)
        show(f"{len(requests)} asked")
        return [reply(self.says(one.subject, one.attempt)) for one in requests]


def reply(text: str | Reply, **changed: str) -> Reply:
    return text if isinstance(text, Reply) else Reply(text=text, prompt_tokens=10, completion_tokens=5, **changed)


def judge(asked: Request, got: Reply) -> Verdict:
    return judged(got.text, 2, "English")


# --- judges


@pytest.mark.parametrize(("text", "value"), [
    ('{"a": 1}', {"a": 1}), ('```json\n{"a": [1, 2]}\n```', {"a": [1, 2]}),
    ('Sure! Here it is: {"a": {}} Enjoy.', {"a": {}}),
    ('<think>Maybe {this} or {"a": 2}?</think>\n{"a": 1}', {"a": 1}), ('{"a": "}{"}', {"a": "}{"}), ("{}", {})])
def test_the_json_object_in_a_reply(text, value):
    assert json_object(text) == value


@pytest.mark.parametrize("text", ["", "no", "[1]", '{"a": 1', '{"a": 1} and {"b": 2}', "}{", "{a: 1}",
                                  '{"a": "\\ud800"}',
                                  '{"a":' * 10_000 + "1" + "}" * 10_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_reply_without_a_json_object(text):
    with pytest.raises(ValueError):  # noqa: PT011
        json_object(text)


def test_texts_that_are_all_used():
    assert judged(listed(ONE, TWO), 2, "English") == Verdict([ONE, TWO], 2)
    assert judged(listed(f"  {ONE}\n", "Hard work\tpays  off."), 2, "English").value == [ONE, "Hard work pays off."]
    assert judged(listed(ONE, TWO, field="templates"), 2, "English", "templates") == Verdict([ONE, TWO], 2)
    assert judged(f"```json\n{listed(KOREAN)}\n```", 1, "Korean") == Verdict([KOREAN], 1)


def test_more_texts_than_asked_for_are_cut():
    assert judged(listed(ONE, TWO, THREE), 2, "English") == Verdict([ONE, TWO], 2)


@pytest.mark.parametrize(("given_", "value", "detail"), [
    ([ONE, TWO], [ONE, TWO], "2 instead of 3"), ([ONE, ONE, TWO], [ONE, TWO], "2 instead of 3"),
    ([ONE, "", " "], [ONE], "1 instead of 3"), ([], None, "0 instead of 3")])
def test_too_few_texts_are_partly_usable(given_, value, detail):
    assert judged(listed(*given_), 3, "English") == Verdict(value, len(value or []), "wrong count", detail)


def test_texts_with_markup_or_in_another_language_are_left_out():
    assert judged(listed(ONE, f"**{TWO}**"), 2, "English") == Verdict(
        [ONE], 1, "markup", f"1 of 2 texts, such as '**{TWO}**'")
    assert judged(listed(GERMAN, ONE, KOREAN), 2, "English") == Verdict(
        [ONE], 1, "another language", f"2 of 3 texts, such as '{GERMAN}'")
    # One too many makes up for it.
    assert judged(listed(ONE, GERMAN, TWO), 2, "English") == Verdict(
        [ONE, TWO], 2, "used", f"1 of 3 texts, such as '{GERMAN}'")


@pytest.mark.parametrize("mark", ["1. {}\n2. {}", " - {}\n - {}\nThat is all.", "* {}\n* {}",
                                  "Here you are:\n\n1) {}\n\n2) {}\n", "• {}\n• {}",
                                  "<think>\n1. no\n2. no\n3. no\n</think>\n1. {}\n2. {}"])
def test_a_list_does_where_there_is_no_json(mark):
    assert judged(mark.format(ONE, TWO), 2, "English") == Verdict([ONE, TWO], 2)


@pytest.mark.parametrize(("text", "outcome", "detail"), [
    ("Hello.", "not JSON", "no JSON object in the reply"), (f"1. {ONE}", "not JSON", "no JSON object in the reply"),
    (listed(ONE, field="sentences"), "not JSON", "no field 'texts'"),
    ('{"texts": "A."}', "not JSON", "'texts' is no list of texts"),
    ('{"texts": [1]}', "not JSON", "'texts' is no list of texts"),
    ("I'm sorry, but I can't help\nwith that.", "refusal", "I'm sorry, but I can't help with that."),
    ("I’m unable to assist.", "refusal", "I’m unable to assist."),
    ("We cannot do this.", "refusal", "We cannot do this."),
    ("As an AI, I have no views.", "refusal", "As an AI, I have no views.")])
def test_replies_that_hold_no_texts(text, outcome, detail):
    assert judged(text, 2, "English") == Verdict(None, 0, outcome, detail)


@pytest.mark.parametrize("text", [
    "**Bold** words.", "An *emphasised* word.", "<b>Tagged</b>", "Use `code`.", "# Heading", "A [link](http://x).",
    "Fish &amp; chips", "Line\\nbreak", "__Underlined__", "half a pair \ud83c"])
def test_markup(text):
    assert problem(text, "English") == "markup"


@pytest.mark.parametrize(("text", "language", "found"), [
    (ONE, "English", ""), (TWO, "English", ""), ("2 < 3 and 3 > 2, R&D; 2 * 3 * 4.", "English", ""),
    (GERMAN, "English", "another language"), (KOREAN, "English", "another language"),
    (ONE, "Korean", "another language"), (GERMAN, "German", ""), (KOREAN, "Korean", ""),
    (ONE, "German", "another language"),
    ("Al-ʿamal muhimm.", "Hausa", "")])  # a language that the identifier does not know
def test_a_sentence_in_the_language_that_was_asked_for(text, language, found):
    assert problem(text, language) == found


ANY = st.text(alphabet=st.characters(), max_size=200)  # halves of surrogate pairs among them
ALMOST = st.one_of(
    ANY, st.builds(lambda texts: json.dumps({"texts": texts}), st.lists(ANY | st.integers(), max_size=4)),
    st.builds(lambda texts: "\n".join(f"{n}. {text}" for n, text in enumerate(texts)), st.lists(ANY, max_size=4)),
    st.lists(st.sampled_from(['{"texts": [', '"a"', "]}", ",", "\\u", "1. ", "\n", "I can't", "</think>", "{", "é"]),
             max_size=12).map("".join))


@given(ALMOST, st.integers(0, 3), st.sampled_from(["English", "Korean", "Turkish", "Hausa"]))
def test_no_reply_makes_a_judge_raise(text, count, language):
    verdict = judged(text, count, language)
    assert verdict.outcome in {"used", "wrong count", "markup", "another language", "not JSON", "refusal"}
    assert verdict.worth == len(verdict.value or []) <= count
    assert (verdict.outcome != "used") or verdict.worth == count
    for found in verdict.value or []:
        assert found.encode()
        assert problem(found, language) == ""
    assert problem(text, language) in ("", "markup", "another language")
    with suppress(ValueError):
        assert isinstance(json_object(text), dict)


def test_judges_are_quick_with_what_is_long():
    for text in ("\n" * 50_000, "<a" * 30_000, "1. a\n" * 2_000, "[" * 50_000, "*a" * 20_000, '{"a' * 20_000):
        judged(text, 3, "English")
        problem(text[:20_000], "English")


# --- asking again


UNUSABLE = {
    "refusal": (reply("", refusal="No."), "refusal", "", "No."),
    "filtered": (reply("half", finish="content_filter"), "refusal", "", "half"),
    "refused in words": (reply("I cannot do that."), "refusal", "I cannot do that.", "I cannot do that."),
    "empty": (reply(" \n"), "empty", "", " \n"),
    "cut off": (reply(listed(ONE, TWO), finish="length"), "cut off", "raise max_reply_tokens if this is frequent",
                listed(ONE, TWO)),
    "not JSON": (reply("Hello."), "not JSON", "no JSON object in the reply", "Hello."),
    "markup": (reply(listed("**A**")), "markup", "1 of 1 texts, such as '**A**'", listed("**A**")),
    "another language": (reply(listed(GERMAN)), "another language", f"1 of 1 texts, such as '{GERMAN}'",
                         listed(GERMAN)),
    "none": (reply(listed()), "wrong count", "0 instead of 2", listed()),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_an_unusable_reply_is_asked_for_again_with_the_reason(what):
    bad, outcome, detail, text = UNUSABLE[what]
    script = Script(2, lambda subject, attempt: listed(ONE, TWO) if attempt else bad)
    values, rows = settle(script, [request("a")], judge)
    assert values == [[ONE, TWO]]
    assert [(row.attempt, row.outcome, row.detail, row.text) for row in rows] == [
        (0, outcome, detail, text), (1, "used", "", "")]
    (first,), (second,) = script.asked
    reason = f"{outcome}: {detail}" if detail else outcome
    assert second.messages[-1].content == (
        f"a\nAn earlier reply to this could not be used ({reason}). Follow the format and the instructions exactly.")
    assert [row.key for row in rows] == [client.recording_key(first), client.recording_key(second)]
    assert rows[0].key != rows[1].key
    paid = {(row.purpose, row.subject, row.prompt_tokens, row.completion_tokens) for row in rows}
    assert paid == {("toys", "a", 10, 5)}


@pytest.mark.parametrize("what", UNUSABLE)
@pytest.mark.parametrize("retries", [0, 2])
def test_attempts_are_bounded_and_nothing_stays_nothing(what, retries):
    bad, outcome, detail, text = UNUSABLE[what]
    script = Script(retries, lambda subject, attempt: bad)
    values, rows = settle(script, [request("a")], judge)
    assert values == [None]
    assert len(script.asked) == retries + 1
    assert [(row.attempt, row.outcome, row.detail, row.text) for row in rows] == [
        (attempt, outcome, detail, text) for attempt in range(retries + 1)]


def test_after_the_last_attempt_the_best_part_is_used():
    said_ = {0: listed(ONE), 1: listed(ONE, TWO, "**X**"), 2: listed(THREE)}
    script = Script(2, lambda subject, attempt: said_[attempt])
    values, rows = settle(script, [request("a")], lambda asked, got: judged(got.text, 3, "English"))
    assert values == [[ONE, TWO]]
    assert [(row.outcome, row.detail) for row in rows] == [
        ("wrong count", "1 instead of 3"), ("partly used", "markup: 1 of 3 texts, such as '**X**'"),
        ("wrong count", "1 instead of 3")]
    assert rows[1].text == said_[1]


def test_of_equal_parts_the_first_is_used():
    script = Script(1, lambda subject, attempt: listed((ONE, TWO)[attempt]))
    values, rows = settle(script, [request("a")], judge)
    assert values == [[ONE]]
    assert [row.outcome for row in rows] == ["partly used", "wrong count"]


def test_a_usable_reply_goes_before_a_part_that_was_worth_more():
    verdicts = [Verdict("a large part", 5, "unusable"), Verdict("little", 1)]
    script = Script(3, lambda subject, attempt: "x")
    values, rows = settle(script, [request("a")], lambda asked, got: verdicts[asked.attempt])
    assert values == ["little"]
    assert [row.outcome for row in rows] == ["unusable", "used"]


def test_only_what_was_unusable_is_asked_for_again_and_rows_have_one_order():
    good = {"a": 0, "b": 2, "c": 1, "d": 9}
    script = Script(2, lambda subject, attempt: listed(ONE, TWO) if attempt >= good[subject] else "no")
    shown: list[str] = []
    values, rows = settle(script, [request(subject) for subject in "dcba"], judge, shown.append)
    assert values == [None, [ONE, TWO], [ONE, TWO], [ONE, TWO]]
    assert [(row.attempt, row.subject) for row in rows] == [
        (0, "d"), (0, "c"), (0, "b"), (0, "a"), (1, "d"), (1, "c"), (1, "b"), (2, "d"), (2, "b")]
    assert shown == ["4 asked", "3 asked", "2 asked"]
    assert settle(script, [request(subject) for subject in "dcba"], judge) == (values, rows)
    assert settle(script, [], judge) == ([], [])


def test_a_judge_sees_the_request_and_nothing_that_holds_no_reply():
    seen: list[tuple[str, str]] = []
    says = {"a": "x", "b": "", "c": reply("y", finish="length"), "d": reply("", refusal="No.")}
    settle(Script(0, lambda subject, attempt: says[subject]), [request(subject) for subject in "abcd"],
           lambda asked, got: (seen.append((asked.subject, got.text)), Verdict(1, 1))[1])
    assert seen == [("a", "x")]


def test_recorded_replies_are_never_asked_for_again(monkeypatch):
    monkeypatch.setattr(client, "_recordings", lambda: {client.recording_key(request("a")): "no"})
    values, rows = settle(Recorded(), [request("a")], judge)
    assert values == [None]
    assert [row.outcome for row in rows] == ["not JSON"]


def test_live_replies_are_asked_for_again_once_and_a_rerun_sends_nothing(server):
    def answer(prompt: str, before: int):
        with_note = "could not be used (not JSON: no JSON object in the reply)" in prompt
        return said(listed(ONE, TWO) if with_note or prompt == "b" else "Hello.")

    server.answer = answer
    wanted = [request("a"), request("b"), request("c")]
    first = settle(OpenAI(knobs(server, unusable_retries=2)), wanted, judge)
    assert first[0] == [[ONE, TWO]] * 3
    assert len(server.asked) == 5
    chat = OpenAI(knobs(server, unusable_retries=2))
    assert settle(chat, wanted, judge) == first
    assert (chat.sent, len(server.asked)) == (0, 5)
    # The rows say what was paid.
    paid = sum(row.prompt_tokens + row.completion_tokens for row in first[1])
    assert paid == server.tokens == chat.budget.spent.tokens == 5 * 15


def test_the_example_in_the_docstring():
    assert 'texts(\'{"texts": ["A.", "B."]}\', 3, "English")' in replies.__doc__
    assert str(judged('{"texts": ["A.", "B."]}', 3, "English")) in replies.__doc__
