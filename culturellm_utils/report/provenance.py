"""The page that says how the report was made: revision, versions, hardware, time, tokens and money.

>>> provenance.page(study)
"# How these pages were made\\n\\nThe study is `params/studies/laptop.yaml` ..."
"""

from collections import Counter, defaultdict
from typing import NamedTuple

from culturellm_utils.parameters import COMPARISON
from culturellm_utils.records import ReplyRow, read_rows
from culturellm_utils.report import executed
from culturellm_utils.report.pages import COMPARED, SUMMARY, Page, Study, escaped, table
from culturellm_utils.usage import Prices, Usage, duration

#: What the batch backend charges of the usual price.
BATCH = 0.5
#: Where a notebook that asks a chat model keeps what became of its requests.
REPLIES = {"02_augmentation": "replies.jsonl", "05_evaluation": "judge_replies.jsonl",
           "06_human_study": "rating_replies.jsonl"}


class Cost(NamedTuple):
    """What one notebook's replies or training cost; ``money`` in US dollars, None where no price is known."""

    what: str
    tokens: int
    money: float | None


def page(study: Study) -> str:
    """The page."""
    stamps = {page.name: executed.stamp(page.notebook) for page in study.pages}
    revisions = sorted({stamp.revision for stamp in stamps.values()})
    seconds = sum(stamp.seconds or 0 for stamp in stamps.values())
    parts = ["# How these pages were made",
             f"The study is `params/studies/{study.name}.yaml`; `make report STUDY={study.name}` makes it again, and "
             "runs only the notebooks that a change touches.",
             f"{len(study.pages)} notebooks ran for {duration(seconds)} in all, several at a time."]
    if len(revisions) > 1:
        parts.append(f"They ran at different revisions of the code: {escaped(', '.join(revisions))}.")
    if any(revision.endswith("+") for revision in revisions):
        parts.append("A revision that ends in + had changes that were not committed.")
    parts += ["## Hardware and time", *_hardware(study)]
    parts += ["## Tokens and money", *_costs(study)]
    for made in [*study.of(COMPARED), *study.of(SUMMARY)]:
        record = made.file("comparison.json" if made.variant == COMPARISON else "summary.json")
        rows = {"revision": record["revision"], "parameters": record["digest"], **record["versions"]}
        parts += [f"## Versions at {made.step}{made.arm}",
                  table(["what", "version"], [(escaped(what), escaped(version)) for what, version in rows.items()])]
    parts += ["## When each notebook ran", table(["page", "ran at (UTC)", "seconds", "revision", "parameters"], [
        (f"{page.whom}: {page.link}", stamp.started, "–" if stamp.seconds is None else f"{stamp.seconds:.0f}",
         escaped(stamp.revision), f"`{stamp.digest}`") for page in study.pages for stamp in [stamps[page.name]]])]
    return "\n\n".join(parts) + "\n"


def _hardware(study: Study) -> list[str]:
    """Wall-clock time by kind of machine, and what training took of it."""
    time: dict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    for page in study.pages:
        stamp = executed.stamp(page.notebook)
        time[stamp.machine] += stamp.seconds or 0
        count[stamp.machine] += 1
    rows = [(escaped(machine) if machine != "–" else "not recorded", str(count[machine]), duration(time[machine]))
            for machine in time]
    trained = [log for page in study.of("04_fine_tuning") if (log := page.file("training_log.json"))]
    local = sum(log["seconds"] * log["processes"] for log in trained if log["processes"])
    served = sum(log["seconds"] for log in trained if not log["processes"])
    said = [f"Training took {duration(local)} of it, counting every process (a GPU each, where there are GPUs)."
            ] * bool(local)
    said += [f"Servers took {duration(served)} to fine-tune."] * bool(served)
    return [table(["machine", "notebooks", "time in all"], rows), *said]


def _costs(study: Study) -> list[str]:
    found = [cost for page in study.pages for cost in _of(page)]
    if not found:
        return ["No notebook asked a chat model, and none had a server fine-tune one."]
    rows = [(cost.what, f"{cost.tokens:,}", "no price given" if cost.money is None else f"${cost.money:.2f}")
            for cost in found]
    known = [cost.money for cost in found if cost.money is not None]
    total = f"In all ${sum(known):.2f}, as far as prices were given." if known else "No price was given."
    return [table(["what", "tokens", "cost"], rows), total]


def _of(page: Page) -> list[Cost]:
    """What a notebook cost, from the replies and the training log that it wrote."""
    values, found = page.values, []
    replies = page.place / REPLIES.get(page.stage, "")
    if replies.is_file():
        rows = read_rows(replies, ReplyRow)
        used = Usage(len(rows), sum(row.prompt_tokens for row in rows), sum(row.completion_tokens for row in rows))
        prices = Prices(values["price_input"], values["price_output"])
        money = None if prices == Prices() else prices.money(used) * (BATCH if values["chat_backend"] == "batch" else 1)
        recorded = values["chat_backend"] == "recorded"
        found.append(Cost(f"{page.whom}: {page.link}, {used.requests:,} replies"
                          + (" (recorded: nothing was sent, tokens are estimated)" if recorded else ""), used.tokens,
                          0.0 if recorded else money))
    log = page.file("training_log.json") if page.stage == "04_fine_tuning" else {}
    if log and not log["processes"]:
        found.append(Cost(f"{page.whom}: {page.link}, fine-tuning by a server", log["tokens"], log["money"]))
    return found
