"""The files under ``params/``: what a culture is, what a study changes, and what a notebook gets of it.

Precedence when a study runs::

    notebook literal < params/studies/<study>.yaml parameters < params/<culture>.yaml < variant of the study

>>> merged("04_fine_tuning", study="laptop", culture="korean")
"""

import ast
import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from culturellm_utils import parameters, paths
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Country, Name


class Culture(BaseModel):
    """``params/<culture>.yaml``: what a culture is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    culture: Name
    countries: list[Country]
    culture_language: str
    prompt_name: str
    culture_context: str = ""


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
        if name not in parameters.all_names():
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
    if "language" in values:
        raise UserError(f"{paths.shown(path)}: language belongs to a study or its variants: CultureLLM-One and the "
                        "summary need all cultures asked in the same way")
    if found.culture != name:
        raise UserError(f"{paths.shown(path)} says culture: {found.culture}; it must say {name}, as its file name does")
    if not found.countries and name != parameters.ONE:
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
    injected = {name: value for name, value in sorted(values.items()) if name in parameters.names(notebook)}
    parameters.validate(parameters.MODELS[notebook], defaults(notebook) | injected)
    return injected


def place(study_name: str, culture_name: str, variant: str = "main") -> str:
    """Whose folder holds the wordings of a culture: its own when they are in its language, else ``common``."""
    values = defaults("02_augmentation") | merged("02_augmentation", study_name, culture_name, variant)
    return culture_name if values["language"] == "local" else parameters.COMMON


def base_models(study_name: str) -> list[str]:
    """Every model that the notebooks of a study load, by the name that the parameters give it."""
    plan = study(study_name)
    found = set()
    for variant in plan["variants"]:
        places = {place(study_name, name, variant) for name in plan["cultures"]}
        jobs = [("03_filtering", name if name != parameters.COMMON else "") for name in places]
        for notebook, name in jobs + [("04_fine_tuning", name) for name in [*plan["cultures"], parameters.ONE]]:
            values = defaults(notebook) | merged(notebook, study_name, name, variant)
            found |= {values[knob] for knob in ("base_model", "perplexity_model") if values.get(knob)}
    return sorted(found)
