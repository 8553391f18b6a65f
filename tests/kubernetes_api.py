"""The part of a Kubernetes API that Snakemake's executor speaks to, on loopback; each pod is a process of this machine.

>>> with Cluster(tmp_path) as cluster:
...     cluster.jobs[0]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
{'cpu': '1000m', 'memory': '4000M', 'ephemeral-storage': '1000M'}

It is no Kubernetes: nothing is scheduled, limited or mounted. What it shows is what would be asked of one.
"""

import base64
import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml


class Cluster(ThreadingHTTPServer):
    """``kubeconfig`` leads to it; ``jobs`` are the manifests as they came; the first ``killed`` jobs end as those do
    that use up their memory, the others run."""

    daemon_threads = True

    def __init__(self, folder: Path, killed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.killed = folder, killed
        self.jobs: list[dict[str, Any]] = []
        self.pods: dict[str, subprocess.Popen[bytes]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.deleted: list[str] = []
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "toy",
            "clusters": [{"name": "toy", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
            "users": [{"name": "toy", "user": {}}],
            "contexts": [{"name": "toy", "context": {"cluster": "toy", "user": "toy"}}]}))

    def __enter__(self) -> "Cluster":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        for pod in self.pods.values():
            pod.kill()
            pod.wait()
        self.server_close()

    def start(self, job: dict[str, Any]) -> None:
        """Run the job's container, with the environment that it is given and no other."""
        container, = job["spec"]["template"]["spec"]["containers"]
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        for entry in container["env"]:
            source = entry["valueFrom"]["secretKeyRef"]
            environment[entry["name"]] = base64.b64decode(self.secrets[source["name"]][source["key"]]).decode()
        command = ["/bin/sh", "-c", "kill -KILL $$"] if len(self.jobs) <= self.killed else [
            *container["command"], *container["args"]]
        name = job["metadata"]["name"]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.pods[name] = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Cluster

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(asked.query).items()}
        name = asked.path.split("/")[-2]
        if asked.path.endswith("/log"):  # no container was ever started again
            previous = query.get("previous", "false").lower() == "true"
            self._send(400 if previous else 200, (self.server.folder / f"{name}.log").read_text())
        elif asked.path.endswith("/pods"):
            name = query["labelSelector"].removeprefix("job-name=")
            self._send(200, {"kind": "PodList", "apiVersion": "v1", "items": [self._pod(name)]})
        else:
            code = self.server.pods[name].poll()
            status = {} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}
            self._send(200, {"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": name}, "status": status})

    def _pod(self, name: str) -> dict[str, Any]:
        code = self.server.pods[name].poll()
        state = {"running": {}} if code is None else {"terminated": {"exitCode": 128 - code if code < 0 else code}}
        return {"metadata": {"name": name}, "status": {"containerStatuses": [{
            "name": "snakemake", "image": "toy", "imageID": "toy", "ready": True, "restartCount": 0, "state": state}]}}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if re.fullmatch(r"/api/v1/namespaces/\w+/secrets", self.path):
            self.server.secrets[body["metadata"]["name"]] = body.get("data", {})
        else:
            assert re.fullmatch(r"/apis/batch/v1/namespaces/\w+/jobs", self.path)
            self.server.jobs.append(body)
            self.server.start(body)
        self._send(201, body)

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.deleted.append(urlsplit(self.path).path.split("/")[-2:])
        self._send(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _send(self, status: int, body: dict[str, Any] | str) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
