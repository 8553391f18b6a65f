"""Supervised fine-tuning by transformers.Trainer, loss on the answer alone.

Two targets: ``label`` (the answer's tokens) and ``distribution`` (KL divergence to what respondents answered, at
the option token). A training example is a chat of system, user and assistant, as in ``train.jsonl``.
"""

import math
import tempfile

import torch
from torch.nn.functional import cross_entropy, log_softmax
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from culturellm_utils.encoding import IGNORED, Example, collate
from culturellm_utils.errors import UserError


def answer_loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean loss per answer token of a batch from ``collate``, each row's times its weight.

    ``logits`` has shape (rows, columns, vocabulary) and covers the batch's last columns. A hard token costs its
    negative log-likelihood; a soft one the KL divergence, in nats, of the model from the shares.
    """
    columns = logits.shape[1] - 1
    labels = batch["labels"][:, -columns:]
    loss = cross_entropy(logits[:, :-1].transpose(1, 2).float(), labels, ignore_index=IGNORED, reduction="none")
    answered = labels != IGNORED
    shares = batch["option_shares"].float()
    if shares.shape[1]:
        soft = shares.sum(1) > 0
        first = answered.int().argmax(1)
        rows = torch.arange(len(labels), device=labels.device)
        log_p = log_softmax(logits[rows, first].float(), dim=-1).gather(1, batch["option_ids"])
        kl = torch.where(shares > 0, shares * (shares.clamp(min=1e-12).log() - log_p), 0.0).sum(1)
        loss[rows, first] = torch.where(soft, kl, loss[rows, first])
    # Not divided by the weights: in a small batch they would cancel, and every option would count the same.
    return (loss * batch["weights"][:, None].float() * answered).sum() / answered.sum()


class SimilarLength(torch.utils.data.Sampler):
    """Rows in random order, but so that a batch holds rows of like length (one long row pads all the others), and
    batches of all lengths alternate (transformers' own sampler goes from long to short, and training suffers)."""

    def __init__(self, lengths: list[int], batch_size: int) -> None:
        self.lengths, self.batch_size = lengths, batch_size

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self):
        order = torch.randperm(len(self.lengths)).tolist()
        span = 8 * self.batch_size
        order = [i for start in range(0, len(order), span)
                 for i in sorted(order[start : start + span], key=self.lengths.__getitem__)]
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        mixed = [batches[i] for i in torch.randperm(len(batches)).tolist()] + last
        return iter([i for batch in mixed for i in batch])


class _Trainer(Trainer):
    loss_is_scaled_for_ga = False

    def _get_train_sampler(self, train_dataset=None):
        return SimilarLength([len(row.tokens) for row in self.train_dataset], self.args.train_batch_size)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        needed = int((inputs["labels"] != IGNORED).sum(1).max()) + 1
        output = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            position_ids=inputs["position_ids"],
            logits_to_keep=needed,
        )
        loss = answer_loss(output.logits[:, -needed:], inputs)
        return (loss, output) if return_outputs else loss


class _Log(TrainerCallback):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, arguments, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.rows.append({"step": state.global_step, "epoch": float(logs["epoch"]), "loss": float(logs["loss"]),
                              "learning_rate": float(logs["learning_rate"])})
            done, total = state.global_step, state.max_steps
            if done == total or done % max(1, total // 5) < arguments.logging_steps:
                print(f"step {done} of {total}: loss {logs['loss']:.3f}", flush=True)


def train(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    lr_schedule: str = "constant",
    warmup_ratio: float = 0.0,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Train ``model`` in place and return its log: step, epoch, loss, learning_rate.

    Raises UserError when the loss stops being a number.
    """
    if not examples:
        raise UserError("there are no training rows: check stages, held_out_questions and augmented.jsonl")
    steps = math.ceil(len(examples) / batch_size) * epochs
    log = _Log()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=epochs,
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type={"constant": "constant_with_warmup"}.get(lr_schedule, lr_schedule),
            warmup_steps=warmup_ratio,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            remove_unused_columns=False,
            logging_steps=max(1, steps // 50),
            logging_nan_inf_filter=False,  # else the log replaces what is no number by the mean before it
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=next(model.parameters()).dtype == torch.bfloat16,
        )
        trainer = _Trainer(
            model=model,
            args=arguments,
            train_dataset=examples,
            data_collator=lambda rows: collate(rows, tokenizer.pad_token_id),
            callbacks=[log],
        )
        trainer.pop_callback(PrinterCallback)
        trainer.train()
    model.eval()
    if not all(math.isfinite(row["loss"]) for row in log.rows):
        raise UserError("the training loss is no longer a number: lower learning_rate")
    return log.rows
