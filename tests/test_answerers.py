"""Answerers: toy models that are trained to say something, a server on the loopback, and what is kept on disk."""

import json
import math

import pytest
import torch
import toys
import transformers
from chat_server import ask, complaint, knobs, refused, request, running_server, said  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from culturellm_utils import answerers, live, models, protocol
from culturellm_utils.answerers import Kept, Local, Remote, fingerprint, first_token_probabilities
from culturellm_utils.encoding import collate, encode
from culturellm_utils.records import Answer
from culturellm_utils.scoring import label_probabilities

WORDS = ("RUDE", "NOT_RUDE")
CODES = ("1", "2", "3")
USERS = ["Is it?", "Do you agree with this, or that?", "10 or 1?"]
CHATS = [toys.chat(user) for user in USERS]
#: What the taught adapters say to each of the prompts: a label, the other label, no label.
SAID = ["RUDE", "NOT_RUDE", "It is"]


SPREAD = 0.6


@pytest.fixture(scope="module")
def taught():
    """A model with an adapter that says SAID, and one that was trained on nothing."""
    tokenizer = toys.tokenizer()
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    model = get_peft_model(toys.model(tokenizer, spread=SPREAD), lora, adapter_name="other")
    model.add_adapter("taught", lora)
    model.set_adapter("taught")
    rows = [encode(tokenizer, toys.chat(user, answer), 512) for user, answer in zip(USERS, SAID, strict=True)]
    batch = collate(rows, tokenizer.pad_token_id)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids", "labels")}
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
    for _ in range(80):
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer


def local(taught, scoring, adapter, batch_size=2):
    return Local(*taught, "toy", batch_size, scoring, adapter)


# --- a model that is loaded here


def test_likelihood_is_that_of_scoring_and_replies_the_likeliest_label(taught):
    answers = local(taught, "likelihood", "taught").answer(CHATS, [WORDS] * 3)
    expected = label_probabilities(*taught, CHATS, [WORDS] * 3, 8)
    for answer, probabilities in zip(answers, expected, strict=True):
        assert answer.probabilities == pytest.approx(probabilities, abs=1e-4)
        assert answer.label == answer.reply == max(probabilities, key=probabilities.get)
    assert [answer.label for answer in answers[:2]] == SAID[:2]


def test_generate_reads_what_the_model_writes(taught):
    answers = local(taught, "generate", "taught").answer(CHATS, [WORDS] * 3)
    assert answers == [
        Answer(probabilities={"RUDE": 1.0, "NOT_RUDE": 0.0}, reply="RUDE", label="RUDE"),
        Answer(probabilities={"RUDE": 0.0, "NOT_RUDE": 1.0}, reply="NOT_RUDE", label="NOT_RUDE"),
        Answer(probabilities={"RUDE": 0.5, "NOT_RUDE": 0.5}, reply="It is", label=None),
    ]


def test_generate_writes_two_tokens_more_than_the_longest_label(taught, monkeypatch):
    asked = []
    monkeypatch.setattr(answerers, "_generate", lambda *given: asked.append(given[3]) or ["1"] * len(given[2]))
    local(taught, "generate", "taught").answer(CHATS[:2], [CODES, WORDS])
    (longest,) = {max(len(taught[1](word)["input_ids"]) for word in WORDS)}
    assert asked == [longest + 2]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_writing_does_not_depend_on_the_batch_and_ends_with_the_turn(taught, batch_size):
    writer = local(taught, "likelihood", "taught", batch_size)
    assert writer.write(CHATS, 40) == SAID
    assert writer.write([CHATS[i] for i in (2, 0, 1)], 40) == [SAID[i] for i in (2, 0, 1)]
    assert writer.write([], 40) == []
    cut = taught[1].decode(taught[1]("NOT_RUDE")["input_ids"][:2])
    assert writer.write(CHATS[1:2], 2) == [cut]


def test_writing_is_greedy_whatever_the_model_was_shipped_with(taught, monkeypatch):
    for name, value in {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "num_beams": 2}.items():
        monkeypatch.setattr(taught[0].generation_config, name, value)
    assert local(taught, "generate", "taught").write(CHATS, 40) == SAID


def test_a_turn_ends_at_the_models_own_sign_too(taught, monkeypatch):
    model, tokenizer = taught
    rude = tokenizer("RUDE")["input_ids"]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [rude[1], 999])
    assert local(taught, "generate", "taught").write(CHATS[:1], 40) == [tokenizer.decode(rude[:1])]


def test_the_end_of_a_turn_is_what_the_template_puts_there():
    """As in models whose tokenizer ends a text otherwise than their template ends a turn."""
    tokenizer = toys.tokenizer()
    tokenizer.eos_token = toys.PAD
    answered = encode(tokenizer, toys.chat("Is it?", "1"), 512).tokens[-2:]
    end, pad = tokenizer.convert_tokens_to_ids([toys.END, toys.PAD])
    assert answerers._ends(toys.model(toys.tokenizer()), tokenizer, answered) == {end, pad}


def test_the_adapter_that_is_named_answers_and_none_without_a_name(taught):
    tokenizer = taught[1]
    base = toys.model(tokenizer, spread=SPREAD)
    plain = Local(base, tokenizer, "toy", 4, "likelihood", "").answer(CHATS, [CODES] * 3)
    off, on, other = (local(taught, "likelihood", name).answer(CHATS, [CODES] * 3) for name in ("", "taught", "other"))
    for answer, with_none, fresh in zip(plain, off, other, strict=True):
        assert with_none.probabilities == pytest.approx(answer.probabilities, abs=1e-4)
        assert fresh.probabilities == pytest.approx(answer.probabilities, abs=1e-4)  # untrained, it changes nothing
    assert any(abs(a.probabilities["1"] - b.probabilities["1"]) > 0.01 for a, b in zip(plain, on, strict=True))
    assert local(taught, "generate", "taught").write(CHATS, 9) == SAID
    untaught = Local(base, tokenizer, "toy", 4, "generate", "").write(CHATS, 9)
    assert local(taught, "generate", "").write(CHATS, 9) == untaught != SAID


# --- a model on a server


def remote(server, scoring="likelihood", **changed):
    return Remote(knobs(server, chat_backend="recorded", **changed), "tuned", server.base_url, scoring)


def logs(**shares):
    return {token: math.log(share) for token, share in shares.items()}


def test_what_a_server_is_asked(server):
    server.answer = lambda prompt, before: said("2", first=logs(**{"2": 0.6, "1": 0.2, "3": 0.2}))
    (answer,) = remote(server, temperature=0.9).answer(CHATS[:1], [CODES])
    assert answer == Answer(probabilities={"1": 0.2, "2": 0.6, "3": 0.2}, reply="2", label="2")
    assert server.asked == [{
        "path": "/v1/chat/completions", "model": "tuned", "temperature": 0.0, "max_tokens": 16, "logprobs": True,
        "top_logprobs": 20, "messages": [turn.model_dump() for turn in CHATS[0]]}]


def test_nothing_is_paid_twice_and_likelihoods_are_kept_too(server):
    server.answer = lambda prompt, before: said("2", first=logs(**{"2": 0.6, "1": 0.4}))
    first = remote(server).answer(CHATS, [CODES] * 3)
    assert remote(server).answer(CHATS, [CODES] * 3) == first
    assert len(server.asked) == 3
    remote(server, "generate").answer(CHATS, [CODES] * 3)
    assert len(server.asked) == 6
    assert "logprobs" not in server.asked[-1]


def test_replies_are_read_where_first_tokens_tell_nothing(server):
    server.answer = lambda prompt, before: said("HS2", first=logs(HS=0.9, The=0.1))
    (answer,) = remote(server).answer(CHATS[:1], [("HS1", "HS2")])
    assert answer == Answer(probabilities={"HS1": 0.0, "HS2": 1.0}, reply="HS2", label="HS2")


@pytest.mark.parametrize("scoring", ["likelihood", "generate"])
def test_a_reply_that_is_no_label_is_invalid(server, scoring):
    server.answer = lambda prompt, before: said(None, refusal="No.") if "Is it?" in prompt else said("It depends.")
    first, second = remote(server, scoring).answer(CHATS[:2], [CODES, WORDS])
    assert first == Answer(probabilities=dict.fromkeys(CODES, 1 / 3), reply="", label=None)
    assert second == Answer(probabilities=dict.fromkeys(WORDS, 1 / 2), reply="It depends.", label=None)


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_log_probabilities_is_asked_without(server, status):
    server.answer = lambda prompt, before: refused(status) if "logprobs" in server.asked[before] else said("3")
    chat = remote(server, max_concurrency=1)
    assert [answer.label for answer in chat.answer(CHATS, [CODES] * 3)] == ["3", "3", "3"]
    assert ["top_logprobs" in body for body in server.asked] == [True, False, False, False]
    assert chat.client.schemas
    assert [answer.label for answer in remote(server).answer(CHATS, [CODES] * 3)] == ["3", "3", "3"]
    assert len(server.asked) == 4


def test_a_server_that_refuses_schemas_is_still_asked_for_log_probabilities(server):
    server.answer = lambda prompt, before: refused(400) if "response_format" in server.asked[before] else said("x")
    chat = live.OpenAI(knobs(server))
    chat.ask([request("a", schema={"type": "object"})])
    assert (chat.schemas, chat.logprobs) == (False, True)


def test_a_refusal_of_the_request_itself_is_told(server):
    server.answer = lambda prompt, before: refused(400)
    assert "answered 400" in complaint(remote(server).answer, CHATS[:1], [CODES])


def test_long_labels_have_room(server):
    server.answer = lambda prompt, before: said("오" * 20)
    (answer,) = remote(server).answer(CHATS[:1], [("오" * 20, "1")])
    assert answer.label == "오" * 20
    assert server.asked[0]["max_tokens"] == 62


def test_free_texts_from_a_server(server):
    chat = remote(server)
    assert chat.write(CHATS, 300) == [user.upper() for user in USERS]
    assert {body["max_tokens"] for body in server.asked} == {300}
    assert not any("logprobs" in body for body in server.asked)
    chat.write(CHATS, 301)
    assert len(server.asked) == 6


def test_a_longer_reply_counts_against_the_budget(server):
    chat = live.OpenAI(knobs(server))
    long, short = (chat.most(answerers.Request("a", "toys", CHATS[0], max_tokens=tokens)) for tokens in (300, 0))
    assert (long.completion_tokens, short.completion_tokens) == (300, 16)


def test_requests_that_want_nothing_new_keep_their_names(server):
    """Replies that were paid before are found again."""
    plain = request("a")
    chat = live.OpenAI(knobs(server))
    settings = {"model": "toy", "base_url": server.base_url, "temperature": 0.7, "max_reply_tokens": 16, "schema": {},
                "attempt": 0}
    assert chat.key(plain) == answerers.live.key(plain.messages, **settings)
    ask(server, "a")
    with chat.store._open() as database:
        (value,) = database.execute("SELECT value FROM items").fetchone()
        old = {name: one for name, one in json.loads(value).items() if name != "logprobs"}
        database.execute("UPDATE items SET value = ?", [json.dumps(old)])
    assert ask(server, "a") == ["A"]
    assert len(server.asked) == 1


@pytest.mark.parametrize(("sent", "read"), [
    ({"content": [{"token": "1", "logprob": -0.5, "top_logprobs": [{"token": "2", "logprob": -1}]}]},
     {"1": -0.5, "2": -1.0}),
    ({"content": [{"token": "1", "logprob": -0.5}]}, {"1": -0.5}),
    ({"content": [{"token": "1", "logprob": -0.5, "top_logprobs": None}]}, {"1": -0.5}),
    ({"content": [{"token": "1", "logprob": -math.inf, "top_logprobs": [{"token": "2", "logprob": math.nan}]}]}, {}),
    ({"content": [{"token": 1, "logprob": -0.5}]}, {}),
    ({"content": [{"token": "1", "logprob": "much"}]}, {}),
    ({"content": []}, {}), ({"content": None}, {}), ({"content": ["1"]}, {}), ({}, {}), (None, {}), ([1], {}),
])
def test_log_probabilities_as_servers_send_them(sent, read):
    body = {"choices": [{"message": {"content": "1"}, "logprobs": sent}]}
    reply = protocol.read_body(json.dumps(body), request("a"))
    assert (reply.text, reply.logprobs) == ("1", read)


# --- first tokens


@pytest.mark.parametrize(("logprobs", "labels", "found"), [
    (logs(**{"1": 0.5, "2": 0.25, "no": 0.25}), CODES, {"1": 2 / 3, "2": 1 / 3, "3": 0.0}),
    (logs(**{"NOT": 0.3, " Not": 0.1, "R": 0.4, "N": 0.2}), WORDS, {"RUDE": 0.5, "NOT_RUDE": 0.5}),
    (logs(**{"1": 0.2, "10": 0.6}), ("1", "10"), {"1": 0.25, "10": 0.75}),
    (logs(**{"1": 0.8}), ("1", "10"), {}),                            # "1" may go on to "10"
    (logs(HS=0.9), ("HS1", "HS2"), {}),
    (logs(no=0.5, non=0.2), ("non", "not"), {}),                      # "no" may go on to either
    (logs(It=1.0), ("RUDE", "OK"), {}),
    ({" ": -1.0, "": -2.0}, CODES, {}),
    ({"1": -9999.0}, CODES, {}),
    ({}, CODES, {}),
])
def test_labels_by_their_first_tokens(logprobs, labels, found):
    assert first_token_probabilities(logprobs, labels) == pytest.approx(found)


@given(shares=st.lists(st.floats(0.001, 1), min_size=10, max_size=10), split=st.booleans())
def test_first_tokens_give_what_the_labels_have(shares, split):
    """A scale to ten, whose "10" is a token of its own, or not."""
    offered = {code: math.log(share / sum(shares)) for code, share in zip(toys.SCALE, shares, strict=True)}
    if split:
        offered.pop("10")
    found = first_token_probabilities(offered, toys.SCALE)
    assert found == ({} if split else pytest.approx({code: math.exp(value) for code, value in offered.items()}))


# --- what is kept


class Counting:
    """Answers with the first label, and counts the calls."""

    def __init__(self, name="toy"):
        self.name, self.calls = name, 0

    def answer(self, chats, labels):
        self.calls += 1
        return [Answer(probabilities={label: 1 / len(row) for label in row}, reply="삶\u2028", label=row[0])
                for row in labels]

    def write(self, chats, max_tokens):
        self.calls += 1
        return [f"{chat[1].content}\n{max_tokens}" for chat in chats]


def test_a_call_is_answered_once(tmp_path):
    counting = Counting()
    kept = Kept(counting, tmp_path / "answers")
    assert kept.name == "toy"
    for _ in range(2):
        assert kept.answer(CHATS, [CODES] * 3) == Counting().answer(CHATS, [CODES] * 3)
        assert kept.write(CHATS, 8) == Counting().write(CHATS, 8)
    assert counting.calls == 2
    assert Kept(Counting(), tmp_path / "answers").answer(CHATS, [CODES] * 3) == kept.answer(CHATS, [CODES] * 3)
    assert len(list(tmp_path.rglob("*.jsonl"))) == 2
    assert Kept(counting, tmp_path).answer([], []) == []


def test_another_call_is_another(tmp_path):
    counting = Counting()
    kept = Kept(counting, tmp_path)
    kept.answer(CHATS, [CODES] * 3)
    for number, call in enumerate([
            lambda: kept.answer(CHATS[:2], [CODES] * 2), lambda: kept.answer(CHATS[::-1], [CODES] * 3),
            lambda: kept.answer(CHATS, [CODES[::-1]] * 3), lambda: kept.write(CHATS, 8), lambda: kept.write(CHATS, 9),
            ], start=2):
        call()
        assert counting.calls == number
    other = Counting("other")
    Kept(other, tmp_path).answer(CHATS, [CODES] * 3)
    assert other.calls == 1


@pytest.mark.parametrize("spoil", [
    lambda text: "", lambda text: text[:-20], lambda text: text.partition("\n")[2], lambda text: text + "{}\n",
    lambda text: text.replace('"1"', '"4"'), lambda text: "\x00"])
def test_a_broken_file_is_made_anew(tmp_path, spoil):
    counting = Counting()
    kept = Kept(counting, tmp_path)
    answers = kept.answer(CHATS, [CODES] * 3)
    (path,) = tmp_path.iterdir()
    whole = path.read_text()
    path.write_text(spoil(whole))
    assert kept.answer(CHATS, [CODES] * 3) == answers
    assert counting.calls == 2
    assert path.read_text() == whole


def test_a_call_that_fails_leaves_nothing(tmp_path, monkeypatch):
    counting = Counting()
    monkeypatch.setattr(counting, "answer", lambda chats, labels: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Kept(counting, tmp_path).answer(CHATS, [CODES] * 3)
    assert list(tmp_path.iterdir()) == []


# --- names


def test_a_name_changes_with_whatever_changes_answers(tmp_path):
    tokenizer = toys.tokenizer()
    base = tmp_path / "base"
    toys.model(tokenizer).save_pretrained(base)
    for place, seed in (("one", 0), ("two", 1)):
        made = models.add_lora(toys.model(tokenizer), rank=2, alpha=4, dropout=0.0, seed=seed)
        made.save_pretrained(tmp_path / place)
    plain = fingerprint(str(base), "fp32", "likelihood")
    assert plain == fingerprint(str(base), "fp32", "likelihood", None)
    names = [plain, fingerprint(str(base), "bf16", "likelihood"), fingerprint(str(base), "fp32", "generate"),
             fingerprint("some/model", "fp32", "likelihood"),
             *(fingerprint(str(base), "fp32", "likelihood", tmp_path / place) for place in ("one", "two"))]
    toys.model(tokenizer, seed=1).save_pretrained(base)
    names.append(fingerprint(str(base), "fp32", "likelihood"))
    assert len(set(names)) == len(names)


def test_a_server_is_named_by_model_address_and_scoring(server):
    names = [remote(server).name, remote(server, "generate").name,
             Remote(knobs(server), "other", server.base_url, "generate").name]
    assert len(set(names)) == 3
    assert server.base_url in names[0]


def test_the_libraries_say_nothing(taught, capsys):
    models.quiet()
    assert transformers.logging.get_verbosity() == transformers.logging.ERROR
    local(taught, "generate", "taught").write(CHATS, 9)
    assert capsys.readouterr() == ("", "")
