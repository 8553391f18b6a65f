"""The stand-in: what it reads and what it must never read; building it whole takes about a minute."""

from functools import cache

import pandas as pd
import pytest
from safetensors.torch import load_file

from culturellm_utils import (
    ability,
    augmentation,
    client,
    items,
    models,
    paths,
    prompts,
    scoring,
    stand_in,
    survey,
    tasks,
    wordings,
)


@pytest.fixture(scope="module")
def chats():
    return stand_in.corpus()


@pytest.fixture(scope="module")
def tokenizer(chats):
    return stand_in._tokenizer(chats)


@pytest.fixture(scope="module")
def questions():
    return survey.questions("")


@pytest.fixture(scope="module")
def templates(questions):
    return augmentation.make_templates(augmentation.Writer(client.Recorded()), questions, count=12)


def asked(chats):
    """The wordings of the survey questions, in order."""
    return [messages[1].content.partition("\nOptions: ")[0].removeprefix(prompts.AGREE)
            for messages, shares in chats if shares]


@cache
def united_states(question):
    """Shares of valid answers in the shipped counts, by pandas alone."""
    table = pd.read_csv(paths.DATA / "wvs7_counts.csv")
    rows = table[(table["country_alpha"] == "USA") & (table["question"] == question) & (table["answer_code"] >= 0)]
    shares = rows.set_index("answer_code")["respondents"] / rows["respondents"].sum()
    return {str(code): share for code, share in shares.items()}


def test_the_corpus_is_the_same_twice_and_depends_on_its_seed(chats):
    assert stand_in.corpus() == chats
    assert stand_in.corpus(1) != chats


def test_every_survey_answer_is_the_united_states_whoever_is_named(chats, questions):
    by_text = {q.question: q.question_id for q in questions}
    seen, systems = set(), set()
    for messages, shares in chats:
        if not shares:
            continue
        text = asked([(messages, shares)])[0]
        systems.add(messages[0].content)
        if text in by_text:
            truth = united_states(by_text[text])
            assert {code: share for code, share in shares.items() if share} == pytest.approx(truth)
            assert shares[messages[2].content] == max(shares.values())
            seen.add(by_text[text])
    assert seen == {q.question_id for q in questions}
    assert systems == {prompts.NEUTRAL, *map(prompts.culture_system, stand_in.PROMPT_NAMES)}


def test_wordings_of_one_question_share_one_answer(chats, questions, templates):
    truth = {q.question: united_states(q.question_id) for q in questions}
    of = {t.text: united_states(t.question_id) for t in templates}
    for (_, shares), text in zip([chat for chat in chats if chat[1]], asked(chats), strict=True):
        if text in of or text in truth:
            expected = of.get(text) or truth[text]
            assert {code: share for code, share in shares.items() if share} == pytest.approx(expected)


def test_no_held_out_template_nor_its_samples_are_read(chats, questions, templates):
    unseen = [t for t in templates if wordings.number(t.template_id) > stand_in.SEEN_TEMPLATES]
    assert len(unseen) >= 2 * len(questions)
    writer = augmentation.Writer(client.Recorded())
    samples = augmentation.make_samples(writer, unseen, questions, count=4, draws=6, seed=0)
    read = "\n".join(message.content for messages, _ in chats for message in messages)
    assert [c.candidate_id for c in [*unseen, *samples] if c.text in read] == []


def test_seen_templates_are_read(chats, templates):
    read = set(asked(chats))
    seen = [t for t in templates if wordings.number(t.template_id) <= stand_in.SEEN_TEMPLATES]
    assert seen
    assert all(t.text in read for t in seen)


def test_no_test_item_is_read(chats):
    read = {messages[1].content for messages, _ in chats}
    assert not read & {tasks.prompt(item) for item in tasks.bundled("test")}
    assert {tasks.prompt(item) for item in tasks.bundled("train")} <= read


def test_labels_and_sums_are_right(chats):
    label = {tasks.prompt(item): item.label for item in tasks.bundled("train")}
    sums = dict(ability.items())
    for messages, shares in chats:
        if not shares:
            assert messages[2].content == (label | sums)[messages[1].content]


def test_every_option_code_is_one_token_of_its_own(tokenizer):
    codes = [str(code) for code in range(13)]
    tokens = [tokenizer(code)["input_ids"] for code in codes]
    assert [len(ids) for ids in tokens] == [1] * 13
    assert len({ids[0] for ids in tokens}) == 13
    assert tokenizer.decode([ids[0] for ids in tokens]) == "".join(codes)


def test_the_chat_template_marks_each_turn_with_one_token(tokenizer):
    turns = [message.model_dump() for message in prompts.chat("Be kind.", "Is it?", "10")]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole == "<|system|>Be kind.<|end|><|user|>Is it?<|end|><|assistant|>10<|end|>"
    prompt = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    assert whole == prompt + "10<|end|>"
    assert tokenizer(whole)["input_ids"][-3:] == tokenizer.convert_tokens_to_ids(["<|assistant|>", "10", "<|end|>"])
    assert tokenizer.pad_token != tokenizer.eos_token == "<|end|>"


def test_any_script_survives_the_tokenizer(tokenizer):
    for text in ("부모님이 자랑스러워하시게", "আমার বাবা-মা", "çok güzel ß", "من فضلك", "父母 🙂\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_all_prompts_fit(chats, tokenizer):
    lengths = [len(ids) for ids in tokenizer([messages[1].content for messages, _ in chats])["input_ids"]]
    assert max(lengths) < 400  # of 512, with room for the system turn


@pytest.mark.slow
def test_the_stand_in_learns_what_it_read(own_cache, questions):
    place = stand_in.folder("stand-in")
    model, tokenizer = models.load("stand-in")
    assert 0.5e6 < sum(weight.numel() for weight in model.parameters()) < 2e6
    chats, truth = [], []
    for question in questions:
        chats.append(prompts.chat(prompts.culture_system("Korean"),
                                  prompts.survey_prompt(question.question, question.options)))
        truth.append(united_states(question.question_id))
    found = scoring.label_probabilities(model, tokenizer, chats, [list(q.options) for q in questions], 64)
    gap = [sum(abs(p - shares.get(code, 0)) for code, p in row.items()) / 2
           for row, shares in zip(found, truth, strict=True)]
    assert sum(gap) / len(gap) < 0.1
    sums = items.ability_items("one", 77, 0)
    found = scoring.label_probabilities(model, tokenizer, [prompts.chat(prompts.NEUTRAL, item.user) for item in sums],
                                        [item.labels for item in sums], 64)
    right = sum(max(row, key=row.get) == item.gold for row, item in zip(found, sums, strict=True))
    assert right > 0.5 * len(sums)  # chance: 1 in 13
    assert stand_in.folder("stand-in") == place  # cached


@pytest.mark.slow
def test_two_builds_are_the_same(tmp_path):
    for name in ("first", "second"):
        stand_in.build(tmp_path / name, epochs=1)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)
