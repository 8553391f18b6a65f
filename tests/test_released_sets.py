"""The released sets at hand, end to end on a toy: loaded, asked, scored, their defects and averages."""

from pathlib import Path

import pytest
import toys

from culturellm_utils import evaluation, items, side_effects, summary, tasks
from culturellm_utils.answerers import Local
from culturellm_utils.systems import Framing

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
CULTURES = ("arabic", "bengali", "chinese", "german", "portuguese", "turkish")
pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the released sets are not beside the checkout")


@pytest.fixture(scope="module")
def sets():
    found = [tasks.load(task, REFERENCE) for name in CULTURES for task in tasks.available(name, REFERENCE)]
    return [tasks.sample(one, 24, seed=0) for one in found]


@pytest.fixture(scope="module")
def answered(sets):
    tokenizer = toys.tokenizer()
    models = {"base": toys.model(tokenizer, seed=1), "adapter": toys.model(tokenizer, seed=2)}
    asked = [item for one in sets for item in items.set_items(one)]
    framings = {name: Framing(name.capitalize()) for name in CULTURES}
    rows = []
    for system, model in models.items():
        rows += evaluation.predict(Local(model, tokenizer, system, 16, "likelihood", ""), asked, system, framings)
    return rows


@pytest.fixture(scope="module")
def unsound(sets):
    return {(one.task.culture, one.task.task) for one in sets if not one.carries_claim}


def test_every_set_is_scored(sets, answered, unsound):
    figures = evaluation.score(answered, 50, 0, unsound)
    f1 = {(row["culture"], row["task"], row["system"]): row for row in figures if row["metric"] == "macro_f1"}
    for one in sets:
        row = f1[one.task.culture, one.task.task, "adapter"]
        assert row["n"] == len(one.items) == 24
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["baselines"]["base"] == f1[one.task.culture, one.task.task, "base"]["value"]
    for name in CULTURES:
        own = {one.task.task for one in sets if one.task.culture == name}
        sound = own - {task for culture, task in unsound if culture == name}
        for average, chosen in ((evaluation.ALL_SETS, own), (evaluation.SOUND_SETS, sound)):
            if chosen:
                mean = sum(f1[name, task, "adapter"]["value"] for task in chosen) / len(chosen)
                assert f1[name, average, "adapter"]["value"] == pytest.approx(mean)
                assert f1[name, average, "adapter"]["clusters"] == len(chosen)
            else:
                assert (name, average, "adapter") not in f1


def test_the_released_evaluators_defects_are_told(sets, answered):
    effects = {(row["culture"], row["task"]): row for row in evaluation.paper_scores(answered, sets)}
    assert set(effects) == {(one.task.culture, one.task.task) for one in sets}
    assert "merged classes" in effects["arabic", "hate_detect_fine-grained"]
    assert "renamed class" in effects["turkish", "offensive_detect_finegrained"]
    for row in effects.values():
        assert row["n"] == 24
        assert 0 <= row["released"] <= 1
        assert 0 <= row["mended"] <= 1


def test_the_summary_marks_and_leaves_out(sets, answered, unsound):
    told = [{"culture": one.task.culture, "task": one.task.task, "carries a claim": one.carries_claim} for one in sets]
    by_model = {name: [row for row in answered if row.culture == name] for name in CULTURES}
    results = summary.Results({}, by_model, {name: {"tasks": told} for name in CULTURES})
    table = side_effects.sets(results, 50, 0)
    assert len(table) == 2 * len(sets)
    assert set(zip(table.loc[~table["carries_claim"], "culture"], table.loc[~table["carries_claim"], "task"],
                   strict=True)) == unsound
    means = side_effects.means(table).set_index("system")
    assert means.loc["base", "sets"] == len(sets)
    assert means.loc["base", "sound_sets"] == len(sets) - len(unsound)
    assert table.loc[table["system"] == "base", "p"].between(0, 1).all()
