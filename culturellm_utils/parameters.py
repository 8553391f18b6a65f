"""The knobs of every notebook: validated into one typed object, and merged from the files under ``params/``.

Defaults live in the first cell of each notebook and nowhere else. Precedence when a study runs::

    notebook literal < params/studies/<study>.yaml parameters < params/<culture>.yaml < variant of the study

>>> knobs = validate(SeedExtraction, globals())          # in a notebook
>>> merged("04_fine_tuning", study="laptop", culture="korean")
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from culturellm_utils import paths
from culturellm_utils.errors import UserError

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
ONE = "one"
#: Base models that the project builds itself; what they score says nothing about real models.
STAND_INS = ("stand-in", "stand-in-tiny")


class Knobs(BaseModel):
    """What every notebook takes: where its files lie, and the seed of everything random."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    study: Name
    variant: Name
    random_seed: int = Field(ge=0)

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with any knob."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def folder(self, culture: str) -> Path:
        """The output folder of a culture (or ``common``) in this study and variant."""
        return paths.stage_dir(self.study, culture, self.variant)


class Culture(BaseModel):
    """``params/<culture>.yaml``: what a culture is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    culture: Name
    countries: list[Country]
    culture_language: str
    prompt_name: str


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


class Augmentation(Knobs):
    questions_path: str
    chat_backend: Literal["recorded", "openai"]
    chat_model: str = Field(min_length=1)
    base_url: str
    temperature: float = Field(ge=0, le=2)
    max_concurrency: int = Field(ge=1, le=256)
    templates_requested: int = Field(ge=1, le=50)
    substitutes_requested: int = Field(ge=1, le=10)
    samples_drawn: int = Field(ge=1, le=1000)


class Filtering(Knobs):
    questions_path: str
    encoder: str = Field(min_length=1)
    tau: float = Field(ge=0, le=1)
    near_duplicate: float = Field(gt=0, le=1.01)
    guards: bool
    samples_per_template: int = Field(ge=1, le=100)
    perplexity_model: str


class Training(Knobs):
    """Shared by 04 and 05: which base model, and what is held out from training."""

    culture: Name
    cultures: list[Name] = Field(min_length=1)
    prompt_name: str
    questions_path: str
    base_model: str = Field(min_length=1)
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
    stages: Literal["seeds", "templates", "samples"]
    templates_per_seed: int = Field(ge=1, le=50)
    epochs: int = Field(ge=1, le=1000)
    batch_size: int = Field(ge=1, le=4096)
    learning_rate: float = Field(gt=0, le=1)
    lr_schedule: Literal["constant", "linear", "cosine"]
    warmup_ratio: float = Field(ge=0, lt=1)
    lora_rank: int = Field(ge=1, le=1024)
    lora_alpha: int = Field(ge=1, le=4096)
    lora_dropout: float = Field(ge=0, lt=1)
    max_length: int = Field(ge=32)


class Evaluation(Training):
    prompts_per_pass: int = Field(ge=1, le=4096)
    bundled_tasks: bool
    ability_items: int = Field(ge=0, le=10000)
    bootstrap_samples: int = Field(ge=100, le=100000)


class HumanStudy(Knobs):
    questions_path: str
    pairs: int = Field(ge=1, le=10000)
    attention_checks: int = Field(ge=0, le=100)
    encoder: str = Field(min_length=1)
    pass_rating: int = Field(ge=2, le=5)
    bootstrap_samples: int = Field(ge=100, le=100000)


class Summary(Knobs):
    questions_path: str
    wvs_path: str
    country_weighting: Literal["equal", "respondents"]
    cultures: list[Name] = Field(min_length=1)
    bootstrap_samples: int = Field(ge=100, le=100000)


MODELS: dict[str, type[Knobs]] = {
    "01_seed_extraction": SeedExtraction,
    "02_augmentation": Augmentation,
    "03_filtering": Filtering,
    "04_fine_tuning": FineTuning,
    "05_evaluation": Evaluation,
    "06_human_study": HumanStudy,
    "07_summary": Summary,
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
        and (name in model.model_fields or name not in _all_names())  # a culture's file holds knobs of other notebooks
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
        message = ("use ISO alpha-3 codes such as KOR" if name == "countries"
                   else "use lowercase letters, digits, '-' and '_'")
    return f"{notebook}: parameter '{name}' is {problem['input']!r}: {message}"


def names(notebook: str) -> frozenset[str]:
    """The parameters of a notebook."""
    if notebook not in MODELS:
        raise UserError(f"there is no notebook '{notebook}'; there are {', '.join(MODELS)}")
    return frozenset(MODELS[notebook].model_fields)


@cache
def _all_names() -> frozenset[str]:
    return frozenset().union(*(names(notebook) for notebook in MODELS))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{paths.shown(path)} cannot be read ({type(error).__name__})") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise UserError(f"{paths.shown(path)}{line} is not valid YAML: {problem}") from None
    if not isinstance(value, dict):
        raise UserError(f"{paths.shown(path)} must hold 'name: value' lines")
    return value


def _known(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where}: {values!r} must be 'name: value' lines")
    for name in values:
        if name not in _all_names():
            raise UserError(f"{where}: '{name}' is no parameter of any notebook; "
                            "the first cell of each notebook lists what there is")
    return values


def culture(name: str) -> Culture:
    """What ``params/<name>.yaml`` says. Raises UserError when there is no such culture."""
    path = paths.PARAMS / f"{name}.yaml"
    if not path.is_file():
        have = ", ".join(sorted(p.stem for p in paths.PARAMS.glob("*.yaml")))
        raise UserError(f"there is no culture '{name}': add params/{name}.yaml, or use one of {have}")
    values = _known(read_yaml(path), paths.shown(path))
    try:
        found = Culture.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise UserError(f"{paths.shown(path)}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    if found.culture != name:
        raise UserError(f"{paths.shown(path)} says culture: {found.culture}; it must say {name}, as its file name does")
    if not found.countries and name != ONE:
        raise UserError(f"{paths.shown(path)}: countries is empty; list at least one ISO alpha-3 code")
    return found


def study(name: str) -> dict[str, Any]:
    """``params/studies/<name>.yaml`` with its four keys: title, cultures, parameters, variants."""
    path = paths.PARAMS / "studies" / f"{name}.yaml"
    if not path.is_file():
        have = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(f"there is no study '{name}': add params/studies/{name}.yaml, or use one of {have}")
    values = {"parameters": None, "variants": None, **read_yaml(path)}
    where = paths.shown(path)
    for key in values.keys() - {"title", "cultures", "parameters", "variants"}:
        raise UserError(f"{where}: unknown key '{key}'; a study has title, cultures, parameters, variants")
    if not values.get("title") or not isinstance(values.get("cultures"), list) or not values["cultures"]:
        raise UserError(f"{where}: a study needs a title and a list of cultures")
    values["parameters"] = _known(values["parameters"] or {}, where)
    variants = values["variants"] or {"main": {}}
    if not isinstance(variants, dict):
        raise UserError(f"{where}: variants must be 'name: parameters' lines")
    values["variants"] = {str(key): _known(knobs or {}, f"{where}, variant {key}") for key, knobs in variants.items()}
    for member in values["cultures"]:
        culture(member)
    return values


@cache
def defaults(notebook: str) -> dict[str, Any]:
    """The literals of a notebook's parameters cell."""
    path = paths.NOTEBOOKS / f"{notebook}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = ["".join(c["source"]) for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(found) != 1:
        raise UserError(f"{paths.shown(path)} has {len(found)} cells tagged 'parameters'; it must have one")
    return {line.target.id: ast.literal_eval(line.value)
            for line in ast.parse(found[0]).body if isinstance(line, ast.AnnAssign)}


def merged(notebook: str, study_name: str, culture_name: str = "", variant: str = "main",
           cultures: list[str] | None = None) -> dict[str, Any]:
    """The parameters to inject into ``notebook``, every name and value checked. ``culture_name`` is empty for the
    notebooks that all cultures share; ``cultures`` narrows the study to some of its cultures."""
    plan = study(study_name)
    if variant not in plan["variants"]:
        raise UserError(f"study '{study_name}' has no variant '{variant}'; it has {', '.join(plan['variants'])}")
    values: dict[str, Any] = {"cultures": cultures or plan["cultures"]}
    values |= plan["parameters"]
    if culture_name:
        values |= culture(culture_name).model_dump()
    values |= plan["variants"][variant]
    values |= {"study": study_name, "variant": variant}
    injected = {name: value for name, value in sorted(values.items()) if name in names(notebook)}
    validate(MODELS[notebook], defaults(notebook) | injected)
    return injected


def base_models(study_name: str) -> list[str]:
    """Every model that the notebooks of a study load, by the name that the parameters give it."""
    plan = study(study_name)
    jobs = [("03_filtering", "")] + [("04_fine_tuning", name) for name in [*plan["cultures"], ONE]]
    found = set()
    for variant in plan["variants"]:
        for notebook, name in jobs:
            values = defaults(notebook) | merged(notebook, study_name, name, variant)
            found |= {values[knob] for knob in ("base_model", "perplexity_model") if values.get(knob)}
    return sorted(found)
