"""Who answers: the base model under several prompts, and the culture's adapters; loaded here, or on a server.

>>> line_up(knobs, knobs.folder("korean"))["adapter"].answer([chat], [("1", "2", "3", "4")])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from culturellm_utils import answerers, paths, prompts, records, remote
from culturellm_utils.answerers import Kept, Local, Remote
from culturellm_utils.client import Show, quiet
from culturellm_utils.errors import UserError
from culturellm_utils.items import Item
from culturellm_utils.parameters import Evaluation
from culturellm_utils.prompts import ENGLISH, Phrasebook
from culturellm_utils.records import Message, TrainRow

#: Systems without training: the base model with a neutral system prompt; with the culture's (``persona``); with a
#: paragraph about the culture as well (``context``, after the paper's RAG); asked what most people there would answer.
PROMPTED = ("base", "persona", "context", "third_person")
#: Adapters trained on less, by the ablation that trains them; ``adapter`` is the full one.
ABLATIONS = {"seeds": "seeds_only", "templates": "stage_1_only", "one_country": "one_country"}
SYSTEMS = (*PROMPTED, *ABLATIONS.values(), "adapter")


@dataclass(frozen=True)
class Framing:
    """How a culture is named to a model, in the language of ``book``."""

    prompt_name: str
    context: str = ""
    book: Phrasebook = ENGLISH

    def chat(self, system: str, user: str) -> list[Message]:
        """System and user turn as a system of :data:`SYSTEMS` gets them."""
        if system in ("base", "third_person"):
            asked = user if system == "base" else prompts.third_person(self.prompt_name, user)
            return prompts.chat(prompts.NEUTRAL, asked)
        if system == "context":
            return prompts.chat(prompts.context_system(self.prompt_name, self.context, self.book), user)
        return prompts.chat(self.book.text(prompts.culture_system(self.prompt_name)), user)


def asked_of(system: str, items: Sequence[Item], framings: Mapping[str, Framing]) -> list[Item]:
    """The items that a system is asked: ``context`` those of cultures with a paragraph, ``one_country`` those
    about opinions."""
    if system == "context":
        return [item for item in items if item.culture in framings and framings[item.culture].context]
    if system == "one_country":
        return [item for item in items if item.part not in ("task", "ability")]
    return list(items)


def line_up(knobs: Evaluation, folder: Path, show: Show = quiet) -> dict[str, Kept]:
    """What answers as each system of :data:`SYSTEMS` that the parameters name, in that order; answers are kept on disk.

    ``folder`` is the culture's: its ``model/``, and those of its ``ablations/`` that 04 trained. Raises UserError when
    there is no model, or it cannot be asked what the parameters want.
    """
    tuned = _adapters(knobs, folder)
    prompted = [system for system in PROMPTED if system in knobs.prompted_systems]
    if knobs.model_backend == "openai":
        if knobs.harness_items:
            raise UserError("harness_items: BBH and GSM8K are asked of models that are loaded here: set it to 0 with "
                            "model_backend openai")
        asked = dict.fromkeys(prompted, knobs.base_model)
        asked |= {system: remote.load(place.parent).model for system, place in tuned.items()}
        made = {name: Remote(knobs, name, knobs.model_url, knobs.scoring, show) for name in set(asked.values())}
        found = {system: made[name] for system, name in asked.items()}
    else:
        found = _local(knobs, prompted, tuned)
    return {system: Kept(answerer, paths.cache() / "answers") for system, answerer in found.items()}


def trained_rows(knobs: Evaluation, folder: Path) -> list[TrainRow]:
    """All that the adapters of :func:`line_up` were trained on."""
    return [row for place in _adapters(knobs, folder).values()
            for row in records.read_rows(place.parent / "train.jsonl", TrainRow)]


def _adapters(knobs: Evaluation, folder: Path) -> dict[str, Path]:
    tuned = {system: folder / "ablations" / name / "model" for name, system in ABLATIONS.items()
             if name in knobs.ablations}
    return {system: place for system, place in tuned.items() if place.is_dir()} | {"adapter": folder / "model"}


def _local(knobs: Evaluation, prompted: list[str], tuned: dict[str, Path]) -> dict[str, Local]:
    from culturellm_utils import models  # loads torch, which a server's answers do not need

    model, tokenizer = models.load_adapters(tuned, knobs.base_model, knobs.precision)
    name = {place: answerers.fingerprint(knobs.base_model, knobs.precision, knobs.scoring, place)
            for place in (None, *tuned.values())}
    return {system: Local(model, tokenizer, name[place], knobs.prompts_per_pass, knobs.scoring, system if place else "")
            for system, place in {**dict.fromkeys(prompted), **tuned}.items()}
