"""A Llama shape of seven billion random weights trains with LoRA and is scored: throughput and memory are written down.

``outputs/cache/gpu.json``, by ``pytest -m gpu tests/test_gpu.py`` where there is a GPU::

    {"device": "NVIDIA H100 80GB HBM3", "weights": 6738415616, "training_tokens_per_second": ...,
     "scored_prompts_per_second": ..., "peak_memory_gib": ..., "training_share_of_peak": ...}
"""

import time

import pytest
import torch
import toys
from transformers import AutoModelForCausalLM, LlamaConfig

from culturellm_utils import fit, models, paths, provenance, records, scoring, training
from culturellm_utils.encoding import Example

SEVEN_BILLION = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                 "num_attention_heads": 32}
TINY = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
#: Dense bf16 rates of the makers' data sheets, in TFLOP/s.
DATA_SHEET = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125,
              "RTX 4090": 165, "RTX 3090": 71}
RANK = 16


def matmul_rate(device, size):
    """TFLOP/s of the device at multiplying square bf16 matrices: what it reaches at best."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(6):
        waited(device)
        start = time.perf_counter()
        left @ right
        waited(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e12


def waited(device):
    if device == "cuda":
        torch.cuda.synchronize()


def measured(shape, device, folder, *, rows, tokens, steps, prompts, matmul):
    """Train and score a model of random weights; the record of it. ``folder`` gets the config, for the estimate."""
    tokenizer = toys.tokenizer()
    config = LlamaConfig(**shape, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    config.save_pretrained(folder)
    estimates = {kind: fit.estimate(str(folder), "bf16", training=kind == "training", batch_rows=rows,
                                    longest_tokens=tokens, lora_rank=RANK, device=device) for kind in
                 ("training", "scoring")}
    fit.check(estimates["training"])
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = models.add_lora(model, RANK, 2 * RANK, 0.0, 0)
    trained, total = models.trained_weights(model)
    examples = [Example([7 + (row + i) % 300 for i in range(tokens)], answer=2) for row in range(rows * steps)]

    def train(count):
        return training.train(model, tokenizer, examples[: rows * count], epochs=1, batch_size=rows, learning_rate=1e-4,
                              show=lambda line: None)

    train(1)  # kernels are chosen, memory is reserved
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    waited(device)
    start = time.perf_counter()
    run = train(steps)
    waited(device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    chats = [toys.chat(f"Do you agree with number {number}? " + "Answer with one number. " * 3)
             for number in range(prompts)]
    labels = [toys.SCALE[:4]] * prompts
    scoring.label_probabilities(model, tokenizer, chats[:rows], labels[:rows], rows)
    waited(device)
    start = time.perf_counter()
    found = scoring.label_probabilities(model, tokenizer, chats, labels, rows)
    scored = time.perf_counter() - start
    # Forward 2 operations a weight and token, and as many backward through the frozen weights; the adapter's own take
    # 6. Looking up an embedding takes none; attention between tokens is left out, one in a hundred here.
    frozen = total - trained - shape["vocab_size"] * shape["hidden_size"]
    rate = rows * tokens * steps * (4 * frozen + 6 * trained) / seconds / 1e12
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    sheet = next((value for part, value in DATA_SHEET.items() if part in name), None)
    reached = matmul_rate(device, matmul)
    return {
        "device": name, "versions": provenance.versions(), "weights": total - trained, "trained_weights": trained,
        "rows": rows, "tokens_a_row": tokens, "steps": steps, "losses": [row["loss"] for row in run.log],
        "training_tokens_per_second": round(rows * tokens * steps / seconds, 1),
        "training_tflops": rate, "matmul_tflops": reached, "data_sheet_tflops": sheet,
        "training_share_of_matmul": rate / reached, "training_share_of_peak": sheet and rate / sheet,
        "scored_prompts_per_second": round(prompts / scored, 1),
        "peak_memory_gib": peak and peak / fit.GIB,
        "estimated_memory_gib": estimates["training"].memory / fit.GIB,
        "estimated_scoring_memory_gib": estimates["scoring"].memory / fit.GIB,
        "probabilities": found[0],
    }


def checked(record):
    """What holds on every device."""
    assert all(0 < loss < 20 for loss in record["losses"])
    assert record["training_tokens_per_second"] > 0
    assert 0 < record["training_share_of_matmul"] < 1
    assert record["scored_prompts_per_second"] > 0
    assert sum(record["probabilities"].values()) == pytest.approx(1)
    records.write_json(paths.cache() / "gpu.json", record)


def test_a_tiny_shape_is_measured_on_the_cpu(tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    record = measured(TINY, "cpu", tmp_path, rows=2, tokens=32, steps=2, prompts=5, matmul=256)
    checked(record)
    # By hand: two embeddings, then in each layer four square matrices, three of the feed-forward part, two norms; one.
    assert record["weights"] == 2 * 400 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
    assert record["trained_weights"] == 2 * RANK * (4 * (32 + 32) + 3 * (32 + 64))
    assert records.read_json(own_cache / "gpu.json") == record
    assert record["training_share_of_peak"] is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_seven_billion_weights_train_and_are_scored(tmp_path):
    record = measured(SEVEN_BILLION, "cuda", tmp_path, rows=8, tokens=256, steps=20, prompts=256, matmul=8192)
    checked(record)
    assert record["weights"] == 6_738_415_616  # Llama-2-7b's
    assert record["peak_memory_gib"] / 1.3 < record["estimated_memory_gib"] < record["peak_memory_gib"] * 1.3
