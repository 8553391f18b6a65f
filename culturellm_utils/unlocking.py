"""What a killed Snakemake leaves: a lock on the files of its study, which refuses every later run.

    python -m culturellm_utils.unlocking && snakemake --cores 2 --rerun-incomplete

Snakemake's own remedy is ``--unlock``, for somebody who knows that no other run is going on. Here it is looked up: the
locks go when neither Snakemake nor a notebook that it started works in this folder, on this machine. Otherwise they
stay, and Snakemake refuses to run beside the other.
"""

import shutil
import sys
from pathlib import Path

import psutil

LOCKS = Path(".snakemake", "locks")
#: Programs, or modules of Python, that write a study's files. A notebook may outlive the Snakemake that was killed.
WRITERS = {"snakemake", "culturellm_utils.run", "culturellm_utils.report"}


def unlock(folder: Path) -> bool:
    """Remove the locks in the repository ``folder`` when nothing holds them; whether there were any to remove."""
    locks = folder / LOCKS
    if not locks.is_dir() or not any(locks.iterdir()) or working(folder):
        return False
    shutil.rmtree(locks)
    locks.mkdir()
    return True


def working(folder: Path) -> bool:
    """Whether one of the :data:`WRITERS` works in ``folder``."""
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        found = process.info
        named = {Path(part).name for part in (found["cmdline"] or [])[:3]}
        # Of another user's process the folder is not told: it may be this one.
        here = not found["cwd"] or Path(found["cwd"]) == folder.resolve()
        if named & WRITERS and here and found["status"] != psutil.STATUS_ZOMBIE:
            return True
    return False


def main() -> int:
    """The command line."""
    if unlock(Path.cwd()):
        print("an earlier run was killed: what it did not finish is done again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
