"""A culture's model served, and asked a question beside its base model.

>>> print(described(ask(merging.target("laptop", "main", "korean"), "Should people care more about work?")))
base model (outputs/cache/stand-in-3f0c9a1b2c4d), asked as: You are a helpful assistant.
    1
Korean (outputs/laptop/main/korean/merged), asked as: You are a Korean chatbot that knows Korean culture very well.
    3
"""

import os
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from dataclasses import dataclass

import openai

from culturellm_utils import live, prompts, protocol, remote
from culturellm_utils.errors import UserError, printable
from culturellm_utils.merging import Show, Target, export, home

HOST, PORT = "127.0.0.1", 8000
ADDRESS = f"http://{HOST}:{PORT}/v1"
#: Tokens of a reply at most, and seconds that a server has for it (the first request loads the model).
REPLY_TOKENS, PATIENCE = 300, 900


@dataclass(frozen=True)
class Answer:
    """What a model says: ``name`` is whose it is, ``model`` its name on the server, ``system`` its system prompt."""

    name: str
    model: str
    system: str
    text: str


def serve(whose: Target, port: int = PORT, options: list[str] | None = None, show: Show = print) -> None:
    """Serve the culture's merged model and its base model by ``transformers serve``, until interrupted.

    ``options`` are passed on, such as ``--quantization bnb-4bit``. Each model is loaded when it is first asked. Raises
    UserError when the server does not start.
    """
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        raise UserError('serving needs two more packages: pip install "transformers[serving]"')
    with socket.socket() as trial:
        if trial.connect_ex((HOST, port)) == 0:
            raise UserError(f"port {port} is taken: end what listens there, or choose another by --port")
    export(whose, show)
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", HOST, "--port", str(port)]
    with subprocess.Popen([*command, *(options or [])], cwd=home()) as server:  # models are named from there
        try:
            while not _healthy(port, server):
                time.sleep(0.2)
            show(f"listening at http://{HOST}:{port}/v1 (stop with Ctrl-C); its models:\n"
                 f"    {whose.model}\n    {whose.base}")
            server.wait()
        except KeyboardInterrupt:
            show("stopped")
        finally:
            server.terminate()


def ask(whose: Target, question: str, base_url: str = ADDRESS, prompt_name: str = "") -> list[Answer]:
    """What the base model, neutrally prompted, and the culture's model, prompted as in training, say to a question.

    A model that was trained on a server is asked there; others at ``base_url``. ``prompt_name`` says which of its
    cultures CultureLLM-One is asked as. Raises UserError when the server cannot be asked.
    """
    prompt_name = prompt_name or whose.prompt_name
    if not question.strip():
        raise UserError('there is no question: write QUESTION="..."')
    if not prompt_name:
        raise UserError("CultureLLM-One is asked as one of its cultures: add --prompt-name Korean, or another")
    base_url = remote.load(whose.folder).base_url if whose.is_remote else base_url
    if not base_url and not os.environ.get("OPENAI_API_KEY"):
        raise UserError(f"{whose.model} needs the environment variable OPENAI_API_KEY")
    systems = [("base model", whose.base, prompts.NEUTRAL),
               (prompt_name, whose.model, prompts.culture_system(prompt_name))]
    with openai.OpenAI(base_url=base_url or live.OFFICIAL, api_key=protocol.api_key(), timeout=PATIENCE) as client:
        return [Answer(name, model, system, _say(client, model, system, question)) for name, model, system in systems]


def described(answers: list[Answer]) -> str:
    """Answers one under the other (columns would not fit scripts of other widths), for a terminal."""
    return printable("\n".join(f"{one.name} ({one.model}), asked as: {one.system}\n"
                               + textwrap.indent(one.text.strip() or "(nothing)", "    ") for one in answers))


def _say(client: openai.OpenAI, model: str, system: str, question: str) -> str:
    turns = [turn.model_dump() for turn in prompts.chat(system, question)]
    try:
        reply = client.chat.completions.create(model=model, messages=turns, temperature=0,
                                               max_completion_tokens=REPLY_TOKENS)
        return reply.choices[0].message.content or ""
    except openai.APIStatusError as error:
        what = f"answered {error.status_code}"
    except openai.APIConnectionError:
        what = "cannot be reached"
    except (AttributeError, IndexError, TypeError, ValueError):
        what = "sent no chat reply"
    raise UserError(f"the server at {client.base_url} {what} for model {model}: start make serve for this culture, or "
                    "check OPENAI_API_KEY where the model is on a server that asks for one")


def _healthy(port: int, server: subprocess.Popen) -> bool:
    """Whether the server listens. Raises UserError when it ended instead."""
    if server.poll() is not None:
        raise UserError(f"transformers serve did not start (code {server.returncode}): what it said is above")
    try:
        no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return no_proxy.open(f"http://{HOST}:{port}/health", timeout=5).status == 200
    except OSError:
        return False
