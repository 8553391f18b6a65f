"""The knobs of every notebook, validated into one typed object. Defaults live in the notebooks' first cells alone.

>>> knobs = validate(SeedExtraction, globals())          # in a notebook
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from culturellm_utils import paths
from culturellm_utils.errors import UserError

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=100)]  # a file system takes 255
Country = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
ONE = "one"
#: The folder of what all cultures share.
COMMON = "common"
#: The folder, beside the variants, of what holds them against each other.
COMPARISON = "comparison"
#: Base models that the project builds itself; what they score says nothing about real models.
STAND_INS = ("stand-in", "stand-in-tiny")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Knobs(_Strict):
    """What every notebook takes: where its files lie, and the seed of everything random."""

    study: Name
    variant: Name
    random_seed: int = Field(ge=0, le=2**32 - 1)  # what numpy takes

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with any knob."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def folder(self, culture: str) -> Path:
        """The output folder of a culture (or ``common``) in this study and variant."""
        return paths.stage_dir(self.study, culture, self.variant)


class SeedExtraction(Knobs):
    culture: Name
    countries: list[Country] = Field(min_length=1)
    culture_language: str
    prompt_name: str
    wvs_path: str
    questions_path: str
    label_rule: Literal["mode", "mean", "paper"]
    country_weighting: Literal["equal", "respondents"]
    survey_weights: bool
    borrow: Literal["nothing", "missing", "all"]
    neighbours: int = Field(ge=1, le=20)
    known_questions: int = Field(ge=0, le=50)

    @field_validator("known_questions")
    @classmethod
    def _pretended(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("borrow") != "all":
            raise ValueError("it says how much borrow 'all' pretends to know: set borrow to 'all', or this to 0")
        return value


class Worded(Knobs):
    """In which language the questions are asked: English, shared by all cultures, or the culture's own."""

    culture: Name
    language: Literal["english", "local"]

    @property
    def place(self) -> str:
        """Whose folder holds the wordings: the culture's own, or ``common``."""
        return COMMON if self.language == "english" else self.culture


class Chat(_Strict):
    """Which chat model is asked, how, and what it may cost."""

    chat_backend: Literal["recorded", "openai", "batch"]
    chat_model: str = Field(min_length=1)
    base_url: str
    temperature: float = Field(ge=0, le=2)
    max_concurrency: int = Field(ge=1, le=256)
    request_timeout: float = Field(gt=0, le=3600)
    max_reply_tokens: int = Field(ge=16, le=200000)
    unusable_retries: int = Field(ge=0, le=10)
    price_input: float = Field(ge=0)
    price_output: float = Field(ge=0)
    budget_tokens: int = Field(ge=0)
    budget_money: float = Field(ge=0)


class Augmentation(Worded, Chat):
    cultures: list[Name] = Field(min_length=1)
    culture_language: str
    translations_path: str
    back_translation_tau: float = Field(ge=0, le=1)
    questions_path: str
    augmenter: Literal["two_stage", "paraphrase", "free", "round_trip", "eda", "paper"]
    encoder: str = Field(min_length=1)
    tau: float = Field(ge=0, le=1)
    templates_requested: int = Field(ge=1, le=50)
    substitutes_requested: int = Field(ge=1, le=10)
    samples_drawn: int = Field(ge=1, le=1000)


class Filtering(Worded):
    questions_path: str
    encoder: str = Field(min_length=1)
    tau: float = Field(ge=0, le=1)
    near_duplicate: float = Field(gt=0, le=1.01)
    guards: bool
    nli_model: str
    samples_per_template: int = Field(ge=1, le=100)
    perplexity_model: str


class Training(Worded):
    """Shared by 04 and 05: which base model, and what is held out from training.

    ``model_backend`` local loads ``base_model`` here; openai trains and asks it on the server at ``model_url``.
    """

    cultures: list[Name] = Field(min_length=1)
    prompt_name: str
    questions_path: str
    base_model: str = Field(min_length=1)
    precision: Literal["auto", "bf16", "fp16", "fp32", "4bit"]
    model_backend: Literal["local", "openai"]
    model_url: str
    ablations: list[Literal["seeds", "templates", "one_country"]]
    held_out_questions: int = Field(ge=0, le=40)
    held_out_from: int = Field(ge=2)

    @field_validator("cultures")
    @classmethod
    def _no_one(cls, value: list[str]) -> list[str]:
        if ONE in value or len(set(value)) < len(value):
            raise ValueError(f"list each culture once, and not '{ONE}', which is all of them")
        return value


class FineTuning(Training):
    target: Literal["label", "distribution"]
    loss_on: Literal["answer", "all"]
    stages: Literal["seeds", "templates", "samples"]
    templates_per_seed: int = Field(ge=1, le=50)
    generated_texts: int = Field(ge=-1)
    epochs: int = Field(ge=1, le=1000)
    training_budget: int = Field(ge=0, le=10**9)
    batch_size: int = Field(ge=1, le=4096)
    gradient_accumulation: int = Field(ge=1, le=4096)
    gradient_checkpointing: bool
    learning_rate: float = Field(gt=0, le=1)
    lr_schedule: Literal["constant", "linear", "cosine"]
    warmup_ratio: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0, le=1)
    max_grad_norm: float = Field(gt=0, le=1000)
    optimizer: Literal["adamw_torch", "adamw_8bit", "paged_adamw_32bit"]
    lora_rank: int = Field(ge=1, le=1024)
    lora_alpha: int = Field(ge=1, le=4096)
    lora_dropout: float = Field(ge=0, lt=1)
    lora_targets: str = Field(pattern=r"^[\w-]+(,[\w-]+)*$")
    max_length: int = Field(ge=32)
    checkpoint_steps: int = Field(ge=0)
    launch: str = Field(pattern=r"^[\w-]*$")
    price_training: float = Field(ge=0)
    budget_money: float = Field(ge=0)


class Evaluation(Training, Chat):
    culture_context: str
    wordings_of: str = Field(pattern=r"^([a-z][a-z0-9_-]*)?$")
    prompted_systems: list[Literal["base", "persona", "context", "third_person"]]
    scoring: Literal["likelihood", "generate"]
    prompts_per_pass: int = Field(ge=1, le=4096)
    bundled_tasks: bool
    data_path: str
    tasks_path: str
    task_rows: int = Field(ge=0)
    robustness: bool
    ability_items: int = Field(ge=0, le=10000)
    harness_items: int = Field(ge=0, le=10000)
    open_questions: int = Field(ge=0, le=65)
    open_reply_tokens: int = Field(ge=8, le=4096)
    judge: Literal["encoder", "chat"]
    encoder: str = Field(min_length=1)
    bootstrap_samples: int = Field(ge=100, le=100000)


    @field_validator("prompted_systems")
    @classmethod
    def _base(cls, value: list[str]) -> list[str]:
        if not {"base", "persona"} <= set(value):
            raise ValueError("base and persona must be among them: every adapter is held against both")
        return value


class HumanStudy(Worded, Chat):
    questions_path: str
    pairs: int = Field(ge=1, le=10000)
    attention_checks: int = Field(ge=0, le=100)
    form_language: str
    consent_path: str
    completion_url: str
    cleaning_path: str
    expected_sd: float = Field(gt=0, le=2)
    expected_pass_rate: float = Field(gt=0, lt=1)
    pair_share: float = Field(ge=0, lt=1)
    rater_share: float = Field(ge=0, lt=1)
    wanted_half_width: float = Field(gt=0, le=4)
    wanted_difference: float = Field(gt=0, le=4)
    encoder: str = Field(min_length=1)
    chat_rater: bool
    pass_rating: int = Field(ge=2, le=5)
    bootstrap_samples: int = Field(ge=100, le=100000)

    @field_validator("chat_rater")
    @classmethod
    def _live(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("chat_backend") == "recorded":
            raise ValueError("no rating is recorded: set chat_backend to openai or batch")
        return value


class Summary(Knobs):
    language: Literal["english", "local"]
    questions_path: str
    wvs_path: str
    country_weighting: Literal["equal", "respondents"]
    cultures: list[Name] = Field(min_length=1)
    bootstrap_samples: int = Field(ge=100, le=100000)


class Transfer(Knobs):
    cultures: list[Name] = Field(min_length=1)
    bootstrap_samples: int = Field(ge=100, le=100000)


class OpenAnswers(Knobs):
    cultures: list[Name] = Field(min_length=1)
    encoder: str = Field(min_length=1)
    examples: int = Field(ge=0, le=65)
    bootstrap_samples: int = Field(ge=100, le=100000)


class Comparison(Knobs):
    cultures: list[Name] = Field(min_length=1)
    high_resource: list[Name]
    headline: Literal["accuracy", "js_similarity", "emd", "held_out_questions", "macro_f1", "arithmetic", "harness"]
    bootstrap_samples: int = Field(ge=100, le=100000)


MODELS: dict[str, type[Knobs]] = {
    "01_seed_extraction": SeedExtraction,
    "02_augmentation": Augmentation,
    "03_filtering": Filtering,
    "04_fine_tuning": FineTuning,
    "05_evaluation": Evaluation,
    "06_human_study": HumanStudy,
    "07_summary": Summary,
    "08_transfer": Transfer,
    "09_open_answers": OpenAnswers,
    "10_comparison": Comparison,
}

K = TypeVar("K", bound=Knobs)
_IPYTHON = {"In", "Out", "exit", "quit", "open", "get_ipython"}


def validate(model: type[K], namespace: dict[str, Any]) -> K:
    """One typed object from the plain values of a notebook's namespace.

    Raises UserError with one sentence when a name is unknown, a type wrong or a value out of range.
    """
    notebook = next(name for name, known in MODELS.items() if known is model)
    # Run again in the same kernel, the namespace also holds what later cells made: then known names alone count.
    again = namespace.get("_parameters_checked", False)
    values = {
        name: value
        for name, value in namespace.items()
        if (name in model.model_fields if again else not name.startswith("_"))
        and (name in model.model_fields or name not in all_names())  # a culture's file holds knobs of other notebooks
        and name not in _IPYTHON
        and not isinstance(value, (ModuleType, FunctionType, type))
        and not callable(value)
    }
    try:
        knobs = model.model_validate(values)
    except ValidationError as error:
        raise UserError(_sentence(notebook, model, error)) from None
    namespace["_parameters_checked"] = True
    return knobs


def _sentence(notebook: str, model: type[Knobs], error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return (f"{notebook} has no parameter '{name}'; its parameters are "
                f"{', '.join(sorted(model.model_fields))}")
    if problem["type"] == "missing":
        return f"{notebook} needs the parameter '{name}': set it in the first cell"
    message = problem["msg"].removeprefix("Value error, ")
    if "pattern" in message:
        message = {
            "countries": "use ISO alpha-3 codes such as KOR",
            "lora_targets": "write all-linear, or names of layers with commas between them: q_proj,v_proj",
            "launch": "write the name of a file in params/profiles/ without its ending, or nothing",
        }.get(name, "use lowercase letters, digits, '-' and '_'")
    return f"{notebook}: parameter '{name}' is {problem['input']!r}: {message}"


def names(notebook: str) -> frozenset[str]:
    """The parameters of a notebook."""
    if notebook not in MODELS:
        raise UserError(f"there is no notebook '{notebook}'; there are {', '.join(MODELS)}")
    return frozenset(MODELS[notebook].model_fields)


@cache
def all_names() -> frozenset[str]:
    """The parameters of all notebooks together."""
    return frozenset().union(*(names(notebook) for notebook in MODELS))
