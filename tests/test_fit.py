"""Whether a model fits: what is counted exactly, what is measured beside it, and what a user is told."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import toys
import yaml
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig

from culturellm_utils import fit, models, paths, stand_in
from culturellm_utils.errors import UserError

MIB = 2**20
#: A model whose activations, and not the libraries around it, fill the memory.
SHAPE = {"vocab_size": 400, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with a toy model, and the model: 16 hidden units, one layer, embeddings and head apart."""
    folder = tmp_path_factory.mktemp("toy")
    tokenizer = toys.tokenizer()
    model = toys.model(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder), model


@pytest.fixture(scope="module")
def shape(tmp_path_factory):
    """A folder with nothing but a config."""
    folder = tmp_path_factory.mktemp("shape")
    LlamaConfig(**SHAPE).save_pretrained(folder)
    return str(folder)


def estimate(base_model, precision="fp32", **changed):
    return fit.estimate(base_model, precision, **({"training": True, "batch_rows": 4, "longest_tokens": 32,
                                                   "lora_rank": 2, "device": "cpu"} | changed))


# What is counted

def test_the_weights_are_those_of_the_model(toy):
    folder, model = toy
    found = estimate(folder)
    numbers = sum(weight.numel() for weight in model.parameters())
    buffers = sum(buffer.numel() for buffer in model.buffers())
    # By hand: two embeddings, four attention matrices, three of the feed-forward part, three norms.
    assert numbers == 2 * model.config.vocab_size * 16 + 4 * 16 * 16 + 3 * 16 * 32 + 3 * 16
    assert found.weights_count == numbers
    assert found.weights == 4 * (numbers + buffers)
    assert estimate(folder, "bf16").weights == 2 * numbers + 4 * buffers


def test_the_adapter_is_that_of_the_training(toy):
    folder, _ = toy
    found = estimate(folder)
    by_hand = 2 * (4 * (16 + 16) + 3 * (16 + 32))
    assert found.trained_count == by_hand
    model, _ = models.load(folder, "fp32", "cpu")
    assert models.trained_weights(models.add_lora(model, 2, 4, 0.0, 0))[0] == by_hand
    assert (found.adapter, found.gradients, found.optimizer) == (4 * by_hand, 4 * by_hand, 8 * by_hand)
    assert estimate(folder, "bf16").adapter == 4 * by_hand  # peft keeps it in 32 bits
    assert estimate(folder, lora_targets="q_proj,v_proj").trained_count == 2 * 2 * (16 + 16)


def test_tied_embeddings_count_once(tmp_path):
    LlamaConfig(**SHAPE, tie_word_embeddings=True).save_pretrained(tmp_path)
    tied = estimate(str(tmp_path))
    LlamaConfig(**SHAPE).save_pretrained(tmp_path)
    assert estimate(str(tmp_path)).weights_count - tied.weights_count == 400 * 256


def test_scoring_needs_no_gradients_and_less_than_training(shape):
    score, train = estimate(shape, training=False), estimate(shape)
    assert (score.gradients, score.optimizer, score.written) == (0, 0, 0)
    assert score.weights == train.weights
    assert score.activations < train.activations / 2


def test_logits_count_where_the_loss_does(shape):
    assert estimate(shape).logits == 4 * 4 * 400 * 16
    assert estimate(shape, loss_on="all").logits == 4 * 32 * 400 * 16
    assert estimate(shape, training=False).logits == 4 * 4 * 400 * 12


def test_optimizers_in_eight_bits_need_a_quarter(shape):
    full, eight = (estimate(shape, lora_rank=64, optimizer=name).optimizer for name in ("adamw_torch", "adamw_8bit"))
    assert estimate(shape, lora_rank=64, optimizer="paged_adamw_32bit").optimizer == full
    assert full / 4 < eight < full / 3.5
    assert fit._states(4095, "adamw_8bit") == 8 * 4095  # bitsandbytes leaves small tensors alone
    assert fit._states(4096, "adamw_8bit") == 2 * 4096 + 2 * 4 * 16


def test_four_bits_are_what_bitsandbytes_stores(tmp_path):
    pytest.importorskip("bitsandbytes")
    tokenizer = toys.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(tmp_path)
    model, _ = models.load(str(tmp_path), "4bit", "cpu")
    stored = sum(weight.numel() * weight.element_size() for weight in [*model.parameters(), *model.buffers()])
    scales = sum(4 * weight.quant_state.absmax.numel() for weight in model.parameters()
                 if hasattr(weight, "quant_state"))
    assert scales
    found = estimate(str(tmp_path), "4bit", training=False)
    assert found.weights == pytest.approx(stored + scales, rel=0.01)
    # For training, peft turns embeddings, head and norms from 16 into 32 bits.
    rest = 2 * 400 * 256 + 7 * 256
    assert estimate(str(tmp_path), "4bit").weights - found.weights == pytest.approx(2 * rest, rel=0.01)


def test_shards_share_all_but_what_a_pass_makes(shape):
    whole, half = estimate(shape), estimate(shape, shards=2)
    assert [getattr(half, part) for part in ("weights", "adapter", "gradients", "optimizer")] == [
        getattr(whole, part) // 2 for part in ("weights", "adapter", "gradients", "optimizer")]
    assert (half.activations, half.logits, half.written) == (whole.activations, whole.logits, whole.written)


def test_activations_grow_with_rows_and_tokens_and_shrink_by_checkpointing(shape):
    base = estimate(shape, batch_rows=8, longest_tokens=64).activations
    assert estimate(shape, batch_rows=16, longest_tokens=64).activations == pytest.approx(2 * base, rel=0.1)
    assert estimate(shape, batch_rows=8, longest_tokens=128).activations == pytest.approx(2 * base, rel=0.15)
    saving = estimate(shape, batch_rows=8, longest_tokens=64, gradient_checkpointing=True).activations
    assert saving < base * 0.6
    assert estimate(shape, "bf16", batch_rows=8, longest_tokens=64).activations < base * 0.8


def test_files_are_the_adapter_and_three_checkpoints(shape):
    found = estimate(shape, checkpoints=True)
    assert estimate(shape).written == found.adapter
    assert found.written == found.adapter + 3 * (found.adapter + found.optimizer)


def test_a_model_that_cannot_be_rehearsed_is_estimated_by_formula(tmp_path, monkeypatch):
    MixtralConfig(**SHAPE, num_local_experts=4, dtype="float32").save_pretrained(tmp_path)
    found = estimate(str(tmp_path))  # its experts' kernel refuses fake tensors in 32 bits
    assert found.activations + found.gradients == 4 * 32 * 256 * 2 * (3 * 34 + 2 * 3)
    assert (estimate(str(tmp_path), gradient_checkpointing=True).activations + found.gradients
            == 4 * 32 * 256 * 2 * (34 + 2 * 3))


def test_a_stand_in_is_read_from_where_it_is_built(toy, monkeypatch):
    monkeypatch.setattr(stand_in, "folder", {"stand-in-tiny": toy[0]}.get)
    found = estimate("stand-in-tiny")
    assert found == replace(estimate(toy[0]), base_model="stand-in-tiny")
    assert found.download == 0
    fit.check(found)


# What is measured

#: Trains in a process of its own and prints its peak memory, without and with checkpointing, in bytes.
TRAIN = """
import sys, threading, time
import psutil, toys
from transformers import AutoConfig, LlamaForCausalLM
from culturellm_utils import models, training
from culturellm_utils.encoding import Example

shape, rows, tokens = sys.argv[1], *map(int, sys.argv[2:])
models.quiet()
examples = [Example([7 + (row + i) % 300 for i in range(tokens)], answer=2) for row in range(rows)]
process, done, top = psutil.Process(), False, 0

def watch():
    global top
    while not done:
        top = max(top, process.memory_info().rss)
        time.sleep(0.002)

def train(batch, checkpointing):
    model = models.add_lora(LlamaForCausalLM(AutoConfig.from_pretrained(shape)), 8, 16, 0.0, 0)
    training.train(model, toys.tokenizer(), examples[:batch], epochs=1, batch_size=batch, learning_rate=1e-3,
                   gradient_checkpointing=checkpointing, show=lambda line: None)

train(1, True)  # libraries are loaded
for checkpointing in (False, True):
    before, top, done = process.memory_info().rss, 0, False
    watcher = threading.Thread(target=watch)
    watcher.start()
    train(rows, checkpointing)
    done = True
    watcher.join()
    print(top - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc to give memory back at once")
def test_the_estimate_is_within_a_quarter_of_what_training_takes(shape):
    rows, tokens = 24, 192
    giving = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536",
              "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", TRAIN, shape, str(rows), str(tokens)],
                          env=os.environ | giving, capture_output=True, text=True, check=True, cwd=paths.ROOT)
    measured = [int(line) for line in done.stdout.split()]
    for checkpointing, taken in zip((False, True), measured, strict=True):
        found = estimate(shape, batch_rows=rows, longest_tokens=tokens, lora_rank=8,
                         gradient_checkpointing=checkpointing).memory
        assert found > 100 * MIB
        assert taken / 1.25 < found < taken * 1.25, (checkpointing, found / MIB, taken / MIB)


# What is told

def test_the_table_adds_up(shape):
    found = estimate(shape)
    table = {row["part"]: row["GiB"] for row in found.rows()}
    parts = ["weights", "adapter", "gradients", "optimizer", "activations", "logits"]
    assert [*table] == [*parts, "all", "download", "files"]
    assert table["all"] == pytest.approx(sum(table[part] for part in parts), abs=0.004)
    assert all(row["why"] for row in found.rows())


BIG = fit.Estimate(base_model="big", precision="bf16", training=True, device="cpu", batch_rows=8,
                   gradient_checkpointing=False, weights_count=7, trained_count=1, weights=13 * fit.GIB,
                   adapter=fit.GIB // 4, gradients=fit.GIB // 4, optimizer=fit.GIB // 2, activations=5 * fit.GIB,
                   logits=fit.GIB, download=3 * fit.GIB, written=fit.GIB)


def test_the_sentence(monkeypatch):
    monkeypatch.setattr(fit, "free_memory", lambda device: 24 * fit.GIB)
    assert BIG.sentence() == (
        "big in bf16 needs about 20.0 GiB of the machine's memory to train (weights 13.0, adapter 0.2, gradients 0.2, "
        "optimizer 0.5, activations 5.0, logits 1.0); 24.0 GiB are free. To download: 3.0 GiB; to write: 1.0 GiB.")
    scored = replace(BIG, training=False, device="cuda", gradients=0, optimizer=0)
    assert "of the GPU to score (weights 13.0, adapter 0.2, activations 5.0, logits 1.0)" in scored.sentence()


@pytest.mark.parametrize(("changed", "turns"), [
    ({}, "precision to 4bit, or gradient_checkpointing to true, or gradient_accumulation higher, or base_model to a "
         "smaller one"),
    ({"precision": "4bit", "gradient_checkpointing": True, "batch_rows": 1, "device": "cuda"},
     "launch to fsdp on several GPUs, or base_model to a smaller one"),
    ({"training": False, "precision": "4bit"}, "prompts_per_pass lower, or base_model to a smaller one"),
])
def test_too_little_memory_says_what_to_turn(monkeypatch, changed, turns):
    monkeypatch.setattr(fit, "free_memory", lambda device: 22 * fit.GIB)
    monkeypatch.setattr(fit.shutil, "disk_usage", lambda place: SimpleNamespace(free=100 * fit.GIB))
    fit.check(BIG)
    monkeypatch.setattr(fit, "free_memory", lambda device: 21 * fit.GIB)  # 20, and a tenth spare
    with pytest.raises(UserError, match="does not fit") as caught:
        fit.check(replace(BIG, **changed))
    assert str(caught.value).endswith(f"set {turns}")


def test_too_little_disk_says_for_what(monkeypatch):
    monkeypatch.setattr(fit, "free_memory", lambda device: 30 * fit.GIB)
    monkeypatch.setattr(fit.shutil, "disk_usage", lambda place: SimpleNamespace(free=2 * fit.GIB))
    with pytest.raises(UserError, match=r"2\.0 GiB free, and 3\.0 GiB are needed for the download .* HF_HOME"):
        fit.check(BIG)
    with pytest.raises(UserError, match=r"2\.0 GiB free, and 4\.0 GiB are needed for adapter .* checkpoint_steps to 0"):
        fit.check(replace(BIG, download=0, written=4 * fit.GIB))
    fit.check(replace(BIG, download=0, written=0))


def test_a_download_that_is_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(fit.constants, "HF_HUB_CACHE", str(tmp_path))
    config = LlamaConfig(**SHAPE, dtype="bfloat16")
    assert fit._download("user/name", config, 1000) == 2000
    blobs = tmp_path / "models--user--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "part").write_bytes(bytes(500))
    assert fit._download("user/name", config, 1000) == 1500
    (blobs / "rest").write_bytes(bytes(2000))
    assert fit._download("user/name", config, 1000) == 0
    assert fit._download(str(tmp_path), config, 1000) == 0


def test_a_model_that_there_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(tmp_path), "nobody/nothing"):
        with pytest.raises(UserError, match="has no config that can be read") as caught:
            estimate(name)
        assert "\n" not in str(caught.value)


def test_a_job_is_estimated_by_its_knobs(shape, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    (tmp_path / "profiles").mkdir()
    for kind in ("MULTI_CPU", "FSDP"):
        (tmp_path / "profiles" / f"{kind.lower()}.yaml").write_text(
            yaml.safe_dump({"distributed_type": kind, "num_processes": 2}))
    knobs = SimpleNamespace(base_model=shape, precision="fp32", batch_size=16, gradient_accumulation=2, lora_rank=2,
                            lora_targets="all-linear", gradient_checkpointing=False, optimizer="adamw_torch",
                            loss_on="all", checkpoint_steps=5, launch="")
    same = {"loss_on": "all", "checkpoints": True, "device": None}
    assert fit.of_job(knobs, 32) == estimate(shape, batch_rows=8, **same)
    knobs.launch = "multi_cpu"
    assert fit.of_job(knobs, 32) == estimate(shape, batch_rows=4, **same)
    knobs.launch = "fsdp"
    assert fit.of_job(knobs, 32) == estimate(shape, batch_rows=4, shards=2, **same)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_free_memory_is_the_gpu_s():
    assert 0 < fit.free_memory("cuda") <= torch.cuda.get_device_properties(0).total_memory
