"""Where there is a GPU: training and scoring of a 7 B Llama shape in bf16, against plain loops of transformers.

The weights are random and made on the device, the tokens the stand-in's, the inputs and both ways those of the other
two benchmarks. The limit of training is what the device reaches at products of large bf16 matrices. Nothing is
measured, and the reason is printed, where there is no GPU, or one that does not hold the two models that are trained in
turns.
"""

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmarks import bench_scoring, bench_training, subjects
from benchmarks.measuring import Result
from culturellm_utils import models, stand_in

#: Two models of 13.5 GB each, activations, and the logits of all tokens in the plain way.
NEEDED = 60e9


def lines(name: str, shape: dict, tokenizer: PreTrainedTokenizerBase, device: str, dtype: torch.dtype, *, rows: int,
          prompts: int, few: int, written: int, matrix: int, tolerance: float) -> list[Result]:
    """Training on so many rows, and scoring of so many prompts against writing to a few of them."""
    trained = bench_training.compared(name, shape, tokenizer, bench_training.rows_of(tokenizer, rows), device, dtype,
                                      matrix)
    model = subjects.llama(shape, tokenizer, device, dtype)
    scored = bench_scoring.compared(name, model, tokenizer, subjects.posts(prompts), every=1, few=few, repeats=3,
                                    written=written, tolerance=tolerance)
    return [trained, scored]


def measure() -> list[Result]:
    """Seven billion weights on the first GPU."""
    if not torch.cuda.is_available():
        print("gpu: there is none here, so nothing is measured")
        return []
    memory = torch.cuda.get_device_properties(0).total_memory
    if memory < NEEDED:
        print(f"gpu: it has {memory / 1e9:.0f} GB, and {NEEDED / 1e9:.0f} are needed, so nothing is measured")
        return []
    models.quiet()
    tokenizer = AutoTokenizer.from_pretrained(stand_in.folder("stand-in-tiny"), padding_side="left")
    # In bf16 a logit is right to about a hundredth; six are added up.
    return lines("7 B weights in bf16", subjects.SEVEN_BILLION, tokenizer, "cuda", torch.bfloat16, rows=160,
                 prompts=1000, few=2, written=200, matrix=8192, tolerance=0.2)
