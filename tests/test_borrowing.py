"""Borrowed answers: the rule by hand, what is written, what it costs, and the zones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import borrowing, records, survey, wordings
from culturellm_utils.errors import UserError
from culturellm_utils.records import Question

#: A question for each letter, so that distances are easy to see; the last one has three options.
ASKED = [Question(question_id=f"Q{n}", topic="odd" if n % 2 else "even", question=f"Question {n}?",
                  options={"1": "Yes", "2": "No"} | ({"3": "Perhaps"} if n == 10 else {})) for n in range(1, 11)]


def table(answers: dict[str, dict[str, list[int]]]) -> pd.DataFrame:
    """Counts of ``{country: {question: people by option code from 1}}``, with three who did not know."""
    rows = [(country, name, code, people) for country, asked in answers.items() for name, counts in asked.items()
            for code, people in [(-1, 3), *enumerate(counts, start=1)] if people]
    found = pd.DataFrame(rows, columns=["country_alpha", "question", "answer_code", "respondents"])
    return found.assign(first_1000=found["respondents"], weight=found["respondents"].astype(float))


def same_everywhere(*counts: int, but: tuple[str, ...] = ()) -> dict[str, list[int]]:
    """The same counts for the ten questions, without those in ``but``."""
    return {q.question_id: [*counts] for q in ASKED if q.question_id not in but}


WORLD = borrowing.world(table({
    "KOR": same_everywhere(80, 20), "CHN": same_everywhere(60, 40, but=("Q9",)), "JPN": same_everywhere(50, 50),
    "DEU": same_everywhere(10, 90), "USA": same_everywhere(20, 80), "XKX": same_everywhere(90, 10),
}), ASKED)


def known(counts: tuple[int, int], number: int) -> dict[str, dict[str, float]]:
    total = sum(counts)
    return {q.question_id: {code: share / total for code, share in zip(q.options, [*counts, 0], strict=False)}
            for q in ASKED[:number]}


def lent(answers: dict[str, dict[str, float]], countries: list[str], neighbours: int = 2,
         label_rule: str = "mode") -> tuple[dict[str, records.Seed], borrowing.Donors]:
    rows, found = borrowing.borrow("toy", countries, answers, WORLD, neighbours, label_rule)
    return {row.question_id: row for row in rows}, found


def test_the_world_holds_shares_of_valid_answers():
    assert WORLD.countries == ("CHN", "DEU", "JPN", "KOR", "USA", "XKX")
    assert WORLD.shares.shape == (6, 10, 3)
    assert WORLD.shares[3, 0].tolist() == [0.8, 0.2, 0]          # the three who did not know do not count
    assert np.isnan(WORLD.shares[0, 8]).all()                    # China was not asked Q9


def test_the_nearest_lend_once_eight_questions_are_shared():
    rows, found = lent(known((55, 45), 8), ["TWN"])
    assert found.rule == "nearest"
    # 55 lies 5 from CHN's 60 and JPN's 50; nearer to the even distribution the same step is a smaller distance
    assert [WORLD.countries[place] for place in found.places][:3] == ["JPN", "CHN", "KOR"]
    assert set(rows) == {"Q9", "Q10"}                            # what is known is not borrowed
    assert rows["Q10"].countries == ["CHN", "JPN"]
    assert rows["Q10"].distribution == pytest.approx({"1": 0.55, "2": 0.45, "3": 0})
    assert rows["Q9"].countries == ["JPN", "KOR"]                # China was not asked: the next nearest lends
    assert rows["Q9"].distribution == pytest.approx({"1": 0.65, "2": 0.35})
    assert (rows["Q9"].label, rows["Q9"].label_rule, rows["Q9"].respondents) == ("1", "borrowed", 0)


@pytest.mark.parametrize(("countries", "rule", "who"), [
    (["TWN"], "zone", ["CHN", "JPN", "KOR"]),                    # seven questions are too few: its zone lends
    (["TWN", "NLD"], "zone", ["CHN", "DEU", "JPN", "KOR"]),      # the zones of both its countries
    (["KOR"], "zone", ["CHN", "JPN"]),                           # never its own country
    (["GRC"], "all", ["CHN", "DEU", "JPN", "KOR", "USA", "XKX"]),   # nobody here is of its zone
    (["XKX"], "all", ["CHN", "DEU", "JPN", "KOR", "USA"]),       # a country of no zone
])
def test_with_fewer_the_zone_lends_and_where_it_has_none_everyone(countries, rule, who):
    rows, found = lent(known((55, 45), 7), countries)
    assert found.rule == rule
    assert rows["Q10"].countries == who


def test_a_zone_that_was_not_asked_leaves_the_question_to_everyone():
    lenders = borrowing.world(table({"KOR": same_everywhere(80, 20, but=("Q1",)), "USA": same_everywhere(20, 80),
                                     "DEU": same_everywhere(10, 90)}), ASKED)
    rows, _ = borrowing.borrow("toy", ["CHN"], {}, lenders, 3, "mode")
    assert [(row.countries, round(row.distribution["1"], 9)) for row in rows[:2]] == [(["DEU", "USA"], 0.15),
                                                                                      (["KOR"], 0.8)]


def test_a_question_that_nobody_was_asked_is_not_borrowed():
    lenders = borrowing.world(table({"KOR": same_everywhere(80, 20, but=("Q1",))}), ASKED)
    rows, _ = borrowing.borrow("toy", ["CHN"], {}, lenders, 3, "mode")
    assert [row.question_id for row in rows] == [f"Q{n}" for n in range(2, 11)]


def test_the_label_of_a_lent_answer():
    assert lent({}, ["NLD"], label_rule="mode")[0]["Q1"].label == "2"
    scale = {"Q10": [40, 5, 55]}
    lenders = borrowing.world(table({"DEU": scale}), ASKED)
    labels = {rule: borrowing.borrow("toy", ["NLD"], {}, lenders, 3, rule)[0][0].label
              for rule in ("mode", "mean", "paper")}
    assert labels == {"mode": "3", "mean": "2", "paper": "3"}    # the mean is 2.15


def test_pretended_questions_are_spread_and_none_that_04_holds_out():
    questions = survey.questions("")
    counts = survey.counts(["KOR"], questions, "", False)
    seeds = survey.seeds("korean", ["KOR"], questions, counts, "mode", "equal")
    ids = borrowing.pretended(seeds, 10, 0)
    assert len(ids) == 10
    assert len({seed.topic for seed in seeds if seed.question_id in ids}) >= 4
    assert not set(ids) & wordings.held_out_questions(questions, 10, 0)
    assert borrowing.pretended(seeds, 0, 0) == []
    assert borrowing.pretended(seeds, 50, 0) == [seed.question_id for seed in seeds]
    assert borrowing.pretended(seeds, 10, 1) != ids
    twice = survey.seeds("korean", ["KOR"], questions, counts, "paper", "equal")
    assert borrowing.pretended(twice, 10, 0) == ids              # two rows a question, one question


# --- what 04 trains on -------------------------------------------------------------------------------------------


def write(folder: Path, own: list[str], borrowed: list[str], label_rule: str = "mode") -> Path:
    rows, _ = lent({}, ["NLD"])
    seeds = [rows[name].model_copy(update={"label_rule": label_rule, "respondents": 100, "label": label})
             for name in own for label in (("1", "2") if label_rule == "paper" else ("1",))]
    records.write_rows(folder / "seeds.jsonl", seeds)
    if borrowed:
        records.write_rows(folder / "borrowed.jsonl", [rows[name] for name in borrowed])
    return folder


@pytest.mark.parametrize(("own", "borrowed", "rule", "expected"), [
    (["Q1", "Q2"], [], "mode", [("Q1", "mode"), ("Q2", "mode")]),
    (["Q1", "Q3"], ["Q2"], "mode", [("Q1", "mode"), ("Q3", "mode"), ("Q2", "borrowed")]),
    (["Q1", "Q2"], ["Q1"], "mode", [("Q1", "borrowed"), ("Q2", "mode")]),
    (["Q1", "Q2"], ["Q1"], "paper", [("Q1", "borrowed"), ("Q2", "paper"), ("Q2", "paper")]),
    ([], ["Q4"], "mode", [("Q4", "borrowed")]),
])
def test_borrowed_rows_stand_in_for_the_seeds_of_their_questions(tmp_path, own, borrowed, rule, expected):
    found = borrowing.trained_on(write(tmp_path, own, borrowed, rule))
    assert [(row.question_id, row.label_rule) for row in found] == expected


def test_a_culture_without_any_answer_cannot_be_trained_on(tmp_path):
    with pytest.raises(UserError, match=r"nobody of this culture was asked; set borrow to missing"):
        borrowing.trained_on(write(tmp_path, [], []))


# --- what borrowing costs ----------------------------------------------------------------------------------------


def test_leaving_one_out_by_hand():
    scores = borrowing.leave_one_out({"korean": ["KOR"]}, WORLD, 1, known=(0, 9))
    one = scores[scores["question_id"] == "Q1"].set_index(["known", "source"])
    # Q1: KOR 80-20. Zone: CHN, JPN: 55-45, the same side. All others: mean of 60, 10, 50, 20, 90 is 46.
    assert one.loc[(0, "borrowed"), "accuracy"] == 1
    assert one.loc[(0, "mean of all countries"), "accuracy"] == 0
    assert one.loc[(0, "United States"), "accuracy"] == 0
    assert one.loc[(0, "another country"), "accuracy"] == pytest.approx(3 / 5)   # CHN, JPN (first of equals), XKX
    close = [1 - borrowing.alignment.js_distance([0.8, 0.2], q) for q in
             ([0.6, 0.4], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1])]
    assert one.loc[(0, "another country"), "js_similarity"] == pytest.approx(np.mean(close))
    # with nine known, the one country nearest to 80-20 lends: XKX with 90-10
    assert one.loc[(9, "borrowed"), "js_similarity"] == pytest.approx(close[4])


def test_only_what_was_unknown_is_scored(monkeypatch):
    monkeypatch.setattr(borrowing, "DRAWS", 3)
    scores = borrowing.leave_one_out({"korean": ["KOR"]}, WORLD, 1, known=(9, 10))
    unknown = frozenset().union(*(wordings.held_out_questions(ASKED, 1, draw) for draw in range(3)))
    assert set(scores.loc[scores["known"] == 9, "question_id"]) == unknown
    assert 10 not in set(scores["known"])                        # nothing would be left to score


def test_a_culture_of_several_countries_is_their_mean_and_borrows_from_neither():
    scores = borrowing.leave_one_out({"both": ["KOR", "DEU"]}, WORLD, 1, known=(0,))
    row = scores[(scores["question_id"] == "Q1") & (scores["source"] == "mean of all countries")].iloc[0]
    # KOR and DEU: 45-55; the others: (60 + 50 + 20 + 90) / 4 = 55
    assert row["accuracy"] == 0
    assert row["js_similarity"] == pytest.approx(borrowing.alignment.js_similarity([0.45, 0.55], [0.55, 0.45]))
    assert "United States" not in set(borrowing.leave_one_out({"us": ["USA"]}, WORLD, 1)["source"])


def test_figures_and_gains_of_every_country():
    scores = borrowing.leave_one_out({name: [name] for name in WORLD.countries}, WORLD, 2)
    found = borrowing.means(scores, "culture", 200, 0).set_index(["known", "source", "metric"])
    row = found.loc[(0, "borrowed", "accuracy")]
    assert (row["n"], row["clusters"]) == (59, 6)                # China was not asked Q9
    assert row["low"] <= row["value"] <= row["high"]
    gains = borrowing.gains(scores, "culture", 200, 0).set_index(["known", "source", "metric"])
    mean = found.loc[(0, "mean of all countries", "accuracy"), "value"]
    assert gains.loc[(0, "mean of all countries", "accuracy"), "value"] == pytest.approx(row["value"] - mean)
    assert gains.loc[(0, "United States", "accuracy"), "clusters"] == 5
    assert gains["p"].between(0, 1).all()


def test_a_lone_country_has_nobody_to_borrow_from():
    alone = borrowing.world(table({"KOR": same_everywhere(80, 20)}), ASKED)
    scores = borrowing.leave_one_out({"korean": ["KOR"]}, alone, 3)
    assert scores.empty
    assert "nobody can lend" in borrowing.verdict(borrowing.gains(scores, "culture", 100, 0))[1]
    assert borrowing.means(scores, "culture", 100, 0).empty
    assert borrowing.borrow("korean", ["KOR"], {}, alone, 3, "mode")[0] == []


@pytest.mark.parametrize(("low", "high", "side"), [(0.01, 0.05, "clearly nearer"), (-0.05, -0.01, "clearly farther"),
                                                   (-0.01, 0.05, "not clearly nearer")])
def test_the_verdict_follows_the_interval(low, high, side):
    row = {"known": 10, "source": borrowing.WORLD, "metric": "js_similarity", "value": 0.02, "low": low, "high": high,
           "n": 50, "clusters": 50, "p": 0.5}
    words, sentence = borrowing.verdict(pd.DataFrame([row | {"known": 0, "low": 9.0}, row]))
    assert side in words
    assert f"With 10 answers known, lent ones are {side} to people's" in sentence


@given(st.lists(st.lists(st.integers(1, 99), min_size=2, max_size=2), min_size=2, max_size=5), st.integers(1, 5),
       st.integers(0, 10))
def test_what_is_lent_is_always_a_distribution_of_others(answers, neighbours, number):
    names = ["CHN", "DEU", "JPN", "KOR", "USA"][: len(answers)]
    lenders = borrowing.world(table({name: same_everywhere(*counts) for name, counts in
                                     zip(names, answers, strict=True)}), ASKED)
    rows, found = borrowing.borrow("toy", names[:1], known((30, 70), number), lenders, neighbours, "mode")
    assert len(rows) == 10 - number
    for row in rows:
        assert sum(row.distribution.values()) == pytest.approx(1)
        assert names[0] not in row.countries
        assert found.rule != "nearest" or len(row.countries) <= neighbours
        assert min(a / (a + b) for a, b in answers[1:]) - 1e-9 <= row.distribution["1"]
        assert row.distribution["1"] <= max(a / (a + b) for a, b in answers[1:]) + 1e-9


# --- zones and the shipped counts --------------------------------------------------------------------------------


def test_every_country_has_one_zone_and_every_zone_countries_of_this_wave():
    import yaml
    listed = yaml.safe_load((borrowing.paths.DATA / "zones.yaml").read_text(encoding="utf-8"))
    edge = listed.pop("borderline")
    every = [country for parts in listed.values() for part in parts.values() for country in part]
    assert len(every) == len(set(every))
    assert set(edge) <= set(every)
    assert sum(len(parts["wave_7"]) for parts in listed.values()) == 66
    assert len(listed) == 8
    assert {borrowing.zones()[name] for name in ("GRC", "KOR", "NLD", "USA", "MEX", "IND", "EGY", "SVK")} == set(listed)


def test_everyone_is_the_users_file_and_what_ships_of_other_countries(tmp_path):
    asked = survey.questions("")[:2]
    people = pd.DataFrame({"B_COUNTRY_ALPHA": ["GRC"] * 3 + ["KOR"], **{q.question_id: [1, 1, 2, 4] for q in asked}})
    people.to_csv(tmp_path / "own.csv", index=False)
    found = borrowing.everyone(asked, str(tmp_path / "own.csv"), False)
    people_in = found[found["question"] == "Q27"].groupby("country_alpha")["respondents"].sum()
    assert people_in["GRC"] == 3
    assert people_in["KOR"] == 1                                 # the user's, not the 1245 that ship
    assert people_in["DEU"] == 1528
    other = [asked[0].model_copy(update={"question_id": "Q999"})]
    assert borrowing.everyone(other, "", False).empty            # a question that does not ship is nobody's
