"""What benchmarks of models measure: a Llama of random weights, and chats like those of a study.

>>> sum(weight.numel() for weight in llama(HUNDRED_MILLION, tokenizer).parameters())
109529856
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from culturellm_utils import augmentation, client, prompts, survey, tasks
from culturellm_utils.records import Message

#: Llama-2's vocabulary, tied, on twelve layers: 85 million weights in the layers, 25 million in the embedding.
HUNDRED_MILLION = {"vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
                   "num_attention_heads": 12, "tie_word_embeddings": True}
#: Llama-2-7b's.
SEVEN_BILLION = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                 "num_attention_heads": 32}
#: For tests: the shape without the size.
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "tie_word_embeddings": True}


def llama(shape: dict, tokenizer: PreTrainedTokenizerBase, device: str = "cpu",
          dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """A model of random weights, made on the device; its vocabulary is at least the tokenizer's."""
    torch.manual_seed(0)
    config = LlamaConfig(**{"vocab_size": len(tokenizer)} | shape, max_position_embeddings=1024, bos_token_id=None,
                         eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, dtype=dtype)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def posts(count: int) -> list[tuple[list[Message], tuple[str, str]]]:
    """As many prompts of two labels as 05 asks of one set: the shipped English sentences, alone and then two by two."""
    texts = list(dict.fromkeys(item.english for split in ("train", "test") for item in tasks.bundled(split)))
    step = 1
    made = list(texts)
    while len(made) < count:
        made += [f"{text} {texts[(place + step) % len(texts)]}" for place, text in enumerate(texts)]
        step += 1
    found = tasks.shipped("korean")[0].task
    return [(prompts.chat(prompts.culture_system("Korean"), found.ask(text)), found.words) for text in made[:count]]


def training_chats() -> list[list[Message]]:
    """What 04 trains a culture on by its method: each shipped question in its own words, in those of its templates and
    of one sample of each, answered as most people in Korea did."""
    questions = survey.questions("")
    writer = augmentation.Writer(client.Recorded())
    templates = augmentation.make_templates(writer, questions, count=12)
    samples = augmentation.make_samples(writer, templates, questions, count=4, draws=1, seed=0)
    counts = survey.counts(["KOR"], questions, wvs_path="", survey_weights=False)
    seeds = {row.question_id: row for row in survey.seeds("korean", ["KOR"], questions, counts, "mode", "equal")}
    worded = [(name, seed.question) for name, seed in seeds.items()]
    worded += [(row.question_id, row.text) for row in [*templates, *samples]]
    system = prompts.culture_system("Korean")
    return [prompts.chat(system, prompts.survey_prompt(text, seeds[name].options), seeds[name].label)
            for name, text in worded]
