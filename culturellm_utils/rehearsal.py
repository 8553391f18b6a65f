"""A pass of a model's real code over tensors that have a shape and no contents, counting what is alive at once.

>>> with torch.device("meta"):
...     model = models.add_lora(AutoModelForCausalLM.from_config(config), 16, 32, 0.0, 0)
>>> peak(model, config, "fp32", training=True, checkpointing=False, rows=4, tokens=128)
35691784
"""

import warnings
import weakref

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PretrainedConfig


def quantised(model: torch.nn.Module) -> list[torch.nn.Linear]:
    """The layers that are quantised: all linear ones but that which makes the logits."""
    head = model.get_output_embeddings()
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]


def peak(model: torch.nn.Module, config: PretrainedConfig, precision: str, training: bool, checkpointing: bool,
         rows: int, tokens: int) -> int:
    """Bytes alive beside the weights at the worst moment of a pass, and of the pass back when ``training``: with the
    gradients, without logits. ``model``, on the meta device, is changed: it is of no use afterwards.

    Where a model's code cannot run without contents (some mixtures of experts route by them), the formula of
    Korthikanti et al. 2022 (arXiv 2205.05198, without attention scores) stands in: 34 bytes a layer, token and unit.
    """
    half = precision != "fp32"
    widest = max((layer.weight.numel() for layer in quantised(model)), default=0) * 2 if precision == "4bit" else 0
    if precision == "4bit" and training:  # as peft prepares it
        small = {id(layer.weight) for layer in quantised(model)}
        for weight in model.parameters():
            if id(weight) not in small:
                weight.data = weight.data.float()
    if training and checkpointing:
        model.enable_input_require_grads()
        with warnings.catch_warnings(action="ignore"):  # of a new name
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train(training)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            _fake(model)
            ids = torch.zeros((rows, tokens), dtype=torch.long)
            tally = _Tally(model)
            # On a GPU the rest is computed in half precision too; fake tensors pretend to lie on the CPU.
            with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=half), tally:
                scores = model(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=ids, logits_to_keep=1)
                if training:
                    scores.logits.float().mean().backward()
        return tally.most + widest
    except (RuntimeError, NotImplementedError):
        text = config.get_text_config()
        layers = text.num_hidden_layers if training and not checkpointing else 1
        kept = (layers * 34 + training * 2 * text.num_hidden_layers) * text.hidden_size * (1 if half else 2)
        return rows * tokens * kept + widest


def _fake(model: torch.nn.Module) -> None:
    """Put tensors without contents in the place of those without a device; tied ones stay tied."""
    made: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                new = torch.nn.Parameter(torch.empty(old.shape, dtype=old.dtype), old.requires_grad)
                module._parameters[name] = made.setdefault(old, new)
        for name, old in module._buffers.items():
            if old is not None:
                module._buffers[name] = made.setdefault(old, torch.empty(old.shape, dtype=old.dtype))


class _Tally(TorchDispatchMode):
    """Counts bytes that operations allocate and that are let go; a model's own weights do not count."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: weakref.WeakSet = weakref.WeakSet(
            tensor.untyped_storage() for tensor in [*model.parameters(), *model.buffers()])

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        result = operation(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(storage)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._let_go, storage.nbytes())
        return result

    def _let_go(self, size: int) -> None:
        self.now -= size
