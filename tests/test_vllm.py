"""A server that answers in vLLM's own words: more fields than OpenAI's, many of them null, and no key."""

import json
import math

import pytest
from chat_server import Answer, Server, ask, knobs, running_server  # noqa: F401

from culturellm_utils import prompts
from culturellm_utils.answerers import Remote

#: What vLLM's chat completions hold beyond OpenAI's, from its OpenAI-compatible server's protocol.
CHOICE = {"stop_reason": None, "token_ids": None}
MESSAGE = {"refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": [],
           "reasoning": None, "reasoning_content": None}
RESPONSE = {"service_tier": None, "system_fingerprint": None, "prompt_logprobs": None, "prompt_token_ids": None,
            "kv_transfer_params": None}


def reply(content: str, offered: dict[str, float] | None = None) -> Answer:
    """A reply, with the shares of the candidates for its first token."""
    candidates = [{"token": token, "logprob": math.log(share), "bytes": list(token.encode())}
                  for token, share in (offered or {}).items()]
    return Answer(tokens=(9, 1), body=json.dumps({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "some/model", **RESPONSE,
        "usage": {"prompt_tokens": 9, "total_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": None},
        "choices": [{"index": 0, "finish_reason": "stop", **CHOICE,
                     "message": {"role": "assistant", "content": content, **MESSAGE},
                     "logprobs": {"content": [{**candidates[0], "top_logprobs": candidates}]} if offered else None}]}))


@pytest.fixture
def vllm(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.delenv("OPENAI_API_KEY")
    return server


def test_it_is_asked_by_base_url_without_a_key_and_not_again(vllm):
    vllm.answer = lambda prompt, before: reply(f"{prompt}!")
    for _ in range(2):
        assert ask(vllm, "a", "b", chat_model="some/model", max_concurrency=2) == ["a!", "b!"]
    assert vllm.keys == {"Bearer none"}
    assert [body["model"] for body in vllm.asked] == ["some/model"] * 2


def test_labels_are_scored_by_the_probabilities_it_offers(vllm):
    vllm.answer = lambda prompt, before: reply("2", {"2": 0.3, " 1": 0.1, "The": 0.6})
    found, = Remote(knobs(vllm), "korean", vllm.base_url, "likelihood").answer(
        [prompts.chat("", "?")], [["1", "2"]])
    assert found.probabilities == pytest.approx({"1": 0.25, "2": 0.75})
    body, = vllm.asked
    assert (body["model"], body["logprobs"], body["temperature"]) == ("korean", True, 0.0)
    assert body["top_logprobs"] <= 20  # vLLM's own limit, if it is started without --max-logprobs
