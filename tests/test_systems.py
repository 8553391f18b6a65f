"""Who answers: how each system is told whose people are asked about, and which weights or server's model it is."""

import json
import math

import pytest
import torch
import toys
from chat_server import running_server, said  # noqa: F401
from opinions import KOREAN
from peft import PeftModel

from culturellm_utils import evaluation, models, parameters, prompts, records, studies, systems
from culturellm_utils.errors import UserError
from culturellm_utils.items import Item
from culturellm_utils.prompts import Phrasebook
from culturellm_utils.scoring import label_probabilities
from culturellm_utils.systems import Framing, asked_of

CODES = ("1", "2", "3")
SHARES = {"1": 0.2, "2": 0.5, "3": 0.3}
ITEMS = [
    Item("Q1-t08", "held_out_wording", "korean", "Q1", "Is it?", CODES, "2", SHARES),
    Item("spam-4", "task", "korean", "spam", "Is this spam?", ("yes", "no"), "no", {}),
    Item("Q1-t08", "held_out_wording", "german", "Q1", "Is it?", CODES, "2", SHARES),
    Item("a-1", "ability", "toy", "arithmetic", "What is 1 plus 2?", CODES, "3", {}),
]
FRAMINGS = {"korean": Framing("Korean", "A country in Asia."), "german": Framing("German")}


def knobs(**changed):
    return parameters.validate(parameters.Evaluation, studies.defaults("05_evaluation") | {
        "study": "toy", "culture": "korean", "cultures": ["korean", "german"]} | changed)


# How a culture is named

@pytest.mark.parametrize(("system", "told"), [
    ("base", prompts.NEUTRAL), ("persona", KOREAN), ("context", f"{KOREAN}\n\nA country in Asia."),
    ("seeds_only", KOREAN), ("stage_1_only", KOREAN), ("one_country", KOREAN), ("adapter", KOREAN),
])
def test_what_a_system_is_told(system, told):
    assert FRAMINGS["korean"].chat(system, "Is it?") == prompts.chat(told, "Is it?")


def test_the_third_person_is_told_in_the_user_turn():
    system, user = FRAMINGS["korean"].chat("third_person", "Is it?")
    assert system.content == prompts.NEUTRAL
    assert "most people of Korean culture" in user.content
    assert user.content.endswith("\n\nIs it?")


def test_a_culture_is_named_in_its_own_language():
    told = Framing("Korean", "아시아의 나라.", Phrasebook("local", {KOREAN: "당신은 한국 챗봇입니다."}))
    assert [told.chat(system, "?")[0].content for system in ("base", "adapter", "context")] == [
        prompts.NEUTRAL, "당신은 한국 챗봇입니다.", "당신은 한국 챗봇입니다.\n\n아시아의 나라."]


def test_every_system_is_told_something():
    assert systems.SYSTEMS == ("base", "persona", "context", "third_person", "seeds_only", "stage_1_only",
                               "one_country", "adapter")
    assert all(FRAMINGS["korean"].chat(system, "?") for system in systems.SYSTEMS)


# What each is asked, and was trained on

def test_the_rows_of_all_adapters_of_the_line_up(outputs):
    """Those of an ablation that 04 no longer trains, or that this evaluation leaves out, are none of them."""
    folder = outputs / "toy" / "main" / "korean"
    rows = {place: [records.TrainRow(messages=prompts.chat("You are.", place, "1"))]
            for place in (".", "ablations/seeds", "ablations/templates")}
    for place, found in rows.items():
        (folder / place / "model").mkdir(parents=True)
        records.write_rows(folder / place / "train.jsonl", found)
    assert systems.trained_rows(knobs(ablations=["seeds", "one_country"]), folder) == [
        *rows["ablations/seeds"], *rows["."]]
    assert systems.trained_rows(knobs(ablations=[]), folder) == rows["."]


def test_most_systems_are_asked_everything():
    for system in {*systems.SYSTEMS} - {"context", "one_country"}:
        assert asked_of(system, ITEMS, FRAMINGS) == ITEMS


def test_context_is_asked_about_cultures_that_have_a_paragraph():
    assert asked_of("context", ITEMS, FRAMINGS) == ITEMS[:2]  # the Germans have none, and "toy" is no culture
    assert asked_of("context", ITEMS, {}) == []


def test_one_country_is_asked_about_opinions():
    country = Item("Q1-t08", "held_out_country", "korean", "Q1", "Is it?", CODES, "2", SHARES)
    question = Item("Q2", "held_out_question", "korean", "Q2", "Is it?", CODES, "2", SHARES)
    turned = Item("Q1-t08", "option_order", "korean", "Q1", "Is it?", CODES, "2", SHARES)
    opinions = [country, question, turned]
    assert asked_of("one_country", [*ITEMS, *opinions], FRAMINGS) == [ITEMS[0], ITEMS[2], *opinions]


# Predictions

class Parrot:
    """Answers with the first label; keeps what it was asked."""

    name = "parrot"

    def __init__(self):
        self.calls = []

    def answer(self, chats, labels):
        self.calls.append((chats, labels))
        return [records.Answer(probabilities={label: float(label == allowed[0]) for label in allowed},
                               reply=f"{allowed[0]}.", label=allowed[0]) for allowed in labels]


def test_predictions_come_in_the_order_of_the_items_and_are_asked_a_task_at_a_time():
    items = [ITEMS[1], ITEMS[0], ITEMS[3], *(Item(f"{task}-1", "task", "korean", task, "?", ("yes", "no"), "no", {})
                                             for task in ("hate", "spam"))]
    parrot = Parrot()
    rows = evaluation.predict(parrot, items, "persona", FRAMINGS)
    assert [row.item_id for row in rows] == ["spam-4", "Q1-t08", "a-1", "hate-1", "spam-1"]
    assert [[chat[1].content for chat in chats] for chats, _ in parrot.calls] == [
        ["Is this spam?", "?"], ["Is it?"], ["What is 1 plus 2?"], ["?"]]
    assert parrot.calls[0][1] == [("yes", "no")] * 2
    assert [row.messages[0].content for row in rows] == [KOREAN, KOREAN, prompts.NEUTRAL, KOREAN, KOREAN]
    first = rows[1]
    assert (first.culture, first.system, first.part, first.question_id) == (
        "korean", "persona", "held_out_wording", "Q1")
    assert (first.probabilities, first.reply, first.label, first.gold, first.gold_distribution) == (
        {"1": 1.0, "2": 0.0, "3": 0.0}, "1.", "1", "2", SHARES)


# Loaded here

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A base model, and the folder of a culture with a model and two ablations, each of which answers otherwise."""
    place = tmp_path_factory.mktemp("trained")
    tokenizer = toys.tokenizer()
    toys.model(tokenizer).save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    for number, folder in enumerate(("model", "ablations/seeds/model", "ablations/templates/model")):
        model = models.add_lora(models.load(str(place / "base"))[0], rank=4, alpha=8, dropout=0.0, seed=number)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)  # as if trained
        models.save_adapter(model, tokenizer, place / "korean" / folder, "card")
    return place


def alone(place, folder, chats):
    """The probabilities by a model that knows one adapter, or none."""
    model, tokenizer = models.load(str(place / "base"))
    model = PeftModel.from_pretrained(model, str(place / "korean" / folder)).eval() if folder else model
    return label_probabilities(model, tokenizer, chats, [item.labels for item in ITEMS], 1)


def test_every_system_answers_with_its_own_weights(trained, own_cache):
    line_up = systems.line_up(knobs(base_model=str(trained / "base")), trained / "korean")
    assert list(line_up) == ["base", "persona", "context", "third_person", "seeds_only", "stage_1_only", "adapter"]
    folders = {"seeds_only": "ablations/seeds/model", "stage_1_only": "ablations/templates/model", "adapter": "model"}
    by_system = {}
    for system in ["adapter", *line_up, "base"]:  # back and forth: none leaves its weights on for the next
        rows = evaluation.predict(line_up[system].answerer, ITEMS, system, {"korean": FRAMINGS["korean"],
                                                                            "german": Framing("German", "In Europe.")})
        expected = alone(trained, folders.get(system, ""), [row.messages for row in rows])
        for row, shares in zip(rows, expected, strict=True):
            assert row.probabilities == pytest.approx(shares, abs=1e-4)
            assert row.reply == row.label == max(shares, key=shares.get)
        by_system[system] = rows[0].probabilities["1"]
    assert len({round(share, 3) for share in by_system.values()}) == len(by_system)


def test_only_what_the_parameters_name_is_lined_up(trained, own_cache):
    few = knobs(base_model=str(trained / "base"), prompted_systems=["persona", "base"], ablations=["templates"])
    assert list(systems.line_up(few, trained / "korean")) == ["base", "persona", "stage_1_only", "adapter"]
    none = knobs(base_model=str(trained / "base"), prompted_systems=["base", "persona"], ablations=[])
    assert list(systems.line_up(none, trained / "korean")) == ["base", "persona", "adapter"]


def test_answers_are_kept_by_weights_and_prompt(trained, own_cache):
    line_up = systems.line_up(knobs(base_model=str(trained / "base")), trained / "korean")
    kept = own_cache / "answers"
    for system in ("base", "persona", "adapter", "adapter"):
        evaluation.predict(line_up[system], ITEMS[:2], system, FRAMINGS)
    assert len(list(kept.iterdir())) == 3 * 2  # two tasks each; the last was read
    assert line_up["base"].name == line_up["persona"].name != line_up["adapter"].name != line_up["seeds_only"].name
    again = systems.line_up(knobs(base_model=str(trained / "base"), prompts_per_pass=1), trained / "korean")
    assert again["adapter"].name == line_up["adapter"].name
    assert systems.line_up(knobs(base_model=str(trained / "base"), scoring="generate"),
                           trained / "korean")["adapter"].name != line_up["adapter"].name


def test_without_a_model_the_notebook_to_run_is_named(trained, tmp_path):
    with pytest.raises(UserError, match="korean/model has no adapter: run notebook 04_fine_tuning for it first"):
        systems.line_up(knobs(base_model=str(trained / "base")), tmp_path / "korean")


# On a server

@pytest.fixture
def tuned(tmp_path):
    """The folder of a culture whose models a server fine-tuned."""
    folder = tmp_path / "korean"
    for place, name in (("model", "ft:full"), ("ablations/seeds/model", "ft:seeds")):
        records.write_json(folder / place / "remote.json",
                           {"model": name, "job": "ftjob-1", "base_model": "gpt-toy", "base_url": ""})
    return folder


def test_each_system_asks_the_servers_model_that_is_its_own(server, tuned):
    remote = knobs(model_backend="openai", model_url=server.base_url, base_model="gpt-toy",
                   base_url="http://127.0.0.1:9/judge", chat_model="judge", temperature=1.5)
    first = {"1": math.log(0.1), "2": math.log(0.6), "3": math.log(0.3)}
    server.answer = lambda prompt, before: said("2", first=first)
    line_up = systems.line_up(remote, tuned)
    assert list(line_up) == ["base", "persona", "context", "third_person", "seeds_only", "adapter"]
    rows = {system: evaluation.predict(answerer, ITEMS[:1], system, FRAMINGS)[0]
            for system, answerer in line_up.items()}
    assert [(body["model"], body["temperature"], body["messages"]) for body in server.asked] == [
        (model, 0.0, [turn.model_dump() for turn in FRAMINGS["korean"].chat(system, "Is it?")])
        for system, model in (("base", "gpt-toy"), ("persona", "gpt-toy"), ("context", "gpt-toy"),
                              ("third_person", "gpt-toy"), ("seeds_only", "ft:seeds"), ("adapter", "ft:full"))]
    for system, row in rows.items():
        assert row.probabilities == {"1": 0.1, "2": 0.6, "3": 0.3}
        assert (row.label, row.system) == ("2", system)


def test_what_a_server_was_paid_for_is_not_asked_again(server, tuned, own_cache):
    remote = knobs(model_backend="openai", model_url=server.base_url, base_model="gpt-toy", scoring="generate")
    server.answer = lambda prompt, before: said("no" if "spam" in prompt else "It depends.")
    for _ in range(2):
        rows = evaluation.predict(systems.line_up(remote, tuned)["adapter"], ITEMS[:2], "adapter", FRAMINGS)
    assert len(server.asked) == 2
    assert [(row.reply, row.label) for row in rows] == [("It depends.", None), ("no", "no")]
    assert all(json.loads(line)["reply"] for path in (own_cache / "answers").iterdir()
               for line in path.read_text().splitlines())


def test_without_a_servers_model_the_file_is_named(server, tmp_path):
    remote = knobs(model_backend="openai", model_url=server.base_url, base_model="gpt-toy")
    with pytest.raises(UserError, match=r"korean/model/remote\.json is missing: run the notebook"):
        systems.line_up(remote, tmp_path / "korean")
