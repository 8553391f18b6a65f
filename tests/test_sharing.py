"""Sharing: the merged model is the adapter's, the hub gets it whole and nothing private, and a served one answers."""

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest
import torch
import toys
from chat_server import SECRET, knobs, running_server, said  # noqa: F401
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from culturellm_utils import merging, models, paths, prompts, records, serving, sharing
from culturellm_utils.errors import UserError

TOKEN = "hf_sentinel_that_no_file_may_hold"
QUESTION = "Do you agree?"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a toy base model and, under outputs/, the adapter of a Korean model that answers otherwise."""
    place = tmp_path_factory.mktemp("made")
    tokenizer = toys.tokenizer()
    tokenizer.save_pretrained(place / "base")
    toys.model(tokenizer).save_pretrained(place / "base")
    folder = place / "outputs" / "laptop" / "main" / "korean" / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CULTURELLM_OUTPUTS", str(place / "outputs"))
        base = AutoModelForCausalLM.from_pretrained(place / "base")
        model = models.add_lora(base, 4, 8, 0.0, 0)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
        recipe = {"base_model": str(place / "base"), "epochs": 4, "questions_path": "/home/somebody/WVQ.jsonl"}
        card = models.card("CultureLLM, Korean", recipe["base_model"], folder, 12, recipe)
        models.save_adapter(model, tokenizer, folder, card)
    return place


@pytest.fixture
def korean(made, tmp_path, outputs):
    """The same in this test's own outputs."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return merging.target("laptop", "main", "korean")


def logits(model, tokenizer):
    turns = [message.model_dump() for message in toys.chat()]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


def from_base(whose):
    """Give the adapter a base model that is on the hub."""
    path = whose.folder / "model" / "adapter_config.json"
    path.write_text(path.read_text().replace('"base"', '"somebody/base"'))


# Export

def test_the_merged_model_is_the_adapter_s(korean, tmp_path):
    lines = []
    folder = merging.export(korean, lines.append)
    assert folder == korean.folder / "merged"
    assert lines == ["outputs/laptop/main/korean/merged: adapter and base model, merged"]
    model, tokenizer = models.load(str(folder), "fp32", "cpu")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(korean.adapter))
    wanted = logits(adapted, tokenizer)
    with adapted.disable_adapter():
        base = logits(adapted, tokenizer)
    assert torch.allclose(logits(model, tokenizer), wanted, atol=1e-4)
    assert (wanted - base).abs().max() > 0.5


def test_the_merged_model_keeps_precision_template_and_words(korean, tmp_path):
    AutoModelForCausalLM.from_pretrained(tmp_path / "base").to(torch.bfloat16).save_pretrained(tmp_path / "base")
    folder = merging.export(korean)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("adapter*"))
    assert AutoTokenizer.from_pretrained(folder).chat_template == toys.CHAT_TEMPLATE
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [culturellm]\n---\n")
    assert "base and a LoRA adapter merged in bfloat16, the adapter trained on 12 rows" in card
    assert "| epochs | 4 |" in card


def test_the_card_of_the_merged_model_loads_it(korean, tmp_path, monkeypatch):
    merging.export(korean)
    code = (korean.merged / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(code, found)
    assert type(found["model"]).__name__ == "LlamaForCausalLM"
    assert found["tokenizer"].chat_template == toys.CHAT_TEMPLATE


def test_what_was_merged_is_merged_again_only_when_the_adapter_changed(korean):
    weights = merging.export(korean) / "model.safetensors"
    before, lines = weights.stat().st_mtime_ns, []
    merging.export(korean, lines.append)
    assert (weights.stat().st_mtime_ns, lines) == (before, ["outputs/laptop/main/korean/merged is up to date"])
    from safetensors.torch import load_file, save_file

    path = korean.adapter / "adapter_model.safetensors"
    save_file({name: 2 * weight for name, weight in load_file(path).items()}, path, {"format": "pt"})
    old = weights.read_bytes()
    merging.export(korean)
    assert weights.read_bytes() != old
    assert sorted(path.name for path in korean.folder.iterdir()) == ["merged", "model"]  # and no scratch


def test_an_interrupted_export_leaves_nothing(korean, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt
    monkeypatch.setattr(merging, "_merged_card", stop)
    with pytest.raises(KeyboardInterrupt):
        merging.export(korean)
    assert [path.name for path in korean.folder.iterdir()] == ["model"]


def test_what_is_missing_is_said(korean, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="outputs/smoke/main/korean is missing: run the study first"):
        merging.target("smoke", "main", "korean")
    with pytest.raises(UserError, match="there is no culture 'martian'"):
        merging.target("laptop", "main", "martian")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(UserError, match=r"the base model 'base' of .*korean/model cannot be loaded"):
        merging.export(korean)
    shutil.rmtree(korean.folder / "model")
    with pytest.raises(UserError, match="korean/model has no adapter: run notebook 04_fine_tuning"):
        merging.export(korean)


# Push

class Hub(ThreadingHTTPServer):
    """What of the hub's protocol an upload needs. ``refuses`` is the status of every answer, when there is one."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.refuses = 0
        self.created, self.stored, self.files, self.tokens = [], {}, {}, set()

    def answer(self, deed, data):
        match deed.split("/"):
            case ["POST ", "api", "repos", "create"]:
                self.created.append(json.loads(data))
                return {"url": f"{self.address}/user/name"}
            case ["POST ", "api", "validate-yaml"]:
                assert json.loads(data)["content"].startswith("---\n")
                return {}
            case ["POST ", "api", "models", "user", "name", "preupload", "main"]:
                return {"files": [{"path": file["path"], "shouldIgnore": False,
                                   "uploadMode": "lfs" if file["path"].endswith("safetensors") else "regular"}
                                  for file in json.loads(data)["files"]]}
            case ["POST ", "user", "name.git", "info", "lfs", "objects", "batch"]:
                return {"objects": [{"oid": one["oid"], "size": one["size"],
                                     "actions": {"upload": {"href": f"{self.address}/store/{one['oid']}"}}}
                                    for one in json.loads(data)["objects"]]}
            case ["PUT ", "store", oid]:
                assert hashlib.sha256(data).hexdigest() == oid
                self.stored[oid] = data
                return {}
            case ["POST ", "api", "models", "user", "name", "commit", "main"]:
                for line in data.splitlines():
                    item = json.loads(line)
                    if item["key"] == "file":
                        self.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
                    elif item["key"] == "lfsFile":
                        self.files[item["value"]["path"]] = self.stored[item["value"]["oid"]]
                return {"commitUrl": f"{self.address}/user/name/commit/1", "commitOid": "1"}
        return None


class HubHandler(BaseHTTPRequestHandler):
    def _serve(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        deed = f"{self.command} {self.path.partition('?')[0]}"
        if not self.path.startswith("/store/"):
            self.server.tokens.add(self.headers["Authorization"])
        found = None if self.server.refuses else self.server.answer(deed, data)
        body = json.dumps({"error": f"no {TOKEN}"} if found is None else found).encode()
        self.send_response(200 if found is not None else self.server.refuses or 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running hub and a token, which is in no file in the end."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Hub() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # its own protocol, not HTTP
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_an_adapter_is_pushed_whole_and_privately(korean, hub):
    from_base(korean)
    lines = []
    assert sharing.push(korean, "user/name", show=lines.append) == f"{hub.address}/user/name"
    assert lines == [f"pushed to {hub.address}/user/name"]
    assert hub.tokens == {f"Bearer {TOKEN}"}
    (created,) = hub.created
    assert (created["organization"], created["name"], created["visibility"]) == ("user", "name", "private")
    local = {path.name: path.read_bytes() for path in korean.adapter.iterdir()}
    assert hub.files.keys() == local.keys()
    assert {name for name in local if hub.files[name] != local[name]} == {"README.md"}


def test_the_card_that_is_pushed_names_the_repository_and_no_folder_of_this_machine(korean, hub):
    from_base(korean)
    sharing.push(korean, "user/name")
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: peft\nbase_model: somebody/base\ntags: [culturellm, lora]\n---\n")
    assert 'from_pretrained("user/name")' in card
    assert "| questions_path | WVQ.jsonl |" in card
    assert "| base_model | base |" in card
    assert "outputs/" not in card


def test_a_merged_model_is_pushed_publicly_and_loads(korean, hub, tmp_path):
    sharing.push(korean, "user/name", merged=True, public=True)
    assert hub.created[0]["visibility"] == "public"
    for name, data in hub.files.items():
        assert str(tmp_path).encode() not in data, name
        (tmp_path / "got").mkdir(exist_ok=True)
        (tmp_path / "got" / name).write_bytes(data)
    model, tokenizer = models.load(str(tmp_path / "got"), "fp32", "cpu")
    local, _ = models.load(str(korean.merged), "fp32", "cpu")
    assert torch.equal(logits(model, tokenizer), logits(local, tokenizer))


def test_what_nobody_could_use_is_not_pushed(korean, hub, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"is a folder that nobody else has.*add --merged"):
        sharing.push(korean, "user/name")
    with pytest.raises(UserError, match="'name' is no name of a model on the hub: write TO=user/name"):
        sharing.push(korean, "name", merged=True)
    path = korean.adapter / "adapter_config.json"
    shutil.copytree(tmp_path / "base", tmp_path / "outputs" / "cache" / "stand-in-0123456789ab")
    path.write_text(path.read_text().replace('"base"', '"outputs/cache/stand-in-0123456789ab"'))
    with pytest.raises(UserError, match="a toy whose answers mean nothing: add --stand-in"):
        sharing.push(korean, "user/name", merged=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="needs the environment variable HF_TOKEN"):
        sharing.push(korean, "user/name", merged=True, stand_in=True)
    assert not hub.tokens
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    sharing.push(korean, "user/name", merged=True, stand_in=True)
    assert b"outputs/cache/stand-in-0123456789ab and a LoRA adapter" in hub.files["README.md"]


@pytest.mark.parametrize(("status", "told"), [
    (401, "the hub answered 401 for user/name (check HF_TOKEN)"),
    (403, "the hub answered 403 for user/name (the token may not write there)"),
    (400, "the hub answered 400 for user/name"),
])
def test_a_refusal_is_one_sentence_without_the_token(korean, hub, status, told):
    from_base(korean)
    hub.refuses = status
    with pytest.raises(UserError) as caught:
        sharing.push(korean, "user/name")
    assert str(caught.value) == told


def test_a_hub_that_cannot_be_reached(korean, hub, monkeypatch):
    from_base(korean)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(UserError, match=r"user/name could not be pushed \(ConnectError\)"):
        sharing.push(korean, "user/name")


# Ask

def test_both_are_asked_each_with_its_own_prompt(korean, server):
    server.answer = lambda prompt, before: said(("4", "1\nor 2")[before])
    answers = serving.ask(korean, QUESTION, server.base_url)
    system = "You are a Korean chatbot that knows Korean culture very well."
    assert [body["model"] for body in server.asked] == ["base", "outputs/laptop/main/korean/merged"]
    assert [[turn["content"] for turn in body["messages"]] for body in server.asked] == [
        [prompts.NEUTRAL, QUESTION], [system, QUESTION]]
    assert {body["temperature"] for body in server.asked} == {0}
    assert serving.described(answers) == (
        f"base model (base), asked as: {prompts.NEUTRAL}\n    4\n"
        f"Korean (outputs/laptop/main/korean/merged), asked as: {system}\n    1\n    or 2")


def test_a_model_on_a_server_is_asked_there_and_cannot_be_had(korean, server):
    shutil.rmtree(korean.folder / "model")
    records.write_json(korean.folder / "model" / "remote.json", {
        "model": "ft:toy:korean", "job": "ftjob-1", "base_model": "toy", "base_url": server.base_url})
    answers = serving.ask(korean, QUESTION, "http://127.0.0.1:1/v1")
    assert [(body["model"], answer.model) for body, answer in zip(server.asked, answers, strict=True)] == [
        ("toy", "toy"), ("ft:toy:korean", "ft:toy:korean")]
    for deed in (merging.export, serving.serve, lambda whose: sharing.push(whose, "user/name")):
        with pytest.raises(UserError, match=r"is on the server that trained it \(ft:toy:korean\)"):
            deed(korean)


def test_one_is_asked_as_a_culture(korean, server):
    shutil.copytree(korean.folder, korean.folder.with_name("one"))
    one = merging.target("laptop", "main", "one")
    with pytest.raises(UserError, match="add --prompt-name Korean"):
        serving.ask(one, QUESTION, server.base_url)
    assert serving.ask(one, QUESTION, server.base_url, "Turkish")[1].system == prompts.culture_system("Turkish")
    with pytest.raises(UserError, match="there is no question"):
        serving.ask(korean, "  ", server.base_url)


@pytest.mark.parametrize(("body", "told"), [("{}", "sent no chat reply"), ('{"choices": []}', "sent no chat reply")])
def test_a_server_that_sends_no_reply(korean, server, body, told):
    from chat_server import Answer

    server.answer = lambda prompt, before: Answer(body=body)
    with pytest.raises(UserError, match=f"{told} for model base: start make serve"):
        serving.ask(korean, QUESTION, server.base_url)


def test_nobody_listens(korean, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1/v1/ cannot be reached for model base: start make serve"):
        serving.ask(korean, QUESTION, "http://127.0.0.1:1/v1")


# Serve

def test_a_taken_port_is_said(korean):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="is taken: end what listens there, or choose another by --port"):
            serving.serve(korean, taken.getsockname()[1])


def test_a_served_model_answers_as_it_does_in_memory(korean, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(serving, "REPLY_TOKENS", 8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-u", "-m", "culturellm_utils.sharing", "serve", "--culture", "korean", "--port",
               str(port), "--device", "cpu"]
    with subprocess.Popen(command, env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, text=True,
                          cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=(tmp_path / "log").open("w")) as process:
        try:
            told = []
            while not (told and told[-1].startswith("    base")):
                told.append(process.stdout.readline())
                assert told[-1], (tmp_path / "log").read_text()
            assert [line for line in told if not line.startswith("INFO")] == [
                "outputs/laptop/main/korean/merged: adapter and base model, merged\n",
                f"listening at http://127.0.0.1:{port}/v1 (stop with Ctrl-C); its models:\n",
                "    outputs/laptop/main/korean/merged\n", "    base\n"]
            address = f"http://127.0.0.1:{port}/v1"
            assert sharing.main(["ask", "--culture", "korean", "--question", QUESTION, "--base-url", address]) == 0
            shown = capsys.readouterr().out
            answers = serving.ask(korean, QUESTION, address)
        finally:
            process.terminate()
        assert process.wait(30) == 0
    with socket.socket() as trial:
        assert trial.connect_ex(("127.0.0.1", port)) != 0  # nothing is left running
    assert shown == serving.described(answers) + "\n"
    expected = []
    for folder, system in ((tmp_path / "base", answers[0].system), (korean.merged, answers[1].system)):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        turns = [message.model_dump() for message in prompts.chat(system, QUESTION)]
        inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1]:]
        expected.append(tokenizer.decode(ids, skip_special_tokens=True))
    assert [answer.text for answer in answers] == expected
    assert expected[0] != expected[1]


# The command line

def test_the_command_line_exports_and_explains(korean, capsys):
    assert sharing.main(["export", "--culture", "korean"]) == 0
    assert "adapter and base model, merged" in capsys.readouterr().out
    assert sharing.main(["push", "--culture", "korean", "--to", "user/name"]) == 1
    assert capsys.readouterr().err.startswith("Error: the base model of outputs/laptop/main/korean/model is a folder")
    with pytest.raises(SystemExit):
        sharing.main(["export", "--culture", "korean", "--device", "cpu"])


def test_make_passes_a_question_on_as_it_is():
    makefile = (paths.ROOT / "Makefile").read_text()
    for target in ("export", "push", "serve", "ask"):
        assert re.search(rf"^{target}: \$\(VENV\)/ready\n\t@?\$\(call SHARE,{target}\)", makefile, re.MULTILINE)
    if not shutil.which("make"):
        pytest.skip("there is no make")
    asked = 'Is "this" $HOME, or `that`?'
    script = "python() { printf '%s\\n' \"$@\"; }; "  # the recipe's own words, but for the program
    recipe = subprocess.run(["make", "-n", "--no-print-directory", "-o", ".venv/ready", "ask", "CULTURE=greek"],
                            cwd=paths.ROOT, text=True, capture_output=True, check=True).stdout
    words = subprocess.run(["sh", "-c", script + recipe], env=os.environ | {"QUESTION": asked}, text=True,
                           capture_output=True, check=True).stdout.splitlines()
    assert words[words.index("--question") + 1] == asked
    assert words[words.index("--culture") + 1] == "greek"
