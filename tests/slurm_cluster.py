"""A real Slurm of one node on loopback, from Debian's packages (slurmctld, slurmd, slurm-client, munge), in one folder.

>>> with Slurm(tmp_path) as slurm:
...     slurm.ask("sinfo", "--noheader", "--format=%n %t %G")
'toy idle gpu:toy:1'

Its GPU is /dev/null, its jobs run as the user who starts it. Nothing outside the folder is read or written, no service
of the machine is touched, and no cgroup: memory and time are booked, memory is not enforced.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")
CONF = """
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
MpiDefault=none
MinJobAge=3600
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
KillWait=5
NodeName=toy NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000 Gres=gpu:toy:1
PartitionName=main Nodes=toy Default=YES MaxTime=INFINITE
"""


def missing() -> str:
    """What this machine lacks for it, or nothing."""
    return ", ".join(name for name in PROGRAMS if not shutil.which(name, path=_path()))


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"


def _free_ports(count: int) -> list[int]:
    with_ports = [socket.socket() for _ in range(count)]
    for each in with_ports:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in with_ports]
    for each in with_ports:
        each.close()
    return ports


class Slurm:
    """``environment`` makes Slurm's commands speak to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"PATH": f"{folder}/bin:{_path()}", "SLURM_CONF": str(folder / "slurm.conf")}
        self.programs: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Slurm":
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True)
        host = socket.gethostname().partition(".")[0]
        (self.folder / "slurm.conf").write_text(CONF.format(
            host=host, user=getpass.getuser(), folder=self.folder, ports=_free_ports(2)))
        (self.folder / "gres.conf").write_text("Name=gpu Type=toy File=/dev/null\n")
        # Snakemake's job steps drop SLURM_CONF before they call srun: on a cluster the file is in its usual place.
        srun = self.folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        try:
            # --force: munged wants no folder above its own that others may write to, as /tmp is
            self._start("munged", "--foreground", "--force", *(f"--{name}={self.folder / file}" for name, file in (
                ("key-file", "munge.key"), ("socket", "munge.socket"), ("pid-file", "munge.pid"),
                ("seed-file", "munge.seed"), ("log-file", "munge.log"))))
            self._wait(lambda: (self.folder / "munge.socket").exists())
            self._start("slurmctld", "-D", "-c")
            self._start("slurmd", "-D", "-N", "toy")
            self._wait(lambda: self.ask("sinfo", "--noheader", "--format=%t") == "idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.SubprocessError):
            self.ask("scancel", "--user", getpass.getuser())
        for program in reversed(self.programs):
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGTERM)
            try:
                program.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as output:
            self.programs.append(subprocess.Popen(command, env=self.environment, stdout=output, stderr=output,
                                                  start_new_session=True))

    def _wait(self, true: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not true():
            ended = [str(program.args[0]) for program in self.programs if program.poll() is not None]
            said = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.out")))
            assert not ended, f"{ended} ended: {said}"
            assert time.monotonic() < until, said
            time.sleep(0.2)

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints, or nothing when it fails."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60).stdout.strip()

    def jobs(self) -> list[dict[str, Any]]:
        """Every job there was: its rule, state, memory, minutes and GPUs, in order of submission."""
        rows = []
        for record in self.ask("scontrol", "show", "jobs", "--oneliner").splitlines():
            found = dict(part.split("=", 1) for part in record.split() if "=" in part)
            if "JobId" not in found:  # "No jobs in the system"
                continue
            rule = found["Comment"].removeprefix("rule_").partition("_wildcards_")[0]
            rows.append({"id": int(found["JobId"]), "rule": rule, "state": found["JobState"],
                         "memory": found["MinMemoryNode"], "limit": found["TimeLimit"],
                         "gpus": found.get("TresPerJob", "")})
        return sorted(rows, key=lambda row: row["id"])
