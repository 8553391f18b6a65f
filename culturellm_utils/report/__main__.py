"""Build the report of a study from its executed notebooks.

    python -m culturellm_utils.report laptop
    python -m culturellm_utils.report laptop korean german
"""

import argparse
import sys

from culturellm_utils import paths, report
from culturellm_utils.errors import command_line


@command_line
def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m culturellm_utils.report", description="Build a study's report.")
    parser.add_argument("study")
    parser.add_argument("cultures", nargs="*", help="some of the study's cultures; all when none is named")
    arguments = parser.parse_args()
    index = report.build(arguments.study, arguments.cultures)
    size = sum(path.stat().st_size for path in index.parent.rglob("*") if path.is_file())
    pages = len(list(index.parent.rglob("*.html")))
    print(f"{paths.shown(index)}: {pages} pages, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
