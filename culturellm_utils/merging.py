"""A culture's fine-tuned model: where it lies, and the one model that adapter and base model make together.

>>> export(target("laptop", "main", "korean"))
outputs/laptop/main/korean/merged: adapter and base model, merged
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from culturellm_utils import models, parts, paths, records, remote, studies
from culturellm_utils.errors import UserError

Show = Callable[[str], object]


@dataclass(frozen=True)
class Target:
    """Whose model: ``folder`` is that of a culture in a variant of a study, ``prompt_name`` what prompts call it."""

    folder: Path
    prompt_name: str

    @property
    def adapter(self) -> Path:
        """The folder of its adapter. Raises UserError when there is none."""
        if self.is_remote:
            raise UserError(f"{paths.shown(self.folder)}/model is on the server that trained it ({self.model}): its "
                            "weights cannot be had; ask it with make ask")
        if not (self.folder / "model" / "adapter_model.safetensors").is_file():
            raise UserError(f"{paths.shown(self.folder)}/model has no adapter: run notebook 04_fine_tuning for it "
                            "first (make report does)")
        return self.folder / "model"

    @property
    def is_remote(self) -> bool:
        """Whether the model was trained on a server, and stays there."""
        return (self.folder / "model" / "remote.json").is_file()

    @property
    def merged(self) -> Path:
        """Where the merged model goes."""
        return self.folder / "merged"

    @property
    def base(self) -> str:
        """The base model: a hub id, or a folder, relative to where outputs/ lies when it is there too."""
        if self.is_remote:
            return remote.load(self.folder).base_model
        return records.read_json(self.adapter / "adapter_config.json")["base_model_name_or_path"]

    @property
    def base_is_local(self) -> bool:
        """Whether the base model is a folder, which others do not have."""
        return (home() / self.base).is_dir() or self.base.count("/") > 1

    @property
    def base_shown(self) -> str:
        """The base model as others should see it: no folder of this machine."""
        return paths.shown(self.base) if self.base_is_local else self.base

    @property
    def model(self) -> str:
        """What the culture's model is called on a server."""
        return remote.load(self.folder).model if self.is_remote else paths.shown(self.merged)


def target(study: str, variant: str, culture: str) -> Target:
    """The model of a culture, or of ``one``. Raises UserError when nothing was run for it."""
    folder = paths.outputs() / study / variant / culture
    prompt_name = studies.culture(culture).prompt_name
    if not folder.is_dir():
        raise UserError(f"{paths.shown(folder)} is missing: run the study first (make report STUDY={study})")
    return Target(folder, prompt_name)


def export(whose: Target, show: Show = print) -> Path:
    """Merge adapter and base model into one model that plain transformers loads, in ``<culture>/merged/``.

    Weights keep the base model's own precision. What was merged from the same adapter before is left as it is.
    """
    with (whose.adapter / "adapter_model.safetensors").open("rb") as file:
        made = {"base_model": whose.base_shown, "adapter_sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    note = whose.merged / "merged.json"
    if note.is_file() and records.read_json(note) == made:
        show(f"{paths.shown(whose.merged)} is up to date")
        return whose.merged
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models.quiet()
    try:
        revision = records.read_json(whose.adapter / "adapter_config.json").get("revision") or "main"
        model = AutoModelForCausalLM.from_pretrained(_source(whose), revision=revision, use_safetensors=True,
                                                     dtype="auto")
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"the base model '{whose.base}' of {paths.shown(whose.adapter)} cannot be loaded ({reason})"
                        ) from None
    model = PeftModel.from_pretrained(model, str(whose.adapter)).merge_and_unload(safe_merge=True)
    with parts.replacing(whose.merged, folder=True) as beside:
        model.save_pretrained(beside)
        AutoTokenizer.from_pretrained(whose.adapter).save_pretrained(beside)
        records.write_text(beside / "README.md", _merged_card(whose, str(model.dtype).removeprefix("torch.")))
        records.write_json(beside / note.name, made)
    show(f"{paths.shown(whose.merged)}: adapter and base model, merged")
    return whose.merged


def home() -> Path:
    """Where outputs/ lies: names of local models start there."""
    return paths.outputs().parent


def _source(whose: Target) -> str:
    return str(home() / whose.base) if whose.base_is_local else whose.base


def _merged_card(whose: Target, precision: str) -> str:
    """The adapter's card, made that of the merged model."""
    card = (whose.adapter / "README.md").read_text(encoding="utf-8")
    for old, new in {
        "library_name: peft": "library_name: transformers\npipeline_tag: text-generation",
        "tags: [culturellm, lora]": "tags: [culturellm]",
        "A LoRA adapter trained": f"{whose.base_shown} and a LoRA adapter merged in {precision}, the adapter trained",
        "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer":
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "AutoPeftModelForCausalLM": "AutoModelForCausalLM",
        paths.shown(whose.adapter): paths.shown(whose.merged),
    }.items():
        card = card.replace(old, new)
    return card
