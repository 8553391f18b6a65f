# Studies x cultures x notebooks. No logic here: what runs is said by params/, what it does by notebooks/.
#   snakemake --cores 2 --config study=laptop cultures="korean german"
import json
from pathlib import Path

from culturellm_utils import parameters, paths, studies

STUDY = config.get("study", "laptop")
PLAN = studies.study(STUDY)
CULTURES = str(config.get("cultures") or "").split() or PLAN["cultures"]
VARIANTS = list(PLAN["variants"])
WHOLE = studies.whole(PLAN)  # the variants that run every notebook
MODELS = {variant: studies.models(PLAN, variant, CULTURES) for variant in VARIANTS}
HOMES = studies.homes(STUDY, CULTURES)
OUT = f"{paths.outputs()}/{STUDY}"
AT = f"{OUT}/{{variant}}"
COMPARED = f"{OUT}/{parameters.COMPARISON}/{parameters.COMMON}"
UTILS = "culturellm_utils"

wildcard_constraints:
    variant="|".join(VARIANTS),
    place="|".join([*CULTURES, parameters.COMMON]),
    culture="|".join(CULTURES),
    model="|".join([*CULTURES, parameters.ONE]),

localrules: all


def modules(*names):
    """The notebook's modules, and the shipped data they read: a change in them reruns it."""
    shared = ("errors", "figures", "parameters", "parts", "paths", "prompts", "provenance", "records", "studies")
    return [f"{UTILS}/data/{name}" if "." in name else f"{UTILS}/{name}.py" for name in (*shared, *names)]


def knobs(notebook):
    """Parameters to inject, as JSON: a changed knob reruns the jobs that have it."""
    def found(wildcards):
        name = wildcards.get("culture") or wildcards.get("model") or wildcards.get("place", "")
        name = "" if name == parameters.COMMON else name
        variant = wildcards.get("variant", parameters.COMPARISON)
        return json.dumps(studies.merged(notebook, STUDY, name, variant, CULTURES))
    return found


def same(notebook):
    """The executed copy, in an earlier variant, that was run with the same parameters."""
    def found(wildcards):
        folder = wildcards.get("culture") or wildcards.get("model") or wildcards.get("place")
        home = HOMES.get((notebook, folder, wildcards.variant), wildcards.variant)
        return [] if home == wildcards.variant else f"{OUT}/{home}/{folder}/{notebook}.ipynb"
    return found


def users_files(notebook):
    """The user's own files that the parameters name (a missing one is the notebook's to explain)."""
    def found(wildcards):
        values = json.loads(knobs(notebook)(wildcards))
        named = [values.get(name) for name in ("wvs_path", "questions_path", "translations_path", "tasks_path",
                                                "consent_path", "cleaning_path")]
        return [str(paths.ROOT / name) for name in named if name and (paths.ROOT / name).is_file()]
    return found


def worded(wildcards):
    """Whose folders hold the wordings of a model: of its culture, or of all for One and for the summary."""
    model = wildcards.get("model", parameters.ONE)
    members = CULTURES if model == parameters.ONE else [model]
    return list(dict.fromkeys(studies.place(STUDY, name, wildcards.variant) for name in members))


def of_wordings(file):
    """A file of 02, 03 or 06, wherever the wordings of a model lie."""
    return lambda wildcards: [f"{OUT}/{wildcards.variant}/{place}/{file}" for place in worded(wildcards)]


def models(file):
    """A file of 04 or 05 of every model of a variant."""
    return lambda wildcards: [f"{OUT}/{wildcards.variant}/{model}/{file}" for model in MODELS[wildcards.variant]]


def wordings_asked(wildcards):
    """The held-out wordings, when they are another variant's."""
    variant = json.loads(knobs("05_evaluation")(wildcards)).get("wordings_of")
    return [f"{OUT}/{variant}/{place}/augmented.jsonl" for place in worded(wildcards)] if variant else []


def growing(first):
    """So much of a resource, and as much again at each attempt: more for a job that ran out of memory or of time."""
    return lambda wildcards, attempt: first * attempt


def gpus(notebook):
    """GPUs for a model that is loaded here, one for each process that is launched; none for the stand-in."""
    def found(wildcards):
        values = studies.defaults(notebook) | json.loads(knobs(notebook)(wildcards))
        if values["model_backend"] != "local" or values["base_model"] in parameters.STAND_INS:
            return None
        launched = notebook == "04_fine_tuning" and profile(wildcards)
        return studies.read_yaml(Path(launched))["num_processes"] if launched else 1
    return found


# The system prompt's names of all cultures: One is trained under them, and every adapter is asked under them.
PROMPT_NAMES = [studies.culture(name).prompt_name for name in CULTURES]
# A culture's file may name a survey file of its own.
WVS_FILES = [path for name in CULTURES if (path := getattr(studies.culture(name), "wvs_path", ""))]
CONTEXTS = [studies.culture(name).culture_context for name in CULTURES]
RUN = "OMP_NUM_THREADS={threads} python -m culturellm_utils.run {input.notebook} {output.notebook} --log {log} --parameters {params.knobs:q}"
RUN_ONCE = RUN + " --same-as {input.same}"  # what variants have in common is run in the first of them


rule all:
    input: f"{OUT}/report/index.html"


rule stand_in:
    message: "base model: build the stand-in, or find it in the cache"
    input:
        modules("stand_in", "encoding", "training", "ability", "tasks", "recordings.jsonl", "questions.jsonl",
                "wvs7_counts.csv", "bundled_tasks.jsonl"),
    output: f"{OUT}/stand_in.txt"
    priority: 20  # the longest job: everything trained waits for it
    params: names=" ".join(studies.base_models(STUDY))
    shell: "python -m culturellm_utils.stand_in {params.names} | tee {output}"


rule seed_extraction:
    message: "{wildcards.culture}: 01 seed extraction ({wildcards.variant})"
    input:
        modules("survey", "wvs", "borrowing", "alignment", "wordings", "questions.jsonl", "wvs7_counts.csv", "zones.yaml"),
        users_files("01_seed_extraction"),
        same=same("01_seed_extraction"),
        notebook="notebooks/01_seed_extraction.ipynb",
    output: notebook=f"{AT}/{{culture}}/01_seed_extraction.ipynb", seeds=update(f"{AT}/{{culture}}/seeds.jsonl")
    log: f"{AT}/{{culture}}/log/01_seed_extraction.ipynb"
    params: knobs=knobs("01_seed_extraction")
    shell: RUN_ONCE


rule augmentation:
    message: "{wildcards.place}: 02 augmentation ({wildcards.variant})"
    input:
        modules("augmentation", "augmenters", "paper", "translation", "client", "live", "batch", "protocol", "replies",
                "packed", "usage", "languages", "encoder", "guard", "wordings", "survey", "questions.jsonl", "recordings.jsonl",
                "guard/weights.safetensors", "guard/guard.json"),
        users_files("02_augmentation"),
        same=same("02_augmentation"),
        notebook="notebooks/02_augmentation.ipynb",
    output:
        notebook=f"{AT}/{{place}}/02_augmentation.ipynb",
        candidates=update(f"{AT}/{{place}}/candidates.jsonl"),
        replies=update(f"{AT}/{{place}}/replies.jsonl"),
    log: f"{AT}/{{place}}/log/02_augmentation.ipynb"
    params:
        knobs=knobs("02_augmentation"),  # a culture's own language has all system prompts translated
        prompt_names=lambda wildcards: [] if wildcards.place == parameters.COMMON else PROMPT_NAMES,
    resources: runtime=growing(240)  # minutes; a live chat model takes its time
    shell: RUN_ONCE


def perplexity_model(wildcards):
    """The stand-in, where the perplexity is its."""
    found = studies.defaults("03_filtering") | json.loads(knobs("03_filtering")(wildcards))
    return rules.stand_in.output if found["perplexity_model"] in parameters.STAND_INS else []


rule filtering:
    message: "{wildcards.place}: 03 filtering ({wildcards.variant})"
    input:
        modules("filtering", "packed", "guard", "encoder", "encoding", "scoring", "models", "survey", "wordings",
                "guard/weights.safetensors", "guard/guard.json", "tau_curve.csv"),
        perplexity_model,
        rules.augmentation.output.candidates,
        same=same("03_filtering"),
        notebook="notebooks/03_filtering.ipynb",
    output:
        notebook=f"{AT}/{{place}}/03_filtering.ipynb",
        augmented=update(f"{AT}/{{place}}/augmented.jsonl"),
        rejected=update(f"{AT}/{{place}}/rejected.jsonl"),
        sweep=update(f"{AT}/{{place}}/sweep.csv"),
    log: f"{AT}/{{place}}/log/03_filtering.ipynb"
    threads: 2  # the encoder uses them
    params: knobs=knobs("03_filtering")
    shell: RUN_ONCE


def own_seeds(wildcards):
    """One trains on every culture."""
    members = CULTURES if wildcards.model == parameters.ONE else [wildcards.model]
    return expand(f"{OUT}/{wildcards.variant}/{{culture}}/seeds.jsonl", culture=members)


def profile(wildcards):
    """How the training is launched on several devices, when it is."""
    launch = json.loads(knobs("04_fine_tuning")(wildcards)).get("launch")
    return f"params/profiles/{launch}.yaml" if launch else []


rule fine_tuning:
    message: "{wildcards.model}: 04 fine-tuning ({wildcards.variant})"
    input:
        modules("job", "borrowing", "training", "encoding", "models", "fit", "rehearsal", "remote", "remote_job", "batch", "live",
                "protocol", "usage", "wordings", "survey"),
        profile,
        rules.stand_in.output,
        of_wordings("augmented.jsonl"),
        own_seeds,
        same=same("04_fine_tuning"),
        notebook="notebooks/04_fine_tuning.ipynb",
    output:
        notebook=f"{AT}/{{model}}/04_fine_tuning.ipynb",
        train=update(f"{AT}/{{model}}/train.jsonl"),
        targets=update(f"{AT}/{{model}}/targets.jsonl"),
        training_log=update(f"{AT}/{{model}}/training_log.json"),
        card=update(f"{AT}/{{model}}/model/README.md"),  # beside the adapter, or the id of a server's model
    log: f"{AT}/{{model}}/log/04_fine_tuning.ipynb"
    params:
        knobs=knobs("04_fine_tuning"),
        prompt_names=lambda wildcards: PROMPT_NAMES if wildcards.model == parameters.ONE else [],
    priority: lambda wildcards: 10 if wildcards.model == parameters.ONE else 1
    resources: gpu=gpus("04_fine_tuning"), mem_mb=growing(8000), runtime=growing(240)
    shell: RUN_ONCE


rule evaluation:
    message: "{wildcards.model}: 05 evaluation ({wildcards.variant})"
    input:
        modules("evaluation", "packed", "items", "systems", "answerers", "scoring", "classification", "alignment", "robustness",
                "open_ended", "harness", "tasks", "released", "ability", "encoding", "models", "encoder", "remote", "client",
                "live", "batch", "protocol", "replies", "usage", "wordings", "survey", "bundled_tasks.jsonl",
                "tasks.yaml", "open_questions.jsonl"),
        users_files("05_evaluation"),
        of_wordings("augmented.jsonl"),
        wordings_asked,
        rules.fine_tuning.output.card,
        rules.fine_tuning.output.targets,
        expand(f"{AT}/{{culture}}/seeds.jsonl", culture=CULTURES, allow_missing=True),
        notebook="notebooks/05_evaluation.ipynb",
    output:
        notebook=f"{AT}/{{model}}/05_evaluation.ipynb",
        predictions=update(f"{AT}/{{model}}/predictions.jsonl"),
        scores=update(f"{AT}/{{model}}/scores.json"),
    log: f"{AT}/{{model}}/log/05_evaluation.ipynb"
    params:
        knobs=knobs("05_evaluation"),
        prompt_names=PROMPT_NAMES,
        contexts=lambda wildcards: CONTEXTS if wildcards.model == parameters.ONE else [],
    resources: gpu=gpus("05_evaluation"), mem_mb=growing(8000), runtime=growing(240)
    shell: RUN


rule human_study:
    message: "{wildcards.place}: 06 human study ({wildcards.variant})"
    input:
        modules("human_study", "ratings", "imports", "cleaning", "rating_form", "agreement", "crossed", "power", "raters",
                "client", "live", "protocol", "replies", "usage", "alignment", "encoder", "survey", "wordings",
                "rating_form.html", "rating_form.yaml"),
        users_files("06_human_study"),
        rules.filtering.output.augmented,
        lambda wildcards: [path for path in Path(f"{OUT}/{wildcards.variant}/{wildcards.place}/ratings").glob("*.*")
                           if not path.name.startswith(("automatic_", "."))],
        notebook="notebooks/06_human_study.ipynb",
    output:
        # pairs, form and ratings are not listed: people's ratings belong to them, so they are never deleted
        notebook=f"{AT}/{{place}}/06_human_study.ipynb",
        agreement=update(f"{AT}/{{place}}/agreement.json"),
    log: f"{AT}/{{place}}/log/06_human_study.ipynb"
    params: knobs=knobs("06_human_study")
    shell: RUN


rule summary:
    message: "all cultures: 07 summary ({wildcards.variant})"
    input:
        modules("summary", "side_effects", "evaluation", "packed", "systems", "classification", "alignment", "survey", "wvs",
                "cultures", "borrowing", "wvs7_counts.csv", "zones.yaml"),
        WVS_FILES,
        of_wordings("agreement.json"),
        of_wordings("sweep.csv"),
        expand(f"{AT}/{{culture}}/seeds.jsonl", culture=CULTURES, allow_missing=True),
        models("scores.json"),
        notebook="notebooks/07_summary.ipynb",
    output:
        notebook=f"{AT}/common/07_summary.ipynb",
        summary=update(f"{AT}/common/summary.json"),
    log: f"{AT}/common/log/07_summary.ipynb"
    params:
        knobs=knobs("07_summary"),
        countries=[studies.culture(name).countries for name in CULTURES],
    shell: RUN


rule transfer:
    message: "all cultures: 08 transfer ({wildcards.variant})"
    input:
        modules("transfer", "mantel", "maps", "summary", "evaluation", "packed", "systems", "alignment", "survey"),
        expand(f"{AT}/{{culture}}/seeds.jsonl", culture=CULTURES, allow_missing=True),
        models("scores.json"),
        notebook="notebooks/08_transfer.ipynb",
    output:
        notebook=f"{AT}/common/08_transfer.ipynb",
        transfer=update(f"{AT}/common/transfer.json"),
    log: f"{AT}/common/log/08_transfer.ipynb"
    params: knobs=knobs("08_transfer")
    shell: RUN


rule open_answers:
    message: "all cultures: 09 open-ended answers ({wildcards.variant})"
    input:
        modules("open_answers", "sameness", "lexicon", "open_ended", "encoder", "languages", "alignment",
                "open_questions.jsonl", "lexicon.yaml"),
        models("scores.json"),
        notebook="notebooks/09_open_answers.ipynb",
    output:
        notebook=f"{AT}/common/09_open_answers.ipynb",
        open_answers=update(f"{AT}/common/open_answers.json"),
    log: f"{AT}/common/log/09_open_answers.ipynb"
    params: knobs=knobs("09_open_answers")
    shell: RUN


rule comparison:
    message: "all variants: 10 comparison"
    input:
        modules("variants", "contrasts", "arm_figures", "summary", "evaluation", "packed", "systems", "classification", "alignment",
                "guard", "encoder", "survey", "wordings", "tau_curve.csv", "guard/weights.safetensors", "guard/guard.json"),
        [f"{OUT}/{variant}/{model}/scores.json" for variant in VARIANTS for model in MODELS[variant]],
        notebook="notebooks/10_comparison.ipynb",
    output:
        notebook=f"{COMPARED}/10_comparison.ipynb",
        comparison=update(f"{COMPARED}/comparison.json"),
    log: f"{COMPARED}/log/10_comparison.ipynb"
    params:
        knobs=knobs("10_comparison"),
        plan=json.dumps([PLAN[key] for key in ("question", "compare", "variants")]),
    shell: RUN


rule report:
    message: "report: executed notebooks to HTML"
    input:
        modules(),
        [str(path) for path in sorted(Path(UTILS, "report").glob("*.*"))],
        expand(f"{AT}/{{culture}}/01_seed_extraction.ipynb", variant=WHOLE, culture=CULTURES),
        expand(f"{AT}/common/{{stage}}.ipynb", variant=WHOLE, stage=["07_summary", "08_transfer", "09_open_answers"]),
        [f"{OUT}/{variant}/{studies.place(STUDY, name, variant)}/{stage}.ipynb" for variant in WHOLE
         for name in CULTURES for stage in ("02_augmentation", "03_filtering", "06_human_study")],
        [f"{OUT}/{variant}/{model}/{stage}.ipynb" for variant in VARIANTS for model in MODELS[variant]
         for stage in ("04_fine_tuning", "05_evaluation")],
        rules.comparison.output if PLAN["compare"] else [],
    output: update(f"{OUT}/report/index.html")
    params: study=STUDY, cultures=" ".join(CULTURES)
    shell: "python -m culturellm_utils.report {params.study} {params.cultures}"
