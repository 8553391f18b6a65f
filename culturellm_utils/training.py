"""Supervised fine-tuning by transformers.Trainer, on one process or on each of several that ``accelerate`` launched.

Two targets: ``label`` (the answer's tokens) and ``distribution`` (KL divergence to what respondents answered, at
the option token). A training example is a chat of system, user and assistant, as in ``train.jsonl``.

>>> train(model, tokenizer, examples, epochs=4, batch_size=16, learning_rate=2e-3).log[-1]
{'step': 92, 'epoch': 4.0, 'loss': 0.71, 'learning_rate': 1.2e-05}
"""

import itertools
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, log_softmax
from transformers import DynamicCache, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from culturellm_utils import models, paths
from culturellm_utils.encoding import IGNORED, Example, collate
from culturellm_utils.errors import UserError
from culturellm_utils.scoring import cacheable, cached_rows, folded_head

#: What all rows of a batch begin with is read in a pass of its own where that saves so many tokens: by kind of device,
#: about as many as it multiplies while it reads the weights.
WORTHWHILE = {"cpu": 32, "cuda": 256}
#: A checkpoint that holds this file was written whole.
COMPLETE = "complete"


def answer_loss(
    logits: torch.Tensor, batch: dict[str, torch.Tensor], tokens: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Loss of a batch from ``collate``, each row's times its weight, summed and divided by ``tokens``: how many carry
    loss in the whole optimizer step (by default in this batch: the mean loss per token).

    ``logits`` has shape (rows, columns, vocabulary) and covers the batch's last columns. A hard token costs its
    negative log-likelihood; a soft one the KL divergence, in nats, of the model from the shares.
    """
    columns = logits.shape[1] - 1
    labels = batch["labels"][:, -columns:]
    loss = cross_entropy(logits[:, :-1].transpose(1, 2).float(), labels, ignore_index=IGNORED, reduction="none")
    scored = labels != IGNORED
    shares = batch["option_shares"].float()
    if shares.shape[1]:
        soft = shares.sum(1) > 0
        first = (columns - batch["answers"]).clamp(max=columns - 1)
        rows = torch.arange(len(labels), device=labels.device)
        log_p = log_softmax(logits[rows, first].float(), dim=-1).gather(1, batch["option_ids"])
        kl = torch.where(shares > 0, shares * (shares.clamp(min=1e-12).log() - log_p), 0.0).sum(1)
        loss[rows, first] = torch.where(soft, kl, loss[rows, first])
    # Not divided by the weights: in a small batch they would cancel, and every option would count the same.
    return (loss * batch["weights"][:, None].float() * scored).sum() / (scored.sum() if tokens is None else tokens)


def shared_beginning(batch: dict[str, torch.Tensor]) -> int:
    """How many tokens all rows of a batch from ``collate`` begin with, short of those whose logits the loss needs."""
    pads = (batch["attention_mask"] == 0).sum(1)
    limit = int((batch["attention_mask"].sum(1) - (batch["labels"] != IGNORED).sum(1)).min()) - 1
    columns = pads[:, None] + torch.arange(max(0, limit), device=pads.device)
    heads = batch["input_ids"].gather(1, columns)
    return int((heads == heads[0]).all(0).cumprod(0).sum())


class SimilarLength(torch.utils.data.Sampler):
    """Rows in random order, but so that a batch holds rows of like length (one long row pads all the others), and
    batches of all lengths alternate (transformers' own sampler goes from long to short, and training suffers).

    The order depends on ``seed`` and ``epoch`` alone: a resumed run and every process of a launched one draw the same.
    ``batch_size`` counts the rows of an optimizer step. The last batch is filled with ``len(lengths)``, the number of a
    row of no loss, until its size is a multiple of ``multiple``, so that all processes get as much.
    With a ``budget`` one iteration goes through the rows again and again, until so many were drawn: the last batch of a
    pass is then filled from the next one.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int = 0, multiple: int = 1, budget: int = 0) -> None:
        self.lengths, self.batch_size, self.seed, self.multiple = lengths, batch_size, seed, multiple
        self.budget, self.epoch = budget, 0

    def __len__(self) -> int:
        return math.ceil((self.budget or len(self.lengths)) / self.multiple) * self.multiple

    def __iter__(self):
        passes = map(self._pass, itertools.count() if self.budget else [self.epoch])
        order = list(itertools.islice(itertools.chain.from_iterable(passes), self.budget or None))
        return iter(order + [len(self.lengths)] * (len(self) - len(order)))

    def _pass(self, epoch: int) -> list[int]:
        chance = torch.Generator().manual_seed(self.seed * 1001 + epoch)  # up to 1000 no other seed's
        order = torch.randperm(len(self.lengths), generator=chance).tolist()
        span = 8 * self.batch_size
        order = [i for start in range(0, len(order), span)
                 for i in sorted(order[start : start + span], key=self.lengths.__getitem__)]
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        last = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        mixed = [batches[i] for i in torch.randperm(len(batches), generator=chance).tolist()] + last
        return [i for batch in mixed for i in batch]


class _Trainer(Trainer):
    loss_is_scaled_for_ga = True

    def __init__(self, sampler: SimilarLength, **kwargs) -> None:
        super().__init__(**kwargs)
        self.sampler = sampler
        rates = [part.p for part in self.model.modules() if isinstance(part, torch.nn.Dropout)]
        rates += [value for name, value in self.model.config.to_dict().items() if "drop" in name]
        self.drops_out = any(rate for rate in rates if isinstance(rate, float))

    def _get_train_sampler(self, train_dataset=None):
        return self.sampler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of an optimizer step, and how many tokens carry loss in those of all processes."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        tokens = sum((batch["labels"] != IGNORED).sum() for batch in batches)
        return batches, self.accelerator.gather(tokens.to(device)).sum()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        needed = max(2, int((inputs["labels"] != IGNORED).sum(1).max()) + 1)
        shared, cache = self._beginning(model, inputs)
        mask = inputs["attention_mask"]
        if shared:  # the rows' own copies of it become padding, behind the one that was read
            mask = mask * (inputs["position_ids"] >= shared)
            mask = torch.cat([torch.ones_like(mask[:, :shared]), mask[:, shared:]], 1)
        output = model(
            input_ids=inputs["input_ids"][:, shared:],
            attention_mask=mask,
            position_ids=inputs["position_ids"][:, shared:],
            logits_to_keep=needed,
            **({"past_key_values": cache, "use_cache": True} if shared else {}),
        )
        # Gradients, and the logged losses, are averaged over the processes; what is wanted is their sum.
        loss = answer_loss(output.logits[:, -needed:], inputs, num_items_in_batch) * self.accelerator.num_processes
        return (loss, output) if return_outputs else loss

    def _beginning(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[int, DynamicCache | None]:
        """How many tokens the rows share that were read once for all of them, and the cache of them: gradients sum up
        there, so that they are those of every row reading its own. Left alone where rows must differ (dropout), where
        activations are not kept (checkpointing), and where a model's passes are counted (several processes)."""
        rows, width = batch["input_ids"].shape
        if self.args.gradient_checkpointing or self.accelerator.num_processes > 1 or self.drops_out:
            return 0, None
        shared = shared_beginning(batch)
        if shared * (rows - 1) < WORTHWHILE.get(self.args.device.type, 256) or not cacheable(model, width):
            return 0, None
        cache = DynamicCache(config=model.config)
        row = int(batch["attention_mask"].sum(1).argmax())
        model(input_ids=batch["input_ids"][row : row + 1, -int(batch["attention_mask"][row].sum()) :][:, :shared],
              past_key_values=cache, use_cache=True, logits_to_keep=1)
        return shared, cached_rows(cache, [0] * rows)


class _Progress(TrainerCallback):
    """Orders each epoch, shows how far training is, and marks checkpoints that were written whole."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self.show = show
        self.trainer: _Trainer

    def on_epoch_begin(self, arguments, state, control, **kwargs):
        sampler = self.trainer.sampler
        sampler.epoch = state.global_step // math.ceil(len(sampler.lengths) / sampler.batch_size)

    def on_step_end(self, arguments, state, control, **kwargs):
        # A checkpoint's step, else a resumed run's next loss is the mean of fewer; and the last, which ends the curve.
        control.should_log |= control.should_save or state.global_step == state.max_steps

    def on_log(self, arguments, state, control, logs=None, **kwargs):
        if logs and "loss" in logs and state.is_world_process_zero:
            done, total = state.global_step, state.max_steps
            if done == total or done % max(1, total // 5) < arguments.logging_steps:
                self.show(f"step {done} of {total}: loss {logs['loss']:.3f}")

    def on_save(self, arguments, state, control, **kwargs):
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            (Path(arguments.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


@dataclass(frozen=True)
class Run:
    """What a training was: ``log`` has rows of step, epoch, loss and learning_rate; ``tokens`` those of all rows of
    this run's steps; ``adapter`` the trained weights where they lie on several devices (FSDP), else None."""

    log: list[dict[str, float]]
    seconds: float
    tokens: int
    processes: int
    resumed_from: int
    adapter: dict[str, torch.Tensor] | None


def train(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    *,
    epochs: int,
    budget: int = 0,
    batch_size: int,
    learning_rate: float,
    lr_schedule: str = "constant",
    warmup_ratio: float = 0.0,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    optimizer: str = "adamw_torch",
    gradient_accumulation: int = 1,
    gradient_checkpointing: bool = False,
    checkpoint_steps: int = 0,
    checkpoints: Path | None = None,
    seed: int = 0,
    show: Callable[[str], object] = print,
) -> Run:
    """Train ``model`` in place. ``batch_size`` counts rows per optimizer step, over all processes and accumulation.
    With a ``budget`` training ends after so many rows, in ceil(budget / batch_size) steps, whatever ``epochs`` says.

    With ``checkpoint_steps`` the state is kept every so many steps under ``checkpoints``, and a later call with the
    same arguments goes on from there, to the same weights. Raises UserError when the loss stops being a number, when
    the batch cannot be shared out evenly, or when an optimizer's package is missing.
    """
    if not examples:
        raise UserError("there are no training rows: check stages, held_out_questions and augmented.jsonl")
    if optimizer != "adamw_torch":
        models.need_bitsandbytes(f"optimizer {optimizer}")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    shares = processes * gradient_accumulation
    if batch_size % shares:
        raise UserError(f"batch_size is {batch_size}: it must be a multiple of {shares} ({processes} processes x "
                        f"gradient_accumulation {gradient_accumulation}), each of which takes as many rows")
    total = math.ceil(budget / batch_size) if budget else math.ceil(len(examples) / batch_size) * epochs
    dtype = models.compute_dtype(model)
    with tempfile.TemporaryDirectory() if checkpoints is None else nullcontext(checkpoints) as place:
        arguments = TrainingArguments(
            output_dir=str(place),
            num_train_epochs=1 if budget else epochs,  # the sampler goes on through all passes of a budget
            per_device_train_batch_size=batch_size // shares,
            gradient_accumulation_steps=gradient_accumulation,
            **({"gradient_checkpointing": True} if gradient_checkpointing else {}),  # deprecated, in all of v5
            learning_rate=learning_rate,
            lr_scheduler_type={"constant": "constant_with_warmup"}.get(lr_schedule, lr_schedule),
            warmup_steps=warmup_ratio,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            optim={"adamw_torch": "adamw_torch_fused"}.get(optimizer, optimizer),  # the same sums, fewer passes
            remove_unused_columns=False,
            logging_steps=max(1, total // 50),
            logging_nan_inf_filter=False,  # else the log replaces what is no number by the mean before it
            save_strategy="steps" if checkpoint_steps else "no",
            save_steps=checkpoint_steps or 1,
            save_total_limit=2,  # a process killed while it writes one has another
            report_to="none",
            disable_tqdm=True,
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=dtype == torch.bfloat16,
            fp16=dtype == torch.float16,
            ddp_find_unused_parameters=False,
        )
        if arguments.n_gpu > 1:
            arguments._n_gpu = 1  # else Trainer splits batches over all GPUs in one process; that is what launch is for
        pad = tokenizer.pad_token_id
        progress = _Progress(show)
        trainer = _Trainer(
            SimilarLength([len(row.tokens) for row in examples], batch_size, seed,
                          processes * arguments.per_device_train_batch_size if processes > 1 else 1, budget),
            model=model,
            args=arguments,
            train_dataset=[*examples, Example([pad, pad], answer=0)],
            data_collator=lambda rows: collate(rows, pad),
            callbacks=[progress],
        )
        progress.trainer = trainer
        trainer.pop_callback(PrinterCallback)
        found = _last_checkpoint(Path(place))
        begun = int(found.name.rpartition("-")[2]) if found else 0
        if found and arguments.process_index == 0:
            show(f"resumed from step {begun} of {total}")
        start = time.monotonic()
        try:
            with paths.writing(place), folded_head(model):
                trainer.train(resume_from_checkpoint=str(found) if found else None)
        except UserError:  # of a full disk: half a checkpoint would only fill it more
            for half in set(Path(place).glob("checkpoint-*")) - set(_whole(Path(place))):
                shutil.rmtree(half, ignore_errors=True)
            raise
        seconds = time.monotonic() - start
        adapter = _gathered(trainer.model) if trainer.is_fsdp_enabled else None
    model.eval()
    passes = budget / len(examples) if budget else 1  # in what Trainer calls an epoch
    log = [{"step": row["step"], "epoch": float(row["epoch"]) * passes, "loss": float(row["loss"]),
            "learning_rate": float(row["learning_rate"])} for row in trainer.state.log_history if "loss" in row]
    if not all(math.isfinite(row["loss"]) for row in log):
        raise UserError("the training loss is no longer a number: lower learning_rate")
    rows = budget or len(examples) * epochs
    tokens = sum(len(row.tokens) for row in examples) * rows * (total - begun) // (len(examples) * total)
    return Run(log, seconds, tokens, processes, begun, adapter)


def _last_checkpoint(place: Path) -> Path | None:
    return max(_whole(place), key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _whole(place: Path) -> list[Path]:
    return [path.parent for path in place.glob(f"checkpoint-*/{COMPLETE}")]


def _gathered(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trained weights of a sharded model, whole, on the CPU of every process."""
    return {name: (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).detach().cpu()
            for name, weight in model.named_parameters() if weight.requires_grad}
