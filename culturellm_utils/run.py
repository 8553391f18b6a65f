"""Run one notebook by papermill: names checked first, the executed copy readable even when the run fails.

    python -m culturellm_utils.run notebooks/04_fine_tuning.ipynb outputs/.../04_fine_tuning.ipynb \\
        --log outputs/.../log/04_fine_tuning.ipynb --parameters '{"culture": "korean"}'

papermill writes to ``--log`` while it runs; the copy appears at its place only when all went well. With ``--same-as``
nothing runs: another variant's run of the same notebook had the same parameters, and what it wrote is copied.
"""

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from culturellm_utils import parameters, parts, paths
from culturellm_utils.errors import UserError, command_line, remedy

if TYPE_CHECKING:
    from traitlets.config import Config

#: What each notebook that variants may share writes beside its executed copy; not all of it in every run.
WRITES = {
    "01_seed_extraction": ("seeds.jsonl", "country_seeds.jsonl", "borrowed.jsonl"),
    "02_augmentation": ("candidates.jsonl", "replies.jsonl", "translations.jsonl"),
    "03_filtering": ("augmented.jsonl", "rejected.jsonl", "sweep.csv"),
    "04_fine_tuning": ("train.jsonl", "targets.jsonl", "job.json", "training_log.json", "ablations", "model"),
}


def run(notebook: Path, output: Path, log: Path, values: dict) -> None:
    """Execute ``notebook`` with ``values`` injected. Raises UserError with the notebook's own sentence when a cell
    fails, for a parameter that the notebook does not have, where another run is making the same copy, and where the
    disk is full or forbidden."""
    # papermill's JSON validator would compile a grammar for internationalised addresses: a second for every notebook.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel

    unknown = sorted(values.keys() - parameters.names(notebook.stem))
    if unknown:
        raise UserError(f"{notebook.stem} has no parameter '{unknown[0]}'")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with _alone(log, output):
        with paths.writing(log), _stderr_to(log.with_suffix(".stderr")):
            try:
                with _own_sockets() as config:
                    papermill.execute_notebook(str(notebook), str(log), parameters=values, kernel_name="python3",
                                               progress_bar=False, cwd=str(paths.ROOT), config=config)
            except papermill.PapermillExecutionError as error:
                sentence = str(error.evalue) if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
                helps = "" if error.ename == "UserError" else remedy(error.evalue)
                said = (f"{notebook.stem} stopped: {sentence}{helps and ': '}{helps} "
                        f"(the notebook up to there: {paths.shown(log)})")
                raise UserError(*said.splitlines()) from None
            except (NoSuchKernel, RuntimeError) as error:
                raise UserError(f"{notebook.stem} stopped: {_about_kernel(error)} (what was said there: "
                                f"{paths.shown(log.with_suffix('.stderr'))})") from error
        _copy(log, output)


def take(executed: Path, output: Path) -> None:
    """Copy what an executed notebook wrote into the folder of ``output``, and last the notebook itself.

    Raises UserError when the notebook is none whose files are known.
    """
    if output.stem not in WRITES:
        raise UserError(f"{output.stem} reads what differs between variants: it must be run in each")
    for name in (*WRITES[output.stem], output.name):
        _copy(executed.with_name(name), output.with_name(name))


def _about_kernel(error: Exception) -> str:
    """What became of a kernel that nbclient lost or could not start, and what to do."""
    from nbclient.exceptions import DeadKernelError

    if isinstance(error, DeadKernelError):
        return ("its kernel was killed, most often for want of memory: give it more, or choose a smaller model or "
                "batch, and rerun")
    return f"its kernel did not start ({error}): rerun on a less busy machine, or remove .venv and set it up again"


def _copy(source: Path, target: Path) -> None:
    """``target`` becomes what ``source`` is: a file, a folder, or nothing."""
    if source.is_dir():
        with parts.replacing(target, folder=True) as beside:
            shutil.copytree(source, beside, dirs_exist_ok=True)
    elif source.is_file():
        with parts.replacing(target) as beside:
            shutil.copyfile(source, beside)
    else:
        parts.remove(target)


@contextmanager
def _alone(log: Path, output: Path) -> Iterator[None]:
    """Refuse where another run writes the same files: each would take the other's for its own."""
    lock = FileLock(log.with_suffix(".lock"))
    with paths.writing(log.parent):
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{paths.shown(output)} is being made by another run: wait for it, or end it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _own_sockets() -> Iterator["Config"]:
    """Have the kernel listen at files of its own: of two that start at once, both may be told the same free port."""
    from traitlets.config import Config

    if os.name != "posix":
        yield Config()
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """Send this process's and the kernel's standard error to a file: kernels chat about ports and transports."""
    kept = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _object(text: str) -> dict:
    """A JSON object from the command line."""
    try:
        found = json.loads(text)
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError  # argparse names the option and the text
    return found


@command_line
def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run one notebook by papermill.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--log", type=Path, required=True, help="where papermill writes while it runs")
    parser.add_argument("--parameters", type=_object, default={}, help="JSON object of parameters to inject")
    parser.add_argument("--same-as", type=Path, nargs="?", help="an executed copy whose files are to be copied instead")
    arguments = parser.parse_args()
    if arguments.same_as:
        take(arguments.same_as, arguments.output)
    else:
        run(arguments.notebook, arguments.output, arguments.log, arguments.parameters)
    return 0


if __name__ == "__main__":
    sys.exit(main())
