"""A culture of one's own, from a survey file of 66 countries (made up here) to its parameter file and its answers."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from culturellm_utils import borrowing, cultures, paths, studies, survey, wvs
from culturellm_utils.errors import UserError

WAVE_7 = sorted(country for parts in yaml.safe_load((paths.DATA / "zones.yaml").read_text(encoding="utf-8")).values()
                if isinstance(parts, dict) for country in parts["wave_7"])
PEOPLE = 12
#: What the people of the made-up file were not asked: Greeks all but five questions, Andorrans one.
ASKED_IN_GREECE = ["Q27", "Q122", "Q132", "Q158", "Q224"]
#: Numbers that the survey gives the countries of this test.
NUMBERS = {"GRC": 300, "NIR": 909, "AND": 20, "DEU": 276}


@pytest.fixture(scope="module")
def survey_file(tmp_path_factory) -> Path:
    """A file like the official one: 66 countries, twelve people each, every seed question."""
    chance = np.random.default_rng(0)
    size = len(WAVE_7) * PEOPLE
    alpha = np.repeat(WAVE_7, PEOPLE)
    columns = {"version": "made up", "A_WAVE": 7, "B_COUNTRY": [NUMBERS.get(name, 999) for name in alpha],
               "B_COUNTRY_ALPHA": alpha, "W_WEIGHT": 1.0}
    for question in survey.questions(""):
        codes = [int(code) for code in question.options]
        columns[question.question_id] = chance.choice(codes, size)
    frame = pd.DataFrame(columns)
    frame.loc[frame["B_COUNTRY_ALPHA"] == "GRC", list(set(frame.columns[5:]) - set(ASKED_IN_GREECE))] = -4
    frame.loc[frame["B_COUNTRY_ALPHA"] == "AND", "Q27"] = -5
    frame.loc[frame["B_COUNTRY_ALPHA"] == "VNM", frame.columns[5:]] = -4
    path = tmp_path_factory.mktemp("wvs") / "WVS_Cross-National_Wave_7.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def params(tmp_path, monkeypatch) -> Path:
    """A folder of parameter files of the test's own."""
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")
    (tmp_path / "params").mkdir()
    return tmp_path / "params"


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, list[str], str]:
    """The exit code, the lines and the error of the command."""
    monkeypatch.setattr(sys, "argv", ["cultures", *arguments])
    code = cultures.main()
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err.strip()


GREEK = ("--name", "greek", "--countries", "GRC", "--language", "Greek")


def test_from_a_survey_file_to_a_culture(params, survey_file, monkeypatch, capsys):
    code, lines, error = run(monkeypatch, capsys, *GREEK, "--wvs", str(survey_file))
    assert (code, error) == (0, "")
    assert lines[0] == "Greece (GRC): 12 respondents, 5 of 50 questions"
    assert lines[1].startswith("Nobody was asked Q28, Q29")
    assert "(45): they are left out (--borrow" in lines[1]
    assert lines[2] == "Cultural zone: Orthodox Europe"
    assert lines[-1] == 'make report CULTURES="greek"'
    found = studies.culture("greek")
    assert (found.countries, found.culture_language, found.prompt_name) == (["GRC"], "Greek", "Greek")
    assert found.culture_context == ""
    # the path that the notebooks take, from the repository, leads to the file
    assert (paths.ROOT / found.model_dump()["wvs_path"]).resolve() == survey_file.resolve()
    assert "borrow" not in found.model_dump()
    text = (params / "greek.yaml").read_text(encoding="utf-8")
    assert all(" # " in line or line.startswith("#") for line in text.splitlines())
    asked = survey.questions("")
    table = cultures.answer_counts(["greek"], asked, "")["greek"]
    assert set(table.loc[table["answer_code"] >= 0, "question"]) == set(ASKED_IN_GREECE)
    assert set(table["country_alpha"]) == {"GRC"}


def test_a_file_that_is_there_is_not_written_over(params, survey_file, monkeypatch, capsys):
    (params / "greek.yaml").write_text("mine\n")
    code, _, error = run(monkeypatch, capsys, *GREEK, "--wvs", str(survey_file))
    assert code == 1
    assert error.endswith("greek.yaml is there already: choose another name, or add --replace to write over it")
    assert (params / "greek.yaml").read_text() == "mine\n"
    assert run(monkeypatch, capsys, *GREEK, "--wvs", str(survey_file), "--replace")[0] == 0
    assert studies.culture("greek").countries == ["GRC"]


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("--name", "Greek!", "--countries", "GRC", "--language", "Greek"), "'culture' is 'Greek!': use lowercase"),
    (("--name", "one", "--countries", "GRC", "--language", "Greek"), "a culture cannot be called 'one'"),
    (("--name", "greek", "--countries", "GREECE", "--language", "Greek"), "'GREECE' is no ISO 3166 alpha-3 code"),
    (("--name", "greek", "--countries", "GRX", "--language", "Greek"), "'GRX' is no ISO 3166 alpha-3 code"),
    (("--name", "greek", "--countries", "grc", "--language", "Greek"), "'grc' is no ISO 3166 alpha-3 code"),
    (("--name", "greek", "--countries", "GRC,GRC", "--language", "Greek"), "list each country once"),
    (("--name", "greek", "--countries", " ", "--language", "Greek"), "parameter 'countries' is []"),
    (("--name", "greek", "--countries", "GRC", "--language", "Klingonese"), "'Klingonese' is no language's"),
    (("--name", "polish", "--countries", "POL", "--language", "Polish"), "nobody in Poland (POL) was asked"),
    (("--name", "viet", "--countries", "VNM", "--language", "Vietnamese"), "nobody in Vietnam (VNM) was asked"),
    ((*GREEK, "--wvs", "nowhere.csv"), "nowhere.csv does not exist"),
])
def test_what_is_refused_with_one_sentence(params, survey_file, monkeypatch, capsys, arguments, sentence):
    given = arguments if "--wvs" in arguments else (*arguments, "--wvs", str(survey_file))
    code, _, error = run(monkeypatch, capsys, *given)
    assert code == 1
    assert sentence in error
    assert "\n" not in error
    assert list(params.iterdir()) == []


def test_without_a_survey_file_the_counts_that_ship_are_taken(params, monkeypatch, capsys):
    code, lines, _ = run(monkeypatch, capsys, "--name", "argentine", "--countries", "ARG", "--language", "Spanish",
                         "--prompt-name", "Argentine: porteño")
    assert code == 0
    assert lines[0] == "Argentina (ARG): 1,003 respondents, 50 of 50 questions"
    found = studies.culture("argentine")
    assert found.prompt_name == "Argentine: porteño"
    assert "wvs_path" not in found.model_dump()
    code, _, error = run(monkeypatch, capsys, *GREEK)
    assert code == 1
    assert "the answer counts that ship: nobody in Greece (GRC) was asked" in error


def test_several_countries_and_borrowing(params, survey_file, monkeypatch, capsys):
    code, lines, _ = run(monkeypatch, capsys, "--name", "hellenic", "--countries", "GRC CYP", "--language", "Greek",
                         "--wvs", str(survey_file))
    assert code == 0
    assert lines[:2] == ["Greece (GRC): 12 respondents, 5 of 50 questions",
                         "Cyprus (CYP): 12 respondents, 50 of 50 questions"]
    assert "Nobody" not in " ".join(lines)
    code, lines, _ = run(monkeypatch, capsys, "--name", "kosovan", "--countries", "XKX", "--language", "Albanian",
                         "--borrow")
    assert code == 0
    assert lines[0] == "Kosovo (XKX): 0 respondents, 0 of 50 questions"
    assert lines[-1] == 'make report CULTURES="kosovan english"'
    assert studies.culture("kosovan").model_dump()["borrow"] == "missing"


def test_each_culture_is_read_from_its_own_file(params, survey_file, monkeypatch, capsys):
    run(monkeypatch, capsys, *GREEK, "--wvs", str(survey_file))
    run(monkeypatch, capsys, "--name", "korean", "--countries", "KOR", "--language", "Korean")
    run(monkeypatch, capsys, "--name", "kosovan", "--countries", "XKX", "--language", "Albanian", "--borrow")
    asked = survey.questions("")
    found = cultures.answer_counts(["greek", "korean", "kosovan"], asked, "")
    assert found["korean"].groupby("question")["respondents"].sum().max() == 1245      # what ships
    assert found["kosovan"].empty
    of_study = cultures.answer_counts(["greek", "korean"], asked, str(survey_file))
    assert of_study["korean"].groupby("question")["respondents"].sum().max() == PEOPLE  # the study's file
    pd.testing.assert_frame_equal(of_study["greek"], found["greek"])


def test_sixty_six_countries_can_lend(survey_file):
    asked = survey.questions("")
    table = borrowing.everyone(asked, str(survey_file), False)
    lenders = borrowing.world(table, asked)
    assert len(lenders.countries) == 65                          # Vietnam answered nothing
    own = survey.distributions(["GRC"], asked, table[table["country_alpha"] == "GRC"], "equal")
    known = {name: shares for name, shares in own.items() if shares}
    rows, found = borrowing.borrow("greek", ["GRC"], known, lenders, 3, "mode")
    assert found.rule == "zone"                                  # five answers are too few to rank by
    assert rows[0].countries == ["ARM", "CYP", "ROU", "RUS", "SRB", "UKR"]
    assert len(rows) == 45
    scores = borrowing.leave_one_out({name: [name] for name in lenders.countries}, lenders, 3)
    by_country = scores.groupby(["culture", "source"])["question_id"].nunique().unstack()
    assert by_country.loc["GRC", "borrowed"] == 5
    assert by_country.loc["AND", "borrowed"] == 49
    assert set(scores.loc[scores["culture"] == "GRC", "known"]) == {0}


def test_a_file_without_alpha_codes_knows_every_country(tmp_path, survey_file):
    frame = pd.read_csv(survey_file).query("B_COUNTRY_ALPHA in @NUMBERS").drop(columns="B_COUNTRY_ALPHA")
    frame.to_csv(tmp_path / "numbers.csv", index=False)
    assert wvs.countries(tmp_path / "numbers.csv") == ["AND", "DEU", "GRC", "NIR"]
    asked = survey.questions("")
    counts = survey.counts(["GRC"], asked, str(tmp_path / "numbers.csv"), False)
    assert counts.loc[counts["question"] == "Q27", "respondents"].sum() == PEOPLE


def test_the_respondents_of_the_reference_can_be_named_in_a_culture(reference, params, monkeypatch, capsys):
    file = reference / "wvs7_respondents.csv"
    code, lines, _ = run(monkeypatch, capsys, "--name", "mexican", "--countries", "MEX", "--language", "Spanish",
                         "--wvs", str(file))
    assert code == 0
    assert lines[0] == "Mexico (MEX): 1,741 respondents, 50 of 50 questions"
    asked = survey.questions("")
    found = cultures.answer_counts(["mexican"], asked, "")["mexican"]
    shipped = survey.counts(["MEX"], asked, "", False)
    keys = ["question", "answer_code"]
    pd.testing.assert_frame_equal(found.sort_values(keys, ignore_index=True),
                                  shipped[found.columns].sort_values(keys, ignore_index=True), check_dtype=False)


@pytest.mark.parametrize(("code", "is_one"), [("KOR", True), ("NIR", True), ("XKX", True), ("ZZZ", False),
                                              ("SUN", False), ("DDR", False), ("QQQ", False), ("KO", False),
                                              ("410", False), ("kor", False)])
def test_codes_of_countries(code, is_one):
    assert cultures.is_country(code) == is_one


def test_a_name_that_yaml_would_misread_is_quoted():
    for name in ("no", "a: b", "# c", "[d]", "'e'", "1.0"):
        text = cultures.text_of("toy", ["KOR"], "Korean", name, "", "nothing")
        assert yaml.safe_load(text)["prompt_name"] == name
    with pytest.raises(UserError, match="no language's English name"):
        cultures.check("toy", ["KOR"], "Korea", "Korean", "", "nothing")
