"""Who speaks for whom, on hand-made peoples and adapters that are sure of themselves."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from opinions import prediction, seed

from culturellm_utils import alignment, mantel, parameters, studies, transfer
from culturellm_utils.errors import UserError
from culturellm_utils.records import write_rows
from culturellm_utils.summary import Results

OPTIONS = {"1": "Agree", "2": "Disagree"}
#: What all of a people say. Koreans and Turks are 1 apart, both 0.5 from the Germans.
SAID = {"korean": {"Q1": "1", "Q2": "1"}, "german": {"Q1": "1", "Q2": "2"}, "turkish": {"Q1": "2", "Q2": "2"}}


def shares(code):
    return [float(code == option) for option in OPTIONS]


def says(people, system, question, wording, code, gold, part="held_out_wording"):
    return prediction(people, system, part, question, wording, shares(code), shares(gold), options=OPTIONS)


def study(said=SAID, adapters=None, persona="1", templates=1):
    """Peoples of one opinion a question; each adapter says what ``adapters`` has for it, by default its people's
    answer, whoever is asked about; the persona prompt always says ``persona``. A sample is asked of the own model
    alone."""
    adapters = adapters or said
    predictions = {}
    for model, answers in adapters.items():
        predictions[model] = [says(people, "adapter", q, f"{q}-t{n:02d}", answers.get(q, "1"), gold)
                              for people, golds in said.items() for q, gold in golds.items() for n in range(templates)]
        predictions[model] += [says(model, "persona", q, f"{q}-t{n:02d}", persona, gold)
                               for q, gold in said[model].items() for n in range(templates)]
        predictions[model] += [says(model, system, q, f"{q}-t00-s1", "1" if gold == "2" else "2", gold)
                               for q, gold in said[model].items() for system in ("adapter", "persona")]
    seeds = {name: [seed(q, shares(code), OPTIONS, culture=name) for q, code in answers.items()]
             for name, answers in said.items()}
    return Results(seeds, predictions, {})


def square(sums, found):
    return sums.mean(found.once)


def test_scores_and_distances_by_hand():
    found = transfer.measure(study())
    near = [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]
    for metric in transfer.METRICS:
        np.testing.assert_allclose(square(found.scores[metric], found)[:, :3], near)
        np.testing.assert_allclose(square(found.scores[metric], found)[:, 3], [1, 0.5, 0])  # the persona says 1
    np.testing.assert_allclose(square(found.peoples, found), 1 - np.array(near))
    np.testing.assert_allclose(square(found.adapters, found), 1 - np.array(near))
    assert (found.cultures, found.questions) == (list(SAID), ["Q1", "Q2"])


def test_scores_count_items_and_distances_of_peoples_questions():
    """Koreans were asked Q1 in three wordings, Q2 in one: the German adapter is right on three of four."""
    results = study()
    for model, rows in results.predictions.items():
        rows += [says("korean", "adapter", "Q1", f"Q1-t{n:02d}", SAID[model]["Q1"], "1") for n in (8, 9)]
    results.predictions["korean"] += [says("korean", "persona", "Q1", f"Q1-t{n:02d}", "1", "1") for n in (8, 9)]
    found = transfer.measure(results)
    assert square(found.scores["accuracy"], found)[0].tolist() == [1, 0.75, 0, 1]
    assert square(found.peoples, found)[0, 1] == 0.5
    table = transfer.matrix(found).set_index(["people", "adapter"])
    assert table.loc[("korean", "german")].to_dict() == {"js_similarity": 0.75, "accuracy": 0.75, "n": 4}
    assert table.loc[("german", "persona"), "n"] == 2


def test_items_that_some_adapter_was_not_asked_are_left_out():
    results = study()
    rows = results.predictions["turkish"]
    rows[:] = [row for row in rows if (row.culture, row.question_id) != ("korean", "Q1")]
    found = transfer.measure(results)
    assert square(found.scores["accuracy"], found)[0].tolist() == [1, 0, 0, 1]  # Q2 is left
    assert found.adapters.sizes[0].max() == 2  # of Q1, Germans' and Turks' items


def test_distances_are_over_questions_that_both_were_asked():
    said = SAID | {"turkish": {"Q2": "2"}}
    found = transfer.measure(study(said))
    np.testing.assert_allclose(square(found.peoples, found), [[0, 0.5, 1], [0.5, 0, 0], [1, 0, 0]])
    apart = transfer.questions_apart(found).set_index("question_id")
    assert apart.loc["Q1", "peoples"] == 0
    assert apart.loc["Q2", "peoples"] == pytest.approx(2 / 3)


def test_if_peoples_answered_for_each_other_the_loss_is_their_distance():
    found = transfer.measure(study())
    np.testing.assert_allclose(transfer.loss(square(found.scores["js_similarity"], found)[:, :3]),
                               square(found.peoples, found))
    table = transfer.pairs(found).set_index(["first", "second"])
    assert table.loc[("korean", "turkish")].to_dict() == {"peoples": 1, "adapters": 1, "loss_js_similarity": 1,
                                                          "loss_accuracy": 1}
    assert len(table) == 3


def test_loss_by_hand():
    """(0.9 + 0.8 - 0.4 - 0.7) / 2, twice over."""
    scores = np.array([[0.9, 0.4], [0.7, 0.8]])
    np.testing.assert_allclose(transfer.loss(np.array([scores, 2 * scores])), [[[0, 0.3], [0.3, 0]],
                                                                               [[0, 0.6], [0.6, 0]]])


@given(*[arrays(float, shape, elements=st.integers(0, 9).map(float)) for shape in ((4, 4), 4, 4)])
def test_easy_peoples_and_good_adapters_cancel_out(scores, easy, good):
    lost = transfer.loss(scores)
    np.testing.assert_allclose(transfer.loss(scores + easy[:, None] + good), lost, atol=1e-9)
    np.testing.assert_allclose(lost, lost.T)
    assert not np.diag(lost).any()


@pytest.fixture
def five():
    """Five peoples along a line: each says 1 to one more of six questions than the last. Each adapter says what its
    people do."""
    said = {name: {f"Q{n}": "1" if n <= level else "2" for n in range(6)}
            for level, name in enumerate(("korean", "german", "turkish", "spanish", "arabic"))}
    return study(said)


def test_transfer_follows_the_distance_where_adapters_say_what_peoples_do(five):
    table = transfer.relations(transfer.measure(five), 100, 0)
    assert table["figure"].nunique() == 3
    assert table["method"].tolist() == ["pearson"] * 3 + ["spearman"] * 3
    np.testing.assert_allclose(table["r"], 1)
    assert set(table["against"]) == {transfer.PEOPLES}
    counts = table[["cultures", "pairs", "questions", "permutations"]].drop_duplicates()
    assert counts.values.tolist() == [[5, 10, 6, 120]]
    assert table["exact"].all()
    np.testing.assert_allclose(table["p"], 2 / 120)  # as it stands, and turned round
    np.testing.assert_allclose(table["p_holm"], 3 * 2 / 120)
    assert (table["low"] <= 1 + 1e-9).all()
    assert table["high"].to_numpy() == pytest.approx(1)


def test_the_control_takes_questions_that_no_adapter_saw(five):
    """On Q9 and Q10 Koreans stand apart from all others; what is lost does not follow that."""
    for name, rows in five.seeds.items():
        code = "2" if name == "korean" else "1"
        for question in ("Q9", "Q10"):
            rows.append(seed(question, shares(code), OPTIONS, culture=name))
            five.predictions[name].append(says(name, "adapter", question, question, code, code, "held_out_question"))
    found = transfer.measure(five)
    table = transfer.relations(found, 200, 0).set_index(["figure", "against", "method"])
    assert found.untrained.tolist() == [False] * 6 + [True] * 2
    seen = square(found.scores["accuracy"], found)[:, :5]
    pairs = np.triu_indices(5, 1)
    apart = np.array([float(n == 0) for n in pairs[0]])
    expected = np.corrcoef(transfer.loss(seen)[pairs], apart)[0, 1]
    row = table.loc[("transfer loss, accuracy", transfer.UNTRAINED, "pearson")]
    assert row["r"] == pytest.approx(expected)
    assert row["questions"] == 2
    assert row["low"] <= row["r"] + 1e-9
    assert table.loc[("transfer loss, accuracy", transfer.PEOPLES, "pearson"), "questions"] == 8


def test_too_few_cultures_are_not_tested():
    table = transfer.relations(transfer.measure(study()), 100, 0)
    assert table[["p", "p_holm"]].isna().all(axis=None)
    assert mantel.verdict(table, transfer.ADAPTERS, transfer.PEOPLES)[0] == "cannot be tested against"
    two = transfer.measure(study({name: SAID[name] for name in ("korean", "german")}))
    assert transfer.relations(two, 100, 0).empty
    assert "figure" in transfer.relations(two, 100, 0)


def test_gains_by_hand():
    """The persona prompt always says 1, so it is right on both, one and none of the questions."""
    table = transfer.gains(transfer.measure(study(templates=2)), 400, 0)
    view = table[table["metric"] == "accuracy"].set_index(["comparison", "people"])
    value = view["value"]
    assert value["own adapter - persona prompt"].to_dict() == {
        "korean": 0, "german": 0.5, "turkish": 1, transfer.ALL: 0.5}
    assert value["own adapter - mean of the others"].to_dict() == {
        "korean": 0.75, "german": 0.5, "turkish": 0.75, transfer.ALL: pytest.approx(2 / 3)}
    # the Germans have two nearest: the first
    assert value["nearest people's adapter - persona prompt"].to_dict() == {
        "korean": -0.5, "german": 0, "turkish": 0.5, transfer.ALL: 0}
    assert value["nearest people's adapter - mean of the others but own"].to_dict() == {
        "korean": 0.5, "german": 0, "turkish": 0.5, transfer.ALL: pytest.approx(1 / 3)}
    korean = view.loc[("own adapter - mean of the others", "korean")]
    # Q1 tells Koreans from Turks alone (0.5 lost), Q2 from both (1 lost)
    assert korean[["low", "high", "n", "clusters"]].tolist() == [0.5, 1, 4, 2]
    assert view.loc[("own adapter - persona prompt", transfer.ALL), ["n", "clusters"]].tolist() == [12, 2]


def test_stand_ins_by_hand():
    table = transfer.stand_ins(transfer.measure(study()), "accuracy", 400, 0).set_index("people")
    korean = table.loc["korean"].to_dict()
    assert korean.pop("best_again") == 1  # at worst as good as the Turks' adapter
    assert korean == {"nearest": "german", "distance": 0.5, "nearest_rank": 1, "others": 2, "best": "german", "own": 1,
                      "nearest_score": 0.5, "best_score": 0.5, "persona": 1}
    assert table.loc["turkish", "persona"] == 0
    assert table.loc["german", "nearest_rank"] == 1  # level with the other


def test_the_nearest_need_not_be_the_best():
    """The Germans' adapter says the opposite of everything, the Turks' is right for Koreans on one question."""
    adapters = {"korean": SAID["korean"], "german": {"Q1": "2", "Q2": "2"}, "turkish": {"Q1": "1", "Q2": "2"}}
    korean = transfer.stand_ins(transfer.measure(study(adapters=adapters)), "accuracy", 400, 0).iloc[0]
    assert (korean["nearest"], korean["nearest_rank"], korean["best"]) == ("german", 2, "turkish")
    assert (korean["nearest_score"], korean["best_score"]) == (0, 0.5)
    assert korean["best_again"] == 1


def test_the_best_of_noisy_questions_is_not_best_again():
    """Two adapters are each right on five of ten questions, one of them on one more: a toss-up."""
    questions = [f"Q{n}" for n in range(11)]
    said = {name: dict.fromkeys(questions, "1") for name in ("korean", "german", "turkish")}
    adapters = {"korean": said["korean"], "german": {q: "2" if n < 5 else "1" for n, q in enumerate(questions)},
                "turkish": {q: "1" if n < 5 else "2" for n, q in enumerate(questions)}}
    korean = transfer.stand_ins(transfer.measure(study(said, adapters)), "accuracy", 2000, 0).iloc[0]
    assert korean["best"] == "german"
    assert 0.5 < korean["best_again"] < 0.8


def test_one_culture_alone():
    found = transfer.measure(study({"korean": SAID["korean"]}))
    assert transfer.stand_ins(found, "accuracy", 100, 0).empty
    assert set(transfer.gains(found, 100, 0)["comparison"]) == {"own adapter - persona prompt"}
    assert transfer.pairs(found).empty
    assert transfer.questions_apart(found).empty
    assert len(transfer.matrix(found)) == 2


def test_draws_are_of_as_many_questions():
    found = transfer.measure(study())
    draws = found.draws(50, 1)
    assert draws.shape == (50, 2)
    assert (draws.sum(1) == 2).all()
    np.testing.assert_array_equal(draws, found.draws(50, 1))


def knobs(cultures):
    return parameters.validate(parameters.Transfer, studies.defaults("08_transfer") | {
        "study": "toy", "cultures": cultures})


def write(results, wanted):
    for name, rows in results.predictions.items():
        folder = wanted.folder(name)
        write_rows(folder / "seeds.jsonl", results.seeds[name])
        write_rows(folder / "predictions.jsonl", rows)


def test_load_leaves_out_who_was_not_evaluated_or_not_asked(outputs):
    results = study(SAID | {"turkish": {"Q2": "2"}})  # who was asked less than others is in
    wanted = knobs(["korean", "turkish", "spanish", "german", "arabic", "greek"])
    write(results, wanted)
    # nobody was asked in Spanish or Arabic, but adapters were trained; Greek was not evaluated
    for name, rows in {"spanish": [], "arabic": [seed("Q1", None, OPTIONS, culture="arabic", label="1")]}.items():
        write_rows(wanted.folder(name) / "seeds.jsonl", rows)
        write_rows(wanted.folder(name) / "predictions.jsonl", results.predictions["german"])
    extra = [prediction("korean", "base"), prediction("korean", "adapter", "task")]
    write_rows(wanted.folder("korean") / "predictions.jsonl", [*extra, *results.predictions["korean"]])
    again = transfer.load(wanted)
    assert list(again.seeds) == ["korean", "turkish", "german"]
    assert again.predictions["korean"] == results.predictions["korean"]
    assert transfer.measure(again).cultures == ["korean", "turkish", "german"]


def test_load_says_so_when_there_is_nothing(outputs):
    with pytest.raises(UserError, match=r"no culture of outputs/toy/main .* run 05_evaluation"):
        transfer.load(knobs(["korean"]))


def test_results_can_be_written_as_json():
    found = transfer.measure(study())
    for frame in (transfer.relations(found, 100, 0), transfer.gains(found, 100, 0), transfer.matrix(found),
                  transfer.stand_ins(found, "accuracy", 100, 0)):
        json.dumps(frame.astype(object).where(frame.notna(), None).to_dict("records"), allow_nan=False)


def test_distances_are_jensen_shannon_distances():
    results = study({name: {"Q1": "1"} for name in ("korean", "german")})
    results.seeds["korean"][0] = seed("Q1", [0.9, 0.1], OPTIONS)
    results.seeds["german"][0] = seed("Q1", [0.2, 0.8], OPTIONS, culture="german")
    found = transfer.measure(results)
    assert square(found.peoples, found)[0, 1] == pytest.approx(1 - alignment.js_similarity([0.9, 0.1], [0.2, 0.8]))


def test_load_says_so_when_seeds_have_changed_since(outputs):
    results = study()
    wanted = knobs(["korean", "german"])
    write(results, wanted)
    write_rows(wanted.folder("german") / "seeds.jsonl", results.seeds["german"][1:])
    with pytest.raises(UserError, match=r"german/predictions.jsonl has questions .* such as Q1: rerun 05"):
        transfer.load(wanted)
