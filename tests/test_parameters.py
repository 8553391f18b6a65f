"""Knobs: what validates, what is refused and with which sentence, and what ``params/`` merges to."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import parameters, paths, studies, survey
from culturellm_utils.errors import UserError
from culturellm_utils.parameters import Augmentation, Evaluation, Filtering, FineTuning, SeedExtraction

KNOBS = studies.defaults("02_augmentation") | {"study": "toy"}
KOREAN = {"culture": "korean", "countries": ["KOR"], "culture_language": "Korean", "prompt_name": "Korean"}
NINE = ["arabic", "bengali", "chinese", "english", "german", "korean", "portuguese", "spanish", "turkish"]


def sentence(call: Any, *arguments: Any) -> str:
    """The one sentence with which a call is refused."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- one notebook's values


def test_the_plain_values_of_a_notebook_become_one_typed_object():
    namespace = KNOBS | {"_": 1, "In": [], "Out": {}, "math": math, "Path": Path, "sentence": sentence}
    knobs = parameters.validate(Augmentation, namespace)
    assert knobs.model_dump() == KNOBS
    assert knobs.temperature == 0.7
    with pytest.raises(ValueError, match="frozen"):
        knobs.temperature = 1.0


def test_run_again_in_the_same_kernel_the_results_of_later_cells_do_not_matter():
    namespace = dict(KNOBS)
    parameters.validate(Augmentation, namespace)
    namespace |= {"candidates": [1, 2], "temperature": 1.5}
    assert parameters.validate(Augmentation, namespace).temperature == 1.5
    namespace["temperature"] = 3.0
    assert "'temperature' is 3.0" in sentence(parameters.validate, Augmentation, namespace)


def test_the_first_run_refuses_a_name_that_it_does_not_know():
    said = sentence(parameters.validate, Augmentation, KNOBS | {"temprature": 0.1})
    assert said.startswith("02_augmentation has no parameter 'temprature'; its parameters are augmenter, ")


@pytest.mark.parametrize(("name", "value", "problem"), [
    ("temperature", 2.5, "less than or equal to 2"),
    ("temperature", math.nan, "is nan"),
    ("temperature", "0.7", "valid number"),
    ("temperature", None, "valid number"),
    ("samples_drawn", 0, "greater than or equal to 1"),
    ("samples_drawn", True, "valid integer"),
    ("samples_drawn", 2.0, "valid integer"),
    ("samples_drawn", "2", "valid integer"),
    ("random_seed", -1, "greater than or equal to 0"),
    ("chat_backend", "replay", "'recorded', 'openai' or 'batch'"),
    ("language", "korean", "'english' or 'local'"),
    ("max_reply_tokens", 15, "greater than or equal to 16"),
    ("request_timeout", 0.0, "greater than 0"),
    ("budget_money", -1.0, "greater than or equal to 0"),
    ("cultures", [], "at least 1 item"),
    ("culture", "Korean", "lowercase letters"),
    ("chat_model", "", "at least 1 character"),
    ("study", "My study", "lowercase letters, digits, '-' and '_'"),
    ("study", "../elsewhere", "lowercase letters"),
])
def test_a_value_out_of_range_is_refused_with_what_is_allowed(name, value, problem):
    said = sentence(parameters.validate, Augmentation, KNOBS | {name: value})
    assert said.startswith(f"02_augmentation: parameter '{name}' is {value!r}: ")
    assert problem in said


@pytest.mark.parametrize(("notebook", "name", "value", "problem"), [
    ("04_fine_tuning", "precision", "8bit", "'auto', 'bf16', 'fp16', 'fp32' or '4bit'"),
    ("04_fine_tuning", "model_backend", "azure", "'local' or 'openai'"),
    ("04_fine_tuning", "loss_on", "prompt", "'answer' or 'all'"),
    ("04_fine_tuning", "optimizer", "sgd", "'adamw_torch', 'adamw_8bit' or 'paged_adamw_32bit'"),
    ("04_fine_tuning", "ablations", ["samples"], "'seeds', 'templates' or 'one_country'"),
    ("04_fine_tuning", "ablations", "seeds", "valid list"),
    ("04_fine_tuning", "gradient_checkpointing", 1, "valid boolean"),
    ("04_fine_tuning", "gradient_accumulation", 0, "greater than or equal to 1"),
    ("04_fine_tuning", "lora_targets", "q_proj, v_proj", "is 'q_proj, v_proj'"),
    ("04_fine_tuning", "launch", "../ddp", "is '../ddp'"),
    ("04_fine_tuning", "generated_texts", -2, "greater than or equal to -1"),
    ("04_fine_tuning", "training_budget", -1, "greater than or equal to 0"),
    ("05_evaluation", "wordings_of", "../main", "use lowercase letters"),
    ("05_evaluation", "prompted_systems", ["base", "adapter"], "'base', 'persona', 'context' or 'third_person'"),
    ("05_evaluation", "scoring", "logits", "'likelihood' or 'generate'"),
    ("05_evaluation", "judge", "me", "'encoder' or 'chat'"),
    ("05_evaluation", "open_questions", 66, "less than or equal to 65"),
    ("05_evaluation", "task_rows", -1, "greater than or equal to 0"),
])
def test_a_value_out_of_range_of_training_and_evaluation(notebook, name, value, problem):
    said = sentence(parameters.validate, parameters.MODELS[notebook], studies.defaults(notebook) | {name: value})
    assert said.startswith(f"{notebook}: parameter '{name}' is ")
    assert problem in said


def test_what_may_be_left_out():
    assert parameters.validate(FineTuning, studies.defaults("04_fine_tuning") | {"ablations": []}).ablations == []
    values = studies.defaults("05_evaluation") | {"ablations": [], "prompted_systems": ["base", "persona"]}
    assert parameters.validate(Evaluation, values).prompted_systems == ["base", "persona"]
    with pytest.raises(UserError, match=r"parameter 'prompted_systems' is .*: base and persona must be among them"):
        parameters.validate(Evaluation, values | {"prompted_systems": ["base", "context"]})


def test_what_04_trains_05_asks_and_from_the_same_model():
    """The knobs of training that 05 needs too are those of one class; the whole of it is in both first cells."""
    shared = set(parameters.Training.model_fields)
    assert {"base_model", "precision", "model_backend", "model_url", "ablations", "held_out_from"} <= shared
    first, second = (studies.defaults(name) for name in ("04_fine_tuning", "05_evaluation"))
    assert {name: first[name] for name in shared} == {name: second[name] for name in shared}


@pytest.mark.parametrize("name", sorted(KNOBS))
def test_each_missing_parameter_is_named(name):
    rest = {key: value for key, value in KNOBS.items() if key != name}
    assert sentence(parameters.validate, Augmentation, rest) == (
        f"02_augmentation needs the parameter '{name}': set it in the first cell")


def test_countries_and_cultures():
    seeds = studies.defaults("01_seed_extraction")
    said = sentence(parameters.validate, SeedExtraction, seeds | {"countries": ["KOR", "Japan"]})
    assert said == "01_seed_extraction: parameter 'countries' is 'Japan': use ISO alpha-3 codes such as KOR"
    assert "at least 1 item" in sentence(parameters.validate, SeedExtraction, seeds | {"countries": []})
    tuning = studies.defaults("04_fine_tuning")
    for cultures in (["one", "korean"], ["korean", "korean"]):
        said = sentence(parameters.validate, FineTuning, tuning | {"cultures": cultures})
        assert "list each culture once, and not 'one', which is all of them" in said
    assert "'cultures'" in sentence(parameters.validate, FineTuning, tuning | {"cultures": "korean"})


@given(name=st.sampled_from(sorted(KNOBS)), value=st.none() | st.booleans() | st.integers() | st.floats() | st.text()
       | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(), st.integers(), max_size=2))
def test_any_value_is_taken_or_refused_by_name(name, value):
    try:
        taken = getattr(parameters.validate(Augmentation, KNOBS | {name: value}), name)
    except UserError as error:
        assert f"'{name}'" in str(error)  # noqa: PT017
        return
    assert taken == type(KNOBS[name])(value)
    assert type(taken) is type(KNOBS[name])  # a whole number for a share is one, true is none


def test_the_digest_changes_with_any_knob_and_with_nothing_else():
    def digest(**changes):
        return parameters.validate(Augmentation, KNOBS | changes).digest

    assert len(digest()) == 12
    assert digest() == digest() == parameters.validate(Augmentation, dict(reversed(KNOBS.items()))).digest
    changed = {digest(temperature=0.8), digest(samples_drawn=5), digest(random_seed=1), digest(base_url="http://a")}
    assert len(changed | {digest()}) == 5


def test_wordings_lie_in_common_or_in_the_folder_of_the_culture():
    def place(**changes):
        return parameters.validate(Filtering, studies.defaults("03_filtering") | changes).place

    assert place() == place(culture="german") == "common"
    assert place(language="local") == "korean"
    assert place(language="local", culture="german") == "german"


def test_a_culture_has_its_folder_in_study_and_variant():
    knobs = parameters.validate(Augmentation, KNOBS | {"variant": "paper"})
    assert knobs.folder("common") == paths.outputs() / "toy" / "paper" / "common"
    assert knobs.folder("common").is_dir()


# --- what is in the repository


@pytest.mark.parametrize("path", sorted(paths.PARAMS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_culture_loads_and_has_answers(path):
    culture = studies.culture(path.stem)
    assert culture.culture == path.stem
    if culture.culture != parameters.ONE:
        assert culture.prompt_name == culture.culture_language == path.stem.capitalize()
        counts = survey.counts(list(culture.countries), survey.questions(""), "", False)
        assert set(counts["country_alpha"]) == set(culture.countries)


def test_the_default_study_is_all_nine_cultures_and_the_notebooks_own_literals():
    assert studies.study("laptop")["cultures"] == NINE
    assert studies.merged("02_augmentation", "laptop") == {"study": "laptop", "variant": "main", "cultures": NINE}
    assert studies.merged("03_filtering", "laptop") == {"study": "laptop", "variant": "main"}
    assert studies.merged("01_seed_extraction", "laptop", "spanish")["countries"] == ["ARG", "MEX"]
    assert studies.merged("04_fine_tuning", "laptop", "one")["culture"] == "one"
    assert studies.merged("05_evaluation", "laptop", "korean", cultures=["korean"])["cultures"] == ["korean"]


def test_unknown_names_are_answered_with_the_known_ones():
    assert "use one of arabic, bengali" in sentence(studies.culture, "klingon")
    assert "use one of augmenters, " in sentence(studies.study, "nightly")
    assert "there are 01_seed_extraction, 02" in sentence(parameters.names, "11_more")
    assert "there are 01_seed_extraction, 02" in sentence(studies.merged, "11_more", "laptop")
    assert "has no variant 'arm'; it has main" in sentence(studies.merged, "02_augmentation", "laptop", "", "arm")


# --- files of a user's own


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A params folder with one culture and one study."""
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")
    write(tmp_path / "params" / "korean.yaml", KOREAN)
    write(tmp_path / "params" / "studies" / "toy.yaml", {"title": "Toy", "cultures": ["korean"]})
    return tmp_path / "params"


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")


def test_precedence_is_literal_study_culture_variant(params):
    write(params / "studies" / "toy.yaml", {
        "title": "Toy", "cultures": ["korean"],
        "parameters": {"epochs": 2, "lora_rank": 3, "lora_alpha": 4, "tau": 0.5},
        "variants": {"main": None, "long": {"epochs": 9, "lora_dropout": 0.5}},
    })
    write(params / "korean.yaml", KOREAN | {"lora_rank": 30, "lora_alpha": 40, "lora_dropout": 0.25})
    main = studies.merged("04_fine_tuning", "toy", "korean")
    assert (main["epochs"], main["lora_rank"], main["lora_alpha"], main["lora_dropout"]) == (2, 30, 40, 0.25)
    long = studies.merged("04_fine_tuning", "toy", "korean", "long")
    assert (long["epochs"], long["lora_rank"], long["lora_dropout"], long["variant"]) == (9, 30, 0.5, "long")
    assert "tau" not in main  # a knob of another notebook
    assert "learning_rate" not in main  # nobody's but the notebook's own
    assert studies.merged("03_filtering", "toy")["tau"] == 0.5


def test_the_place_of_wordings_follows_the_language_of_study_and_variant(params):
    write(params / "german.yaml", KOREAN | {"culture": "german", "countries": ["DEU"]})
    plan = {"title": "Toy", "cultures": ["korean", "german"], "variants": {"main": {}, "own": {"language": "local"}}}
    write(params / "studies" / "toy.yaml", plan)
    assert [studies.place("toy", name) for name in plan["cultures"]] == ["common", "common"]
    assert [studies.place("toy", name, "own") for name in plan["cultures"]] == ["korean", "german"]
    write(params / "studies" / "toy.yaml", plan | {"parameters": {"language": "local"}, "variants": {
        "main": {}, "english": {"language": "english"}}})
    assert studies.place("toy", "german") == "german"
    assert studies.place("toy", "german", "english") == "common"
    with pytest.raises(UserError, match="has no variant 'arm'"):
        studies.place("toy", "german", "arm")


def test_one_culture_cannot_have_another_language_than_its_study(params):
    write(params / "korean.yaml", KOREAN | {"language": "local"})
    assert sentence(studies.culture, "korean") == (
        "params/korean.yaml: language belongs to a study or its variants: CultureLLM-One and the summary need all "
        "cultures asked in the same way")


def test_the_base_models_of_a_study_are_those_of_every_notebook_that_loads_one(params):
    german = {"culture": "german", "countries": ["DEU"], "perplexity_model": "own/reader"}
    write(params / "german.yaml", KOREAN | german)
    write(params / "one.yaml", {"culture": "one", "countries": [], "culture_language": "all", "prompt_name": "",
                                "base_model": "for/one"})
    plan = {"title": "Toy", "cultures": ["korean", "german"], "parameters": {"base_model": "some/model"}}
    write(params / "studies" / "toy.yaml", plan)
    assert studies.base_models("toy") == ["for/one", "some/model", "stand-in"]  # common 03 reads no culture's file
    write(params / "studies" / "toy.yaml", plan | {"variants": {"own": {"language": "local"}}})
    assert studies.base_models("toy") == ["for/one", "own/reader", "some/model", "stand-in"]
    write(params / "studies" / "toy.yaml", plan | {"variants": {"none": {"perplexity_model": ""}}})
    assert studies.base_models("toy") == ["for/one", "some/model"]


def test_a_paragraph_about_a_culture_is_for_05_and_may_be_missing(params):
    assert studies.culture("korean").culture_context == ""
    assert studies.merged("05_evaluation", "toy", "korean")["culture_context"] == ""
    write(params / "korean.yaml", KOREAN | {"culture_context": "A country in Asia."})
    assert studies.culture("korean").culture_context == "A country in Asia."
    assert studies.merged("05_evaluation", "toy", "korean")["culture_context"] == "A country in Asia."
    assert "culture_context" not in studies.merged("04_fine_tuning", "toy", "korean")


def test_a_tenth_culture_is_one_file(params):
    write(params / "ukrainian.yaml", {"culture": "ukrainian", "countries": ["UKR"], "culture_language": "Ukrainian",
                                      "prompt_name": "Ukrainian"})
    assert studies.merged("01_seed_extraction", "toy", "ukrainian")["countries"] == ["UKR"]


@pytest.mark.parametrize(("content", "problem"), [
    (KOREAN | {"culture": "corean"}, "says culture: corean; it must say korean"),
    (KOREAN | {"countries": []}, "countries is empty; list at least one"),
    (KOREAN | {"countries": ["Korea"]}, "countries.0: "),
    (KOREAN | {"countries": "KOR"}, "countries: Input should be a valid list"),
    (KOREAN | {"prompt_name": None}, "prompt_name: Input should be a valid string"),
    ({"culture": "korean", "countries": ["KOR"], "prompt_name": "Korean"}, "culture_language: Field required"),
    (KOREAN | {"epoch": 3}, "'epoch' is no parameter of any notebook"),
    ({1: 2}, "'1' is no parameter"),
    ("- korean\n", "must hold 'name: value' lines"),
    ("", "must hold 'name: value' lines"),
    ("culture: korean\ncountries: [KOR\nprompt_name: x\n", "line 3 is not valid YAML"),
    ("culture: 2020-13-45\n", "is not valid YAML: month must be in 1..12"),
    ("culture: a\x00b\n", "is not valid YAML: special characters are not allowed"),
    ("culture: !!python/object:os.system x\n", "line 1 is not valid YAML: could not determine a constructor"),
])
def test_a_broken_culture_is_named(params, content, problem):
    write(params / "korean.yaml", content)
    said = sentence(studies.culture, "korean")
    assert said.startswith("params/korean.yaml")
    assert problem in said


def test_a_culture_in_another_encoding_is_named(params):
    (params / "korean.yaml").write_bytes("prompt_name: Coréen".encode("latin-1"))
    assert sentence(studies.culture, "korean") == "params/korean.yaml cannot be read (UnicodeDecodeError)"


@pytest.mark.parametrize(("change", "problem"), [
    ({"title": ""}, "needs a title and a list of cultures"),
    ({"cultures": []}, "needs a title and a list of cultures"),
    ({"cultures": "korean"}, "needs a title and a list of cultures"),
    ({"cultures": ["korean", "klingon"]}, "there is no culture 'klingon'"),
    ({"cultures": [7]}, "there is no culture '7'"),
    ({"notebooks": []}, "unknown key 'notebooks'; a study has title, question, cultures, compare, seeds, one, "
                          "parameters, variants"),
    ({"parameters": {"epoch": 1}}, "'epoch' is no parameter of any notebook"),
    ({"parameters": ["epochs"]}, "must be 'name: value' lines"),
    ({"parameters": "epochs"}, "must be 'name: value' lines"),
    ({"variants": {"paper": {"epoch": 1}}}, "variant paper: 'epoch' is no parameter"),
    ({"variants": {"paper": 5}}, "variant paper: 5 must be 'name: value' lines"),
    ({"variants": ["paper"]}, "variants must be 'name: parameters' lines"),
])
def test_a_broken_study_is_named(params, change, problem):
    write(params / "studies" / "toy.yaml", {"title": "Toy", "cultures": ["korean"]} | change)
    assert problem in sentence(studies.study, "toy")


def test_a_value_that_a_notebook_refuses_is_found_before_anything_runs(params):
    write(params / "studies" / "toy.yaml", {"title": "Toy", "cultures": ["korean"], "parameters": {"tau": 8}})
    said = sentence(studies.merged, "03_filtering", "toy")
    assert said == "03_filtering: parameter 'tau' is 8: Input should be less than or equal to 1"
    write(params / "studies" / "toy.yaml", {"title": "Toy", "cultures": ["korean"], "variants": {2: {}}})
    assert "has no variant 'main'; it has 2" in sentence(studies.merged, "03_filtering", "toy")
    assert "use lowercase letters" in sentence(studies.merged, "03_filtering", "toy", "", "2")


def test_the_parameters_cell_of_a_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    cell = {"cell_type": "code", "source": ["tau: float = 0.8  # why\n", "names: list = ['a']\n", "x = 1\n"]}
    for count in (0, 1, 2):
        tagged = [cell | {"metadata": {"tags": ["parameters"]}}] * count
        write(paths.NOTEBOOKS / f"n{count}.ipynb", json.dumps({"cells": [cell, *tagged]}))
    assert studies.defaults("n1") == {"tau": 0.8, "names": ["a"]}
    for count in (0, 2):
        assert f"notebooks/n{count}.ipynb has {count} cells tagged" in sentence(studies.defaults, f"n{count}")


def test_known_questions_belong_to_borrowing_all():
    seeds = studies.defaults("01_seed_extraction")
    said = sentence(parameters.validate, parameters.SeedExtraction, seeds | {"known_questions": 10})
    assert "parameter 'known_questions' is 10: it says how much borrow 'all' pretends to know" in said
    seeds = seeds | {"borrow": "all", "known_questions": 10}
    assert parameters.validate(parameters.SeedExtraction, seeds).known_questions == 10
