"""What answers a prompt, behind one face: a model that is loaded here, or one on a server; and what it said, kept.

>>> Kept(Local(model, tokenizer, "llama, bf16", 32, scoring="likelihood", adapter="default"), folder).answer(
...     [chat], [("1", "2", "3", "4")])
[Answer(probabilities={"1": 0.61, "2": 0.24, "3": 0.09, "4": 0.06}, reply="1", label="1")]
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from culturellm_utils import live, survey, tasks
from culturellm_utils.client import Request, Show, quiet
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import STAND_INS, Chat
from culturellm_utils.records import Answer, Message, read_rows, write_rows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Scoring = Literal["likelihood", "generate"]
Labels = Sequence[tuple[str, ...]]
#: The most candidates for a token that OpenAI's protocol gives.
CANDIDATES = 20
#: The least tokens that a server is asked for in one reply.
FEWEST_TOKENS = 16


class Answerer(Protocol):
    """Whatever answers. ``name`` changes with everything that changes answers but the prompts."""

    name: str

    def answer(self, chats: list[list[Message]], labels: Labels) -> list[Answer]:
        """An answer to each chat (system and user turn), one of its ``labels``."""
        ...

    def write(self, chats: list[list[Message]], max_tokens: int) -> list[str]:
        """A free reply to each chat, greedily, of at most ``max_tokens`` tokens."""
        ...


@dataclass(frozen=True)
class Local:
    """A model that is loaded here; ``adapter`` names that of a peft model's adapters which is on while it answers, ""
    none of them.

    ``likelihood`` compares the labels' probabilities; ``generate`` lets the model write, greedily, and reads what it
    wrote (a reply that is no label has label None and uniform probabilities).
    """

    model: "torch.nn.Module"
    tokenizer: "PreTrainedTokenizerBase"
    name: str
    batch_size: int
    scoring: Scoring
    adapter: str

    def answer(self, chats: list[list[Message]], labels: Labels) -> list[Answer]:
        """See :class:`Answerer`."""
        if self.scoring == "likelihood":
            from culturellm_utils.scoring import label_probabilities  # loads torch: a server's answers need none

            with self.switched():
                found = label_probabilities(self.model, self.tokenizer, chats, labels, self.batch_size)
            return [_likeliest(probabilities) for probabilities in found]
        words = {label for allowed in labels for label in allowed}
        longest = max((len(self.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words), default=0)
        return [_parsed(reply, allowed)
                for reply, allowed in zip(self.write(chats, longest + 2), labels, strict=True)]

    def write(self, chats: list[list[Message]], max_tokens: int) -> list[str]:
        """See :class:`Answerer`. A reply ends where the model ends its turn."""
        with self.switched():
            return _generate(self.model, self.tokenizer, chats, max_tokens, self.batch_size)

    def switched(self) -> AbstractContextManager[Any]:
        """The model as it answers here: with the adapter on that is named, or with all off."""
        if self.adapter:
            self.model.set_adapter(self.adapter, inference_mode=True)
        elif hasattr(self.model, "disable_adapter"):
            return self.model.disable_adapter()
        return nullcontext()


class Remote:
    """A model on a server that speaks OpenAI's chat protocol, asked at temperature 0; nothing is paid twice.

    ``likelihood`` takes the probabilities of the reply's first token where the server gives them and they tell the
    labels apart, and otherwise reads the reply, as ``generate`` does. ``settings`` say how patiently and for how much.
    """

    def __init__(self, settings: Chat, model: str, base_url: str, scoring: Scoring, show: Show = quiet) -> None:
        self.client = live.OpenAI(settings.model_copy(update={
            "chat_backend": "openai", "chat_model": model, "base_url": base_url, "temperature": 0.0}))
        self.scoring, self.show = scoring, show
        self.name = f"{model} at {self.client.address}, {scoring}"

    def answer(self, chats: list[list[Message]], labels: Labels) -> list[Answer]:
        """See :class:`Answerer`."""
        candidates = CANDIDATES if self.scoring == "likelihood" else 0
        requests = [
            # No tokenizer makes more than one token of a byte.
            Request(f"answer {number}", "answers", chat, top_logprobs=candidates,
                    max_tokens=max([FEWEST_TOKENS, *(len(label.encode()) + 2 for label in allowed)]))
            for number, (chat, allowed) in enumerate(zip(chats, labels, strict=True), start=1)
        ]
        answers = []
        for reply, allowed in zip(self.client.ask(requests, self.show), labels, strict=True):
            probabilities = first_token_probabilities(reply.logprobs, allowed)
            answer = _likeliest(probabilities) if probabilities else _parsed(reply.text, allowed)
            answers.append(answer.model_copy(update={"reply": reply.text}))
        return answers

    def write(self, chats: list[list[Message]], max_tokens: int) -> list[str]:
        """See :class:`Answerer`."""
        requests = [Request(f"text {number}", "texts", chat, max_tokens=max_tokens)
                    for number, chat in enumerate(chats, start=1)]
        return [reply.text.strip() for reply in self.client.ask(requests, self.show)]


@dataclass(frozen=True)
class Kept:
    """An answerer whose answers are kept in ``folder``, a file a call: the same call is answered from there, so that an
    interrupted evaluation goes on where it was. A file that cannot be read is made anew."""

    answerer: Answerer
    folder: Path

    @property
    def name(self) -> str:
        return self.answerer.name

    def answer(self, chats: list[list[Message]], labels: Labels) -> list[Answer]:
        """See :class:`Answerer`."""
        path = self._file(chats, labels=[list(allowed) for allowed in labels])
        known = self._read(path, len(chats))
        if known and all(list(row.probabilities) == list(allowed) for row, allowed in zip(known, labels, strict=True)):
            return known
        return self._write(path, self.answerer.answer(chats, labels))

    def write(self, chats: list[list[Message]], max_tokens: int) -> list[str]:
        """See :class:`Answerer`."""
        path = self._file(chats, max_tokens=max_tokens)
        rows = self._read(path, len(chats)) or self._write(
            path, [Answer(probabilities={}, reply=text, label=None) for text in self.answerer.write(chats, max_tokens)])
        return [row.reply for row in rows]

    def _file(self, chats: list[list[Message]], **asked: Any) -> Path:
        call = {"name": self.name, "chats": [[turn.model_dump() for turn in chat] for chat in chats], **asked}
        return self.folder / f"{hashlib.sha256(json.dumps(call, sort_keys=True).encode()).hexdigest()}.jsonl"

    @staticmethod
    def _read(path: Path, count: int) -> list[Answer]:
        try:
            rows = read_rows(path, Answer)
        except (UserError, OSError):
            return []
        return rows if len(rows) == count else []

    @staticmethod
    def _write(path: Path, rows: list[Answer]) -> list[Answer]:
        if rows:
            write_rows(path, rows)
        return rows


def fingerprint(base_model: str, precision: str, scoring: Scoring, adapter: Path | None = None) -> str:
    """The name of a local answerer: it changes with the base model, its precision, the weights of the adapter in the
    folder ``adapter`` (None: the base alone), the way of scoring and the code of it."""
    from culturellm_utils import encoding  # load torch
    from culturellm_utils import scoring as code

    name = base_model
    if base_model in STAND_INS:
        from culturellm_utils import stand_in

        name = stand_in.folder(base_model).name
    elif Path(base_model).is_dir():  # hashing a large model's weights would take minutes
        files = sorted(path for path in Path(base_model).iterdir() if path.is_file())
        name += " " + _digest(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode() for path in files)
    tuned = "no adapter"
    if adapter:
        tuned = "adapter " + _digest((adapter / file).read_bytes()
                                     for file in ("adapter_model.safetensors", "adapter_config.json"))
    sources = _digest(Path(module).read_bytes() for module in (__file__, code.__file__, encoding.__file__))
    return f"{name}, {precision}, {tuned}, {scoring} {sources[:12]}"


def first_token_probabilities(logprobs: Mapping[str, float], labels: Sequence[str]) -> dict[str, float]:
    """Probabilities of the labels (sum 1) from the log-probabilities of the candidates for a reply's first token, up to
    case and leading space; empty when these do not tell the labels apart.

    >>> first_token_probabilities({"NOT": -0.105, " R": -2.303}, ("RUDE", "NOT_RUDE"))      # 0.1 and 0.9
    {"RUDE": 0.1, "NOT_RUDE": 0.9}
    """
    candidates = [(token.strip().casefold(), math.exp(value)) for token, value in logprobs.items() if token.strip()]
    words = {label: label.casefold() for label in labels}
    first = {label: max((token for token, _ in candidates if word.startswith(token)), key=len, default="")
             for label, word in words.items()}
    for label, token in first.items():
        for other, word in words.items():
            # "1" may begin both "1" and "10", unless "10" is a token of its own.
            told = token == words[label] and len(first[other]) > len(token)
            if token and other != label and word.startswith(token) and not told:
                return {}
    shares = {label: sum(p for token, p in candidates if token == first[label]) for label in labels}
    total = sum(shares.values())
    return {label: share / total for label, share in shares.items()} if total > 0 else {}


def _likeliest(probabilities: Mapping[str, float]) -> Answer:
    label = survey.mode(probabilities)
    return Answer(probabilities={name: round(p, 6) for name, p in probabilities.items()}, reply=label, label=label)


def _parsed(reply: str, labels: Sequence[str]) -> Answer:
    """A reply that was read: certain of its label, or of none."""
    label = tasks.strict_parse(labels, reply)
    shares = {name: float(name == label) if label else 1 / len(labels) for name in labels}
    return Answer(probabilities=shares, reply=reply, label=label)


def _generate(model: "torch.nn.Module", tokenizer: "PreTrainedTokenizerBase", chats: Sequence[list[Message]],
              max_tokens: int, batch_size: int) -> list[str]:
    """What the model writes, greedily, until it ends its turn."""
    from transformers import GenerationConfig

    from culturellm_utils.encoding import Example, collate, encode_answers

    rows = [encode_answers(tokenizer, chat, ["1"])[0] for chat in chats]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].tokens))
    texts = [""] * len(rows)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        ends = _ends(model, tokenizer, rows[part[0]].tokens[-rows[part[0]].answer :])
        batch = collate([Example(rows[i].tokens[: -rows[i].answer], 1) for i in part], tokenizer.pad_token_id)
        written = model.generate(
            input_ids=batch["input_ids"].to(model.device), attention_mask=batch["attention_mask"].to(model.device),
            generation_config=GenerationConfig(
                do_sample=False, num_beams=1, repetition_penalty=1.0, max_new_tokens=max_tokens,
                eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id))
        for i, tokens in zip(part, written[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
            texts[i] = tokenizer.decode(tokens[:stop], skip_special_tokens=True).strip()
    return texts


def _ends(model: "torch.nn.Module", tokenizer: "PreTrainedTokenizerBase", answered: list[int]) -> set[int]:
    """The tokens that end a turn: the tokenizer's, the model's own, and what marks it in the chat template."""
    own = model.generation_config.eos_token_id
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return ({tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}) | (special & {*answered})


def _digest(parts: Any) -> str:
    made = hashlib.sha256()
    for part in parts:
        made.update(part)
    return made.hexdigest()
