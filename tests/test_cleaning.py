"""Whose ratings are left out, on toy ratings with reasons worked out by hand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import cleaning, imports
from culturellm_utils.cleaning import Rules
from culturellm_utils.errors import UserError
from culturellm_utils.human_study import PairKey
from culturellm_utils.imports import Participant
from culturellm_utils.ratings import Rating

KEY = {**{f"p{i}": PairKey(question_id="Q1", candidate_id=f"c{i}", check="") for i in range(12)},
       "same": PairKey(question_id="Q1", candidate_id="", check="same"),
       "other": PairKey(question_id="Q1", candidate_id="c99", check="different")}


def rated(rater, values, seconds=6.0, **checks):
    """Ratings of the first pairs, and of the checks named."""
    given = {f"p{i}": value for i, value in enumerate(values)} | checks
    return [Rating(rater_id=rater, pair_id=name, rating=value, seconds=seconds) for name, value in given.items()]


GOOD = [5, 4, 5, 3, 5, 5, 2, 4, 5, 5, 1, 5]


def reasons(ratings, rules=None, participants=None):
    kept, out = cleaning.clean(ratings, KEY, rules, participants)
    assert {row.rater_id for row in kept}.isdisjoint(out["rater_id"])
    assert tuple(out.columns) == cleaning.COLUMNS
    return {row.rater_id: row.rules for row in out.itertuples()}


def test_who_reads_stays_with_their_checks_and_the_order_of_rows():
    ratings = [*rated("b", GOOD, same=5, other=1), *rated("a", GOOD, same=4, other=2)]
    kept, out = cleaning.clean(ratings, KEY)
    assert kept == ratings
    assert out.empty


@pytest.mark.parametrize(("same", "other", "out"), [(4, 2, False), (3, 2, True), (4, 3, True), (5, 1, False)])
def test_checks(same, other, out):
    assert reasons(rated("a", GOOD, same=same, other=other)) == ({"a": "attention checks"} if out else {})


def test_the_table_says_what_was_found():
    _, out = cleaning.clean([*rated("slow", GOOD), *rated("a", [5, 4], seconds=1.94, same=3, other=5)], KEY)
    assert out.to_dict("records") == [{
        "rater_id": "a", "pairs": 2, "rules": "attention checks; too fast; too few",
        "reason": "fails 2 of 2 attention checks; takes 1.9 seconds in the median; rates 2 of 12 pairs"}]


def test_more_failed_checks_may_be_allowed():
    rules = Rules(failed_checks=1)
    assert reasons(rated("a", GOOD, same=3, other=1), rules) == {}
    assert reasons(rated("a", GOOD, same=3, other=5), rules) == {"a": "attention checks"}


def test_seconds_count_in_the_median_of_real_pairs_where_measured():
    half = [Rating(rater_id="a", pair_id=f"p{i}", rating=GOOD[i], seconds=seconds)
            for i, seconds in enumerate([0.5, 0.5, 0.5, 3.5, 3.5, 3.5, None, None, None, None, None, None])]
    assert reasons(half) == {}                                                         # the median is 2.0
    quicker = [row.model_copy(update={"seconds": 3.4}) if row.seconds == 3.5 else row for row in half]
    assert reasons(quicker) == {"a": "too fast"}                                       # 1.95
    assert reasons(half, Rules(median_seconds=2.1)) == {"a": "too fast"}
    assert reasons(rated("a", GOOD, seconds=None)) == {}
    assert reasons(rated("a", GOOD, seconds=0), Rules(median_seconds=0)) == {}
    quick_checks = [*rated("a", GOOD), *rated("a", [], seconds=0.1, same=5, other=1)]
    assert reasons(quick_checks) == {}


def test_one_rating_for_all_is_straight_lining_unless_a_check_shows_reading():
    assert reasons(rated("a", [5] * 12)) == {"a": "straight-lining"}
    assert reasons(rated("a", [5] * 12, other=1)) == {}                                # read: good samples are all 5
    assert reasons(rated("a", [5] * 12, same=5)) == {"a": "straight-lining"}           # this check shows nothing
    assert reasons(rated("a", [5] * 9)) == {}                                          # nine pairs may well be alike
    assert reasons(rated("a", [5] * 12), Rules(straight_line_pairs=0)) == {}
    assert reasons(rated("a", [5] * 9), Rules(straight_line_pairs=9)) == {"a": "straight-lining"}


def test_less_than_half_is_too_few():
    assert reasons(rated("a", GOOD[:6])) == {}
    assert reasons(rated("a", GOOD[:5])) == {"a": "too few"}
    assert reasons(rated("a", GOOD[:1]), Rules(share_of_pairs=0)) == {}
    assert reasons(rated("a", GOOD[:5], same=5)) == {"a": "too few"}                   # checks are no pairs


@pytest.mark.parametrize(("status", "out"), [("APPROVED", False), ("AWAITING REVIEW", False), ("ACTIVE", False),
                                             ("TIMED OUT", True), ("RETURNED", True), ("REJECTED", True)])
def test_prolific_statuses(status, out):
    people = {"a": Participant(rater_id="a", status=status, seconds=None)}
    assert reasons([*rated("a", GOOD), *rated("b", GOOD)], participants=people) == ({"a": "prolific"} if out else {})


def test_automatic_raters_stay_whatever_they_do():
    ratings = rated("automatic: x", [5] * 3, seconds=0.0, same=1, other=5)
    assert cleaning.clean(ratings, KEY)[0] == ratings


@given(st.dictionaries(st.sampled_from(["a", "b", "automatic: c"]),
                       st.dictionaries(st.sampled_from(sorted(KEY)), st.integers(1, 5), min_size=1), min_size=1))
def test_people_are_kept_whole_or_not_at_all_and_cleaning_twice_changes_nothing(given_ratings):
    ratings = [Rating(rater_id=rater, pair_id=name, rating=value)
               for rater, values in given_ratings.items() for name, value in values.items()]
    kept, out = cleaning.clean(ratings, KEY)
    assert kept == [row for row in ratings if row.rater_id not in set(out["rater_id"])]
    again, none = cleaning.clean(kept, KEY)
    assert (again, len(none)) == (kept, 0)


# the rules themselves

def test_rules_are_stated_before_the_data_and_changes_afterwards_are_told(tmp_path):
    first = cleaning.state(tmp_path, Rules(median_seconds=3), rated=False)
    assert first["changes"] == []
    second = cleaning.state(tmp_path, Rules(), rated=False)              # nobody has rated: they may still change
    assert second == {"digest": Rules().digest, "stated": Rules().digest, "changes": []}
    kept = (tmp_path / "cleaning_rules.json").read_bytes()
    assert cleaning.state(tmp_path, Rules(), rated=True) == second
    changed = Rules(median_seconds=1, failed_checks=3)
    assert cleaning.state(tmp_path, changed, rated=True) == {
        "digest": changed.digest, "stated": Rules().digest,
        "changes": ["After people had rated, the rule failed_checks was changed from 0 to 3.",
                    "After people had rated, the rule median_seconds was changed from 2.0 to 1.0."]}
    assert (tmp_path / "cleaning_rules.json").read_bytes() == kept
    assert json.loads(kept)["in_words"] == Rules().in_words()


def test_rules_first_stated_when_there_are_ratings_are_called_late(tmp_path):
    for _ in range(2):                                                   # and they stay so when the notebook runs again
        found = cleaning.state(tmp_path, Rules(), rated=True)
        assert found["stated"] == ""
        assert found["changes"] == ["The rules were first stated when there were ratings already."]
    assert len(cleaning.state(tmp_path, Rules(failed_checks=1), rated=True)["changes"]) == 2


@pytest.mark.parametrize("text", ["{}", "[]", '{"before_ratings": true, "rules": {"unknown": 1}}', '{"rules": {}}',
                                  '{"before_ratings": true, "rules": {"failed_checks": -1}}'])
def test_a_broken_statement_is_refused(tmp_path, text):
    (tmp_path / "cleaning_rules.json").write_text(text)
    with pytest.raises(UserError, match=r"cleaning_rules\.json does not hold rules"):
        cleaning.state(tmp_path, Rules(), rated=True)


def test_rules_from_a_file(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("failed_checks: 1   # one slip is allowed\nmedian_seconds: 3\n")
    assert cleaning.rules(str(path)) == Rules(failed_checks=1, median_seconds=3.0)
    assert cleaning.rules() == Rules()
    path.write_text("")
    assert cleaning.rules(str(path)) == Rules()


@pytest.mark.parametrize(("text", "words"), [
    ("fail: 1", "there is no rule 'fail' with such a value; the rules are same_at_least"),
    ("failed_checks: -1", "'failed_checks'"), ("failed_checks: many", "'failed_checks'"),
    ("a: [", "line 1 is not valid YAML"), ("- 1", "rules.yaml")])
def test_wrong_rules_are_refused(tmp_path, text, words):
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        cleaning.rules(str(path))
    assert words in str(error.value)


def test_a_missing_rules_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml cannot be read"):
        cleaning.rules(str(tmp_path / "none.yaml"))


def test_each_rule_in_words_and_none_that_is_off():
    assert len(Rules().in_words()) == 5
    off = Rules(median_seconds=0, straight_line_pairs=0, share_of_pairs=0, statuses=[])
    assert len(off.in_words()) == 1
    assert "fails any of them" in off.in_words()[0]
    assert "fails more than 2 of them" in Rules(failed_checks=2).in_words()[0]
    assert Rules().digest != Rules(failed_checks=2).digest


def test_a_status_of_the_export_meets_the_rule(tmp_path):
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "p.csv").write_text("Participant id,Status\na,TIMED-OUT\nb,timed_out\nc,Approved\n")
    people = imports.participants(tmp_path)
    assert set(reasons([*rated("a", GOOD), *rated("b", GOOD), *rated("c", GOOD)], participants=people)) == {"a", "b"}
