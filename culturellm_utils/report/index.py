"""The first page of a report: the question, the answer, three figures, and the way to everything else.

>>> index.page(study, limits=14, changes="")
"# CultureLLM on a laptop ...\\n\\n**The question.** Do models fine-tuned ..."
"""

from itertools import groupby

from culturellm_utils.figures import one_line
from culturellm_utils.parameters import STAND_INS
from culturellm_utils.report import executed
from culturellm_utils.report.pages import (
    ACROSS,
    COMPARED,
    OF_CULTURE,
    OF_ONE,
    SUMMARY,
    Page,
    Study,
    escaped,
    table,
    toctree,
)

#: How many sentences answer the question, and how many figures stand beside them (and beside 08 and 09).
SENTENCES, PICTURES = 4, 3
#: Those figures where the study compares no variants; the first three of 10 where it does.
OPENING = ("before_and_after", "matrix", "held_out_questions")

#: Headings of the figures; any other has its file name.
HEADINGS = {
    "before_and_after": "Before and after fine-tuning",
    "what_each_part_adds": "What each part of the method adds",
    "matrix": "Who speaks for whom",
    "specific_or_one": "One model for each culture, or one for all",
    "held_out_questions": "Questions never trained on",
    "whole_distribution": "Near the most frequent answer, or near all answers",
    "classification": "What it did to classification",
    "forgetting": "What was forgotten",
    "paper_labels": "What the paper's labels cost",
    "transfer": "How well each adapter speaks for other peoples",
    "transfer_and_distance": "Transfer and the distance between peoples",
    "maps": "The cultures, and their models",
    "comparison": "Variant by variant",
    "differences": "Differences from the first variant",
    "accuracy": "Answered as most people did",
    "js_similarity": "Near to all of people's answers",
    "emd": "How far off on the scale",
    "macro_f1": "Classification",
    "arithmetic": "Sums and differences",
    "stance_errors": "Changed stances that were let through",
}

QUESTION = ("Do models fine-tuned on a culture's survey answers speak more like its people, is it the culture that "
            "they learned, and what did it cost?")

TOY = """```{important}
**These are the figures of a toy model.** The base model, `%s`, is a stand-in of about a million weights that this \
project builds by itself, so that everything runs on a laptop. The figures show that the method runs, on real survey \
answers. They say nothing about any model in use, and are not to be compared with the paper's.
```"""

ABOUT = """Language models answer questions about values much as some people do, and unlike others. \
This study takes what people of %s answered in the World Values Survey, says each question in many other ways, \
fine-tunes a language model on the answers (CultureLLM, [arXiv 2402.10946](https://arxiv.org/abs/2402.10946)), and \
measures whether it then answers more like those people. Every figure is computed from the study's files, and has its \
data and the notebook cell that made it beside it."""


def page(study: Study, limits: int, changes: str) -> str:
    """The page. ``limits`` is how many claims could not be made; ``changes`` is the section on the previous run, empty
    when there was none.

    A study that compares is answered by 10, any other by 07 of its first variant.
    """
    answers = study.of(COMPARED) or study.of(SUMMARY, variant=study.leading)
    chapters = [*study.of(COMPARED), *study.of(*ACROSS, variant=study.leading)]
    opening = (OPENING if not study.compares else ())
    shown = _first(answers[0], opening)
    told = one_line(answers[0].file("comparison.json").get("answer", ""))
    said = [] if told else executed.sentences(answers[0].notebook)[:SENTENCES]
    title = str(study.plan["title"]).translate(str.maketrans("<>", "‹›"))  # the theme's navigation would run it
    parts = [f"# {escaped(title)}",
             f"**The question.** {escaped(study.plan['question'] or QUESTION)}", *_base_models(study),
             f"## The answer{answers[0].arm}", told or _list(said)]
    for name in shown:
        parts += _figure(study, answers[0], name, "###")
    parts += ["## What this is", ABOUT % _cultures(study)]
    parts += [f"[What could not be claimed](/limits.md): {limits} claims that these data do not carry, and why. "
              "[How it was done](/methods.md): the methods, from the parameters that were really used. "
              "[How these pages were made](/provenance.md): versions, hardware, time and cost."]
    for chapter in chapters:
        first = chapter is answers[0]
        found = executed.sentences(chapter.notebook)[len(said) if first else 0:]
        pictures = [name for name in chapter.figures if not (first and name in shown)]
        parts += [f"## {escaped(executed.title(chapter.notebook))}{chapter.arm}", _list(found)] if found else []
        whole = first or chapter.stage == SUMMARY
        for name in pictures if whole else pictures[:PICTURES]:
            parts += _figure(study, chapter, name, "###")
        parts += [] if whole or len(pictures) <= PICTURES else [f"More figures: {chapter.link}"]
        parts += _other_tables(study, chapter)
    for other in study.of(SUMMARY):
        if other.variant != study.leading:
            parts += [f"## What we found{other.arm}", _list(executed.sentences(other.notebook)),
                      f"Figures: {other.link}"]
    groups = {caption: list(group) for caption, group in groupby(study.pages, key=lambda page: page.group)}
    parts += [changes] if changes else []
    parts += ["## Every page", table(["about", "pages"], [
        (escaped(caption), " · ".join(f"[{escaped(page.entry)}](/{page.name}.ipynb)" for page in members))
        for caption, members in groups.items()])]
    parts += [toctree("This study", ["methods", "limits", "provenance"])]
    for caption, members in groups.items():
        parts.append(toctree(caption, [f"{page.entry} <{page.name}>" for page in members]))
    return "\n\n".join(parts) + "\n"


def _first(page: Page, wanted: tuple[str, ...]) -> list[str]:
    """The figures that open the report: those wanted, as far as there are, and then the page's first."""
    there = page.figures
    return [*(name for name in wanted if name in there), *(name for name in there if name not in wanted)][:PICTURES]


def _figure(study: Study, page: Page, name: str, level: str) -> list[str]:
    """A figure under a heading, with its data and the cell that made it."""
    path = page.place / "figures" / f"{name}.svg"
    if not path.is_file():
        return []
    alt = escaped(executed.figure_title(path.read_text(encoding="utf-8")))
    beside = [f"Data: [{name}.csv]({page.data[name]})"] if name in page.data else []
    beside.append(f"made by [this cell of {page.step}](#{page.anchor(name)})")
    return [f"{level} {HEADINGS.get(name, name.replace('_', ' ').capitalize())}",
            f"![{alt}](/figures/{page.variant}/{page.folder}/{name}.svg)", " · ".join(beside)]


def _other_tables(study: Study, page: Page) -> list[str]:
    """Links to tables beside 07 or 10 that belong to no figure."""
    shown = {name for other in study.pages if other.place == page.place for name in other.figures}
    others = [f"[{name}.csv]({place})" for name, place in page.data.items() if name not in shown]
    return ["More tables: " + ", ".join(others)] * bool(others and page.stage in (SUMMARY, COMPARED))


def _list(sentences: list[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _cultures(study: Study) -> str:
    names = list(dict.fromkeys(page.whose for page in study.of(OF_CULTURE[0])))
    return f"one culture ({names[0]})" if len(names) == 1 else f"{len(names)} cultures ({', '.join(names)})"


def _base_models(study: Study) -> list[str]:
    """What was fine-tuned, and that it is a toy where it is."""
    models = sorted({page.values["base_model"] for page in study.of(OF_ONE[0])})
    toys = [name for name in models if name in STAND_INS]
    real = [name for name in models if name not in STAND_INS]
    return [TOY % "`, `".join(toys)] * bool(toys) + [f"Fine-tuned: {escaped(', '.join(real))}."] * bool(real)
