"""Survey answers: counts, distributions and labels by hand; official files and broken ones; the released recipe."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culturellm_utils import records, studies, survey, wvs
from culturellm_utils.errors import UserError
from culturellm_utils.records import Question

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference data is not beside this checkout")
COUNTRIES = ["ARG", "BGD", "BRA", "CHN", "DEU", "IRQ", "JOR", "KOR", "MEX", "TUR", "USA"]
KEYS = ["country_alpha", "question", "answer_code"]

AGREE = Question(question_id="Q27", topic="Social values", question="Work is a duty.",
                 options={"1": "Strongly agree", "2": "Agree", "3": "Disagree", "4": "Strongly disagree"})
MIGRATION = Question(question_id="Q122", topic="Migration", question="Immigration fills jobs.",
                     options={"2": "Agree", "1": "Hard to say", "0": "Disagree"})
TOY = [AGREE, MIGRATION]

# KOR: 1 1 2 and a don't know; USA: a 2 and a not asked. Q122 was never asked in USA.
RESPONDENTS = pd.DataFrame({
    "A_WAVE": 7,
    "B_COUNTRY": [410, 410, 410, 410, 840, 840, 124],
    "B_COUNTRY_ALPHA": ["KOR", "KOR", "KOR", "KOR", "USA", "USA", "CAN"],
    "W_WEIGHT": [2.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0],
    "Q27": [1, 1, 2, -1, 2, -4, 4],
    "Q122": [0, 0, 1, -2, -4, -4, 2],
})


def write(path: Path, frame: pd.DataFrame = RESPONDENTS, sep: str = ",") -> str:
    frame.to_csv(path, sep=sep, index=False)
    return str(path)


def toy(path: Path, weights: bool = False) -> pd.DataFrame:
    return survey.counts(["KOR", "USA"], TOY, write(path / "toy.csv"), weights)


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left.sort_values(KEYS, ignore_index=True), right.sort_values(KEYS, ignore_index=True))


# --- shipped files ---------------------------------------------------------------------------------------------


@needs_reference
def test_shipped_counts_are_the_counts_of_the_respondents():
    asked = survey.questions("")
    from_file = survey.counts(COUNTRIES, asked, str(REFERENCE / "wvs7_respondents.csv"), False)
    same(survey.counts(COUNTRIES, asked, "", False), from_file)
    published = pd.read_csv(REFERENCE / "wvs7_counts.csv")
    shipped = pd.read_csv(wvs.SHIPPED_COUNTS)
    pd.testing.assert_frame_equal(shipped.drop(columns="first_1000"), published)


def test_first_1000_counts_a_thousand_people_for_every_question():
    shipped = pd.read_csv(wvs.SHIPPED_COUNTS)
    assert (shipped.groupby(["country_alpha", "question"])["first_1000"].sum() == 1000).all()
    assert (shipped["first_1000"] <= shipped["respondents"]).all()


def test_china_drops_the_18_questions_it_never_asked():
    asked = survey.questions("")
    found = survey.seeds("chinese", ["CHN"], asked, survey.counts(["CHN"], asked, "", False), "mode", "equal")
    dropped = {question.question_id for question in asked} - {seed.question_id for seed in found}
    assert dropped == {"Q125", *(f"Q{n}" for n in range(132, 139)), *(f"Q{n}" for n in range(224, 234))}
    assert len(found) == 32


def test_seeds_can_be_written_and_read(tmp_path):
    asked = survey.questions("")
    found = survey.seeds("korean", ["KOR"], asked, survey.counts(["KOR"], asked, "", False), "mode", "equal")
    path = records.write_rows(tmp_path / "seeds.jsonl", found)
    assert records.read_rows(path, records.Seed) == found


@pytest.mark.parametrize(("countries", "ids", "weights", "sentence"), [
    (["GRC"], ["Q27"], False, "have no country GRC; set wvs_path"),
    (["KOR"], ["Q999"], False, "have no question Q999; set wvs_path"),
    (["KOR"], ["Q27"], True, "unweighted; set wvs_path"),
])
def test_what_the_shipped_counts_do_not_have(countries, ids, weights, sentence):
    asked = [AGREE.model_copy(update={"question_id": name}) for name in ids]
    with pytest.raises(UserError, match=sentence):
        survey.counts(countries, asked, "", weights)


# --- distributions and labels, worked by hand -------------------------------------------------------------------


def test_counts_of_toy_respondents(tmp_path):
    table = toy(tmp_path)
    rows = {tuple(row[:3]): tuple(row[3:]) for row in table.itertuples(index=False)}
    assert rows == {
        ("KOR", "Q27", -1): (1, 1, 1.0), ("KOR", "Q27", 1): (2, 2, 2.0), ("KOR", "Q27", 2): (1, 1, 1.0),
        ("KOR", "Q122", -2): (1, 1, 1.0), ("KOR", "Q122", 0): (2, 2, 2.0), ("KOR", "Q122", 1): (1, 1, 1.0),
        ("USA", "Q27", -4): (1, 1, 1.0), ("USA", "Q27", 2): (1, 1, 1.0), ("USA", "Q122", -4): (2, 2, 2.0),
    }


@pytest.mark.parametrize(("weighting", "weights", "expected", "most", "average"), [
    # shares KOR 2/3 1/3, USA 0 1: averaged 1/3 2/3; mean 5/3
    ("equal", False, [1 / 3, 2 / 3], "2", "2"),
    # answers 1 1 2 and 2: a tie goes to the first option, a mean of 1.5 up
    ("respondents", False, [1 / 2, 1 / 2], "1", "2"),
    # weights: KOR 3/4 1/4, USA 0 1
    ("equal", True, [3 / 8, 5 / 8], "2", "2"),
    # weights: 3 of 4.5 for 1, 1 + 0.5 of 4.5 for 2; mean 4/3
    ("respondents", True, [2 / 3, 1 / 3], "1", "1"),
])
def test_two_countries_by_hand(tmp_path, weighting, weights, expected, most, average):
    table = toy(tmp_path, weights)
    for rule, label in (("mode", most), ("mean", average)):
        q27, q122 = survey.seeds("toy", ["KOR", "USA"], TOY, table, rule, weighting)
        assert list(q27.distribution.values()) == pytest.approx([*expected, 0, 0])
        assert (q27.label, q27.respondents, q27.countries) == (label, 4, ["KOR", "USA"])
        assert list(q122.distribution) == ["2", "1", "0"]          # the order of the options
        assert q122.countries == ["KOR"]
        assert q122.respondents == 3
        assert q122.distribution["2"] == 0
    # Q122 was asked in KOR alone: 0 0 1, with weights 2 1 1
    assert q122.distribution["0"] == pytest.approx(3 / 4 if weights else 2 / 3)
    assert q122.label == "0"


def test_mean_rounds_half_up_to_an_option():
    assert survey.mean({"1": 0.5, "2": 0.5, "3": 0}) == "2"
    assert survey.mean({"2": 0.5, "1": 0.0, "0": 0.5}) == "1"
    assert survey.mean({"1": 0.1, "2": 0.4, "3": 0.5}) == "2"      # 2.4
    assert survey.mean({"1": 0.5, "5": 0.5}) == "5"                # 3 lies between the only two options


def test_question_nobody_was_asked_is_dropped_but_by_the_paper(tmp_path):
    table = survey.counts(["USA"], TOY, write(tmp_path / "toy.csv"), False)
    assert [seed.question_id for seed in survey.seeds("toy", ["USA"], TOY, table, "mode", "equal")] == ["Q27"]
    rows = [seed for seed in survey.seeds("toy", ["USA"], TOY, table, "paper", "equal") if seed.question_id == "Q122"]
    assert [(row.label, row.distribution, row.respondents) for row in rows] == [("4", {}, 0)] * 2


def test_paper_labels_by_hand(tmp_path):
    table = toy(tmp_path)
    rows = survey.seeds("toy", ["KOR", "USA"], TOY, table, "paper", "equal")
    assert [(row.question_id, row.countries, row.label) for row in rows] == [
        ("Q27", ["KOR"], "0"),          # (1 + 1 + 2 - 1) / 4 = 0.75
        ("Q27", ["USA"], "1"),          # (2 - 4) / 2 = -1
        ("Q122", ["KOR"], "0"),         # (0 + 0 + 1 - 2) / 4 = -0.25
        ("Q122", ["USA"], "4"),         # nobody was asked
    ]
    assert rows[0].distribution == pytest.approx({"1": 1 / 3, "2": 2 / 3, "3": 0, "4": 0})     # what people said
    compared = survey.paper_comparison(["KOR", "USA"], TOY, table, "equal").set_index(["question_id", "block"])
    findings = compared[["differs", "off_scale", "missing_only"]]
    assert findings.loc[("Q27", 1)].tolist() == [True, True, False]
    assert findings.loc[("Q27", 2)].tolist() == [True, False, False]
    assert findings.loc[("Q122", 1)].tolist() == [False, False, False]
    assert findings.loc[("Q122", 2)].tolist() == [True, True, True]
    cost = survey.paper_cost({"toy": ["KOR", "USA"]}, TOY, table, "equal")
    assert cost.to_dict("records") == [
        {"culture": "toy", "block": 1, "country": "KOR", "questions": 2, "asked": 2, "differs": 1, "off_scale": 1,
         "missing_only": 0},
        {"culture": "toy", "block": 2, "country": "USA", "questions": 2, "asked": 2, "differs": 2, "off_scale": 1,
         "missing_only": 1},
    ]


def test_second_block_of_one_country_is_its_first_1000():
    answers = pd.DataFrame({"country_alpha": "KOR", "weight": 1.0, "Q27": [2.0] * 1000 + [4.0] * 1500, "Q122": -4.0})
    labels = survey.paper_labels(["KOR"], TOY, wvs.tally(answers)).set_index(["question_id", "block"])["label"]
    assert labels["Q27"].tolist() == ["3", "2"]        # 8000 / 2500 = 3.2, and 2
    assert labels["Q122"].tolist() == ["3", "4"]       # one of 2500 is left out of the sum: -3.998; of 1000 none: -4


def test_weights_do_not_enter_the_released_labels(tmp_path):
    plain, weighted = (survey.paper_labels(["KOR", "USA"], TOY, toy(tmp_path, weights)) for weights in (False, True))
    pd.testing.assert_frame_equal(plain, weighted)


@needs_reference
def test_released_labels_are_those_of_the_released_arithmetic():
    asked = survey.questions("")
    table = survey.counts(COUNTRIES, asked, "", False)
    people = pd.read_csv(REFERENCE / "wvs7_respondents.csv")
    for country in COUNTRIES:
        rows = survey.paper_labels([country], asked, table).set_index(["block", "question_id"])["label"]
        answers = people[people["B_COUNTRY_ALPHA"] == country]
        for name in (question.question_id for question in asked):
            codes = answers[name].to_numpy()
            everyone = (codes.sum() - codes[1000]) / len(codes)        # the 1,001st is lost from the sum
            assert rows[1, name] == str(abs(int(everyone))), (country, name)
            assert rows[2, name] == str(abs(int(codes[:1000].mean()))), (country, name)


def test_what_is_known_of_the_released_labels():
    asked = survey.questions("")
    table = survey.counts(COUNTRIES, asked, "", False)
    cost = survey.paper_cost({country: [country] for country in COUNTRIES}, asked, table, "equal")
    block = cost[cost["block"] == 1].set_index("country")
    assert block["differs"][["DEU", "USA", "KOR", "CHN"]].tolist() == [39, 31, 28, 15]
    assert block["asked"][["DEU", "CHN", "IRQ", "JOR"]].tolist() == [50, 32, 48, 48]
    assert block["missing_only"][["CHN", "IRQ", "JOR", "KOR"]].tolist() == [18, 2, 2, 0]
    assert (block["differs"].min(), block["differs"].max()) == (15, 39)
    against_mean = []
    for country in COUNTRIES:
        rows = survey.paper_labels([country], asked, table).query("block == 1").set_index("question_id")["label"]
        seeds = survey.seeds("any", [country], asked, table, "mean", "equal")
        against_mean.append(sum(rows[seed.question_id] != seed.label for seed in seeds))
    assert sorted(against_mean)[1:] == sorted(n for n in against_mean if 20 <= n <= 37)     # China: 15 of 32
    never = survey.paper_labels(["CHN"], asked, table).query("question_id == 'Q132'")
    assert never["label"].tolist() == ["3", "4"]


def test_coverage_and_agreement(tmp_path):
    table = toy(tmp_path)
    seen = survey.coverage(table).set_index("country")
    assert seen["respondents"].to_dict() == {"KOR": 4, "USA": 2}
    assert seen["questions"].to_dict() == {"KOR": 2, "USA": 1}
    assert seen["missing"].to_dict() == {"KOR": 0.25, "USA": 0.5}
    assert survey.agreement(["KOR"], TOY, table).empty
    (row,) = survey.agreement(["KOR", "USA"], TOY, table).itertuples()       # USA never asked Q122
    assert (row.question_id, row.same) == ("Q27", False)
    # shares (2/3, 1/3) and (0, 1), middle (1/3, 2/3): divergence is half of (2/3 - 1/3) + log2(3/2)
    assert row.similarity == pytest.approx(1 - ((1 / 3 + np.log2(1.5)) / 2) ** 0.5)


answers_strategy = st.lists(
    st.tuples(st.sampled_from(["KOR", "USA"]), st.integers(-5, 4).filter(bool), st.floats(0.1, 5)),
    min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(answers_strategy, st.sampled_from(["equal", "respondents"]), st.randoms(use_true_random=False))
def test_shares_sum_to_one_whatever_the_order(answers, weighting, random):
    frame = pd.DataFrame(answers, columns=["country_alpha", "Q27", "weight"]).astype({"Q27": float})
    first = survey.distributions(["KOR", "USA"], [AGREE], wvs.tally(frame), weighting)["Q27"]
    random.shuffle(answers)
    shuffled = wvs.tally(pd.DataFrame(answers, columns=["country_alpha", "Q27", "weight"]))
    other = survey.distributions(["KOR", "USA"], [AGREE], shuffled.sample(frac=1, random_state=0), weighting)["Q27"]
    assert first == pytest.approx(other)
    if any(code > 0 for _, code, _ in answers):
        assert sum(first.values()) == pytest.approx(1)
        assert list(first) == list(AGREE.options)
        assert survey.mode(first) in AGREE.options
        assert survey.mean(first) in AGREE.options
    else:
        assert first == {}


# --- official files ---------------------------------------------------------------------------------------------


def variants(folder: Path) -> list[str]:
    text = RESPONDENTS.to_csv(index=False)
    files = {
        "semicolon.csv": text.replace(",", ";"),
        "marked.csv": "\ufeff" + text,
        "quoted.csv": "\ufeff" + "\n".join(";".join(f'"{cell}"' for cell in line.split(",")) for line in text.split()),
        "spaces.csv": text.replace(",", ", ").replace("\n", "\r\n") + "\r\n",
        "decimal.csv": text.replace(",", ";").replace("0.5", "0,5"),
        "floats.csv": RESPONDENTS.astype({"Q27": float}).to_csv(index=False),
        "number.csv": RESPONDENTS.drop(columns=["B_COUNTRY_ALPHA", "A_WAVE"]).to_csv(index=False),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8", newline="")
    missing = {"Q27": [{"lo": -5, "hi": -1}], "Q122": [{"lo": -5, "hi": -1}]}
    labels = {"Q27": {1: "Strongly agree", -1: "Don't know"}, "B_COUNTRY": {410: "South Korea"}}
    pyreadstat.write_sav(RESPONDENTS, folder / "wvs.sav", missing_ranges=missing, variable_value_labels=labels)
    pyreadstat.write_dta(RESPONDENTS, folder / "wvs.dta", variable_value_labels=labels)
    return [str(folder / name) for name in [*files, "wvs.sav", "wvs.dta"]]


def test_every_form_of_the_file_gives_the_same_counts(tmp_path):
    expected = toy(tmp_path, weights=True)
    for path in variants(tmp_path):
        same(survey.counts(["KOR", "USA"], TOY, path, True), expected)


def test_empty_cells_are_not_counted(tmp_path):
    frame = RESPONDENTS.assign(Q27=["", "NA", 2, " ", 2, -4, 4])
    table = survey.counts(["KOR"], TOY, write(tmp_path / "gaps.csv", frame), False)
    assert table.query("question == 'Q27'")[["answer_code", "respondents"]].values.tolist() == [[2, 1]]


def damaged(content: str | bytes, name: str = "wvs.csv"):
    def make(folder: Path) -> str:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return str(folder / name)
    return make


def changed(**columns):
    return damaged(RESPONDENTS.assign(**columns).to_csv(index=False))


def cut_sav(folder: Path) -> str:
    pyreadstat.write_sav(pd.concat([RESPONDENTS] * 50), folder / "wvs.sav")
    content = (folder / "wvs.sav").read_bytes()
    return damaged(content[: len(content) - 300], "cut.sav")(folder)


def text_sav(folder: Path) -> str:
    pyreadstat.write_sav(RESPONDENTS.assign(Q27=["1", "1", "two", "1", "1", "1", "1"]), folder / "text.sav")
    return str(folder / "text.sav")


TEXT = RESPONDENTS.to_csv(index=False)


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda folder: str(folder / "none.csv"), r"none\.csv does not exist; give the official WVS-7 file"),
    (damaged("x", "wvs.rds"), r"wvs\.rds is neither \.csv nor \.sav nor \.dta"),
    (damaged(""), r"wvs\.csv is empty; download"),
    (damaged("", "wvs.dta"), r"wvs\.dta is empty; download"),
    (damaged(TEXT.split("\n")[0] + "\n"), r"wvs\.csv has no respondents; download"),
    (damaged(TEXT[:-7]), r"wvs\.csv line 8 has 4 of 6 columns: the file is cut off or damaged; download"),
    (damaged(TEXT.replace("CAN", '"CA')[:-9]), r"wvs\.csv line 8 has 3 of 6 columns"),
    (damaged("\x89PNG\n\x00\x01", "wvs.csv"), r"wvs\.csv lacks the column B_COUNTRY_ALPHA and 3 more"),
    (damaged("not SPSS", "wvs.sav"), r"wvs\.sav cannot be read .*cut off or damaged; download"),
    (cut_sav, r"cut\.sav cannot be read .*cut off or damaged; download"),
    (text_sav, r"text\.sav case 3, column Q27: 'two' is not a whole number; put the survey's number there"),
    (damaged(RESPONDENTS.drop(columns="Q122").to_csv()), r"wvs\.csv lacks the column Q122; download"),
    (damaged(RESPONDENTS.rename(columns={"Q27": "Q27P"}).to_csv()), r"lacks the column Q27; it is the .*inverted"),
    (damaged(RESPONDENTS.drop(columns="W_WEIGHT").to_csv()), r"lacks the column W_WEIGHT"),
    (damaged("V2,V4\n1,2\n"), r"lacks the column B_COUNTRY_ALPHA and 3 more that are needed; download"),
    (changed(A_WAVE=6), r"line 2 is of wave 6 \(column A_WAVE\).*wave 7; download"),
    (changed(Q27=[1, 1, "agree", 1, 1, 1, 1]), r"line 4, column Q27: 'agree' is not a whole number; put"),
    (changed(Q27=[1, 1.5, 1, 1, 1, 1, 1]), r"line 3, column Q27: '1\.5' is not a whole number"),
    (changed(Q27=[1, "nan", 1, 1, 1, 1, 1]), r"line 3, column Q27: 'nan' is not a whole number"),
    (changed(Q27=[1, "0x1", 1, 1, 1, 1, 1]), r"line 3, column Q27: '0x1' is not a whole number"),
    (changed(Q27=[1, "Inf", 1, 1, 1, 1, 1]), r"line 3, column Q27: 'Inf' is not a whole number"),
    (changed(Q27=[1, "1.50", 1, 1, 1, 1, 1]), r"line 3, column Q27: '1\.50' is not a whole number"),
    (changed(Q27=[1, 7, 7, 1, 1, 1, 1]), r"2 respondents of KOR answered 7 to Q27, whose options are 1, 2, 3, 4; cor"),
    (changed(Q27=-4, Q122=-5), r"wvs\.csv: nobody in KOR, USA gave a valid answer to any question; choose"),
    (changed(B_COUNTRY_ALPHA="FRA"), r"no respondents of KOR in column B_COUNTRY_ALPHA; take KOR off"),
    (changed(W_WEIGHT=[1, "", 1, 1, 1, 1, 1]), r"line 3 has no weight of 0 or more in column W_WEIGHT; complete it"),
    (changed(W_WEIGHT=[1, 1, -1, 1, 1, 1, 1]), r"line 4 has no weight of 0 or more"),
    (changed(W_WEIGHT=[1, 1, "one", 1, 1, 1, 1]), r"line 4, column W_WEIGHT: 'one' is not a weight"),
])
def test_bad_files_get_one_sentence(tmp_path, make, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        survey.counts(["KOR", "USA"], TOY, make(tmp_path), True)
    assert str(tmp_path) not in str(caught.value)      # a name, not the whole path
    assert "\n" not in str(caught.value)


def test_unknown_number_of_a_country(tmp_path):
    path = write(tmp_path / "wvs.csv", RESPONDENTS.drop(columns="B_COUNTRY_ALPHA"))
    with pytest.raises(UserError, match=r"wvs\.csv has no column B_COUNTRY_ALPHA, and which number XKX"):
        survey.counts(["XKX"], TOY, path, False)


def test_the_numbers_of_countries():
    shipped = pd.read_csv(wvs.SHIPPED_COUNTS)[["country_code", "country_alpha"]].drop_duplicates()
    assert all(wvs.alpha_codes()[number] == alpha for number, alpha in shipped.itertuples(index=False))
    # countries that share an alpha-2 code with one that is no more, and the survey's own code
    wanted = {104: "MMR", 276: "DEU", 250: "FRA", 300: "GRC", 826: "GBR", 909: "NIR"}
    assert {number: wvs.alpha_codes()[number] for number in wanted} == wanted


def test_the_countries_of_a_file(tmp_path):
    for columns in ([], ["B_COUNTRY_ALPHA"], ["A_WAVE"]):
        path = tmp_path / "wvs.csv"
        write(path, RESPONDENTS.drop(columns=columns))
        assert wvs.countries(path) == ["KOR", "USA", "CAN"]
    write(path, RESPONDENTS.assign(B_COUNTRY_ALPHA=["KOR", "", "Korea", "KOR", None, "kor", "KOR"]))
    assert wvs.countries(path) == ["KOR"]


def test_a_faultless_file_is_read_once_and_a_doubtful_one_with_care(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("read as text")

    with monkeypatch.context() as only_numbers:
        only_numbers.setattr(wvs, "_csv_text", refuse)
        expected = toy(tmp_path, weights=True)
        with pytest.raises(AssertionError, match="read as text"):
            survey.counts(["KOR"], TOY, write(tmp_path / "text.csv", RESPONDENTS.assign(Q27="x")), False)
    # in a country that is not wanted it does not matter
    path = write(tmp_path / "text.csv", RESPONDENTS.assign(Q27=[1, 1, 2, -1, 2, -4, "x"]))
    same(survey.counts(["KOR", "USA"], TOY, path, True), expected)


def test_big_file_reads_only_the_columns_it_needs(tmp_path):
    rows, columns = 5000, 600
    # Every other column is text that is not even UTF-8.
    line = ";".join(["KOR", "1", "2", *["D\xfcsseldorf"] * (columns - 3)])
    header = ";".join(["B_COUNTRY_ALPHA", "Q27", "Q122", *(f"X{n}" for n in range(columns - 3))])
    path = tmp_path / "big.csv"
    path.write_bytes("\n".join([header, *[line] * rows, ""]).encode("latin-1"))
    started = time.perf_counter()
    table = survey.counts(["KOR"], TOY, str(path), False)
    assert time.perf_counter() - started < 20  # ample: reading every column would take minutes
    assert table["respondents"].tolist() == [rows, rows]
    assert table["first_1000"].tolist() == [1000, 1000]


# --- questions --------------------------------------------------------------------------------------------------


def test_shipped_questions():
    asked = survey.questions("")
    assert len(asked) == 50
    assert asked[0].question_id == "Q27"


@needs_reference
def test_released_questions_read_as_they_are():
    released = survey.questions(str(REFERENCE / "paraphrases" / "WVQ.jsonl"))
    shipped = survey.questions("")
    assert [(q.question_id, list(q.options)) for q in released] == [(q.question_id, list(q.options)) for q in shipped]
    by_id = {question.question_id: question for question in released}
    assert by_id["Q31"].options["3"] == "Disagree"
    assert by_id["Q31"].options["4"] == "Strongly disagree"
    assert list(by_id["Q158"].options.values()) == ["Completely disagree", *[""] * 8, "Completely agree"]
    assert list(by_id["Q122"].options) == ["2", "1", "0"]
    assert by_id["Q162"].topic == "Science and technology"
    table = survey.counts(["KOR"], released, "", False)
    assert len(survey.seeds("korean", ["KOR"], released, table, "mode", "equal")) == 50


@pytest.mark.parametrize(("text", "options"), [
    ("1. Yes 2. No", {"1": "Yes", "2": "No"}),
    ("2. Agree 1. Hard to say 0. Disagree", {"2": "Agree", "1": "Hard to say", "0": "Disagree"}),
    ("1. a 2. b 4. c 4. d", {"1": "a", "2": "b", "3": "c", "4": "d"}),
    (" 1. Low 4. High ", {"1": "Low", "2": "", "3": "", "4": "High"}),
    ("3. High 0. Low", {"3": "High", "2": "", "1": "", "0": "Low"}),
    ("1. Under 2.5 hours 2. More", {"1": "Under 2.5 hours", "2": "More"}),
])
def test_option_texts(text, options):
    assert list(survey.parse_options(text).items()) == list(options.items())


@pytest.mark.parametrize("text", ["", "Yes No", "1. Yes", "Yes 1. No 2. Maybe", "1. a 1. b 1. c", "4. a 4. b"])
def test_option_texts_that_are_no_list(text):
    with pytest.raises(ValueError, match="the options"):
        survey.parse_options(text)


@given(st.lists(st.text("abc def", min_size=1).map(str.strip).filter(bool), min_size=3, max_size=10), st.booleans())
def test_option_texts_come_back(texts, backwards):
    codes = list(range(1, len(texts) + 1))[:: -1 if backwards else 1]
    written = " ".join(f"{code}. {text}" for code, text in zip(codes, texts, strict=True))
    assert list(survey.parse_options(written).items()) == [(str(c), t) for c, t in zip(codes, texts, strict=True)]


RELEASED = '{"topic": "T", "q_id": "27", "q_content": "A", "option": "1. Yes 2. No"}\n'


@pytest.mark.parametrize(("content", "sentence"), [
    (AGREE.model_dump_json() + "\n{\n", r"own\.jsonl line 2: not valid JSON"),
    (AGREE.model_dump_json() + "\n" + AGREE.model_dump_json(), r"own\.jsonl: question Q27 comes twice; keep one"),
    (AGREE.model_dump_json().replace('"1"', '"-1"'), r"option codes -1, 2, 3, 4; use the survey's numbers"),
    (RELEASED.replace("1. Yes 2. No", "Yes or no"), r"own\.jsonl: question 27: the options 'Yes or no' are not a num"),
    (RELEASED + RELEASED.replace('"topic": "T", ', ""), r"own\.jsonl line 2: field 'topic' is missing"),
    ("", r"own\.jsonl has no rows"),
])
def test_bad_questions_get_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "own.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=sentence):
        survey.questions(str(path))


def test_missing_questions_file():
    with pytest.raises(UserError, match=r"none\.jsonl does not exist; give a JSON Lines file"):
        survey.questions("none.jsonl")


def test_every_culture_of_the_study_has_seeds():
    asked = survey.questions("")
    for name in ("arabic", "bengali", "chinese", "english", "german", "korean", "portuguese", "spanish", "turkish"):
        countries = studies.culture(name).countries
        found = survey.seeds(name, countries, asked, survey.counts(countries, asked, "", False), "mode", "equal")
        assert len(found) == {"arabic": 48, "chinese": 32}.get(name, 50)
        assert all(sum(seed.distribution.values()) == pytest.approx(1) for seed in found)


def test_a_culture_of_which_nobody_was_asked_has_empty_tables():
    nobody = survey.counts(["KOR"], survey.questions(""), "", False)[:0]
    assert survey.coverage(nobody).columns.tolist() == ["country", "respondents", "questions", "missing"]
    cost = survey.paper_cost({"korean": ["KOR"]}, TOY, nobody, "equal")
    assert cost.empty
    assert "differs" in cost
    assert survey.paper_comparison(["KOR"], TOY, nobody, "equal")["missing_only"].dtype == bool
    assert survey.seeds("korean", ["KOR"], TOY, nobody, "mode", "equal") == []
