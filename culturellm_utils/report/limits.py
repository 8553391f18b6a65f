"""What could not be claimed: statements that a reader may look for, and why these data do not carry them.

>>> limits.found(study)[0]
Limit(claim="Anything about a language model in use", reason="The base model, stand-in, is a toy ...", page="04 ...")

Every entry is computed from what the notebooks wrote; one that does not apply is not there.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from culturellm_utils.parameters import ONE, STAND_INS
from culturellm_utils.report.pages import COMPARED, SUMMARY, Page, Study, between, escaped, listed, table

#: Fewer independent questions than this make wide intervals, and tests that find little (a rule of thumb).
FEW_QUESTIONS = 30
SIGNIFICANT = 0.05
#: What a part of the evaluation is called here.
PARTS = {"held_out_wording": "held-out wordings", "held_out_question": "questions never trained on",
         "held_out_country": "the country never trained on"}
RIVALS = {"base": "the base model", "persona": "the persona prompt",
          "wrong culture": "the adapters of other cultures", ONE: "CultureLLM-One"}


class Limit(NamedTuple):
    """A claim that cannot be made, why, and a link to the page that shows it."""

    claim: str
    reason: str
    page: str


def page(limits: list[Limit]) -> str:
    """The page."""
    return "\n\n".join([
        "# What could not be claimed",
        "Claims that a reader may expect here, and why these data do not carry them. Beyond chance means that the "
        f"permutation test, corrected for the number of tests, gives p below {SIGNIFICANT}. That a difference was not "
        "found does not mean that there is none.",
        table(["claim", "why not", "page"], limits)]) + "\n"


def found(study: Study) -> list[Limit]:
    """Every limit of the study, the widest first. Figures are those of the first variant, and of the comparison."""
    return [limit for source in SOURCES for limit in source(study)]


def _toys(study: Study) -> Iterable[Limit]:
    pages = [page for page in study.of("04_fine_tuning") if page.values["base_model"] in STAND_INS]
    if pages:
        yield Limit("Anything about a language model in use, or about the paper's figures",
                    f"The base model, {pages[0].values['base_model']}, is a toy of about a million weights.",
                    pages[0].link)
    pages = [page for page in study.of("02_augmentation") if page.values["chat_backend"] == "recorded"]
    if pages:
        yield Limit("How well a chat model words questions anew",
                    "Replies were written by this project's authors and replayed.", pages[0].link)


def _people(study: Study) -> Iterable[Limit]:
    pages = [page for page in study.of("06_human_study") if not page.file("agreement.json").get("human")]
    if pages:
        yield Limit("That readers find samples to mean what their seeds mean",
                    f"No person has rated them{_whose(pages, study.of('06_human_study'))}; automatic raters are no "
                    "substitute.", pages[0].link)


def _seeds(study: Study) -> Iterable[Limit]:
    seeds = {page.values["random_seed"] for page in study.of("04_fine_tuning")}
    if len(seeds) == 1:
        yield Limit("That another random seed gives the same figures",
                    f"Every model was trained once (seed {seeds.pop()}): intervals cover the draw of questions alone.",
                    study.of("04_fine_tuning")[0].link)


def _labels(study: Study) -> Iterable[Limit]:
    cost = _summary(study).get("paper_cost", [])
    missing = sum(row["missing_only"] for row in cost)
    page = study.of(SUMMARY)[0]
    if any(other.values["label_rule"] == "paper" for other in study.of("01_seed_extraction")) and missing:
        yield Limit("That every label trained on is an opinion",
                    f"With the released recipe {missing} labels come from missing codes alone.", page.link)
    partly = sorted({f"{row['culture']} ({row['asked']} of {row['questions']})" for row in cost
                     if row["block"] == 1 and row["asked"] < row["questions"]})
    if partly:
        yield Limit("That all cultures answered the same questions",
                    f"Asked only in part: {escaped(listed(partly))}; no figure rests on questions that nobody was "
                    "asked.", page.link)


def _systems(study: Study) -> Iterable[Limit]:
    """Where the own adapter does not differ from a rival beyond chance, and parts of few questions."""
    rows = [row for row in _summary(study).get("comparison", []) if row["metric"] == "accuracy"]
    page = study.of(SUMMARY)[0]
    for part, words in PARTS.items():
        mine = [row for row in rows if row["part"] == part]
        for rival in RIVALS:
            tested = [row for row in mine if row["system"] == rival and row["p"] is not None]
            unclear = [row["culture"] for row in tested if row["p"] >= SIGNIFICANT]
            if unclear:
                names = escaped(listed(unclear))
                yield Limit(f"On {words}: that an own adapter is right more often than {RIVALS[rival]}, or less",
                            f"Not beyond chance in {len(unclear)} of {len(tested)} cultures: {names}."
                            + " The two saw different numbers of rows." * (rival == ONE), page.link)
        few = [row["clusters"] for row in mine if row["system"] == "adapter" and row["clusters"] < FEW_QUESTIONS]
        if few:
            yield Limit(f"On {words}: that small differences would have been found",
                        f"There are {between(few)} questions a culture where there are fewer than {FEW_QUESTIONS}; a "
                        "difference has to be large to stand out.", page.link)


def _digits(study: Study) -> Iterable[Limit]:
    """Whether the adapters keep the digit when the scale is turned round, and so lose the meaning."""
    pages = [page for page in study.of("05_evaluation", variant=study.leading) if page.folder != ONE]
    same: dict[str, list[float]] = defaultdict(list)
    for page in pages:
        for row in page.file("scores.json").get("stability", []):
            if (row["format"], row["system"]) == ("reversed", "adapter"):
                same[row["metric"]].append(row["value"])
    digit, meaning = (sum(same[name]) / max(len(same[name]), 1) for name in ("same_code", "same_answer"))
    if digit > meaning:
        yield Limit("That the adapters learned what the answers mean, and not which digit to say",
                    f"With the scale turned round they give the same digit in {digit:.0%} of items, and the same "
                    f"meaning in {meaning:.0%}.", pages[0].link)


def _sets(study: Study) -> Iterable[Limit]:
    pages = study.of("05_evaluation", variant=study.leading)
    why: dict[str, list[str]] = defaultdict(list)
    every = set()
    for page in pages:
        for row in page.file("scores.json").get("tasks", []):
            name = f"{row['culture']}: {row['task']}"
            if name not in every and not row["carries a claim"]:
                why[row["warnings"].partition(";")[0]].append(name)
            every.add(name)
    unsound = sum(map(len, why.values()))
    if unsound:
        reasons = "; ".join(f"{escaped(reason or 'marked in the registry')}: {escaped(listed(names, 4))}"
                            for reason, names in why.items())
        yield Limit("That fine-tuning helps or harms classification" + " in any set" * (unsound == len(every)),
                    f"{unsound} of {len(every)} sets cannot carry a claim ({reasons}).", pages[0].link)
    tested = [row for row in _summary(study).get("classification", [])
              if row["system"] == "base" and row["p"] is not None and row["carries_claim"]]
    unclear = [row for row in tested if row["p"] >= SIGNIFICANT]
    if unclear:
        yield Limit("That it changed the sets that can carry a claim",
                    f"Not beyond chance on {len(unclear)} of {len(tested)}.", study.of(SUMMARY)[0].link)


def _abilities(study: Study) -> Iterable[Limit]:
    rows = _summary(study).get("forgetting", [])
    unclear = [f"{row['model']} ({row['ability']})" for row in rows if row["verdict"] == "unclear"]
    if unclear:
        yield Limit("That general abilities were kept, or lost",
                    f"Unclear in {len(unclear)} of {len(rows)} comparisons ({escaped(listed(unclear))}).",
                    study.of(SUMMARY)[0].link)


def _judges(study: Study) -> Iterable[Limit]:
    rows = _summary(study).get("win_rates", [])
    link = study.of(SUMMARY)[0].link
    judges = sorted({row["judge"] for row in rows if row["judge"].startswith("encoder")})
    if judges:
        yield Limit("That anybody would prefer the adapter's open-ended answers",
                    f"They were compared by {escaped(judges[0])}, which finds what is near to the survey answers and "
                    "understands nothing.", link)
    zero = [row for row in rows if row["low"] <= 0 <= row["high"]]
    if zero:
        yield Limit("That open-ended answers became better or worse",
                    f"The interval of the WinRate includes zero in {len(zero)} of {len(rows)} comparisons, of "
                    f"{between([row['n'] for row in zero])} questions each.", link)


def _transfer(study: Study) -> Iterable[Limit]:
    for page in study.of("08_transfer", variant=study.leading):
        tests = page.file("transfer.json").get("relations", [])
        unclear = [row for row in tests if row["p_holm"] is None or row["p_holm"] >= SIGNIFICANT]
        if unclear:
            yield Limit("That adapters transfer better between cultures that answer alike",
                        f"{len(unclear)} of {len(tests)} Mantel tests over {unclear[0]['cultures']} cultures are not "
                        "beyond chance.", page.link)
        elif not tests:
            yield Limit("That adapters transfer better between cultures that answer alike",
                        f"{len(page.values['cultures'])} cultures are too few for a test.", page.link)


def _arms(study: Study) -> Iterable[Limit]:
    """Arms that do not differ from the first beyond chance."""
    for page in study.of(COMPARED):
        by_measure: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in page.file("comparison.json").get("rows", []):
            if row["system"] == "adapter" and row["p"] is not None:
                by_measure[row["measure"]].append(row)
        for measure, rows in by_measure.items():
            unclear = [row["arm"] for row in rows if row["p"] >= SIGNIFICANT]
            if unclear:
                yield Limit(f"That these variants differ from `{study.leading}` in {measure.replace('_', ' ')}: "
                            + escaped(listed(unclear)),
                            f"{len(unclear)} of {len(rows)} differences are not beyond chance.", page.link)


def _no_answers(study: Study) -> Iterable[Limit]:
    pages = study.of("01_seed_extraction")
    borrowed = [page for page in pages if page.values.get("borrow", "nothing") != "nothing"]
    if borrowed:
        yield Limit("That what was borrowed is what these people would say",
                    f"Answers of neighbours stand in for those of {escaped(_names(borrowed))}; how far they miss is "
                    "measured only for cultures that were asked.", borrowed[0].link)


def _summary(study: Study) -> dict[str, Any]:
    return next((page.file("summary.json") for page in study.of(SUMMARY, variant=study.leading)), {})


def _names(pages: list[Page]) -> str:
    return listed(list(dict.fromkeys(page.whose for page in pages)))


def _whose(some: list[Page], every: list[Page]) -> str:
    return "" if len(some) == len(every) else f" of {escaped(_names(some))}"


SOURCES: tuple[Callable[[Study], Iterable[Limit]], ...] = (
    _toys, _people, _arms, _systems, _digits, _transfer, _sets, _abilities, _judges, _seeds, _labels, _no_answers)
