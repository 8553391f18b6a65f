"""Run the named benchmarks (default: all), each in a process of its own, and keep their lines in bench.json.

    PYTHONPATH=tests python -m benchmarks survey filter
"""

import importlib
import json
import subprocess
import sys

from culturellm_utils import paths, records

NAMES = ("survey", "filter", "diversity", "requests", "scoring", "training", "report", "growth", "gpu")
RESULTS = paths.ROOT / "outputs" / "bench" / "bench.json"


def measure(name: str) -> None:
    """Measure one benchmark here and put its lines in the place of its earlier ones."""
    found = importlib.import_module(f"benchmarks.bench_{name}").measure()
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    kept = [row for row in kept if row["benchmark"] != name] + [{"benchmark": name, **line.row()} for line in found]
    records.write_json(RESULTS, sorted(kept, key=lambda row: NAMES.index(row["benchmark"])))


def table() -> str:
    """All kept lines as a table, one a measurement."""
    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    lines = [("benchmark", "ours s", "plain s", "ratio", "wanted", "of limit", "wanted", "")]
    for row in json.loads(RESULTS.read_text()):
        lines.append((row["name"], shown(row["ours"], ".3g"), shown(row["plain"], ".3g"), shown(row["ratio"], ".3g"),
                      shown(row["wanted"], "g"), shown(row["share_of_limit"], ".0%"), shown(row["wanted_share"], ".0%"),
                      "" if row["met"] else "MISSED"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)


def main() -> int:
    """The command line; 1 when a benchmark failed to run (a missed target is reported, not an error)."""
    names = sys.argv[1:] or NAMES
    if names[0] == "--here":
        measure(names[1])
        return 0
    failed = []
    for name in names:
        print(f"{name} ...", flush=True)
        if subprocess.run([sys.executable, "-m", "benchmarks", "--here", name]).returncode:
            failed.append(name)
    if RESULTS.is_file():
        print(table())
    for name in failed:
        print(f"{name} did not run", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
