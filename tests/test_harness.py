"""The harness itself runs here: its own task files, tiny data made by hand, a toy model, no network."""

import json
import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
import toys
import yaml
from datasets import Dataset, DatasetDict

from culturellm_utils import harness, paths
from culturellm_utils.errors import UserError
from culturellm_utils.harness import TASKS, HarnessRow, HarnessTask
from culturellm_utils.records import Message

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an optional extra")

SYSTEM = "You are a chatbot."
QUESTIONS = [f"What is {n} plus {n * n % 7}?" for n in range(12)]
REPLY_TOKENS = 4


@pytest.fixture(autouse=True)
def _cache(own_cache):
    pass


@pytest.fixture(scope="module")
def tokenizer():
    return toys.tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    """A toy with an adapter that changes what it says."""
    from peft import LoraConfig, get_peft_model

    made = get_peft_model(toys.model(tokenizer), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(3)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return made.eval()


def turns(question: str) -> list[Message]:
    """The task below as a chat: its description joins the system prompt, its one example is a pair of turns."""
    return [Message(role="system", content=f"{SYSTEM}\n\nAdd."), Message(role="user", content="Q: What is 1 plus 1?"),
            Message(role="assistant", content="2"), Message(role="user", content=f"Q: {question}")]


@torch.inference_mode()
def greedy(model, tokenizer, question: str) -> str:
    """The likeliest token after token, without padding, batches or cache."""
    chat = [turn.model_dump() for turn in turns(question)]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = len(tokens)
    while len(tokens) < start + REPLY_TOKENS and tokenizer.eos_token_id not in tokens[start:]:
        tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokenizer.decode(tokens[start:], skip_special_tokens=True)


def toy_task(folder: Path, targets: list[str], **changes) -> dict[str, HarnessTask]:
    """A task of the harness: a YAML file and its data."""
    folder.mkdir(exist_ok=True)
    rows = [{"question": question, "target": target} for question, target in zip(QUESTIONS, targets, strict=False)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {
        "task": "toy_sums", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": f"{folder}/data.jsonl"}},
        "output_type": "generate_until", "test_split": "test", "description": "Add.", "num_fewshot": 1,
        "fewshot_config": {"sampler": "first_n", "samples": [{"question": "What is 1 plus 1?", "target": "2"}]},
        "doc_to_text": "Q: {{question}}", "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": ["</s>"], "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "toy_sums.yaml").write_text(yaml.safe_dump(config | changes), encoding="utf-8")
    return {"toy_sums": HarnessTask(str(folder / "toy_sums.yaml"), "none", REPLY_TOKENS)}


def ask(model, tokenizer, tasks, items=100, seed=0, adapter=True, name="toy", show=lambda line: None):
    return harness.run(model, tokenizer, name, items, seed, adapter=adapter, system_prompt=SYSTEM, batch_size=5,
                       tasks=tasks, show=show)


def test_every_reply_is_the_models_own_and_counted_right_where_it_is_the_target(model, tokenizer, tmp_path):
    replies = [greedy(model, tokenizer, question) for question in QUESTIONS]
    assert len(set(replies)) > 3, "the toy says the same to everything, so that mixed up replies would not show"
    targets = [reply if n % 3 == 0 else "no such answer" for n, reply in enumerate(replies)]
    said: list[str] = []
    rows = ask(model, tokenizer, toy_task(tmp_path / "a", targets), show=said.append)
    assert [row.item_id for row in rows] == [f"toy_sums-{n}" for n in range(12)]
    assert [row.reply for row in rows] == replies
    assert [row.messages for row in rows] == [turns(question) for question in QUESTIONS]
    assert [row.gold for row in rows] == [target.strip() for target in targets]
    assert [row.label == row.gold for row in rows] == [n % 3 == 0 for n in range(12)]
    assert said == ["1/1 toy_sums: 4 of 12 right"]


def test_the_base_is_the_model_without_its_adapter(model, tokenizer, tmp_path):
    tasks = toy_task(tmp_path / "a", ["x"] * 12)
    base, adapted = (ask(model, tokenizer, tasks, adapter=adapter) for adapter in (False, True))
    with model.disable_adapter():
        assert [row.reply for row in base] == [greedy(model, tokenizer, question) for question in QUESTIONS]
    assert [row.messages for row in base] == [row.messages for row in adapted]
    assert [row.reply for row in base] != [row.reply for row in adapted]


def test_items_are_drawn_by_the_seed_the_same_for_base_and_adapter(model, tokenizer, tmp_path):
    tasks = toy_task(tmp_path / "a", [str(n) for n in range(12)])

    def drawn(**how):
        rows = ask(model, tokenizer, tasks, **{"items": 5, "seed": 7, **how})
        for row in rows:  # whatever is drawn, the item is the line of the data that its name says
            number = int(row.item_id.removeprefix("toy_sums-"))
            assert (row.messages[-1].content, row.gold) == (f"Q: {QUESTIONS[number]}", str(number))
        return [row.item_id for row in rows]

    first = drawn()
    assert len(set(first)) == 5
    assert first == drawn(name="again") == drawn(adapter=False)
    assert first != drawn(seed=8)
    assert drawn(items=0) == []


def test_what_is_kept_is_not_asked_again(model, tokenizer, tmp_path, monkeypatch):
    tasks = toy_task(tmp_path / "a", ["x"] * 12)
    first = ask(model, tokenizer, tasks, items=3)
    (kept,) = (paths.cache() / "harness").glob("*.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(harness, "_ask", lambda *_: pytest.fail("asked again"))
        assert ask(model, tokenizer, tasks, items=3) == first
    asked = []
    real = harness._ask
    monkeypatch.setattr(harness, "_ask", lambda *how: asked.append(how) or real(*how))
    kept.write_text(kept.read_text(encoding="utf-8")[:-20], encoding="utf-8")  # cut off
    assert ask(model, tokenizer, tasks, items=3) == first
    for other in ({"name": "other"}, {"adapter": False}, {"seed": 1}, {"items": 4}):
        ask(model, tokenizer, tasks, **{"items": 3, **other})
    assert len(asked) == 5


def test_rows_become_predictions():
    row = HarnessRow(item_id="gsm8k-3", task="gsm8k", messages=turns("How many?"), reply="7 or 8", label="8", gold="9")
    (made,) = harness.predictions([row], "korean", "adapter")
    assert made.model_dump(exclude={"messages"}) == {
        "item_id": "gsm8k-3", "part": "ability", "culture": "korean", "system": "adapter", "question_id": "gsm8k",
        "probabilities": {}, "reply": "7 or 8", "label": "8", "gold": "9", "gold_distribution": {},
    }
    assert made.messages == row.messages


@pytest.mark.parametrize(("answer", "match", "target", "label", "gold"), [
    ("18", 1, "He has 9 twice.\n#### 18", "18", "18"),
    ("$1,800", 1, "#### 1800", "1800", "1800"),  # the harness's metric ignores currency and commas
    ("17", 0, "#### 18", "17", "18"),
    ("[invalid]", 0, "#### 18", None, "18"),
    (" ", 0, "(A)", None, "(A)"),
    ("(B)", 0, "(A)", "(B)", "(A)"),
])
def test_the_label_equals_gold_exactly_where_the_metric_says_right(answer, match, target, label, gold):
    sample = {"doc_id": 4, "target": target, "filtered_resps": [answer], "resps": [["raw reply"]],
              "exact_match": match, "arguments": [("prompt", {})]}
    row = harness._row("toy", sample, {"prompt": turns("Why?")})
    assert (row.item_id, row.reply, row.label, row.gold) == ("toy-4", "raw reply", label, gold)


# --- the tasks that the harness ships, with data made by hand


def test_twenty_one_tasks_of_bbh_and_gsm8k_as_the_harness_has_them():
    assert len(TASKS) == 22
    assert sum(name.startswith("bbh_fewshot_") for name in TASKS) == 21
    for name, how in TASKS.items():
        text = (Path(lm_eval.__file__).parent / "tasks" / how.path).read_text(encoding="utf-8")
        assert re.search(rf"^\"?task\"?: \"?{name}\"?$", text, re.MULTILINE)


@pytest.fixture
def data(monkeypatch):
    """Two items for every task that loads its data from the hub."""
    splits = {
        "train": [{"question": f"What is {n} times 2?", "answer": f"Twice {n}.\n#### {2 * n}"} for n in range(9)],
        "test": [{"question": f"What is {n} times 3?", "answer": f"Thrice {n}.\n#### {3 * n}",
                  "input": f"not ( True ) and {n}", "target": "False"} for n in (2, 5)],
    }
    made = DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()})
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: made)


def test_the_harness_own_tasks_run_with_their_examples_as_turns(model, tokenizer, data, monkeypatch):
    monkeypatch.setattr(model.config, "max_position_embeddings", 4096)
    tasks = {name: replace(TASKS[name], reply_tokens=8) for name in ("bbh_fewshot_boolean_expressions", "gsm8k")}
    rows = ask(model, tokenizer, tasks)
    assert [row.item_id for row in rows] == [f"{task}-{n}" for task in tasks for n in (0, 1)]
    assert [row.gold for row in rows] == ["False", "False", "6", "15"]
    assert all(row.label is None or row.label in row.reply for row in rows)
    bbh, gsm = rows[0].messages, rows[3].messages
    assert bbh[0].content == f"{SYSTEM}\n\nEvaluate the result of a random Boolean expression.\n\n"
    assert [turn.content for turn in bbh[-2:]] == ["True", "Q: not ( True ) and 2\nA:"]
    assert (len(bbh), len(gsm)) == (1 + 3 * 2 + 1, 1 + 5 * 2 + 1)
    assert gsm[-1].content == "Question: What is 5 times 3?\nAnswer:"
    assert gsm[2].content.split("#### ")[1] == str(2 * int(gsm[1].content.split()[3]))
    # GSM8K's examples are drawn: the same for whoever answers.
    assert [row.messages for row in ask(model, tokenizer, tasks, adapter=False)] == [row.messages for row in rows]


def test_a_template_that_refuses_system_turns_has_them_at_the_head_of_the_users(model, tmp_path, monkeypatch):
    strict = toys.tokenizer(template="{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}"
                                     "{% endif %}" + toys.CHAT_TEMPLATE)
    prompts = []
    monkeypatch.setattr(harness, "_row", lambda name, sample, turns: prompts.append(sample["arguments"][0][0])
                        or HarnessRow(item_id="1", task=name, messages=[], reply="", label=None, gold=""))
    ask(model, strict, toy_task(tmp_path / "a", ["x"]))
    assert prompts == [f"<|user|>{SYSTEM}\n\nAdd.\n\nQ: What is 1 plus 1?<|end|><|assistant|>2<|end|>"
                       f"<|user|>Q: {QUESTIONS[0]}<|end|><|assistant|>"]


# --- what is refused


def test_a_model_that_reads_too_little_is_told(model, tokenizer, data):
    with pytest.raises(UserError, match="gsm8k is longer than the 256 tokens that the base model can read"):
        ask(model, tokenizer, {"gsm8k": TASKS["gsm8k"]})
    assert not list(paths.cache().rglob("*.jsonl"))


def test_without_the_hub_it_says_what_to_do(model, tokenizer, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'SaylorTwift/bbh' on the Hub\nmore")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(UserError) as caught:
        ask(model, tokenizer, TASKS)
    assert str(caught.value) == (
        "the data of the harness task bbh_fewshot_boolean_expressions cannot be loaded (Couldn't reach "
        "'SaylorTwift/bbh' on the Hub): run once with access to the Hugging Face hub, which keeps a copy on this "
        "machine, or set harness_items to 0")


def test_without_the_extra_it_says_what_to_install(model, tokenizer, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(UserError, match=r'pip install -e "\.\[harness\]", or set harness_items to 0'):
        ask(model, tokenizer, TASKS)
    assert ask(model, tokenizer, TASKS, items=0) == []


def test_a_task_that_the_harness_lacks_is_named(model, tokenizer):
    with pytest.raises(UserError, match=r"lm-evaluation-harness [\d.]+ has no task gone"):
        ask(model, tokenizer, {"gone": HarnessTask("bbh/gone.yaml", "none", 4)})
