"""The methods page: what was done, in sentences that a paper could carry, from the parameters that were really used.

>>> methods.page(study)
"# How it was done\\n\\n## Survey\\n\\nSeed questions and answers are those of the World Values Survey, wave 7 ..."

Sentences are about the first variant; a table says in which knobs the others differ.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from culturellm_utils import alignment
from culturellm_utils.parameters import ONE, STAND_INS
from culturellm_utils.records import numbered_lines
from culturellm_utils.report.pages import COMPARED, Page, Study, between, escaped, listed, table

#: Knobs that say whose run it is, or how fast and how watchful: they shape no figure.
BOOKKEEPING = {"study", "variant", "culture", "countries", "culture_language", "prompt_name", "culture_context",
               "cultures", "max_concurrency", "request_timeout", "budget_tokens", "budget_money", "price_input",
               "price_output", "price_training", "prompts_per_pass", "checkpoint_steps"}

Values = dict[str, Any]


def page(study: Study) -> str:
    """The page."""
    parts = ["# How it was done",
             "Written from the parameters in the executed notebooks, and from the files that they wrote."
             + (f" The sentences are about the first variant, `{study.leading}`." if len(_variants(study)) > 1 else "")]
    for heading, (stage, write) in SECTIONS.items():
        pages = study.of(stage, variant=study.leading)
        if pages:
            parts += [f"## {heading}", " ".join(write(study, pages))]
    parts += ["## Intervals and tests", " ".join(_tests(study))]
    parts += _differences(study)
    parts += ["## Every parameter", "The value in bold differs from the notebook's default."]
    for stage in sorted({page.stage for page in study.pages}):
        parts += [f"### {study.of(stage)[0].step}", _parameters(study.of(stage))]
    return "\n\n".join(parts) + "\n"


def _variants(study: Study) -> list[str]:
    return list(dict.fromkeys(page.variant for page in study.pages if page.stage != COMPARED))


def _lines(page: Page, file: str) -> int:
    """Rows of a JSON Lines file that the notebook wrote."""
    path = page.place / file
    return sum(1 for _ in numbered_lines(path)) if path.is_file() else 0


def _survey(study: Study, pages: list[Page]) -> list[str]:
    values = pages[0].values
    own = sorted({page.values["wvs_path"] for page in pages} - {""})
    source = f"the official file ({', '.join(own)})" if own else "the counts of answers that ship with this project"
    countries = "; ".join(f"{page.whose}: {', '.join(page.values['countries'])}" for page in pages)
    labels = {"mode": "the answer that most respondents gave",
              "mean": "the option nearest to the mean answer",
              "paper": "that of the released recipe (a truncated mean with missing codes in it, two rows a question)"}
    texts = ["Seed questions and answers are those of the World Values Survey, wave 7, read from "
             f"{escaped(source)} (countries: {escaped(countries)}).",
             f"Respondents were {'weighted by W_WEIGHT' if values['survey_weights'] else 'not weighted'}; several "
             f"countries of a culture counted {'alike' if values['country_weighting'] == 'equal' else 'by answers'}.",
             f"A question's label is {labels[values['label_rule']]}; codes below zero are no answers"
             + (", but the label has them." if values["label_rule"] == "paper" else " and were left out.")]
    if values["questions_path"]:
        texts.append(f"The wordings of the questions are those of {escaped(values['questions_path'])}.")
    else:
        texts.append("The questions are worded by this project, with the official variables and scales.")
    if values.get("borrow", "nothing") != "nothing":
        texts.append(f"Answers were borrowed from the {values['neighbours']} nearest cultures "
                     f"({values['borrow']}; {values['known_questions']} of the culture's own counted as known).")
    seeds = [number for page in pages if (number := _lines(page, "seeds.jsonl"))]
    return [*texts, f"This gave {between(seeds)} seeds a culture."] if seeds else texts


def _augmentation(study: Study, pages: list[Page]) -> list[str]:
    values = pages[0].values
    how = {"two_stage": f"a chat model wrote {values['templates_requested']} other sentences (templates) for a "
                        f"question, and {values['substitutes_requested']} substitutes for each word of a template, "
                        f"from which {values['samples_drawn']} samples a template were drawn",
           "paper": "the released procedure of the paper was followed",
           "paraphrase": "a chat model paraphrased each question", "free": "a chat model reworded each question freely",
           "round_trip": "each question was translated there and back", "eda": "words were changed by rule (EDA)"}
    who = ("Replies were recorded: they were written by this project's authors and replayed, so that they say nothing "
           "about any chat model." if values["chat_backend"] == "recorded" else
           f"The chat model was {escaped(values['chat_model'])} at temperature {values['temperature']}.")
    language = "English" if values["language"] == "english" else "the culture's own language"
    texts = [f"In {language}, {how[values['augmenter']]} (augmenter `{values['augmenter']}`).", who]
    written = [number for page in pages if (number := _lines(page, "candidates.jsonl"))]
    return [*texts, f"This gave {between(written)} candidates."] if written else texts


def _filtering(study: Study, pages: list[Page]) -> list[str]:
    values = pages[0].values
    guards = (["a guard trained on labelled pairs found no changed stance and no broken sentence"]
              * values["guards"] + [f"{escaped(values['nli_model'])} found entailment"] * bool(values["nli_model"]))
    texts = [f"A wording was kept when its cosine to the seed question ({escaped(values['encoder'])}) was above "
             f"{values['tau']}{' and ' if guards else ''}{' and '.join(guards)}, and when it was not closer than "
             f"{values['near_duplicate']} to an earlier one.",
             f"Of the samples of a sentence the {values['samples_per_template']} most different ones were kept."]
    kept = [(_lines(page, "augmented.jsonl"), _lines(page, "rejected.jsonl")) for page in pages]
    return texts + [f"Kept: {good:,} of {good + bad:,}{'' if len(pages) == 1 else f' ({escaped(page.whose)})'}."
                    for page, (good, bad) in zip(pages, kept, strict=True) if good]


def _training(study: Study, pages: list[Page]) -> list[str]:
    values = pages[0].values
    toy = " (a toy that this project builds)" if values["base_model"] in STAND_INS else ""
    stages = {"seeds": "the seed questions alone", "templates": "seed questions and templates",
              "samples": "seed questions and samples"}
    held = (f"{values['held_out_questions']} questions, the same for every culture, and "
            if values["held_out_questions"] else "")
    if values["model_backend"] == "openai":
        texts = [f"The base model, {escaped(values['base_model'])}, was fine-tuned by a server for {values['epochs']} "
                 "passes."]
    else:
        texts = [f"The base model, {escaped(values['base_model'])}{toy}, was fine-tuned with LoRA (rank "
                 f"{values['lora_rank']}, alpha {values['lora_alpha']}, dropout {values['lora_dropout']}, on "
                 f"{escaped(values['lora_targets'])}; precision {values['precision']}), "
                 + (f"on {values['training_budget']:,} rows seen in all" if values.get("training_budget")
                    else f"for {values['epochs']} passes")
                 + f", {values['batch_size']} rows a step, by {values['optimizer']} at a learning rate of "
                 f"{values['learning_rate']} ({values['lr_schedule']}, {values['warmup_ratio']:.0%} warm-up, weight "
                 f"decay {values['weight_decay']}, gradients cut at {values['max_grad_norm']})."]
    if values["target"] == "label":
        loss = "the answer alone" if values["loss_on"] == "answer" else "prompt and answer"
        texts.append(f"The target was the label, the loss that on {loss}.")
    else:
        texts.append("The target was the distribution of what respondents answered, the loss the KL divergence.")
    most = values.get("generated_texts", -1)
    texts.append(f"Rows were {stages[values['stages']]}, of at most {values['templates_per_seed']} templates a question"
                 + (f" and at most {most:,} generated texts a culture" if most >= 0 else "")
                 + f"; never trained on were {held}all templates numbered from {values['held_out_from']} on.")
    rows = [number for page in pages if page.folder != ONE and (number := _lines(page, "train.jsonl"))]
    if rows:
        texts.append(f"That is {between(rows)} rows a culture.")
    shared = [number for page in pages if page.folder == ONE and (number := _lines(page, "train.jsonl"))]
    return texts + [f"CultureLLM-One was trained in the same way on the rows of all cultures ({shared[0]:,})."
                    for _ in shared[:1]]


def _evaluation(study: Study, pages: list[Page]) -> list[str]:
    values = pages[0].values
    scoring = ("Of every allowed answer the probability was computed, and the likeliest taken"
               if values["scoring"] == "likelihood" else "The model wrote its answer; what is none counts as wrong")
    held = f", and {values['held_out_questions']} questions in no wording" if values["held_out_questions"] else ""
    texts = [f"The models were asked wordings that they were not trained on{held}. {scoring}.",
             "An answer is right when it is the one that most respondents gave; closeness to all their answers is 1 "
             "minus the Jensen-Shannon distance.",
             f"The adapters were held against the base model, prompted as {', '.join(values['prompted_systems'])}; "
             "against the adapters of all other cultures, CultureLLM-One"
             + (f", and models trained on less ({', '.join(values['ablations'])})" if values["ablations"] else "")
             + "; and against guessing, the culture's majority and half of its respondents."]
    if values.get("wordings_of"):
        texts.append(f"The wordings asked are those of the variant {escaped(values['wordings_of'])}.")
    also = ([f"{values['ability_items']} arithmetic questions"] * bool(values["ability_items"])
            + [f"{values['harness_items']} items of each BBH task and of GSM8K"] * bool(values["harness_items"])
            + ["the small classification sets that ship"] * values["bundled_tasks"]
            + ["the released classification sets"] * bool(values["data_path"])
            + ["the scale turned round and other prompt formats"] * values["robustness"]
            + [f"{values['open_questions']} open-ended questions, judged by "
               + (f"the encoder {escaped(values['encoder'])}, which is no judge" if values["judge"] == "encoder"
                  else escaped(values["chat_model"]))] * bool(values["open_questions"]))
    return [*texts, f"Also asked: {'; '.join(also)}."] if also else texts


def _human_study(study: Study, pages: list[Page]) -> list[str]:
    values = pages[0].values
    human = [page.file("agreement.json").get("human") for page in pages]
    rated = "People rated them; see the page." if any(human) else "No person has rated them."
    return [f"{values['pairs']} pairs of a seed and a sample were drawn, with {values['attention_checks']} attention "
            f"checks, to be rated from 1 to 5 for the same meaning ({values['pass_rating']} or more passes). {rated}"]


def _tests(study: Study) -> list[str]:
    samples = sorted({page.values["bootstrap_samples"] for page in study.pages if "bootstrap_samples" in page.values})
    seeds = sorted({page.values["random_seed"] for page in study.of("04_fine_tuning")})
    return [f"Intervals are 95% percentile intervals of {', '.join(f'{number:,}' for number in samples)} bootstrap "
            "samples, in which whole questions are drawn: wordings of one question are no independent evidence.",
            f"Two systems are compared by a paired permutation test ({alignment.PERMUTATIONS:,} permutations, or all "
            "there are) that exchanges them by question, with Holm's correction over the tests of a table.",
            f"Random seeds of training: {', '.join(map(str, seeds))}."
            + (" With one seed, the spread over seeds is not known." if len(seeds) == 1 else "")]


#: Heading, and the notebook and the function that write the section.
SECTIONS: dict[str, tuple[str, Callable[[Study, list[Page]], list[str]]]] = {
    "Survey": ("01_seed_extraction", _survey),
    "Augmentation": ("02_augmentation", _augmentation),
    "Filter": ("03_filtering", _filtering),
    "Training": ("04_fine_tuning", _training),
    "Evaluation": ("05_evaluation", _evaluation),
    "Human study": ("06_human_study", _human_study),
}


def _differences(study: Study) -> list[str]:
    """A table of the knobs in which variants differ."""
    variants = _variants(study)
    found: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for page in study.pages:
        for knob, value in page.values.items():
            if knob not in BOOKKEEPING:
                found[page.stage, knob][page.variant].add(_shown(value))
    rows = []
    for (stage, knob), by in sorted(found.items()):
        if len({frozenset(values) for values in by.values()}) > 1:
            shown = [" or ".join(sorted(by[variant])) or "as an earlier one" for variant in variants]
            rows.append([f"{stage[:2]} {escaped(knob)}", *shown])
    if not rows:
        return []
    across = [[variant, *(row[place] for row in rows)] for place, variant in enumerate(variants, start=1)]
    return ["## Where the variants differ", table(["variant", *(row[0] for row in rows)], across)]


def _parameters(pages: list[Page]) -> str:
    """The knobs of one notebook in all its runs."""
    rows = []
    for knob, setting in pages[0].settings.items():
        values = {_shown(page.values[knob]) for page in pages if knob in page.values}
        default = _shown(setting.default)
        if len(values) == 1:
            value, = values
            shown = value if value == default else f"**{value}** (default {default})"
        else:
            shown = f"**{listed(sorted(values), 6)}**"
        rows.append([escaped(knob), shown, escaped(setting.meaning)])
    return table(["parameter", "value", "meaning"], rows)


def _shown(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, list):
        return escaped(", ".join(map(str, value))) or "(none)"
    return escaped(str(value)) if value != "" else "(empty)"
