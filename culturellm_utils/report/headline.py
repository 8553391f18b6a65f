"""The headline figures of a run, and what became of them since the run before.

``outputs/<study>/headline.json`` keeps this run and the last one::

    {"now": {"run": "5d0c...", "ran": "2026-01-02 03:04:05", "revision": ["1a2b3c4"], "cultures": ["korean"],
             "parameters": {"korean/04_fine_tuning": {"epochs": 4}},
             "figures": {"Held-out wordings, adapter": 0.9}}, "before": {...}}

A report that is built again from the same notebooks is the same run.
"""

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from culturellm_utils import paths
from culturellm_utils.errors import UserError
from culturellm_utils.records import Row, problem, read_json, write_json
from culturellm_utils.report import executed
from culturellm_utils.report.methods import BOOKKEEPING
from culturellm_utils.report.pages import COMPARED, OF_CULTURE, SUMMARY, Study, escaped, table

FILE = "headline.json"
#: Part and metric of a figure, and what it is called; systems that are shown of each.
FIGURES = {("held_out_wording", "accuracy"): "Held-out wordings",
           ("held_out_question", "accuracy"): "Held-out questions",
           ("held_out_wording", "js_similarity"): "Closeness to all answers"}
SYSTEMS = ("base", "persona", "one", "adapter")
#: How many changed parameters are told.
MOST = 20


class Run(Row):
    """One run in ``headline.json``."""

    run: str
    ran: str
    revision: list[str]
    cultures: list[str]
    parameters: dict[str, dict[str, Any]]
    figures: dict[str, float]


class _Runs(Row):
    now: Run
    before: Run | dict[str, None]


def of(study: Study) -> dict[str, Any]:
    """The headline of the run that the study's notebooks are."""
    stamps = {page.name: executed.stamp(page.notebook) for page in study.pages}
    run = hashlib.sha256(repr(sorted((name, stamp.started, stamp.digest) for name, stamp in stamps.items())).encode())
    changed = {page.name: {name: knob.value for name, knob in page.settings.items()
                           if name not in BOOKKEEPING and knob.value != knob.default} for page in study.pages}
    return {"run": run.hexdigest()[:12], "ran": max(stamp.started for stamp in stamps.values()),
            "revision": sorted({stamp.revision for stamp in stamps.values()}),
            "cultures": list(dict.fromkeys(page.folder for page in study.of(OF_CULTURE[0]))),
            "parameters": changed, "figures": _figures(study)}


def _figures(study: Study) -> dict[str, float]:
    """The figures that tell most: means over cultures of the first variant, and each arm's where arms are compared."""
    found: dict[str, float] = {}
    for page in study.of(SUMMARY, variant=study.leading):
        summary = page.file("summary.json")
        values: dict[str, list[float]] = defaultdict(list)
        for row in summary.get("comparison", []):
            kind = FIGURES.get((row["part"], row["metric"]))
            if kind and row["system"] in SYSTEMS:
                values[f"{kind}, {row['system']}"].append(row["value"])
        values["Abilities, after minus before"] = [row["difference"] for row in summary.get("forgetting", [])]
        values |= {f"Macro-F1, {name}": [row["value"] for row in summary.get("classification", [])
                                         if row["system"] == name] for name in ("base", "adapter")}
        found |= {name: round(sum(some) / len(some), 4) for name, some in values.items() if some}
    for page in study.of(COMPARED):
        found |= {f"{row['arm']}: {row['measure'].replace('_', ' ')}": round(row["value"], 4)
                  for row in page.file("comparison.json").get("rows", []) if row["system"] == "adapter"}
    return found


def remember(home: Path, now: dict[str, Any]) -> dict[str, Any]:
    """The run before, empty when there was none. :func:`keep` writes both. Raises UserError when they are broken."""
    path = home / FILE
    if not path.is_file():
        return {}
    try:
        known = _Runs.model_validate(read_json(path)).model_dump()
    except ValidationError as error:
        raise UserError(f"{paths.shown(path)}: {problem(error)}; remove the file, and nothing is compared with the run "
                        "before") from None
    return known["before"] if known["now"]["run"] == now["run"] else known["now"]


def keep(home: Path, now: dict[str, Any], before: dict[str, Any]) -> None:
    """Write this run and the one before."""
    write_json(home / FILE, {"now": now, "before": before})


def section(now: dict[str, Any], before: dict[str, Any]) -> str:
    """The section on the previous run; empty when there was none."""
    if not before:
        return ""
    told = [_said("Revision", ", ".join(before["revision"]), ", ".join(now["revision"])),
            _said("Cultures", ", ".join(before["cultures"]), ", ".join(now["cultures"])), *_parameters(now, before)]
    told = [line for line in told if line]
    told = told or ["The same revision, cultures and parameters: where figures differ, a rerun moved them."]
    rows = []
    for name in dict.fromkeys([*now["figures"], *before["figures"]]):
        new, old = now["figures"].get(name), before["figures"].get(name)
        change = "–" if new is None or old is None else f"{new - old:+.3f}"
        rows.append([escaped(name), _shown(old), _shown(new), change])
    return "\n\n".join([
        "## Since the previous run", f"The run of {before['ran']} (UTC) beside this one, of {now['ran']}.",
        "\n".join(f"- {line}" for line in told), table(["figure", "previous", "now", "difference"], rows)])


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _said(what: str, before: str, now: str) -> str:
    return "" if before == now else f"{what}: {escaped(before)} before, {escaped(now)} now."


def _parameters(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """The parameters that changed, one line each, however many notebooks have them."""
    lines: dict[tuple[str, str, str], int] = defaultdict(int)
    for page in now["parameters"].keys() & before["parameters"].keys():
        new, old = now["parameters"][page], before["parameters"][page]
        for name in new.keys() | old.keys():
            pair = [str(side.get(name, "the default")) for side in (old, new)]
            if pair[0] != pair[1]:
                lines[name, *pair] += 1
    told = [f"Parameter {escaped(name)}: {escaped(old)} before, {escaped(new)} now ({number} "
            f"notebook{'s' * (number != 1)})." for (name, old, new), number in sorted(lines.items())]
    return told[:MOST] + [f"{len(told) - MOST} more parameters changed."] * (len(told) > MOST)
