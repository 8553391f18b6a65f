"""A culture's model for others, on the command line: merged into one, pushed to the model hub, served, asked.

>>> push(merging.target("laptop", "main", "korean"), "user/name")
pushed to https://huggingface.co/user/name

``make export``, ``push``, ``serve`` and ``ask`` call::

    python -m culturellm_utils.sharing push --study laptop --culture korean --to user/name
"""

import argparse
import os
import re
import signal
import sys
from pathlib import Path

from culturellm_utils import merging, parameters, paths, serving
from culturellm_utils.errors import UserError, command_line
from culturellm_utils.merging import Show, Target


def push(whose: Target, to: str, *, merged: bool = False, public: bool = False, stand_in: bool = False,
         show: Show = print) -> str:
    """Upload the adapter, or the ``merged`` model, with its card to the hub as ``to`` (user/name); returns its address.

    A new repository is private unless ``public``; one that exists stays as it is. The token comes from HF_TOKEN alone.
    Raises UserError for a stand-in unless ``stand_in`` (its figures mean nothing), for an adapter whose base model
    nobody else has, and when the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    source = whose.adapter
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", to, re.ASCII):
        raise UserError(f"'{to}' is no name of a model on the hub: write TO=user/name")
    if Path(whose.base).name.rpartition("-")[0] in parameters.STAND_INS and not stand_in:
        raise UserError(f"the base model of {paths.shown(source)} is a stand-in, a toy whose answers mean nothing: add "
                        "--stand-in if it is to be published all the same")
    if whose.base_is_local and not merged:
        raise UserError(f"the base model of {paths.shown(source)} is a folder that nobody else has, so that the "
                        "adapter alone is of no use: add --merged")
    if not (token := os.environ.get("HF_TOKEN")):
        raise UserError("pushing needs the environment variable HF_TOKEN: a token of the hub that may write")
    source = merging.export(whose, show) if merged else source
    card = _card_for(to, (source / "README.md").read_text(encoding="utf-8"), whose, source)
    files = [CommitOperationAdd("README.md", card.encode())] + [
        CommitOperationAdd(path.name, path) for path in sorted(source.iterdir()) if path.name != "README.md"]
    try:
        api = HfApi(token=token)
        address = api.create_repo(to, private=not public, exist_ok=True)
        api.create_commit(to, files, commit_message=f"CultureLLM, {whose.prompt_name or 'all cultures'}")
    except HfHubHTTPError as error:
        check = {401: " (check HF_TOKEN)", 403: " (the token may not write there)", 404: " (check TO=user/name)"}
        status = error.response.status_code
        raise UserError(f"the hub answered {status} for {to}{check.get(status, '')}") from None
    except Exception as error:  # of whichever HTTP library the hub's client uses; its message may hold the address
        raise UserError(f"{to} could not be pushed ({type(error).__name__}): rerun, what arrived is not sent again"
                        ) from None
    show(f"pushed to {address}")
    return str(address)


def _card_for(to: str, card: str, whose: Target, source: Path) -> str:
    """A card as the hub shows it: it names the repository, the base model, and no folder of this machine."""
    card = card.replace(paths.shown(source), to)
    if not whose.base_is_local:
        card = card.replace("\ntags:", f"\nbase_model: {whose.base}\ntags:", 1)
    return re.sub(r"(?<=\| )/[^|]*(?= \|)", lambda path: Path(path[0]).name, card)


@command_line
def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m culturellm_utils.sharing", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in {"export": "merge adapter and base model", "push": "upload to the model hub",
                       "serve": "serve by transformers serve (its options are passed on)",
                       "ask": "ask base model and culture's model a question"}.items():
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("--study", default="laptop")
        command.add_argument("--variant", default="main")
        command.add_argument("--culture", required=True, help="a culture of the study, or one")
        if name == "push":
            command.add_argument("--to", required=True, help="user/name on the hub")
            command.add_argument("--merged", action="store_true", help="the merged model instead of the adapter")
            command.add_argument("--public", action="store_true", help="a new repository is private otherwise")
            command.add_argument("--stand-in", action="store_true", help="publish a toy all the same")
        elif name == "serve":
            command.add_argument("--port", type=int, default=serving.PORT)
        elif name == "ask":
            command.add_argument("--question", required=True)
            command.add_argument("--base-url", default=serving.ADDRESS, help="of a server")
            command.add_argument("--prompt-name", default="", help="what CultureLLM-One is asked as")
    given, more = parser.parse_known_args(arguments)
    if more and given.command != "serve":
        parser.error(f"unknown: {' '.join(more)}")
    whose = merging.target(given.study, given.variant, given.culture)
    if given.command == "export":
        merging.export(whose)
    elif given.command == "push":
        push(whose, given.to, merged=given.merged, public=given.public, stand_in=given.stand_in)
    elif given.command == "serve":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # else the server would live on
        serving.serve(whose, given.port, more)
    else:
        print(serving.described(serving.ask(whose, given.question, given.base_url, given.prompt_name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
