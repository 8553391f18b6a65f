"""Tokens, money, budgets and progress, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import usage
from culturellm_utils.errors import UserError
from culturellm_utils.usage import Budget, Prices, Progress, Usage, duration, estimated_tokens

COUNTS = st.builds(Usage, *[st.integers(0, 10**6)] * 3)


def test_usage_adds_up():
    assert Usage(1, 10, 5) + Usage(2, 3, 4) == Usage(3, 13, 9)
    assert Usage(3, 13, 9) - Usage(2, 3, 4) == Usage(1, 10, 5)
    assert Usage(3, 13, 9).tokens == 22
    assert Usage() == Usage(0, 0, 0)


@given(COUNTS, COUNTS)
def test_usage_subtracts_what_was_added(one, other):
    assert one + other - other == one
    assert (one + other).tokens == one.tokens + other.tokens


def test_money_by_the_million():
    assert Prices(2.5, 10.0).money(Usage(1, 1000, 500)) == pytest.approx(0.0025 + 0.005)
    assert Prices().money(Usage(1, 1000, 500)) == 0


@pytest.mark.parametrize(("text", "tokens"), [("", 1), ("abc", 1), ("abcd", 2), ("é" * 4, 3), ("삶의 목표", 4)])
def test_tokens_are_estimated_from_bytes(text, tokens):
    assert estimated_tokens(text) == tokens  # a Korean syllable has three bytes: 4 * 3 + 1 = 13


@pytest.mark.parametrize(("tokens", "money", "spent", "reserved", "lost", "most", "allowed"), [
    (0, 0.0, 10**9, 10**9, 10**9, 10**9, True),  # no limit
    (100, 0.0, 60, 0, 0, 40, True), (100, 0.0, 60, 0, 0, 41, False), (100, 0.0, 50, 10, 0, 40, True),
    (100, 0.0, 50, 10, 1, 40, False), (100, 0.0, 0, 0, 0, 101, False), (100, 0.0, 200, 0, 0, 0, False),
    (0, 0.1, 60, 0, 0, 40, True), (0, 0.1, 60, 0, 0, 41, False), (99, 0.1, 60, 0, 0, 40, False),
    (100, 0.099, 60, 0, 0, 40, False)])
def test_a_budget_allows_what_fits_beside_what_is_spent_in_flight_and_lost(tokens, money, spent, reserved, lost, most,
                                                                           allowed):
    budget = Budget(tokens, money, Prices(1000.0, 1000.0), Usage(1, spent, 0), Usage(1, reserved, 0), Usage(1, lost, 0))
    assert budget.allows(Usage(1, most, 0)) is allowed


def test_a_budget_of_money_counts_prompt_and_reply_at_their_prices():
    budget = Budget(money=1.0, prices=Prices(1000.0, 2000.0))
    assert budget.allows(Usage(1, 500, 250))
    assert not budget.allows(Usage(1, 500, 251))


def test_a_budget_of_money_without_prices_is_refused():
    with pytest.raises(UserError, match="budget_money needs price_input and price_output"):
        Budget(money=1.0)
    Budget(money=1.0, prices=Prices(output=1.0))
    Budget(tokens=1)


def test_a_budget_in_a_sentence():
    spent = Usage(3, 1000, 234)
    assert Budget(5000, spent=spent).sentence() == "1,234 tokens of 5,000 tokens are spent"
    budget = Budget(5000, 0.25, Prices(10.0, 100.0), spent, lost=Usage(1, 2000, 16))
    assert budget.sentence() == ("1,234 tokens ($0.0334) of 5,000 tokens and $0.2500 are spent, and up to 2,016 tokens "
                                 "on replies that never arrived")
    assert str(Budget(5000, spent=spent).too_small(Usage(1, 4000, 16))) == (
        "the budget is too small to go on: 1,234 tokens of 5,000 tokens are spent, and what comes next may take up to "
        "4,016 tokens; replies that came are kept, so raise budget_tokens or budget_money and rerun")


def test_progress_lines():
    progress = Progress(12, Prices(1000.0, 2000.0), lambda line: None, started=100.0)
    for _ in range(4):
        progress.count(Usage(1, 10, 5))
    # 4 in 8 seconds: half a reply a second, 8 more take 16 seconds; 4 * $0.02.
    assert progress.line(108.0) == "4 of 12 replies · 0.5 a second · 60 tokens · $0.0800 · 16 s left"
    for _ in range(8):
        progress.count(Usage(1, 1000, 5))
    assert progress.line(195.0) == "12 of 12 replies · 0.1 a second · 8,100 tokens · $8.1600 · 1 min 35 s in all"


def test_progress_without_prices_shows_no_money():
    assert Progress(3, Prices(), print, started=0.0).line(0.0) == "0 of 3 replies · 0.0 a second · 0 tokens · 0 s left"


def test_progress_is_shown_twice_a_second_and_at_the_end(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(usage.time, "monotonic", lambda: now[0])
    shown: list[str] = []
    progress = Progress(31, Prices(), shown.append)
    for _ in range(31):
        now[0] += 0.1
        progress.count(Usage(1, 1, 1))
    # The first, then each time that half a second has gone by, and the last.
    assert [line.split()[0] for line in shown] == ["1", "6", "11", "16", "21", "26", "31"]


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (95, "1 min 35 s"),
                                               (3600, "1 h 0 min"), (7300, "2 h 1 min")])
def test_seconds_as_a_person_says_them(seconds, said):
    assert duration(seconds) == said
