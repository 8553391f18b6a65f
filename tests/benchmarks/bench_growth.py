"""Time and memory of augmentation, filtering and evaluation at about 1, 10 and 100 times the default size.

Each size runs in a process of its own, so that its peak is its own. What grows is the project's code, so models are
left out: a chat model that answers at once with made-up words, an encoder that turns words into fixed random vectors,
a guard without objections, an answerer whose probabilities come from a hash. Texts are chained from a few words.

    PYTHONPATH=tests python -m benchmarks.bench_growth filtering 1      # one size: a line of JSON
"""

import hashlib
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.measuring import Result
from culturellm_utils import augmentation, augmenters, evaluation, filtering, items, languages, prompts, survey
from culturellm_utils.augmenters import Job
from culturellm_utils.client import Reply, Request, quiet
from culturellm_utils.packed import Packed
from culturellm_utils.parameters import Augmentation
from culturellm_utils.records import Answer, Augmented, Candidate, Message, Prediction, Question, Seed
from culturellm_utils.systems import Framing
from culturellm_utils.usage import Budget
from culturellm_utils.wordings import Texts

WORDS = tuple("""people families neighbours schools leaders workers children parents laws customs money friends
         trust value support respect want keep change teach follow share honest local quiet modern older useful
         strict early formal daily""".split())  # noqa: SIM905
#: Questions, templates of each, samples of each template: 1,000, 10,000 and 100,000 candidates; and to warm up.
CANDIDATES = {0: (5, 2, 1), 1: (50, 5, 3), 10: (250, 10, 3), 100: (250, 50, 7)}
#: Countries and questions, each asked in two wordings of two systems: 1,800, 18,000 and 76,560 predictions.
SURVEYS = {0: (1, 5), 1: (9, 50), 10: (45, 100), 43: (66, 290)}
WORDINGS = 2
#: Time may grow so much more than the size: caches of the processor are outgrown.
LINEAR = 0.67
#: The peak at the smallest size, as a share of that at the largest: what is flat grows by an eighth at most.
FLAT = 0.88


def questions(count: int) -> list[Question]:
    """Made-up questions on four scales."""
    chance = random.Random(1)
    return [Question(question_id=f"Q{number}", topic="Made up", question=_sentence(chance, 9),
                     options={str(code): f"Point {code}" for code in range(1, 3 + number % 4)})
            for number in range(1, count + 1)]


def _sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words)).capitalize() + "."


class Talker:
    """A chat client that paraphrases with other words at once; ``settle`` needs no more."""

    source, retries = "made up", 0

    def __init__(self) -> None:
        self.budget = Budget()

    def known(self, requests: list[Request]) -> int:
        return len(requests)

    def ask(self, requests: list[Request], show: Callable = quiet) -> list[Reply]:
        return [Reply(text=json.dumps(self._reply(request)), prompt_tokens=1, completion_tokens=1)
                for request in requests]

    def _reply(self, request: Request) -> dict:
        chance = random.Random(request.subject)
        asked = request.messages[-1].content
        if request.purpose == "templates":
            return {"templates": [_sentence(chance, 9) for _ in range(int(asked.split()[1]))]}
        text = asked.partition("Item: ")[2].partition("\n")[0]
        return {"words": [{"position": place, "word": word, "part_of_speech": "noun",
                           "substitutes": chance.sample(WORDS, 4)}
                          for place, word in enumerate(languages.tokens(text)) if word.isalpha()]}


class Encoder:
    """Unit vectors of 384 numbers, as the bundled encoder's: the sum of a fixed random vector for each word, and a
    constant, so that texts are alike."""

    def __init__(self) -> None:
        chance = np.random.default_rng(0)
        self.words = dict(zip(WORDS, chance.standard_normal((len(WORDS), 384), np.float32), strict=True))
        self.common = 6 * chance.standard_normal(384, np.float32)

    def encode(self, texts) -> np.ndarray:
        rows = np.stack([sum((self.words[word] for word in text.lower().strip(".").split()), self.common)
                         for text in texts])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Lenient:
    """A guard that lets everything through."""

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        return [""] * len(pairs)


class Guesser:
    """An answerer whose probabilities come from a hash of the prompt."""

    name = "made up"

    def answer(self, chats: list[list[Message]], labels: Sequence[tuple[str, ...]]) -> list[Answer]:
        found = []
        for chat, allowed in zip(chats, labels, strict=True):
            drawn = hashlib.sha256(chat[0].content.encode() + chat[1].content.encode()).digest()[: len(allowed)]
            total = sum(drawn) + len(drawn)
            shares = {label: (value + 1) / total for label, value in zip(allowed, drawn, strict=True)}
            found.append(Answer(probabilities=shares, reply=(label := survey.mode(shares)), label=label))
        return found


def augment(size: int) -> Sequence[Candidate]:
    """Both stages of 02."""
    asked, templates, samples = CANDIDATES[size]
    knobs = Augmentation.model_construct(augmenter="two_stage", templates_requested=templates, substitutes_requested=4,
                                         samples_drawn=samples, random_seed=0)
    return augmenters.augment(Job(augmentation.Writer(Talker()), questions(asked), knobs))


def candidates(size: int) -> Packed[Candidate]:
    """As many without the work: a template has three of its question's nine words replaced, a sample two more."""
    asked, templates, samples = CANDIDATES[size]
    chance, first, second = random.Random(3), Packed(Candidate), Packed(Candidate)
    for question in questions(asked):
        for t in range(1, templates + 1):
            name, template = f"{question.question_id}-t{t:02d}", _replaced(question.question, 3, chance)
            for s in range(samples + 1):
                (second if s else first).append(Candidate(
                    candidate_id=f"{name}-s{s}" if s else name, question_id=question.question_id, stage=1 + (s > 0),
                    template_id=name, text=_replaced(template, 2, chance) if s else template, substitutions=[],
                    source="made up"))
    first.extend(second)
    return first


def _replaced(text: str, count: int, chance: random.Random) -> str:
    words = text.strip(".").lower().split()
    for place in chance.sample(range(len(words)), count):
        words[place] = chance.choice(WORDS)
    return " ".join(words).capitalize() + "."


def filtered(found: Sequence[Candidate], asked: int) -> tuple[Sequence, Sequence]:
    """03's filter, with its own thresholds."""
    return filtering.filter_candidates(found, questions(asked), Encoder(), tau=0.66, near_duplicate=0.995,
                                       guard=Lenient(), samples_per_template=2)


def evaluated(size: int) -> list[dict]:
    """05 without a model: items, predictions of two systems, bounds, figures with intervals, ceilings."""
    countries, count = SURVEYS[size]
    made, chance = questions(count), np.random.default_rng(0)
    chats = random.Random(2)
    texts = Texts(made, [Augmented(candidate_id=f"{q.question_id}-t{n:02d}", question_id=q.question_id, stage=1,
                                   template_id=f"{q.question_id}-t{n:02d}", text=_sentence(chats, 9), substitutions=[],
                                   source="made up", similarity=0.9) for q in made for n in range(7, 7 + WORDINGS)],
                  prompts.ENGLISH)
    predictions, known, ceilings = Packed(Prediction), {}, []
    for country in range(countries):
        seeds = []
        for q in made:
            shares = chance.dirichlet(np.ones(len(q.options))).round(6)
            distribution = dict(zip(q.options, shares.tolist(), strict=True))
            seeds.append(Seed(**q.model_dump(exclude={"protected"}), culture=f"c{country}", countries=["KOR"],
                              respondents=1200, distribution=distribution, label=survey.mode(distribution),
                              label_rule="mode"))
        asked = items.survey_items(seeds, texts, frozenset(), 7)
        framings = {f"c{country}": Framing(f"C{country}")}
        for system in ("base", "adapter"):
            predictions.extend(evaluation.predict(Guesser(), asked, system, framings))
        known[f"c{country}"] = evaluation.bounds(seeds, frozenset())
        ceilings += evaluation.ceilings(seeds, asked, 2000, 0)
    return evaluation.score(evaluation.with_bounds(predictions, known), 2000, 0) + ceilings


def one(part: str, size: int) -> dict[str, float]:
    """Seconds, and megabytes at the peak and before the work, of one size in this process."""
    ways = {"augmentation": lambda size: len(augment(size)),
            "filtering": lambda size: sum(map(len, filtered(made[size], CANDIDATES[size][0]))),
            "evaluation": lambda size: len(evaluated(size)) and SURVEYS[size][0] * SURVEYS[size][1] * WORDINGS * 2}
    made = {n: candidates(n) for n in (0, size)} if part == "filtering" else {}
    ways[part](0)  # what is loaded once is loaded
    before, start = _peak(), time.perf_counter()
    count = ways[part](size)
    return {"units": count, "seconds": time.perf_counter() - start, "before": before, "peak": _peak()}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure() -> list[Result]:
    """Two lines for each part: is time linear, and is peak memory (GB, not seconds) flat? Rows are held packed."""
    lines = []
    for part, sizes in (("augmentation", CANDIDATES), ("filtering", CANDIDATES), ("evaluation", SURVEYS)):
        runs = [subprocess.run([sys.executable, "-m", "benchmarks.bench_growth", part, str(size)], capture_output=True,
                               text=True, check=True) for size in sizes if size]
        found = [json.loads(run.stdout) for run in runs]
        first, last = found[0], found[-1]
        told = ", ".join(f"{row['units']:,} in {row['seconds']:.2g} s and {row['peak']:.0f} MB" for row in found)
        each = (last["peak"] - first["peak"]) * 2**10 / (last["units"] - first["units"])
        lines += [
            Result(f"growth: {part}, {last['units']:,}", last["seconds"], wanted_share=LINEAR,
                   limit=first["seconds"] / first["units"] * last["units"],
                   note=f"limit: the time of {first['units']:,}, in proportion; {told}; no models in it"),
            Result(f"growth: {part}, memory in GB", last["peak"] / 2**10, wanted_share=FLAT,
                   limit=first["peak"] / 2**10,
                   note=f"limit: the peak at {first['units']:,}; {each:.1f} kB more for each")]
    return lines


if __name__ == "__main__":
    print(json.dumps(one(sys.argv[1], int(sys.argv[2]))))
