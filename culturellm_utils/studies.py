"""The files under ``params/``: what a culture is, what a study changes, and what a notebook gets of it.

Precedence when a study runs::

    notebook literal < params/studies/<study>.yaml parameters < params/<culture>.yaml < variant of the study

>>> merged("04_fine_tuning", study="laptop", culture="korean")
"""

import ast
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from culturellm_utils import parameters, paths
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Country, Name

#: The keys of a study's file.
KEYS = ("title", "question", "cultures", "compare", "seeds", "one", "parameters", "variants")
#: Values of a YAML file: a long one has some thousand.
MOST_NODES = 100_000
#: What ``compare`` says when the variants are told apart by their names.
VARIANT = "variant"


class Culture(BaseModel):
    """``params/<culture>.yaml``: what a culture is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    culture: Name
    countries: list[Country]
    culture_language: str
    prompt_name: str
    culture_context: str = ""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping, its keys texts or numbers."""
    try:
        with paths.reading(path):
            text = path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise UserError(f"{paths.shown(path)} cannot be read ({type(error).__name__})") from None
    value = parse_yaml(text, paths.shown(path))
    if not isinstance(value, dict):
        raise UserError(f"{paths.shown(path)} must hold 'name: value' lines")
    return value


def parse_yaml(text: str, where: str) -> Any:
    """What a YAML text says. Raises UserError that begins with ``where`` when it is none, when a tag and its value do
    not fit, and when aliases make much out of little, so that nobody could print it."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _nodes(node, {}) > MOST_NODES:
            raise UserError(f"{where} is too large: it has more than {MOST_NODES:,} values, aliases written out")
        return loader.construct_document(node)
    except RecursionError:
        raise UserError(f"{where} is not valid YAML: nested too deeply, or an alias within itself") from None
    # PyYAML's constructors let through what goes wrong inside them: !!bool x is a KeyError, !!timestamp x another.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise UserError(f"{where}{line} is not valid YAML: {problem}") from None


def _nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node has when every alias in it is written out."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_nodes(part, known) for part in parts)
    return known[id(node)]


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
    if not os.path.isfile(path):  # unlike Path.is_file it takes any name
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
    """``params/studies/<name>.yaml``: title, cultures, parameters, variants, and what a study that compares has.

    ``question``: what the study asks, one sentence. ``compare``: the knobs in which its variants differ (a list; a name
    alone is a list of one; ``variant`` for variants told apart by their names); empty when it compares nothing.
    ``seeds``: every variant is run once with each ``random_seed``; with the first it keeps its name, the others are
    ``<variant>-seed<n>``. ``one``: whether CultureLLM-One is trained in every variant, and not in the first alone.
    """
    path = paths.PARAMS / "studies" / f"{name}.yaml"
    if not os.path.isfile(path):
        have = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(f"there is no study '{name}': add params/studies/{name}.yaml, or use one of {have}")
    values = {"question": "", "parameters": None, "variants": None, "compare": [], "seeds": [], "one": False,
              **read_yaml(path)}
    where = paths.shown(path)
    for key in values.keys() - set(KEYS):
        raise UserError(f"{where}: unknown key '{key}'; a study has {', '.join(KEYS)}")
    if not values.get("title") or not isinstance(values.get("cultures"), list) or not values["cultures"]:
        raise UserError(f"{where}: a study needs a title and a list of cultures")
    for key in ("title", "question"):
        if not isinstance(values[key], str):
            raise UserError(f"{where}: {key}: {values[key]!r} must be a text; put it into quotes")
    values["parameters"] = _known(values["parameters"] or {}, where)
    variants = values["variants"] or {"main": {}}
    if not isinstance(variants, dict):
        raise UserError(f"{where}: variants must be 'name: parameters' lines")
    variants = {str(key): _known(knobs or {}, f"{where}, variant {key}") for key, knobs in variants.items()}
    values["compare"] = [values["compare"]] if isinstance(values["compare"], str) else values["compare"]
    _check_comparison(values, variants, where)
    values["variants"] = {
        name: knobs for arm, own in variants.items() for name, knobs in _seeded(arm, own, values["seeds"])}
    for member in values["cultures"]:
        culture(member)
    return values


def _check_comparison(values: dict[str, Any], variants: dict[str, dict[str, Any]], where: str) -> None:
    """Whether the keys of a study that compares make sense together."""
    compared, seeds = values["compare"], values["seeds"]
    known = parameters.all_names() - {VARIANT}
    if not isinstance(compared, list) or len(compared) > 2 or (
            compared != [VARIANT] and not all(isinstance(name, str) and name in known for name in compared)):
        raise UserError(f"{where}: compare: {compared!r} must be one or two parameters, or '{VARIANT}'")
    if not isinstance(seeds, list) or len(set(map(str, seeds))) < len(seeds) or not all(type(s) is int for s in seeds):
        raise UserError(f"{where}: seeds: {seeds!r} must be a list of different whole numbers")
    if type(values["one"]) is not bool:
        raise UserError(f"{where}: one: {values['one']!r} must be true or false")
    if compared and len(variants) < 2:
        raise UserError(f"{where}: there is nothing to compare: name at least two variants")
    for name in variants:
        if name == parameters.COMPARISON or "-seed" in name:
            raise UserError(f"{where}: a variant cannot be called '{name}': the name is taken")


def _seeded(arm: str, own: dict[str, Any], seeds: list[int]) -> list[tuple[str, dict[str, Any]]]:
    """A variant once for each seed."""
    return [(arm if seed == seeds[0] else f"{arm}-seed{seed}", own | {"random_seed": seed}) for seed in seeds] or [
        (arm, own)]


def arms(name: str) -> dict[str, list[str]]:
    """The variants of a study as its file names them, each with the variants that its seeds make of it."""
    found: dict[str, list[str]] = {}
    for variant in study(name)["variants"]:
        found.setdefault(variant.partition("-seed")[0], []).append(variant)
    return found


def whole(plan: dict[str, Any]) -> list[str]:
    """The variants that run every notebook: all, or in a study that compares the first alone, whose people and
    wordings the others are held against; those end with the evaluation."""
    return list(plan["variants"])[: 1 if plan["compare"] else None]


def models(plan: dict[str, Any], variant: str, cultures: list[str]) -> list[str]:
    """Whose models a variant trains: the cultures', and CultureLLM-One's where the study wants it."""
    return [*cultures, parameters.ONE] if plan["one"] or variant in whole(plan) else cultures


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
    if plan["compare"]:
        plan["variants"][parameters.COMPARISON] = {}
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


def homes(study_name: str, cultures: list[str]) -> dict[tuple[str, str, str], str]:
    """Where 01 to 04 are run: of each notebook, folder and variant, the first variant in which the notebook, and all
    before it, have the same parameters. What they wrote there holds for the later variant too."""
    plan = study(study_name)
    found: dict[tuple[str, str, str], str] = {}
    first: dict[str, str] = {}
    for variant in plan["variants"]:
        def values(notebook: str, folder: str, variant: str = variant) -> dict[str, Any]:
            name = "" if folder == parameters.COMMON else folder
            known = merged(notebook, study_name, name, variant, cultures)
            return {"notebook": notebook, "folder": folder, **known, "variant": ""}

        where = {name: place(study_name, name, variant) for name in cultures}
        chains = {("01_seed_extraction", name): [values("01_seed_extraction", name)] for name in cultures}
        for folder in set(where.values()):
            chains["02_augmentation", folder] = [values("02_augmentation", folder)]
            chains["03_filtering", folder] = [*chains["02_augmentation", folder], values("03_filtering", folder)]
        for name in models(plan, variant, cultures):
            chains["04_fine_tuning", name] = [values("04_fine_tuning", name)] + [
                one for member in (cultures if name == parameters.ONE else [name])
                for one in (*chains["01_seed_extraction", member], *chains["03_filtering", where[member]])]
        for (notebook, folder), chain in chains.items():
            found[notebook, folder, variant] = first.setdefault(json.dumps(chain), variant)
    return found


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
