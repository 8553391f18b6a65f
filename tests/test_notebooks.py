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

from culturellm_utils import encoder, filtering, parameters, paths, records, studies

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
        assert all(len(source.splitlines()) <= 30 for source in code)
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
        expected |= {f"common/{name}" for name in ("02_augmentation", "03_filtering", "06_human_study", "07_summary")}
        found = {str(path.relative_to(smoke / "main").with_suffix("")) for path in (smoke / "main").glob("*/*.ipynb")}
        assert found == expected
        for path in (smoke / "main").glob("*/*.ipynb"):
            for cell in cells(path, "code"):
                kinds = {output.output_type for output in cell.outputs}
                assert "error" not in kinds, path
                assert not [o for o in cell.outputs if o.get("name") == "stderr"], path

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

    @pytest.mark.parametrize(("old", "new", "further"), [
        # a knob of one culture: that culture's stages and the summary alone
        ("prompt_name:", "learning_rate: 0.002\nprompt_name:", []),
        # what the system prompt calls it: One learns under that name, and every adapter is asked under it
        ("prompt_name: German", "prompt_name: Deutsch", ["german: 01 seed extraction", "korean: 05 evaluation",
                                                         "one: 04 fine-tuning", "one: 05 evaluation"]),
    ])
    def test_a_changed_knob_reruns_what_it_touches(self, smoke, checkout, old, new, further):
        path = checkout / "params" / "german.yaml"
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new))
        try:
            plan = snakemake(checkout, "--dry-run")
        finally:
            path.write_text(before)
        assert planned(plan) == {"report: executed notebooks to HTML", *(f"{job} (main)" for job in (
            "german: 04 fine-tuning", "german: 05 evaluation", "all cultures: 07 summary", *further))}

    @pytest.mark.parametrize(("name", "rerun", "kept"), [
        ("questions.jsonl", "korean: 01 seed extraction", ""),
        ("bundled_tasks.jsonl", "korean: 05 evaluation", "korean: 01 seed extraction"),
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


def test_papermill_runs_a_culture_file_from_a_clean_checkout(checkout, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "notebooks/01_seed_extraction.ipynb", str(tmp_path / "out.ipynb"),
         "-f", "params/arabic.yaml", "-k", "python3"],
        cwd=checkout, env=environment, capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert cells(tmp_path / "out.ipynb", "code")
