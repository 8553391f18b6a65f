"""Arms of a study held against each other, on hand-made folders."""

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from opinions import labelled, prediction, seed, wording
from toys import chat

from culturellm_utils import (
    alignment,
    arm_figures,
    classification,
    contrasts,
    evaluation,
    parameters,
    paths,
    studies,
    variants,
)
from culturellm_utils.errors import UserError
from culturellm_utils.records import TargetRow, write_json, write_rows


def title(ax) -> str:
    """Of axes, wherever the style has put it."""
    return ax.get_title("left") or ax.get_title()


OPTIONS = {"1": "Agree", "2": "Disagree"}
GOLD = {"korean": (0.9, 0.1), "german": (0.2, 0.8)}
#: Two wordings of the first question, one of the second.
ITEMS = [("Q1", "Q1-t08"), ("Q1", "Q1-t09"), ("Q2", "Q2-t08")]
RIGHT = {"korean": "1", "german": "2"}
WRONG = {"korean": "2", "german": "1"}


def says(about, system, question, item, answer, part="held_out_wording", words=""):
    row = prediction(about, system, part, question, item, [float(answer == code) for code in OPTIONS], GOLD[about],
                     options=OPTIONS)
    return row.model_copy(update={"messages": chat(words or f"Is {question} so, as {item} puts it?")})


def answers(culture, right, items=ITEMS, base=()):
    """Own adapter (right on the items named) and base (right on none unless named) on a culture's items."""
    return [says(culture, system, q, item, (RIGHT if item in known else WRONG)[culture])
            for system, known in (("base", base), ("persona", base), ("adapter", right)) for q, item in items]


class Study:
    """Writes a study, and the files that its variants would have written."""

    def __init__(self, folder, outputs):
        self.params, self.outputs = folder, outputs
        self.cultures = ["korean", "german"]

    def plan(self, **values):
        text = {"title": "Toy", "question": "Which?", "cultures": self.cultures, "compare": "variant",
                "variants": {"one_way": {}, "other_way": {}}} | values
        (self.params / "studies" / "toy.yaml").write_text(yaml.safe_dump(text, sort_keys=False))

    def run(self, variant, rows, texts=0, augmented=(), people=GOLD, steps=10, sound=False):
        """``rows`` maps each model to its predictions."""
        for model, predictions in rows.items():
            folder = paths.stage_dir("toy", model, variant)
            write_rows(folder / "predictions.jsonl", predictions)
            write_rows(folder / "targets.jsonl", [TargetRow(question_id="Q1", wording_id=name, distribution={})
                                                  for name in ["Q1", *(f"Q1-t01-s{n}" for n in range(texts))]])
            write_json(folder / "training_log.json", {"rows": 1 + texts, "log": [{"step": 2}, {"step": steps}]})
            sets = {(p.culture, p.question_id) for p in predictions if p.part == "task"}
            write_json(folder / "scores.json", {"tasks": [
                {"culture": c, "task": t, "carries a claim": sound and t == "sound"} for c, t in sorted(sets)]})
            if model in people:
                write_rows(folder / "seeds.jsonl",
                           [seed(q, people[model], OPTIONS, culture=model) for q in ("Q1", "Q2")])
        write_rows(paths.stage_dir("toy", "common", variant) / "augmented.jsonl", augmented or [wording("Q27", 1)])

    def knobs(self, **values):
        return parameters.validate(parameters.Comparison, studies.defaults("10_comparison") | {
            "study": "toy", "cultures": self.cultures} | values)

    def load(self, **values):
        return variants.load(self.knobs(**values))


@pytest.fixture
def toy(tmp_path, monkeypatch, outputs):
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    monkeypatch.setattr(alignment, "PERMUTATIONS", 2000)
    for name, country in {"korean": "KOR", "german": "DEU"}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({
            "culture": name, "countries": [country], "culture_language": name, "prompt_name": name}))
    (tmp_path / "studies").mkdir()
    return Study(tmp_path, outputs)


@pytest.fixture
def two(toy):
    """The first arm's adapters are right on Q1-t08 alone; the second's on all for the Koreans, as before for the
    Germans, who were asked Q2 alone in common."""
    toy.plan()
    toy.run("one_way", {"korean": answers("korean", {"Q1-t08"}), "german": answers("german", set(), ITEMS[2:])})
    toy.run("other_way", {"korean": answers("korean", {i for _, i in ITEMS}),
                          "german": answers("german", {"Q2-t08"}, ITEMS)})
    return toy


def row(table, **wanted):
    for name, value in wanted.items():
        table = table[table[name] == value]
    (found,) = table.to_dict("records")
    return found


# What is read

def test_items_that_an_arm_was_not_asked_are_left_out_and_counted(two):
    found = two.load()
    assert found.leading == "one_way"
    asked = found.answers[found.answers["system"] == "adapter"].groupby(["culture", "arm"])["key"].size()
    assert asked.to_dict() == {("german", "one_way"): 1, ("german", "other_way"): 1,
                               ("korean", "one_way"): 3, ("korean", "other_way"): 3}
    assert found.left_out.to_dict("records") == [
        {"part": "held_out_wording", "items": 6, "not asked in all arms": 2}]


def test_the_same_id_with_other_words_is_another_item(toy):
    toy.plan()
    for variant, words in (("one_way", "Is it?"), ("other_way", "Is it not?")):
        rows = {c: [says(c, s, "Q1", "Q1-t08", "1", words=words) for s in ("base", "adapter")]
                + [says(c, s, "Q2", "Q2-t08", "1") for s in ("base", "adapter")] for c in GOLD}
        toy.run(variant, rows)
    assert set(toy.load().answers["cluster"]) == {"Q2"}


def test_arms_without_an_item_in_common_are_refused_in_one_sentence(toy):
    toy.plan()
    toy.run("one_way", {c: answers(c, set(), ITEMS[:1]) for c in GOLD})
    toy.run("other_way", {c: answers(c, set(), ITEMS[1:]) for c in GOLD})
    with pytest.raises(UserError, match="asked no held-out wording in common: set wordings_of to one_way"):
        toy.load()


def test_one_arm_is_nothing_to_compare(toy):
    toy.plan(compare=[], variants={"main": {}})
    with pytest.raises(UserError, match=r"studies/toy.yaml has one variant"):
        toy.load()


def test_a_variant_that_was_not_run_is_named(two):
    (two.outputs / "toy" / "other_way" / "german" / "predictions.jsonl").unlink()
    with pytest.raises(UserError, match=r"other_way/german/predictions\.jsonl is missing"):
        two.load()


def test_all_arms_are_held_against_the_people_of_the_first(toy):
    """The second arm's people answered the other way round (another label rule): that changes nothing."""
    toy.plan()
    rows = {c: answers(c, {i for _, i in ITEMS}) for c in GOLD}
    toy.run("one_way", rows)
    turned = {c: [p.model_copy(update={"gold": WRONG[c], "gold_distribution": {"1": 0.5, "2": 0.5}})
                  for p in found] for c, found in rows.items()}
    toy.run("other_way", turned, people={name: GOLD[other] for name, other in zip(GOLD, reversed(GOLD), strict=True)})
    found = toy.load()
    own = found.answers[found.answers["system"] == "adapter"]
    assert (own["accuracy"] == 1).all()
    assert own.groupby(["arm", "culture"])["emd"].first().round(6).to_dict() == {
        (arm, culture): distance for arm in found.variants for culture, distance in (("korean", 0.1), ("german", 0.2))}


def test_of_two_rows_of_a_question_the_first_counts():
    rows = [seed("Q1", (0.9, 0.1), OPTIONS, rule="paper"), seed("Q1", (0.2, 0.8), OPTIONS, rule="paper"),
            seed("Q2", (), OPTIONS, rule="paper", label="1")]
    assert variants._people(rows) == {"Q1": {"1": 0.9, "2": 0.1}}


def test_js_and_emd_are_those_of_the_evaluation(two):
    found = two.load().answers
    mine = row(found[found["key"].str.startswith("Q1-t09")], arm="one_way", culture="korean", system="adapter")
    said = [says("korean", "adapter", "Q1", "Q1-t09", "2")]
    assert {metric: mine[metric] for metric in variants.METRICS} == {
        metric: pytest.approx(evaluation.values(said, metric)[0]) for metric in variants.METRICS}


# Means and differences

def test_a_mean_is_over_cultures_then_items(two):
    table = contrasts.compare(two.load(), 200, 0)
    first = row(table, arm="one_way", measure="accuracy", system="adapter")
    second = row(table, arm="other_way", measure="accuracy", system="adapter")
    # Koreans 1 of 3, Germans 0 of 1; then 3 of 3 and 1 of 1
    assert first["value"] == pytest.approx((1 / 3 + 0) / 2)
    assert second["value"] == 1
    assert (first["n"], first["clusters"]) == (4, 2)
    assert second["difference"] == pytest.approx(1 - 1 / 6)
    assert np.isnan(first["difference"])
    assert np.isnan(first["p"])
    assert np.isnan(row(table, arm="other_way", measure="accuracy", system="base")["p"])
    # of the two questions' difference nothing is beyond chance: the least p is that of two signs
    assert second["p"] == pytest.approx(0.5, abs=0.05)
    assert second["difference_low"] <= second["difference"] <= second["difference_high"]


def test_values_are_those_of_single_runs(toy):
    toy.plan(seeds=[0, 1])
    for variant, right in {"one_way": {"Q1-t08"}, "one_way-seed1": set(), "other_way": {"Q2-t08"},
                           "other_way-seed1": {"Q1-t08", "Q2-t08"}}.items():
        toy.run(variant, {c: answers(c, right) for c in GOLD})
    found = toy.load()
    values = contrasts.values(found)
    assert row(values, variant="other_way-seed1", culture="korean", system="adapter", measure="accuracy") == {
        "arm": "other_way", "variant": "other_way-seed1", "seed": 1, "culture": "korean", "system": "adapter",
        "value": pytest.approx(2 / 3), "n": 3, "measure": "accuracy", "part": "held_out_wording", "metric": "accuracy"}
    table = contrasts.compare(found, 200, 0)
    assert row(table, arm="one_way", measure="accuracy", system="adapter")["value"] == pytest.approx(1 / 6)
    assert row(table, arm="other_way", measure="accuracy", system="adapter")["value"] == pytest.approx(1 / 2)
    assert row(table, arm="other_way", measure="accuracy", system="adapter")["n"] == 6  # a seed is no further item


def test_p_values_are_corrected_over_the_arms(toy):
    """Ten questions that two of three arms alone answer rightly: the p-value of either is doubled."""
    toy.cultures = ["korean"]
    toy.plan(variants={"first": {}, "second": {}, "third": {}})
    items = [(f"Q{n}", f"Q{n}-t08") for n in range(10)]
    for arm in ("first", "second", "third"):
        toy.run(arm, {"korean": answers("korean", {i for _, i in items} if arm != "first" else set(), items)})
        write_rows(paths.stage_dir("toy", "korean", arm) / "seeds.jsonl",
                   [seed(q, GOLD["korean"], OPTIONS) for q, _ in items])
    found = toy.load()
    table = contrasts.compare(found, 200, 0)
    alone = alignment.paired_test([1.0] * 10, [0.0] * 10, range(10), alignment.PERMUTATIONS, 0)
    assert row(table, arm="second", measure="accuracy", system="adapter")["p"] == pytest.approx(2 * alone)
    before = contrasts.against(found, "base", {"all": ["korean"]}, "accuracy", 200, 0)  # of three arms one is as before
    assert before["p"].tolist() == pytest.approx([1, 3 * alone, 3 * alone])


def test_a_culture_counts_alike_in_the_test_however_many_its_items():
    """Nine items of one culture are better, one of the other is worse: on average nothing differs."""
    index = pd.MultiIndex.from_tuples([("a", "Q1", str(n)) for n in range(9)] + [("b", "Q2", "9")],
                                      names=["culture", "cluster", "key"])
    assert contrasts._p_value(pd.Series([1.0] * 9 + [-1.0], index), 0) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("QRST"), st.floats(-1, 1)), min_size=1, max_size=30))
def test_draws_start_with_the_means_of_cultures_and_stay_within_the_values(rows):
    index = pd.MultiIndex.from_tuples([(c, q, str(n)) for n, (c, q, _) in enumerate(rows)],
                                      names=["culture", "cluster", "key"])
    values = pd.Series([v for *_, v in rows], index)
    found = contrasts.draws(values, 50, 0)
    means = values.groupby(level="culture").mean()
    assert found.iloc[0].to_dict() == pytest.approx(means.to_dict())
    assert found.min().min() >= values.min() - 1e-9
    assert found.max().max() <= values.max() + 1e-9
    estimate = contrasts.mean(values, 50, 0)
    assert estimate.value == pytest.approx(means.mean())
    assert (estimate.n, estimate.clusters) == (len(rows), len({q for _, q, _ in rows}))


def test_the_interval_resamples_questions_together_in_all_cultures():
    """Right on one question and wrong on the other, in both cultures: a quarter of resamples has 0, a quarter 1."""
    index = pd.MultiIndex.from_tuples([(c, q, q) for c in "ab" for q in ("Q1", "Q2")],
                                      names=["culture", "cluster", "key"])
    drawn = contrasts.draws(pd.Series([1.0, 0, 1, 0], index), 4000, 0)
    assert (drawn["a"] == drawn["b"]).all()
    assert drawn["a"].iloc[1:].value_counts(normalize=True).to_dict() == pytest.approx({0.5: 0.5, 0: 0.25, 1: 0.25},
                                                                                       abs=0.03)


# Against rivals

def test_own_adapter_against_other_cultures_and_one(toy):
    toy.plan(one=True)
    rows = {c: answers(c, {i for _, i in ITEMS}) for c in GOLD}
    rows["korean"] += [says("german", "adapter", "Q1", "Q1-t08", "1")]  # the Koreans' adapter about Germans: wrong
    rows["german"] += [says("korean", "adapter", "Q1", "Q1-t08", "1")]  # the Germans' about Koreans: right
    rows["one"] = [says(c, "adapter", q, i, RIGHT[c] if q == "Q1" or c == "german" else "2") for c in GOLD
                   for q, i in ITEMS]
    for variant in ("one_way", "other_way"):
        toy.run(variant, rows)
    found = toy.load()
    wrong = contrasts.against(found, "wrong culture", {"all": list(GOLD)}, "accuracy", 200, 0)
    assert wrong.iloc[0][["value", "n"]].tolist() == [0.5, 2]  # Koreans 1 - 1, Germans 1 - 0
    one = contrasts.against(found, "one", {"high": ["german"], "low": ["korean"]}, "accuracy", 200, 0)
    assert one[one["arm"] == "one_way"].set_index("group")["value"].to_dict() == {
        "high": 0, "low": pytest.approx(1 / 3), "high minus low": pytest.approx(-1 / 3)}
    assert one["p"].notna().tolist() == [True, True, False] * 2
    assert contrasts.against(found, "one", {"high": [], "low": list(GOLD)}, "accuracy", 200, 0)["group"].tolist() == [
        "low", "low"]


def test_a_rival_that_is_not_in_all_arms_is_not_compared(two):
    empty = contrasts.against(two.load(), "one", {"all": list(GOLD)}, "accuracy", 200, 0)
    assert empty.empty
    assert list(empty) == ["arm", "group", "value", "low", "high", "n", "clusters", "p"]


# Classification sets

@pytest.fixture
def sets(toy):
    """A set that carries a claim, and one that does not; in the second arm one more of the first set is right."""
    toy.plan()
    for variant, said in (("one_way", ["yes", "no", ""]), ("other_way", ["yes", "yes", "no"])):
        rows = {}
        for c in GOLD:
            rows[c] = answers(c, set())
            for task in ("sound", "small"):
                rows[c] += [labelled(f"{task}-{n}", gold, label, system, c, task).model_copy(
                    update={"messages": chat(f"{task} {n}")}) for system in ("base", "adapter")
                    for n, (gold, label) in enumerate(zip(["yes", "yes", "no"], said, strict=True))]
        toy.run(variant, rows, sound=True)
    return toy


def test_macro_f1_is_over_the_sets_that_can_carry_a_claim(sets):
    found = sets.load()
    assert contrasts.chosen_sets(found) == [("german", "sound"), ("korean", "sound")]
    table = contrasts.compare(found, 200, 0)
    first = row(table, arm="one_way", measure="macro_f1", system="adapter")
    # yes: 1 of 2 found, 1 given: 2/3; no: none of 1 found: 0
    assert first["value"] == pytest.approx((2 / 3 + 0) / 2)
    assert (first["n"], first["clusters"]) == (6, 2)
    second = row(table, arm="other_way", measure="macro_f1", system="adapter")
    assert second["value"] == second["difference"] + first["value"] == 1
    assert 0 < second["p"] < 1
    values = contrasts.values(found)
    base = row(values, arm="one_way", culture="korean", measure="macro_f1", system="base")
    assert (base["value"], base["n"]) == (pytest.approx(1 / 3), 3)


def test_where_no_set_can_carry_a_claim_all_are_averaged(sets):
    for culture in GOLD:
        write_json(paths.stage_dir("toy", culture, "one_way") / "scores.json", {"tasks": []})
    assert len(contrasts.chosen_sets(sets.load())) == 4


labels = st.lists(st.tuples(*[st.sampled_from(["a", "b", None])] * 2, st.sampled_from("ab")), min_size=1, max_size=20)


@given(labels)
def test_systems_together_have_their_own_macro_f1(rows):
    first, second, gold = ([row[n] for row in rows] for n in range(3))
    both = classification.together(gold, [first, second], ("a", "b"), 20, 0)
    for found, said in zip(both, (first, second), strict=True):
        assert found[0] == pytest.approx(classification.macro_f1(gold, said, ("a", "b"), 10, 0).value)
    same = classification.together(gold, [first, first], ("a", "b"), 20, 0)
    assert (same[0] == same[1]).all()
    swaps = classification.swapped(gold, [first, second], [second, second], ("a", "b"), 20, 0)
    assert swaps[0] == pytest.approx((both[0, 0] - both[1, 0]) / 2)
    assert (np.abs(swaps) <= 1).all()


def test_items_that_a_seed_was_not_asked_do_not_count():
    gold, said = ["a", "b", "a"], ["a", "b", classification.NOT_ASKED]
    assert classification.together(gold, [said], ("a", "b"), 0, 0)[0, 0] == 1
    assert classification.together(gold, [[*said[:2], None]], ("a", "b"), 0, 0)[0, 0] == pytest.approx(5 / 6)


def test_the_test_of_one_set_is_that_of_classification():
    gold, first, second = ["a"] * 6 + ["b"] * 6, ["a"] * 6 + ["b"] * 6, ["a"] * 6 + ["a"] * 6
    moved = np.abs(classification.swapped(gold, [first], [second], ("a", "b"), 20000, 0))
    p = ((moved[1:] >= moved[0] - 1e-9).sum() + 1) / len(moved)
    assert p == pytest.approx(classification.paired_test(gold, first, second, ("a", "b"), 20000, 0), abs=0.01)


# What was trained on and kept

def test_generated_texts_are_placed_where_they_were_reached(toy):
    toy.plan(compare=["generated_texts"], variants={"all": {"generated_texts": -1}, "none": {"generated_texts": 0},
                                                    "many": {"generated_texts": 500}})
    for arm, texts in (("all", 7), ("none", 0), ("many", 7)):
        toy.run(arm, {c: answers(c, set()) for c in GOLD}, texts=texts, steps=texts + 3)
    found = toy.load()
    trained = variants.trained(found)
    assert trained.to_dict("list") == {"arm": ["all", "none", "many"], "rows": [8, 1, 8],
                                       "generated texts": [7, 0, 7], "steps": [10, 3, 10]}
    places = variants.axis(found, trained)
    assert places["x"].tolist() == [7, 0, 7]
    assert places["aside"].tolist() == [False, False, True]
    assert variants.settings(found)["generated_texts"].tolist() == [-1, 0, 500]


def test_the_second_knob_makes_lines(toy):
    toy.plan(compare=["tau", "guards"], variants={"strict": {"tau": 0.8}, "lax": {"tau": 0.5, "guards": False},
                                                  "bare": {"tau": 0.8, "guards": False}})
    for arm in ("strict", "lax", "bare"):
        toy.run(arm, {c: answers(c, set()) for c in GOLD})
    found = toy.load()
    places = variants.axis(found, variants.trained(found))
    assert places[["x", "line", "aside"]].values.tolist() == [
        [0.8, "True", False], [0.5, "False", False], [0.8, "False", False]]


def test_arms_told_apart_by_name_have_no_axis(two):
    found = two.load()
    places = variants.axis(found, variants.trained(found))
    assert places["x"].isna().all()
    assert not places["aside"].any()


def test_the_same_texts_are_no_comparison_of_texts(two):
    assert variants.kept(two.load(), 100, 0).empty


def test_what_was_kept_by_hand(toy, monkeypatch):
    class Objects:
        def judge(self, pairs):
            assert all(seed_text.endswith(("?", ".")) for seed_text, _ in pairs)
            return ["polarity: x" if "sample" in text else "damage: x" if "9" in text else "" for _, text in pairs]

    monkeypatch.setattr(variants, "Guard", Objects)
    toy.plan(compare=["tau"], variants={"strict": {"tau": 0.9}, "lax": {"tau": 0.5, "guards": False}})
    few, many = [wording("Q27", 1)], [wording("Q27", 1), wording("Q27", 9), wording("Q28", 1, stage=2),
                                      wording("Q28", 2, stage=2)]
    for arm, texts in (("strict", few), ("lax", many)):
        toy.run(arm, {c: answers(c, set()) for c in GOLD}, augmented=texts)
    kept = variants.kept(toy.load(), 100, 0).set_index("arm")
    assert kept[["templates", "samples"]].values.tolist() == [[1, 0], [2, 2]]
    assert kept.loc["lax", ["stance_errors", "damaged", "similarity"]].tolist() == [0.5, 0.25, 0.9]
    assert kept.loc["strict", "stance_errors"] == 0
    curve = pd.read_csv(paths.DATA / "tau_curve.csv").set_index("tau")
    assert kept.loc["strict", "labelled_bad"] == pytest.approx(1 - curve.loc[0.9, "filter_rejected_bad"])
    assert kept.loc["lax", "labelled_bad"] == pytest.approx(1 - curve.loc[0.5, "rejected_bad"])
    assert kept.loc["lax", "labelled_good"] == curve.loc[0.5, "kept_good"]


# Sentences and figures

@pytest.fixture
def table():
    """Against ``main``: one arm better, one worse, one neither."""
    rows = [("main", 0.5, np.nan, np.nan), ("up", 0.7, 0.2, 0.01), ("down", 0.4, -0.1, 0.04), ("same", 0.51, 0.01, 0.9)]
    return pd.concat([pd.DataFrame([
        {"arm": arm, "measure": measure, "system": system, "value": value, "low": value - 0.1, "high": value + 0.1,
         "n": 10, "clusters": 5, "difference": apart, "difference_low": apart - 0.05, "difference_high": apart + 0.05,
         "p": p if system == "adapter" else np.nan} for arm, value, apart, p in rows])
        for measure in ("accuracy", "emd") for system in ("base", "adapter")], ignore_index=True)


def test_findings_count_what_is_beyond_chance(table):
    assert arm_figures.finding(table, "accuracy", "main") == (
        'Held-out wordings, 3 arms against "main":\n1 better and 1 worse beyond chance;\nbest "up": 70% [60%, 80%]')
    # of a distance less is better
    assert arm_figures.finding(table, "emd", "main").endswith(
        '1 better and 1 worse beyond chance;\nbest "down": 0.40 [0.30, 0.50]')
    unclear = table.assign(p=table["p"].where(table["p"].isna(), 0.05))
    assert "none differs beyond chance" in arm_figures.finding(unclear, "accuracy", "main")


def test_sentences_name_the_largest_differences(table):
    assert arm_figures.sentence(table, "accuracy", "main") == (
        "Held-out wordings answered as most people did: main 50% [40%, 60%]; better: up +20.0 points [+15.0, +25.0]; "
        "worse: down -10.0 points [-15.0, -5.0]; no difference beyond chance: same +1.0 points [-4.0, +6.0].")
    assert "better: down -0.100 [-0.150, -0.050]" in arm_figures.sentence(table, "emd", "main")
    more = [table.assign(arm=table["arm"].replace("up", f"up_{n}"), difference=table["difference"] + n / 100)
            for n in range(5)]
    many = pd.concat([table[table["arm"] != "up"], *(rows[rows["arm"].str.startswith("up_")] for rows in more)])
    assert "better: up_4 +24.0 points [+15.0, +25.0], up_3 +23.0" in arm_figures.sentence(many, "accuracy", "main")
    assert ", and 2 more; worse" in arm_figures.sentence(many, "accuracy", "main")


def test_sentences_on_one_before_and_texts_by_hand():
    rows = [("a", "high", 0.1, 0.01), ("a", "low", -0.2, 0.04), ("a", "high minus low", 0.3, np.nan),
            ("b", "high", 0.1, 0.05)]
    table = pd.DataFrame([{"arm": arm, "group": group, "value": value, "low": value - 0.1, "high": value + 0.1, "p": p}
                          for arm, group, value, p in rows])
    assert arm_figures.sentence_one(table, "a") == (
        "Own adapter against CultureLLM-One, by arm and group: better in 1, worse in 1 of 3; in a, own minus One: high "
        "+10.0 points [+0.0, +20.0], low -20.0 points [-30.0, -10.0], high minus low +30.0 points [+20.0, +40.0].")
    assert title(arm_figures.draw_groups(table, ["a", "b"])).startswith(
        "Own adapter against One: better in 1, worse in 1\nof 3 comparisons")
    assert arm_figures.sentence_before(table[:1], "arithmetic") == (
        "Own adapter minus base model, sums and differences right: a +10.0 points [+0.0, +20.0].")
    kept = pd.DataFrame({"arm": ["strict", "lax"], "templates": 1, "samples": 2, "stance_errors": [0.0, 0.05],
                         "stance_errors_low": [0.0, 0.02], "stance_errors_high": [0.0, 0.08]})
    assert arm_figures.sentence_kept(kept) == (
        "Kept texts that change the stance of their seed, by the guard's verdict: from 0.0% [0.0%, 0.0%] in strict to "
        "5.0% [2.0%, 8.0%] in lax.")
    assert [tick.get_text() for tick in arm_figures.draw_kept(kept).get_yticklabels()] == [
        "strict (3 texts)", "lax (3 texts)"]


@pytest.mark.parametrize(("x", "scale"), [([0.5, 0.6, 0.7, 0.8], "linear"), ([0.0001, 0.001, 0.01, 0.02], "log"),
                                          ([0, 100, 500, 1000], "symlog")])
def test_numbers_are_drawn_on_an_apt_axis(table, x, scale):
    places = pd.DataFrame({"arm": ["main", "up", "down", "same"], "x": x, "line": "", "aside": [False] * 3 + [True]})
    values = table.assign(variant=table["arm"], seed=0, culture="korean")
    ax = arm_figures.draw(table, values, places, ("tau",), "accuracy", "main")
    assert ax.get_xscale() == scale
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [f"{value:g}" for value in x]
    names = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert names == ["base model", "own adapter", "same"]
    line = next(line for line in ax.get_lines() if line.get_label() == "own adapter")
    assert line.get_ydata().tolist() == pytest.approx([50, 70, 40])


def test_lines_are_named_by_the_second_knob(table):
    places = pd.DataFrame({"arm": ["main", "up", "down", "same"], "x": [0.0, 500, 0, 500],
                           "line": ["0", "0", "4160", "4160"], "aside": False})
    values = table.assign(variant=table["arm"], seed=0, culture="korean")
    ax = arm_figures.draw(table, values, places, ("generated_texts", "training_budget"), "accuracy", "main")
    names = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert names == ["base model", "equal epochs", "training budget 4160"]
    ax = arm_figures.draw(table, values, places.replace({"0": "True", "4160": "False"}), ("tau", "guards"), "accuracy",
                          "main")
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()][1:] == ["with guards", "without guards"]


def test_named_arms_are_rows_with_a_dot_a_seed(table):
    places = pd.DataFrame({"arm": ["main", "up", "down", "same"], "x": np.nan, "line": "", "aside": False})
    values = pd.concat([table.assign(variant=table["arm"] + suffix, seed=0, culture="korean") for suffix in ("", "-2")])
    ax = arm_figures.draw(table, values, places, ("variant",), "emd", "main")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["main", "up", "down", "same"]
    seeds = next(line for line in ax.get_lines() if line.get_label() == "one seed")
    assert len(seeds.get_xdata()) == 8
    apart = arm_figures.draw_differences(table, "emd", "main")
    assert title(apart).startswith("Distance on the scale: 2 of 3 arms differ")
