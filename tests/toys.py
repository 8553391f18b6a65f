"""Tiny tokenizers and models that the tests build in memory: no network, no file, a few thousand weights."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from culturellm_utils import prompts
from culturellm_utils.records import Message

END, PAD = "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
#: The answer comes last and nothing ends the turn, so that an option code is the whole reply.
OPEN_TEMPLATE = CHAT_TEMPLATE.replace("<|end|>", "")
TEXTS = ["Do you agree? Answer with one number from 1 to 10.", "10 10 10 2 3 4", "What is 1 plus 2? It is 3."] * 5
SCALE = [str(code) for code in range(1, 11)]


def tokenizer(split_digits: bool = False, template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which ``10`` is one token, or with ``split_digits`` the two tokens ``1`` and ``0``."""
    core = Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    core.pre_tokenizer = pre_tokenizers.Sequence([digits, whole]) if split_digits else whole
    core.decoder = decoders.ByteLevel()
    roles = ["<|system|>", "<|user|>", "<|assistant|>"]
    core.train_from_iterator(TEXTS, BpeTrainer(vocab_size=400, special_tokens=[*roles, END, PAD], show_progress=False,
                                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=PAD, padding_side="left")
    made.chat_template = template
    return made


def model(tokenizer: PreTrainedTokenizerFast, seed: int = 0, spread: float = 0.3, hidden: int = 16) -> LlamaForCausalLM:
    """A Llama with one layer; ``spread`` (its weights' standard deviation) makes its answers uneven."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512, initializer_range=spread,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )).eval()


def chat(user: str = "Do you agree?", answer: str | None = None, system: str = "You are a chatbot.") -> list[Message]:
    return prompts.chat(system, user, answer)
