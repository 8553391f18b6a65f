"""The benchmarks of models, growth and the report on toys: both ways do the same work, and every line can be made."""

import math

import pytest
import torch
import toys
from benchmarks import bench_gpu, bench_growth, bench_report, bench_scoring, bench_training, subjects

from culturellm_utils.encoding import IGNORED, Example

TINY = subjects.TINY | {"vocab_size": 500}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer():
    return toys.tokenizer()


def test_posts_are_as_many_different_prompts_as_are_wanted():
    asked = subjects.posts(1000)
    assert len({chat[1].content for chat, _ in asked}) == 1000
    assert {labels for _, labels in asked} == {("RUDE", "NOT_RUDE")}


def test_labels_are_scored_as_one_by_one_and_a_wrong_score_is_noticed(tokenizer, monkeypatch):
    model, asked = subjects.llama(TINY, tokenizer), subjects.posts(400)[::40]
    bench_scoring.check(model, tokenizer, asked, 1e-3)
    one = bench_scoring.one_by_one(model, tokenizer, asked)
    monkeypatch.setattr(bench_scoring, "ours", lambda *_: one[::-1])
    with pytest.raises(AssertionError):
        bench_scoring.check(model, tokenizer, asked, 1e-3)


def test_the_plain_way_writes_all_tokens_and_reads_the_first_label(tokenizer):
    class Says:
        device = "cpu"

        def generate(self, tokens, generation_config, **_):
            assert generation_config.min_new_tokens == generation_config.max_new_tokens == 7
            said = tokenizer("so NOT_RUDE or RUDE", add_special_tokens=False, return_tensors="pt")["input_ids"]
            return torch.cat([tokens, said], 1)

    assert bench_scoring.plain(Says(), tokenizer, subjects.posts(2), 7) == ["NOT_RUDE"] * 2


def test_both_ways_of_training_see_the_same_rows_and_ours_the_loss_of_answers(tokenizer):
    rows = bench_training.rows_of(tokenizer, bench_training.BATCH)
    assert len({len(row.tokens) for row in rows}) > 3
    model = bench_training.tuned(TINY, tokenizer)
    batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(row.tokens) for row in rows], True, IGNORED)
    with torch.no_grad():
        log_p = model(batch.clamp(min=0)).logits[:, :-1].log_softmax(-1)
        costs = -log_p.gather(2, batch[:, 1:].clamp(min=0)[..., None])[..., 0]
    told = batch[:, 1:] != IGNORED
    ends = told.sum(1)
    answered = [costs[i, end - row.answer : end] for i, (row, end) in enumerate(zip(rows, ends, strict=True))]
    expected = torch.cat(answered).mean().item(), costs[told].mean().item()
    assert bench_training.ours(model, tokenizer, rows) == [pytest.approx(expected[0], rel=1e-3)]
    assert bench_training.plain(bench_training.tuned(TINY, tokenizer), tokenizer, rows) == [
        pytest.approx(expected[1], rel=1e-3)]


def test_operations_by_hand(tokenizer):
    model = bench_training.tuned(TINY, tokenizer)
    layers = 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32          # with the norms
    adapter = 2 * 16 * (4 * (32 + 32) + 3 * (32 + 64))
    rows = [Example([1, 2, 3, 4], 1), Example([1, 2, 5, 6, 7], 2)]  # 9 tokens, 2 of them shared, 3 that carry loss
    assert bench_training.operations(model, rows) == (9 - 2) * (4 * layers + 6 * adapter) + 3 * 4 * 500 * 32


def test_the_lines_of_a_gpu_on_this_processor(tokenizer, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = bench_gpu.lines("toy", TINY, tokenizer, "cpu", torch.bfloat16, rows=16, prompts=10, few=1, written=5,
                            matrix=64, tolerance=0.2)
    assert [line.name.partition(":")[0] for line in found] == ["training", "scoring"]
    assert all(line.ours > 0 and line.ratio > 0 for line in found)
    assert found[0].share_of_limit > 0
    assert bench_gpu.measure() == []
    assert "there is none here" in capsys.readouterr().out


def test_seven_billion_weights_are_as_many():
    with torch.device("meta"):
        model = subjects.llama(subjects.SEVEN_BILLION, toys.tokenizer(), "meta", torch.bfloat16)
    assert sum(weight.numel() for weight in model.parameters()) == 6_738_415_616
    assert model.dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(("part", "units"), [("augmentation", 5 * 2 * 2), ("filtering", 5 * 2 * 2),
                                             ("evaluation", 1 * 5 * 2 * 2)])
def test_growth_counts_what_it_did(part, units):
    found = bench_growth.one(part, 0)
    assert found["units"] == units
    assert found["seconds"] > 0
    assert found["peak"] >= found["before"] > 0


def test_growth_is_measured_at_the_sizes_it_says():
    assert [math.prod((q, t, s + 1)) for q, t, s in bench_growth.CANDIDATES.values()][1:] == [1000, 10_000, 100_000]
    assert bench_growth.SURVEYS[43] == (66, 290)
    assert len(bench_growth.candidates(1)) == 1000
    accepted, rejected = bench_growth.filtered(bench_growth.candidates(1), 50)
    assert min(len(accepted), len(rejected)) > 100


def test_a_checkout_has_all_that_a_dry_run_of_the_study_needs(tmp_path, capfd):
    bench_report.checkout(tmp_path)
    assert not (tmp_path / "outputs").exists()
    bench_report.report(tmp_path, "laptop", "korean german", "--dry-run")
    assert "fine_tuning" in capfd.readouterr().err
