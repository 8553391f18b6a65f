"""Studies that compare: their keys, the variants that seeds make, what variants share, and how it is copied."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from culturellm_utils import parameters, paths, run, studies
from culturellm_utils.errors import UserError

PLAN = {"title": "Toy", "question": "Which?", "cultures": ["korean", "german"], "compare": "tau",
        "variants": {"low": {"tau": 0.5}, "high": {"tau": 0.9}}}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the study ``toy`` of two cultures, and reads it."""
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    for name, country in {"korean": "KOR", "german": "DEU"}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({
            "culture": name, "countries": [country], "culture_language": name, "prompt_name": name}))
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({
        "culture": "one", "countries": [], "culture_language": "all", "prompt_name": ""}))
    (tmp_path / "studies").mkdir()

    def study(**changes: Any) -> dict[str, Any]:
        (tmp_path / "studies" / "toy.yaml").write_text(yaml.safe_dump(PLAN | changes, sort_keys=False))
        return studies.study("toy")
    return study


def test_each_seed_makes_a_variant_and_the_first_keeps_the_name(toy):
    plan = toy(seeds=[3, 0])
    assert list(plan["variants"].items()) == [
        ("low", {"tau": 0.5, "random_seed": 3}), ("low-seed0", {"tau": 0.5, "random_seed": 0}),
        ("high", {"tau": 0.9, "random_seed": 3}), ("high-seed0", {"tau": 0.9, "random_seed": 0})]
    assert studies.arms("toy") == {"low": ["low", "low-seed0"], "high": ["high", "high-seed0"]}
    assert studies.merged("03_filtering", "toy", "", "high-seed0")["random_seed"] == 0
    assert "random_seed" not in toy()["variants"]["low"]


def test_only_the_first_variant_of_a_comparison_runs_every_notebook(toy):
    plan = toy()
    assert studies.whole(plan) == ["low"]
    assert studies.models(plan, "low", ["korean"]) == ["korean", "one"]
    assert studies.models(plan, "high", ["korean"]) == ["korean"]
    assert studies.models(toy(one=True), "high", ["korean"]) == ["korean", "one"]
    assert studies.whole(toy(compare=[])) == ["low", "high"]
    assert toy(compare=["tau", "epochs"])["compare"] == ["tau", "epochs"]
    assert studies.merged("10_comparison", "toy", "", parameters.COMPARISON)["study"] == "toy"


@pytest.mark.parametrize(("change", "problem"), [
    ({"compare": "tow"}, "must be one or two parameters, or 'variant'"),
    ({"compare": ["tau", "variant"]}, "must be one or two parameters"),
    ({"compare": ["tau", "epochs", "stages"]}, "must be one or two parameters"),
    ({"compare": 5}, "must be one or two parameters"),
    ({"seeds": [0, 0]}, "seeds: [0, 0] must be a list of different whole numbers"),
    ({"seeds": [True]}, "must be a list of different whole numbers"),
    ({"seeds": 3}, "must be a list of different whole numbers"),
    ({"one": "yes"}, "one: 'yes' must be true or false"),
    ({"variants": {"low": {}}}, "there is nothing to compare"),
    ({"variants": {"low": {}, "comparison": {}}}, "cannot be called 'comparison'"),
    ({"variants": {"low": {}, "low-seed1": {}}}, "cannot be called 'low-seed1'"),
])
def test_a_comparison_that_makes_no_sense_is_named(toy, change, problem):
    with pytest.raises(UserError) as error:
        toy(**change)
    assert str(error.value).count("\n") == 0
    assert problem in str(error.value)


def test_a_stage_is_run_where_its_parameters_first_occur(toy):
    toy(variants={"low": {"tau": 0.5}, "high": {"tau": 0.9}, "long": {"tau": 0.9, "epochs": 9}})
    found = studies.homes("toy", ["korean", "german"])
    assert [found["01_seed_extraction", "german", name] for name in ("low", "high", "long")] == ["low"] * 3
    # tau is a knob of 02 too: the paper's procedure filters while it asks
    assert [found["02_augmentation", "common", name] for name in ("low", "high", "long")] == ["low", "high", "high"]
    assert [found["03_filtering", "common", name] for name in ("low", "high", "long")] == ["low", "high", "high"]
    assert [found["04_fine_tuning", "korean", name] for name in ("low", "high", "long")] == ["low", "high", "long"]
    assert found["04_fine_tuning", "one", "low"] == "low"
    assert ("04_fine_tuning", "one", "high") not in found


def test_what_comes_before_a_stage_decides_as_well(toy):
    # 04 has no knob of 01: the labels differ all the same
    toy(compare="label_rule", variants={"low": {}, "high": {"label_rule": "mean"}, "again": {"label_rule": "mean"}})
    found = studies.homes("toy", ["korean"])
    assert [found["04_fine_tuning", "korean", name] for name in ("low", "high", "again")] == ["low", "high", "high"]
    assert found["03_filtering", "common", "again"] == "low"


def test_in_their_own_language_cultures_share_nothing_with_each_other(toy):
    toy(parameters={"language": "local"})
    found = studies.homes("toy", ["korean", "german"])
    assert found["03_filtering", "german", "high"] == "high"
    assert ("03_filtering", "common", "low") not in found


def test_a_shared_run_is_copied_whole(tmp_path):
    home, here = tmp_path / "low" / "korean", tmp_path / "high" / "korean"
    for place in (home, here):
        (place / "model").mkdir(parents=True)
    (home / "model" / "README.md").write_text("new")
    (here / "model" / "old").write_text("left behind by an earlier run")
    (here / "ablations").mkdir()
    (here / "predictions.jsonl").write_text("of another notebook")
    (home / "train.jsonl").write_text("rows")
    (home / "04_fine_tuning.ipynb").write_text("{}")
    run.take(home / "04_fine_tuning.ipynb", here / "04_fine_tuning.ipynb")
    assert sorted(str(path.relative_to(here)) for path in here.rglob("*")) == [
        "04_fine_tuning.ipynb", "model", "model/README.md", "predictions.jsonl", "train.jsonl"]
    (home / "train.jsonl").write_text("changed")
    assert (here / "train.jsonl").read_text() == "rows"
    with pytest.raises(UserError, match="05_evaluation reads what differs between variants"):
        run.take(home / "05_evaluation.ipynb", here / "05_evaluation.ipynb")
