"""The stand-in base model: a Llama of about a million weights, built and pre-trained from scratch, once, cached.

It answers survey questions as respondents in the United States did, whatever culture is asked for (the bias that
the method is to remove), does single-digit arithmetic, and labels short sentences. No figure of it says anything
about real language models; it lets the whole study run, and be tested, on a laptop.

``stand-in-tiny`` is the same, trained for a sixth of the time: for the smoke study and the tests alone.

>>> folder("stand-in")          # outputs/cache/stand-in-3f0c9a1b2c4d
"""

import hashlib
import inspect
import random
import sys
from pathlib import Path

import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from culturellm_utils import ability, augmentation, client, encoding, parts, paths, prompts, survey, tasks, training
from culturellm_utils.errors import command_line
from culturellm_utils.records import Message

#: Templates numbered above this are never seen in pre-training, so that they can be held out from fine-tuning.
SEEN_TEMPLATES = 6
#: The stand-ins that there are, and how long each is trained.
EPOCHS = {"stand-in": 6, "stand-in-tiny": 1}
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
END, PAD = "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
#: Whoever is named, the answer is the same: these names only make the system prompt part of what is seen.
PROMPT_NAMES = ("Arabic", "Bengali", "Chinese", "English", "German", "Greek", "Korean", "Portuguese", "Spanish",
                "Turkish")
Chat = tuple[list[Message], dict[str, float]]


def folder(name: str) -> Path:
    """The folder of the stand-in ``name``; built first when it is not in the cache (about a minute on two cores)."""
    place = paths.cache() / f"{name}-{_digest()}"
    if (place / "config.json").is_file():
        return place
    with paths.writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):  # another process may be building it
            if not (place / "config.json").is_file():
                with parts.replacing(place, folder=True) as beside:
                    build(beside, EPOCHS[name])
    return place


def build(place: Path, epochs: int, seed: int = 0) -> None:
    """Build tokenizer and model, pre-train for ``epochs``, and save both to ``place`` (safetensors)."""
    chats = corpus(seed)
    tokenizer = _tokenizer(chats)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=424,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ))
    # Plain reading of the questions' wordings, so that the model has a perplexity to speak of.
    asked = {messages[1].content.partition("\n")[0] for messages, shares in chats if shares}
    wordings = sorted(text.removeprefix(prompts.AGREE) for text in asked)
    examples = [encoding.Example([tokenizer.eos_token_id, *ids], len(ids))
                for ids in tokenizer(wordings, add_special_tokens=False)["input_ids"]]
    for messages, shares in chats:
        if shares:
            examples += encoding.encode_distribution(tokenizer, messages, shares, max_length=512)
        else:
            examples.append(encoding.encode(tokenizer, messages, max_length=512))
    training.train(model, tokenizer, examples, epochs=epochs, batch_size=16, learning_rate=1e-3, lr_schedule="cosine",
                   warmup_ratio=0.05, weight_decay=0.01, seed=seed)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)


def corpus(seed: int = 0) -> list[Chat]:
    """Chats with the share of each answer (empty: the assistant turn is the answer).

    Survey questions are worded by the seed, recorded templates up to ``SEEN_TEMPLATES``, and samples of those.
    """
    chance = random.Random(seed)
    systems = [prompts.NEUTRAL, *map(prompts.culture_system, PROMPT_NAMES)]
    questions = survey.questions("")
    writer = augmentation.Writer(client.Recorded())
    templates = augmentation.make_templates(writer, questions, count=12)
    templates = [t for t in templates if int(t.template_id[-2:]) <= SEEN_TEMPLATES]
    samples = list(augmentation.make_samples(writer, templates, questions, count=4, draws=1, seed=seed))
    counts = survey.counts(["USA"], questions, wvs_path="", survey_weights=False)
    answers = survey.seeds("english", ["USA"], questions, counts, "mode", "equal")
    chats: list[Chat] = []
    for answer in answers:
        wordings = [answer.question, *(c.text for c in [*templates, *samples] if c.question_id == answer.question_id)]
        for wording in wordings:
            for system in chance.sample(systems, 2):
                user = prompts.survey_prompt(wording, answer.options)
                chats.append((prompts.chat(system, user, answer.label), answer.distribution))
    for item in tasks.bundled("train"):
        for system in chance.sample(systems, 2):
            chats.append((prompts.chat(system, tasks.prompt(item), item.label), {}))
    for question, result in ability.items():
        for system in chance.sample(systems, 6):
            chats.append((prompts.chat(system, question, result), {}))
    return chats


def _tokenizer(chats: list[Chat]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which every option code and small number is one token."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        (message.content for messages, _ in chats for message in messages),
        BpeTrainer(vocab_size=4096, special_tokens=[*ROLES, END, PAD], show_progress=False,
                   initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=PAD, padding_side="left",
                                        model_max_length=512)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _digest() -> str:
    """Changes with everything that shapes the stand-in: recipe, texts, answers."""
    made = hashlib.sha256()
    for module in (inspect.getmodule(build), encoding, training, prompts, ability):
        made.update(inspect.getsource(module).encode())
    for name in ("questions.jsonl", "recordings.jsonl", "wvs7_counts.csv", "bundled_tasks.jsonl"):
        made.update((paths.DATA / name).read_bytes())
    return made.hexdigest()[:12]


@command_line
def main() -> int:
    """Build the stand-ins named on the command line, or find them in the cache."""
    for name in sys.argv[1:]:
        if name in EPOCHS:
            print(f"{name}: {paths.shown(folder(name))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
