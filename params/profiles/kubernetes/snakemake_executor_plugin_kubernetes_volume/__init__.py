"""Snakemake's Kubernetes executor for a checkout that lies on a volume which every job mounts.

The executor it is made from takes each job's files out of an object store and back, as the Snakefile lists them. A
notebook writes more than is listed (an adapter, what ratings people gave), so that jobs here work on the volume itself.
"""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import snakemake_executor_plugin_kubernetes as kubernetes

common_settings = replace(kubernetes.common_settings, implies_no_shared_fs=False, job_deploy_sources=False,
                          auto_deploy_default_storage_provider=False)


@dataclass
class ExecutorSettings(kubernetes.ExecutorSettings):
    """The same settings, under the options ``--kubernetes-volume-...``."""


class Executor(kubernetes.Executor):
    """The same executor, its jobs in this folder with this Python."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # A job's container is never started again, so that a failed one has no previous log: asking for it would end
        # the whole study where a job only has to be tried again.
        read = self.kubeapi.read_namespaced_pod_log
        self.kubeapi.read_namespaced_pod_log = lambda **asked: read(**asked | {"previous": False})

    def get_job_exec_prefix(self, job: object) -> str:
        """What a container does first; the Snakefile's commands call ``python``."""
        home = shlex.quote(str(Path(sys.executable).parent))
        return f"cd {shlex.quote(self.workflow.workdir_init)} && export PATH={home}:$PATH"
