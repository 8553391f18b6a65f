"""The notebooks' anatomy, the files under params/, and the whole study `smoke` run through Snakemake."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from culturellm_utils import encoder, filtering, open_ended, parameters, paths, records, studies, systems, wordings

NOTEBOOKS = [paths.NOTEBOOKS / f"{name}.ipynb" for name in paths.NOTEBOOK_NAMES]
PARAMETER_FILES = sorted(paths.PARAMS.glob("*.yaml"))
CULTURES = ["arabic", "bengali", "chinese", "english", "german", "korean", "portuguese", "spanish", "turkish"]


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def parameter_cell(path: Path):
    found = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    assert len(found) == 1, f"{path.name} has {len(found)} parameters cells"
    return found[0]


def test_there_is_a_notebook_for_each_stage():
    assert sorted(paths.NOTEBOOKS.glob("*.ipynb")) == NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestAnatomy:
    def test_opens_with_one_heading_and_three_bullets(self, path):
        notebook = nbformat.read(path, 4)
        headings = [line for cell in cells(path, "markdown") for line in cell.source.splitlines()
                    if line.startswith("# ")]
        assert len(headings) == 1
        first = notebook.cells[0].source.splitlines()
        assert first[0] == headings[0]
        assert len([line for line in first if line.startswith("- ")]) == 3

    def test_carries_no_outputs(self, path):
        for cell in cells(path, "code"):
            assert cell.outputs == []
            assert cell.execution_count is None

    def test_code_cells_are_few_and_short(self, path):
        code = [cell.source for cell in cells(path, "code")]
        assert 10 <= len(code) <= 25
        knobs = parameter_cell(path).source  # a line a knob, however many there are
        assert all(len(source.splitlines()) <= 30 for source in code if source != knobs)
        trees = [node for source in code for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.M)))]
        assert not [node for node in trees if isinstance(node, ast.ClassDef)]
        functions = [node for node in trees if isinstance(node, ast.FunctionDef)]
        assert all(node.end_lineno - node.lineno <= 5 for node in functions)

    def test_has_no_absolute_path_and_installs_nothing(self, path):
        source = "\n".join(cell.source for cell in cells(path, "code"))
        assert not re.search(r"""["'](/|[A-Z]:\\|~)""", source)
        assert "pip install" not in source

    def test_parameters_are_commented_literals_and_those_of_the_model(self, path):
        lines = ast.parse(parameter_cell(path).source).body
        assert all(isinstance(line, ast.AnnAssign) for line in lines)
        assert {line.annotation.id for line in lines} <= {"str", "int", "float", "bool", "list"}
        text = parameter_cell(path).source.splitlines()
        assert all("#" in text[line.lineno - 1] for line in lines)
        assert set(studies.defaults(path.stem)) == parameters.names(path.stem)

    def test_defaults_are_valid_and_papermill_sees_them(self, path):
        assert parameters.validate(parameters.MODELS[path.stem], dict(studies.defaults(path.stem)))
        assert set(papermill.inspect_notebook(str(path))) == parameters.names(path.stem)

    def test_ends_with_checks_and_what_we_see(self, path):
        headings = [line for cell in cells(path, "markdown") for line in cell.source.splitlines()
                    if line.startswith("## ")]
        assert headings[-2:] == ["## Checks", "## What we see"]


def test_shared_knobs_have_the_same_literal_everywhere():
    seen = {}
    for name in paths.NOTEBOOK_NAMES:
        for knob, value in studies.defaults(name).items():
            if name == "10_comparison" and knob in ("study", "variant", "cultures"):
                continue  # it alone needs a study of several variants
            assert seen.setdefault(knob, value) == value, f"{knob} differs in {name}"
            assert type(seen[knob]) is type(value), f"{knob} has another type in {name}"


def test_the_notebooks_defaults_are_those_that_the_filter_was_calibrated_with():
    for name in ("02_augmentation", "03_filtering"):
        assert studies.defaults(name)["tau"] == filtering.BUNDLED_TAU
        assert studies.defaults(name)["encoder"] == encoder.BUNDLED


def imported(source: str) -> set[str]:
    """The modules of the package that some code imports."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    found = [(node.module, [alias.name for alias in node.names]) for node in nodes if node.module]
    return {name for module, names in found if module == "culturellm_utils" for name in names} | {
        module.split(".")[1] for module, _ in found if module.startswith("culturellm_utils.")}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_change_in_a_module_that_a_notebook_imports_reruns_it(path):
    rules = (paths.ROOT / "Snakefile").read_text()
    shared = re.search(r"shared = \(([^)]*)\)", rules).group(1)
    own = rules.partition(f'notebook="notebooks/{path.name}"')[0].rpartition("modules(")[2].partition("),")[0]
    listed = set(re.findall(r'"([^"]+)"', shared + own))
    assert imported("\n".join(cell.source for cell in cells(path, "code"))) <= listed
    assert all((paths.PACKAGE / f"{name}.py").is_file() or "." in name for name in listed)


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: path.stem)
def test_culture_files_load_and_every_key_is_a_parameter(path):
    found = studies.culture(path.stem)
    known = frozenset().union(*map(parameters.names, paths.NOTEBOOK_NAMES))
    assert set(yaml.safe_load(path.read_text())) <= known
    assert found.prompt_name or found.culture == parameters.ONE


def test_the_nine_cultures_and_one_are_there():
    assert [path.stem for path in PARAMETER_FILES] == sorted([*CULTURES, "one"])


@pytest.mark.parametrize("path", sorted((paths.PARAMS / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_studies_load_and_merge_for_every_notebook(path):
    plan = studies.study(path.stem)
    for variant in plan["variants"]:
        for notebook in paths.NOTEBOOK_NAMES:
            for name in [*plan["cultures"], parameters.ONE] if "culture" in parameters.names(notebook) else [""]:
                if name != parameters.ONE or notebook[:2] in ("04", "05"):
                    assert studies.merged(notebook, path.stem, name, variant)["study"] == path.stem


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the repository, so that parameters can be changed and outputs start empty."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("notebooks", "culturellm_utils", "params"):
        shutil.copytree(paths.ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(paths.ROOT / name, place / name)
    return place


def snakemake(place: Path, *arguments: str, study: str = "smoke") -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(place), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for name in ("CULTURELLM_OUTPUTS", "CULTURELLM_CACHE"):
        environment.pop(name, None)
    return subprocess.run(["snakemake", *arguments, "--cores", "2", "--quiet", "reason", "host", "--config",
                           f"study={study}"], cwd=place, env=environment, capture_output=True, text=True, timeout=900)


def planned(plan: subprocess.CompletedProcess) -> set[str]:
    """The messages of the jobs that a dry run would run."""
    assert plan.returncode == 0, plan.stdout[-3000:] + plan.stderr[-3000:]
    return set(re.findall(r"Job \d+: (.*)\n", plan.stdout + plan.stderr))


@pytest.fixture(scope="module")
def smoke(checkout) -> Path:
    done = snakemake(checkout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return checkout / "outputs" / "smoke"


class TestSmokeStudy:
    def test_every_notebook_ran_whole(self, smoke):
        expected = {f"{culture}/{name}" for culture in ("korean", "german")
                    for name in ("01_seed_extraction", "04_fine_tuning", "05_evaluation")}
        expected |= {f"one/{name}" for name in ("04_fine_tuning", "05_evaluation")}
        expected |= {f"common/{name}" for name in ("02_augmentation", "03_filtering", "06_human_study", "07_summary",
                                                   "08_transfer", "09_open_answers")}
        found = {str(path.relative_to(smoke / "main").with_suffix("")) for path in (smoke / "main").glob("*/*.ipynb")}
        assert found == expected
        arm = {str(path.relative_to(smoke / "seeds").with_suffix("")) for path in (smoke / "seeds").glob("*/*.ipynb")}
        assert arm == {name for name in expected if not name.startswith("one/")} - {
            "common/06_human_study", "common/07_summary", "common/08_transfer", "common/09_open_answers"}
        assert (smoke / "comparison" / "common" / "10_comparison.ipynb").is_file()
        for path in smoke.glob("*/*/*.ipynb"):
            for cell in cells(path, "code"):
                kinds = {output.output_type for output in cell.outputs}
                assert "error" not in kinds, path
                assert not [o for o in cell.outputs if o.get("name") == "stderr"], path

    def test_an_arm_differs_in_its_knob_alone(self, smoke):
        for name in ("korean/seeds.jsonl", "common/augmented.jsonl", "common/03_filtering.ipynb"):
            assert (smoke / "seeds" / name).read_bytes() == (smoke / "main" / name).read_bytes()
        # the ablation on the seeds alone is the same training
        for name in ("train.jsonl", "model/adapter_model.safetensors"):
            arm, ablation = smoke / "seeds" / "german" / name, smoke / "main" / "german" / "ablations" / "seeds" / name
            assert arm.read_bytes() == ablation.read_bytes()

    def test_the_comparison_says_what_the_arms_differ_in(self, smoke):
        found = json.loads((smoke / "comparison" / "common" / "comparison.json").read_text())
        assert found["question"] == studies.study("smoke")["question"]
        assert (found["leading"], list(found["arms"])) == ("main", ["main", "seeds"])
        by_arm = {}
        for arm in ("main", "seeds"):
            rows = [row for culture in ("korean", "german") for row in records.read_rows(
                smoke / arm / culture / "predictions.jsonl", records.Prediction)
                    if (row.part, row.system, row.culture) == ("held_out_wording", "adapter", culture)]
            right = {name: [row.label == row.gold for row in rows if row.culture == name]
                     for name in ("korean", "german")}
            by_arm[arm] = sum(sum(found) / len(found) for found in right.values()) / 2
        shown = {row["arm"]: row["value"] for row in found["rows"] if row["measure"] == "accuracy"
                 and row["system"] == "adapter"}
        assert shown == pytest.approx(by_arm, abs=1e-6)

    def test_files_fit_their_contract(self, smoke):
        common = smoke / "main" / "common"
        seeds = records.read_rows(smoke / "main" / "korean" / "seeds.jsonl", records.Seed)
        assert len(seeds) == 50
        candidates = records.read_rows(common / "candidates.jsonl", records.Candidate)
        accepted = records.read_rows(common / "augmented.jsonl", records.Augmented)
        rejected = records.read_rows(common / "rejected.jsonl", records.Rejected)
        assert len(candidates) == 600 + 600 * 1
        assert len(accepted) + len(rejected) == len(candidates)
        assert all(row.similarity > filtering.BUNDLED_TAU - 1e-6 for row in accepted)
        reasons = {row.reason.partition(":")[0] for row in rejected}
        assert {"similarity", "template"} <= reasons
        assert reasons & {"polarity", "damage"}, "the guard had no objection at all"
        replies = records.read_rows(common / "replies.jsonl", records.ReplyRow)
        assert len(replies) == 50 + 600
        assert {row.outcome for row in replies} <= set(records.OUTCOMES)
        assert not (common / "translations.jsonl").exists()
        for model, members in (("korean", 1), ("german", 1), ("one", 2)):
            rows = records.read_rows(smoke / "main" / model / "train.jsonl", records.TrainRow)
            assert all([m.role for m in row.messages] == ["system", "user", "assistant"] for row in rows)
            assert 40 * members < len(rows) <= 40 * members * (1 + 3 * 1)
            assert (smoke / "main" / model / "model" / "README.md").is_file()

    @pytest.mark.parametrize(("model", "members"), [("korean", 1), ("german", 1), ("one", 2)])
    def test_adapters_on_less_were_trained_on_less(self, smoke, model, members):
        less = smoke / "main" / model / "ablations"
        assert {path.name for path in less.iterdir()} == {"seeds", "templates"}  # one country: no other to hold out
        assert not (less.parent / "country_seeds.jsonl").exists()
        aims = {name: records.read_rows(place / "targets.jsonl", records.TargetRow)
                for name, place in {"seeds": less / "seeds", "templates": less / "templates", "": less.parent}.items()}
        assert [aim.wording_id for aim in aims["seeds"]] == [aim.question_id for aim in aims["seeds"]]
        assert len(aims["seeds"]) == 40 * members < len(aims["templates"]) <= 40 * members * (1 + 3)
        assert all(aim.wording_id == aim.question_id or wordings.is_template(aim.wording_id)
                   for aim in aims["templates"])
        assert any("-s" in aim.wording_id for aim in aims[""])
        found = {(place / "model" / "adapter_model.safetensors").read_bytes()
                 for place in (less / "seeds", less / "templates", less.parent)}
        assert len(found) == 3

    def test_every_system_that_applies_answered_the_same_items(self, smoke):
        surveyed = {"held_out_wording", "held_out_question"}
        for model, parts in (("korean", {*surveyed, "option_order", "other_prompt", "task", "ability"}),
                             ("one", {*surveyed, "task", "ability"})):
            rows = records.read_rows(smoke / "main" / model / "predictions.jsonl", records.Prediction)
            own = {"korean", "german", "one"} if model == "one" else {model}
            expected = set(systems.SYSTEMS) - {"one_country"}
            assert {row.part for row in rows} == parts
            for part in parts:
                asked = {}
                for row in rows:
                    if row.part == part and row.culture in own:
                        asked.setdefault(row.system, []).append((row.culture, row.item_id))
                # "one" is no culture, so there is no paragraph about it to do sums with
                assert set(asked) == expected - ({"context"} if (model, part) == ("one", "ability") else set())
                assert all(items == asked["base"] for items in asked.values())
                assert len(set(asked["base"])) == len(asked["base"])
            elsewhere = {(row.part, row.culture, row.system) for row in rows if row.culture not in own}
            assert elsewhere == (set() if model == "one" else {
                ("held_out_wording", "german", "adapter"), ("task", "german", "adapter")})

    def test_scores_hold_every_kind_of_figure(self, smoke):
        for model in ("korean", "german", "one"):
            found = json.loads((smoke / "main" / model / "scores.json").read_text())
            assert {"figures", "stability", "tasks", "released", "win_rates"} <= set(found)
            figures = {(row["part"], row["system"], row["metric"]) for row in found["figures"]}
            for system in set(systems.SYSTEMS) - {"one_country"}:
                assert {("held_out_wording", system, metric) for metric in ("accuracy", "js_similarity", "emd")
                        } | {("task", system, "macro_f1"), ("task", system, "macro_f1_calibrated")} <= figures
            assert {("held_out_question", "split_half", "emd"), ("held_out_wording", "majority", "accuracy")} <= figures
            shipped = [(name, "rudeness_detect", False) for name in ("korean", "german") if model in (name, "one")]
            assert [(row["culture"], row["task"], row["carries a claim"]) for row in found["tasks"]] == shipped
            assert found["released"] == []  # no data_path
            if model == "one":
                assert found["stability"] == found["win_rates"] == []
                continue
            formats = {(row["format"], row["metric"]) for row in found["stability"] if row["system"] == "adapter"}
            assert formats == {("reversed", "same_code"), *(
                (name, metric) for metric in ("same_answer", "js_similarity")
                for name in ("reversed", "answer_first", "list", "paper"))}
            assert [row["rival"] for row in found["win_rates"]] == ["base", "persona"]
            assert all(row["n"] == 7 and -1 <= row["win_rate"]["value"] <= 1 for row in found["win_rates"])

    def test_open_answers_were_written_and_judged(self, smoke):
        answers = records.read_rows(smoke / "main" / "korean" / "open_answers.jsonl", open_ended.OpenAnswer)
        assert [row.system for row in answers] == ["base"] * 7 + ["persona"] * 7 + ["adapter"] * 7
        assert len({row.question_id for row in answers}) == 7
        judged = records.read_rows(smoke / "main" / "korean" / "judgements.jsonl", open_ended.Judgement)
        assert {(row.system, row.rival) for row in judged} == {("adapter", "base"), ("adapter", "persona")}
        assert len({(row.question_id, row.rival, row.order) for row in judged}) == 7 * 2 * 2

    def test_the_summary_holds_every_comparison(self, smoke):
        found = json.loads((smoke / "main" / "common" / "summary.json").read_text())
        compared = {row["system"] for row in found["comparison"] if row["part"] == "held_out_wording"}
        assert compared == {*systems.SYSTEMS, "wrong culture", "one", "uniform", "majority", "split_half"} - {
            "one_country"}
        classified = {(row["culture"], row["system"]) for row in found["classification"]}
        assert classified == {(culture, system) for culture in ("korean", "german")
                              for system in {*systems.SYSTEMS, "wrong culture", "one"} - {"one_country"}}
        assert not any(row["carries_claim"] for row in found["classification"])  # twelve sentences each
        assert [row["system"] for row in found["collapse"]] == ["persona", "adapter"]
        # a prompt that names the culture hardly moves the toy, its adapters speak apart
        assert found["collapse"][0]["dispersion value"] < 0.5 < found["collapse"][1]["dispersion value"]
        assert {(row["culture"], row["rival"]) for row in found["win_rates"]} == {
            (culture, rival) for culture in ("korean", "german") for rival in ("base", "persona")}
        assert [(row["model"], row["ability"]) for row in found["forgetting"]] == [
            (model, "arithmetic") for model in ("korean", "german", "one")]
        assert {row["verdict"] for row in found["forgetting"]} <= {"lost", "gained", "unclear"}
        (accuracy,) = [row for row in found["parts"] if row["metric"] == "accuracy"]
        assert accuracy["base"] < accuracy["seeds_only"] < accuracy["adapter"]

    def test_fine_tuning_moves_the_answers_towards_the_people(self, smoke):
        found = json.loads((smoke / "main" / "common" / "summary.json").read_text())
        assert list(found["human_study"]) == ["common"]
        for row in found["verdicts"]:
            assert row["adapter"] > row["base"] + 0.05, row
        square = found["matrix"]
        assert square["korean"]["korean"] > square["korean"]["german"]
        assert square["german"]["german"] > square["german"]["korean"]

    def test_figures_can_be_recomputed_from_the_predictions(self, smoke):
        rows = records.read_rows(smoke / "main" / "german" / "predictions.jsonl", records.Prediction)
        mine = [row for row in rows if (row.part, row.culture, row.system) == ("held_out_wording", "german", "adapter")]
        scores = json.loads((smoke / "main" / "german" / "scores.json").read_text())["figures"]
        score, = [s for s in scores if (s["part"], s["culture"], s["system"], s["metric"])
                  == ("held_out_wording", "german", "adapter", "accuracy")]
        assert score["n"] == len(mine)
        assert score["value"] == pytest.approx(sum(row.label == row.gold for row in mine) / len(mine))
        assert score["low"] <= score["value"] <= score["high"]
        assert set(score["baselines"]) == {"uniform", "majority", "base"}

    def test_nothing_held_out_was_trained_on(self, smoke):
        for model in ("korean", "german", "one"):
            trained = {row.messages[1].content
                       for row in records.read_rows(smoke / "main" / model / "train.jsonl", records.TrainRow)}
            asked = {row.messages[1].content
                     for row in records.read_rows(smoke / "main" / model / "predictions.jsonl", records.Prediction)
                     if row.part in ("held_out_wording", "held_out_question")}
            assert asked
            assert not trained & asked

    def test_the_report_is_there(self, smoke):
        assert (smoke / "report" / "index.html").is_file()

    def test_a_second_run_does_nothing_and_says_so(self, smoke, checkout):
        again = snakemake(checkout)
        assert again.returncode == 0
        assert "Nothing to be done" in again.stdout + again.stderr

    @pytest.mark.parametrize(("old", "new", "jobs"), [
        # a knob of one culture: that culture's stages and the summary alone
        ("prompt_name:", "learning_rate: 0.002\nprompt_name:", ["german: 04 fine-tuning"]),
        # what the system prompt calls it: One learns under that name, and every adapter is asked under it
        ("prompt_name: German", "prompt_name: Deutsch", ["german: 01 seed extraction", "german: 04 fine-tuning",
                                                         "korean: 05 evaluation", "one: 04 fine-tuning",
                                                         "one: 05 evaluation"]),
        # what is said about it: to its own model and to One, and nothing is trained on that
        ("German is spoken", "German, a language, is spoken", ["one: 05 evaluation"]),
    ])
    def test_a_changed_knob_reruns_what_it_touches(self, smoke, checkout, old, new, jobs):
        path = checkout / "params" / "german.yaml"
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new))
        try:
            plan = snakemake(checkout, "--dry-run")
        finally:
            path.write_text(before)
        jobs = ["german: 05 evaluation", *jobs]
        assert planned(plan) == {
            "report: executed notebooks to HTML", "all variants: 10 comparison",
            *(f"{job} (main)" for job in ("all cultures: 07 summary", "all cultures: 08 transfer",
                                          "all cultures: 09 open-ended answers", *jobs)),
            *(f"{job} (seeds)" for job in jobs if not job.startswith("one:"))}

    @pytest.mark.parametrize(("name", "rerun", "kept"), [
        ("questions.jsonl", "korean: 01 seed extraction", ""),
        ("bundled_tasks.jsonl", "korean: 05 evaluation", "korean: 01 seed extraction"),
        ("tasks.yaml", "one: 05 evaluation", "korean: 04 fine-tuning"),
        ("open_questions.jsonl", "one: 05 evaluation", "korean: 04 fine-tuning"),
        ("guard/guard.json", "common: 03 filtering", "korean: 01 seed extraction"),
        ("tau_curve.csv", "common: 03 filtering", "common: 02 augmentation"),
    ])
    def test_changed_data_are_noticed(self, smoke, checkout, name, rerun, kept):
        path = checkout / "culturellm_utils" / "data" / name
        before = path.read_text()
        path.write_text(before + "\n")
        try:
            jobs = planned(snakemake(checkout, "--dry-run"))
        finally:
            path.write_text(before)
        assert {"korean: 05 evaluation (main)", f"{rerun} (main)"} <= jobs
        assert f"{kept} (main)" not in jobs

    def test_a_failed_run_says_why_and_loses_nothing(self, smoke, checkout):
        kept = (smoke / "main" / "german" / "seeds.jsonl").read_bytes()
        path = checkout / "params" / "german.yaml"
        before = path.read_text()
        path.write_text(before + "wvs_path: nowhere.csv\n")
        try:
            failed = snakemake(checkout, str(smoke / "main" / "german" / "seeds.jsonl"))
        finally:
            path.write_text(before)
        assert failed.returncode != 0
        assert "nowhere.csv" in failed.stdout + failed.stderr
        assert (smoke / "main" / "german" / "seeds.jsonl").read_bytes() == kept


@pytest.fixture(scope="module")
def local_plan(checkout) -> set[str]:
    """What a study would run that asks in English, and in a variant in each culture's own language."""
    (checkout / "params" / "studies" / "local.yaml").write_text(
        "title: x\ncultures: [korean, german]\nparameters: {base_model: stand-in-tiny, perplexity_model: ''}\n"
        "variants:\n  main: {}\n  own: {language: local, chat_backend: openai}\n")
    return planned(snakemake(checkout, "--dry-run", study="local"))


def test_a_variant_in_local_languages_words_filters_and_rates_for_each_culture(local_plan):
    shared = {"02 augmentation", "03 filtering", "06 human study"}
    places = {(job.partition(":")[0], variant) for job in local_plan for stage in shared for variant in ("main", "own")
              if job.endswith(f": {stage} ({variant})")}
    assert places == {("common", "main"), ("korean", "own"), ("german", "own")}
    for place, variant in places:
        assert {f"{place}: {stage} ({variant})" for stage in shared} <= local_plan
    for job in ("korean: 01 seed extraction", "one: 04 fine-tuning", "one: 05 evaluation", "all cultures: 07 summary"):
        assert {f"{job} (main)", f"{job} (own)"} <= local_plan


@pytest.mark.parametrize(("target", "words"), [
    ("own/korean/train.jsonl", {"korean"}), ("own/korean/scores.json", {"korean"}),
    ("own/one/train.jsonl", {"korean", "german"}), ("main/korean/train.jsonl", {"common"}),
    ("main/one/train.jsonl", {"common"}),
])
def test_a_model_waits_for_the_wordings_of_its_own_cultures(checkout, local_plan, target, words):
    jobs = planned(snakemake(checkout, f"{checkout}/outputs/local/{target}", "--dry-run", study="local"))
    assert {job.partition(":")[0] for job in jobs if ": 03 filtering" in job} == words


def test_the_summary_of_local_languages_waits_for_every_cultures_ratings(checkout, local_plan):
    jobs = planned(snakemake(checkout, f"{checkout}/outputs/local/own/common/summary.json", "--dry-run", study="local"))
    assert {job for job in jobs if "06 human study" in job} == {"korean: 06 human study (own)",
                                                                "german: 06 human study (own)"}


@pytest.mark.parametrize(("text", "sentence"), [
    ("title: x\ncultures: [atlantis]\n", "there is no culture 'atlantis'"),
    ("title: x\ncultures: [korean]\nparameters: {taau: 0.5}\n", "'taau' is no parameter of any notebook"),
    ("title: x\ncultures: [korean]\nparameters: {tau: 1.5}\n", "parameter 'tau' is 1.5"),
    ("title: x\ncultures: [korean]\nparameters: {chat_backend: telepathy}\n", "parameter 'chat_backend'"),
    ("title: x\ncultures: [korean]\nvariants: {own: {language: korean}}\n", "parameter 'language' is 'korean'"),
])
def test_a_wrong_study_stops_before_anything_runs(checkout, text, sentence):
    (checkout / "params" / "studies" / "wrong.yaml").write_text(text)
    failed = snakemake(checkout, study="wrong")
    assert failed.returncode != 0
    assert sentence in failed.stdout + failed.stderr
    assert not (checkout / "outputs" / "wrong").exists()


def papermill_run(checkout: Path, name: str, written: Path, **knobs) -> None:
    """Run a notebook of the checkout for the culture of two countries, by papermill alone."""
    done = subprocess.run(
        [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb", str(written), "-f", "params/arabic.yaml",
         "-y", yaml.safe_dump(knobs), "-k", "python3"],
        cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert cells(written, "code")


def test_papermill_runs_a_culture_file_from_a_clean_checkout(checkout, tmp_path, outputs):
    papermill_run(checkout, "01_seed_extraction", tmp_path / "out.ipynb")
    folder = outputs / "laptop" / "main" / "arabic"
    assert {tuple(row.countries) for row in records.read_rows(folder / "seeds.jsonl", records.Seed)} == {("IRQ", "JOR")}
    sides = records.read_rows(folder / "country_seeds.jsonl", records.Seed)
    assert {tuple(row.countries) for row in wordings.but_last_country(sides)} == {("IRQ",)}
    assert {tuple(row.countries) for row in wordings.of_last_country(sides)} == {("JOR",)}


def test_a_culture_of_two_countries_is_tested_on_the_one_it_did_not_see(smoke, checkout, tmp_path, outputs):
    """The first three notebooks' work is that of the smoke study; the base model is its too."""
    knobs = studies.study("smoke")["parameters"] | {
        "study": "pair", "cultures": ["arabic"], "ablations": ["one_country"], "prompted_systems": ["base", "persona"],
        "robustness": False, "bundled_tasks": False, "ability_items": 0, "open_questions": 0}
    folder = outputs / "pair" / "main" / "arabic"
    shutil.copytree(smoke / "main" / "common", folder.with_name("common"))
    for name in ("01_seed_extraction", "04_fine_tuning", "05_evaluation"):
        known = {knob: value for knob, value in knobs.items() if knob in parameters.names(name)}
        papermill_run(checkout, name, tmp_path / f"{name}.ipynb", **known)
    seeds = records.read_rows(folder / "country_seeds.jsonl", records.Seed)
    seen = {row.question_id: row.distribution for row in wordings.but_last_country(seeds)}
    unseen = {row.question_id: row.distribution for row in wordings.of_last_country(seeds)}
    for row in records.read_rows(folder / "ablations" / "one_country" / "targets.jsonl", records.TargetRow):
        assert row.distribution == seen[row.question_id]
    rows = [row for row in records.read_rows(folder / "predictions.jsonl", records.Prediction)
            if row.part == "held_out_country"]
    assert {row.system for row in rows} == {"base", "persona", "one_country", "adapter"}
    assert all(row.gold_distribution == unseen[row.question_id] for row in rows)
    accuracy = {row["system"]: row["value"] for row in json.loads((folder / "scores.json").read_text())["figures"]
                if (row["part"], row["metric"]) == ("held_out_country", "accuracy")}
    assert set(accuracy) == {"base", "persona", "one_country", "adapter"}
    assert accuracy["one_country"] > accuracy["base"]
