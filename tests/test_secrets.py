"""No key is in anything that is written or said, nothing from elsewhere is run, downloads can be pinned."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chat_server import SECRET, Server, refused, running_server, said  # noqa: F401

from culturellm_utils import client, encoder, fit, guard, models, paths, records, survey
from culturellm_utils.records import Augmented, Message

HUB_SECRET = "hf_sentinel5d1e8b"
SECRETS = (SECRET, HUB_SECRET)
SOURCES = sorted([*paths.PACKAGE.rglob("*.py"), *paths.NOTEBOOKS.glob("*.ipynb")])


def holds_no_secret(folder: Path) -> int:
    """Look through every file under a folder, hidden ones and databases too; how many there were."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        for secret in SECRETS:
            assert secret.encode() not in content, path
            assert secret.encode("utf-16-le") not in content, path
    return len(files)


@pytest.fixture
def keyed(tmp_path, server) -> Iterator[dict[str, str]]:
    """An environment with keys in it, whose home, caches and temporary files are all below ``tmp_path``."""
    home = {name: str(tmp_path / name.lower()) for name in
            ("HOME", "TMPDIR", "XDG_CACHE_HOME", "CULTURELLM_OUTPUTS", "CULTURELLM_CACHE", "HF_HOME", "IPYTHONDIR",
             "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR")}
    for place in home.values():
        Path(place).mkdir()
    yield os.environ | home | {
        "OPENAI_API_KEY": SECRET, "HF_TOKEN": HUB_SECRET, "HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert holds_no_secret(tmp_path) > 10
    assert server.keys == {f"Bearer {SECRET}"}                    # it was in use


def run_06(environment: dict[str, str], server: Server) -> subprocess.CompletedProcess:
    """Notebook 06, whose pairs a chat model rates."""
    folder = Path(environment["CULTURELLM_OUTPUTS"], "toy", "main", "common")
    records.write_rows(folder / "augmented.jsonl", [
        Augmented(candidate_id=f"{question.question_id}-s1", question_id=question.question_id, stage=2, source="toy",
                  template_id="t", substitutions=[], text=f"Again: {question.question}", similarity=0.9)
        for question in survey.questions("")[:5]])
    knobs = {"study": "toy", "pairs": 5, "attention_checks": 0, "bootstrap_samples": 100, "chat_rater": True,
             "chat_backend": "openai", "base_url": server.base_url, "chat_model": "toy"}
    return subprocess.run(
        [sys.executable, "-m", "culturellm_utils.run", "notebooks/06_human_study.ipynb",
         str(folder / "06_human_study.ipynb"), "--log", str(folder / "log" / "06_human_study.ipynb"),
         "--parameters", json.dumps(knobs)], env=environment, cwd=paths.ROOT, capture_output=True, text=True)


def test_a_notebook_that_asks_a_server_writes_no_key(keyed, server):
    server.answer = lambda prompt, before: said(json.dumps({"rating": 4}))
    done = run_06(keyed, server)
    assert done.returncode == 0, done.stderr
    assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
    assert server.asked


def test_a_notebook_whose_server_says_the_key_back_writes_no_key(keyed, server):
    server.answer = lambda prompt, before: refused(401)           # "Incorrect API key provided: sk-..."
    done = run_06(keyed, server)
    assert done.returncode == 1
    assert "the chat server at" in done.stderr
    assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]


@pytest.mark.slow
def test_a_whole_study_writes_no_key(keyed, server, tmp_path):
    """A chat model words, judges and rates; Snakemake, its logs and metadata, and the report are looked through too."""
    for built in paths.cache().glob("stand-in*"):
        (shutil.copytree if built.is_dir() else shutil.copy)(built, Path(keyed["CULTURELLM_CACHE"], built.name))
    recordings = client._recordings()

    def answer(prompt: str, before: int):
        messages = [Message(**message) for message in server.asked[before]["messages"]]
        return said(recordings.get(client.key(messages)) or json.dumps({"rating": 4, "choice": "A"}))

    server.answer = answer
    checkout = tmp_path / "checkout"
    for name in ("notebooks", "culturellm_utils", "params"):
        shutil.copytree(paths.ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(paths.ROOT / name, checkout / name)
    plan = yaml.safe_load((checkout / "params" / "studies" / "smoke.yaml").read_text())
    plan |= {"cultures": ["korean"], "variants": {"main": {}}}
    plan.pop("compare")
    plan["parameters"] |= {"chat_backend": "openai", "chat_model": "toy", "base_url": server.base_url, "judge": "chat",
                           "chat_rater": True, "max_concurrency": 16}
    (checkout / "params" / "studies" / "keyed.yaml").write_text(yaml.safe_dump(plan))
    done = subprocess.run(["snakemake", "--cores", "2", "--printshellcmds", "--verbose", "--config", "study=keyed"],
                          cwd=checkout, env=keyed | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
    assert (Path(keyed["CULTURELLM_OUTPUTS"]) / "keyed" / "report" / "index.html").is_file()
    assert len({body["messages"][0]["content"] for body in server.asked}) > 2
    assert (checkout / ".snakemake").is_dir()


# nothing from elsewhere is run

def code(path: Path) -> str:
    """The Python in a module or a notebook."""
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def calls(path: Path) -> list[tuple[str, dict[str, ast.expr]]]:
    """Every call in a file: the dotted name that is called, and its keyword arguments."""
    tree = ast.parse(re.sub(r"^[%!].*$", "", code(path), flags=re.M))
    return [(ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg})
            for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_is_unpickled_evaluated_or_handed_to_a_shell(path):
    source = code(path)
    assert "trust_remote_code" not in source
    assert "allow_pickle" not in source
    assert not re.search(r"^\s*(import|from) (pickle|dill|cloudpickle|joblib|shelve|marshal)\b", source, re.M)
    for name, named in calls(path):
        assert name not in ("eval", "exec", "compile", "torch.load", "pd.read_pickle", "os.system", "yaml.load",
                            "yaml.unsafe_load", "np.load", "numpy.load", "__import__"), name
        assert "shell" not in named, name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_models_are_read_from_safetensors(path):
    """Other formats of weights are pickles."""
    for name, named in calls(path):
        kind, _, what = name.rpartition(".")
        if what == "from_pretrained" and kind.startswith("AutoModel"):
            assert ast.unparse(named["use_safetensors"]) == "True", name
        if name in ("SentenceTransformer", "CrossEncoder"):
            assert ast.unparse(named["model_kwargs"]) == "{'use_safetensors': True}", name


# downloads can be pinned

@pytest.mark.parametrize(("name", "found"), [
    ("user/name", ("user/name", "main")), ("user/name@5f0b1c2", ("user/name", "5f0b1c2")),
    ("stand-in", ("stand-in", "main")), ("@x", ("@x", "main")), ("user/name@", ("user/name@", "main")),
])
def test_a_revision_follows_the_name(name, found):
    assert models.located(name) == found


def test_a_folder_may_have_an_at_in_its_name(tmp_path):
    (tmp_path / "a@b").mkdir()
    assert models.located(str(tmp_path / "a@b")) == (str(tmp_path / "a@b"), "main")


def test_every_loader_asks_for_the_revision(monkeypatch, own_cache):
    asked = []

    def spy(*places, revision=None, **_):
        asked.append((places[-1], revision))
        raise OSError("no network here")

    import sentence_transformers
    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", spy)
    monkeypatch.setattr(fit.AutoConfig, "from_pretrained", spy)
    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", spy)
    monkeypatch.setattr(sentence_transformers, "CrossEncoder", spy)
    for load in (models.load, fit._config, lambda name: encoder.load(name).encode(["x"]), guard.Entailment):
        with pytest.raises(Exception, match="user/name@5f0b1c2"):
            load("user/name@5f0b1c2")
    assert asked == [("user/name", "5f0b1c2")] * 4


def test_workflows_have_the_least_privilege_and_pinned_actions():
    for path in (paths.ROOT / ".github" / "workflows").glob("*.yml"):
        flow = yaml.safe_load(path.read_text())
        assert flow["permissions"] == {"contents": "read"}
        assert "pull_request_target" not in path.read_text()
        assert "secrets." not in path.read_text()
        for job in flow["jobs"].values():
            assert "permissions" not in job
            for step in job["steps"]:
                if "uses" in step:
                    assert re.search(r"@[0-9a-f]{40}$", step["uses"]), step["uses"]
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False
