"""The released procedure, worked out by hand with an encoder that counts shared words."""

import json
import random
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from culturellm_utils import paper
from culturellm_utils.augmentation import Writer
from culturellm_utils.client import Recorded, Reply, Request, Show, quiet
from culturellm_utils.records import Candidate, Question
from culturellm_utils.survey import questions
from culturellm_utils.usage import Budget, Usage

SEED = Question(question_id="Q1", topic="Work", question="Work is nice.", options={"1": "Agree", "2": "Disagree"})


class Bag:
    """A toy encoder: the cosine of two texts is that of their counts of words."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        texts = list(texts)
        rows = np.zeros((len(texts), 4096), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in "".join(sign if sign.isalnum() else " " for sign in text.lower()).split():
                row[self._places.setdefault(word, len(self._places))] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Script:
    """A client that answers by what is asked: sentences by attempt, synonyms by word."""

    source, retries = "script", 0

    def __init__(self, sentences: Callable[[int], list[str]], synonyms: dict[str, list[str]]) -> None:
        self.sentences, self.synonyms, self.budget = sentences, synonyms, Budget()
        self.asked: list[Request] = []

    def known(self, requests: list[Request]) -> int:
        return 0

    def ask(self, requests: list[Request], show: Show = quiet) -> list[Reply]:
        self.asked += requests
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        if request.purpose == "sentences":
            return Reply(text=json.dumps({"sentences": self.sentences(request.attempt)}), prompt_tokens=100,
                         completion_tokens=50)
        word = request.messages[-1].content.partition("Item: ")[2].partition(" (")[0]
        return Reply(text=json.dumps({"synonyms": self.synonyms.get(word, [])}), prompt_tokens=10 + len(word),
                     completion_tokens=5)


def augment(client: Script, tau: float, seed: int = 0) -> tuple[list[Candidate], Writer]:
    writer = Writer(client)
    return paper.augment(writer, [SEED], Bag(), tau, seed), writer


def stage(made: list[Candidate], number: int) -> list[str]:
    return [row.text for row in made if row.stage == number]


# --- what is asked


@pytest.mark.parametrize(("sentence", "expected"), [
    ("Work is nice.", "Work/NN nice/JJ"),
    ("They work at work.", "work/NN work/NN"),
    ("Running quickly makes men better.", "Running/VBG quickly/RB men/NNS"),            # no VBZ, no JJR
    ("Women don't work; they're good at e-mail.", "Women/NNP work/NN good/JJ e-mail/JJ"),  # no n, t, re
    ("People's work, candidates' attempts.", "People/NNS work/NN candidates/NNS attempts/NNS"),
    ("", ""),
])
def test_the_words_that_are_replaced(sentence, expected):
    assert " ".join(f"{word}/{tag}" for word, tag in paper.replaceable(sentence)) == expected


def test_the_requests():
    asked = paper.sentences_request(SEED)
    assert asked.messages[-1].content.startswith(
        "Could you write 5 sentences that (1) differ in their sentence structure and (2) mean the same as this "
        "sentence?\nItem: Work is nice.\n")
    assert paper.sentences_request(SEED, 3).messages == asked.messages
    assert paper.sentences_request(SEED, 3).attempt == 3
    word = paper.synonyms_request("work", "NN")
    assert word.messages[-1].content.startswith("Give 5 synonyms of a word.\nItem: work (noun)\n")
    assert "nice" not in word.messages[-1].content  # the sentence is not in it


# --- stage 1


def test_sentences_are_asked_for_until_five_are_kept():
    # Words shared with "work is nice": 3, 2, 0; then one that is known, and 2; then 2, 2, and one too many.
    replies = [["Work is nice.", "Work is good.", "Labour pays off."], ["Work is good.", "Nice is art.", "We sing."],
               ["Work feels nice.", "Is art nice?", "Nice work matters."], []]
    client = Script(lambda attempt: replies[attempt], {})
    made, writer = augment(client, tau=0.6)  # two of three shared: 0.67
    assert [(row.candidate_id, row.text) for row in made if row.stage == 1] == [
        ("Q1-t01", "Work is nice."), ("Q1-t02", "Work is good."), ("Q1-t03", "Nice is art."),
        ("Q1-t04", "Work feels nice."), ("Q1-t05", "Is art nice?")]
    first = [request for request in client.asked if request.purpose == "sentences"]
    assert [request.attempt for request in first] == [0, 1, 2]
    assert [row.outcome for row in writer.replies if row.purpose == "sentences"] == ["partly used"] * 3


def test_after_ten_requests_the_seed_itself_is_the_template():
    client = Script(lambda attempt: ["We sing."], {"work": ["labour"]})
    made, _ = augment(client, tau=0.6)
    assert stage(made, 1) == ["Work is nice."]
    assert [request.attempt for request in client.asked if request.purpose == "sentences"] == list(range(10))
    assert stage(made, 2) == ["labour is nice."]


def test_after_ten_requests_what_is_kept_is_enough():
    client = Script(lambda attempt: ["Work is good."], {})
    made, _ = augment(client, tau=0.6)
    assert stage(made, 1) == ["Work is good."]
    assert len(client.asked) == 10 + 2


# --- stage 2


FIVE = ["Work is good.", "We sing of work.", "Work of gods.", "Gods work.", "Gods, gods, gods."]


def test_the_two_samples_most_similar_to_the_seed_are_kept():
    # "labour is good." and "work is nice." share two of three words with the template (0.67), "labour is nice." one
    # (0.33); with the seed "Work is nice." they share one, three, and two.
    client = Script(lambda attempt: FIVE, {"work": ["Labour"], "good": ["Nice"]})
    made, _ = augment(client, tau=0.0)
    samples = [row for row in made if row.template_id == "Q1-t01" and row.stage == 2]
    assert [(row.candidate_id, row.text) for row in samples] == [
        ("Q1-t01-s1", "Work is nice."), ("Q1-t01-s2", "labour is nice.")]
    assert {row.source for row in samples} == {"script"}
    assert all(row.substitutions == [] for row in samples)


def test_samples_are_filtered_by_their_template():
    client = Script(lambda attempt: FIVE, {"work": ["labour"], "good": ["nice"]})
    made, _ = augment(client, tau=0.5)
    assert stage(made, 1) == ["Work is good."]  # all others are too far from the seed
    # "labour is nice." is nearer to the seed than "labour is good.", but too far (0.33) from its template.
    assert stage(made, 2) == ["Work is nice.", "labour is good."]


def test_what_one_template_lacks_another_may_have():
    """Ten samples a question: two of each of five templates, ten of a single one."""
    words = [f"art{number}" for number in range(5)]
    client = Script(lambda attempt: ["Work is good."], {"work": words, "good": words})
    made, _ = augment(client, tau=0.1)
    assert len(stage(made, 1)) == 1
    assert len(stage(made, 2)) == 10


def test_letters_are_replaced_inside_other_words_and_in_lower_case():
    client = Script(lambda attempt: ["The art is part of life."], {"art": ["Craft"]})
    writer = Writer(client)
    seed = SEED.model_copy(update={"question": "The art is part of life."})
    made = paper.augment(writer, [seed], Bag(), 0.1, seed=0)
    assert stage(made, 2) == ["The craft is pcraft of life."]


def test_ten_rounds_are_determined_by_the_seed():
    words = {"work": [f"job{n}" for n in range(5)], "good": [f"fine{n}" for n in range(5)]}
    one, again, other = (augment(Script(lambda attempt: ["Work is good."], words), 0.0, seed)[0] for seed in (0, 0, 1))
    assert one == again
    assert stage(one, 2) != stage(other, 2)
    # Each of ten rounds passes two words, so it makes at most two sentences.
    assert 0 < len(paper._samples("Work is good.", [("Work", "NN"), ("good", "JJ")],
                                  {("work", "NN"): words["work"], ("good", "JJ"): words["good"]},
                                  random.Random(0))) <= 20


def test_a_word_is_kept_two_times_in_seven():
    kept, rounds = 0, 2000
    chance = random.Random(0)
    for _ in range(rounds):
        found = paper._samples("good", [("good", "JJ")], {("good", "JJ"): list("abcde")}, chance)
        kept += 10 - len(found)
    # Ten rounds with five synonyms: 5 (1 - (6/7)^10) = 3.930 different ones.
    assert 10 - kept / rounds == pytest.approx(3.930, abs=0.08)


@pytest.mark.parametrize("reply", ['{"synonyms": "labour"}', '{"synonyms": [1, null, " "]}', "no idea", "{}"])
def test_a_reply_without_synonyms_leaves_the_word(reply):
    client = Script(lambda attempt: ["Work is good."], {})
    client._reply = lambda request, usual=client._reply: (
        usual(request) if request.purpose == "sentences" else Reply(text=reply, prompt_tokens=1, completion_tokens=1))
    made, writer = augment(client, tau=0.5)
    assert stage(made, 2) == []
    assert {row.outcome for row in writer.replies if row.purpose == "synonyms"} <= {"not JSON", "wrong count"}


# --- what it costs


def test_a_request_a_word_is_counted_wherever_the_word_stands():
    client = Script(lambda attempt: ["Work is good.", "Work is work.", "Nice work is nice.", "Is work nice?",
                                     "Work seems nice."], {})
    made, writer = augment(client, tau=0.3)
    assert len(stage(made, 1)) == 5
    assert sorted(row.subject for row in writer.replies if row.purpose == "synonyms") == [
        "good (adjective)", "nice (adjective)", "work (noun)"]
    # Once five sentences; work stands six times, nice four times, good once.
    assert paper.requests_sent(made, writer.replies) == Usage(
        1 + 6 + 4 + 1, 100 + 6 * 14 + 4 * 14 + 14, 50 + 11 * 5)


def test_a_word_with_two_tags_is_two_words():
    client = Script(lambda attempt: ["Art is art."], {})
    writer = Writer(client)
    made = paper.augment(writer, [SEED.model_copy(update={"question": "Art is art."})], Bag(), 0.5, seed=0)
    assert [row.subject for row in writer.replies if row.purpose == "synonyms"] == ["art (proper noun)", "art (noun)"]
    assert paper.requests_sent(made, writer.replies).requests == 10 + 2


def test_on_recorded_replies():
    some = questions("")[:3]
    one, again = (paper.augment(Writer(Recorded()), some, Bag(), 0.3, seed=0) for _ in range(2))
    assert one == again
    assert {row.question_id for row in one} == {question.question_id for question in some}
    assert len(stage(one, 1)) == 15
    assert 0 < len(stage(one, 2)) <= 30
