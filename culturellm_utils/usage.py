"""What chat requests cost: tokens and money, a budget that is never passed, and progress while they run.

>>> Prices(input=2.5, output=10.0).money(Usage(requests=1, prompt_tokens=1000, completion_tokens=500))
0.0075
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from culturellm_utils.errors import UserError


@dataclass(frozen=True)
class Usage:
    """Requests and tokens, as the server counted them (estimated where it does not count)."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.requests + other.requests, self.prompt_tokens + other.prompt_tokens,
                     self.completion_tokens + other.completion_tokens)

    def __sub__(self, other: "Usage") -> "Usage":
        return self + Usage(-other.requests, -other.prompt_tokens, -other.completion_tokens)


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens; 0 where there is no price."""

    input: float = 0.0
    output: float = 0.0

    def money(self, usage: Usage) -> float:
        """US dollars for ``usage``."""
        return (usage.prompt_tokens * self.input + usage.completion_tokens * self.output) / 1e6


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has: one for four bytes of UTF-8, which fits English within a fifth."""
    return len(text.encode()) // 4 + 1


@dataclass
class Budget:
    """What a run's replies may cost in all, those that earlier runs paid for included; 0 sets no limit.

    A request is sent only when the dearest reply that it may get still fits beside those in flight, so that the
    limit is never passed. ``lost`` is the most that replies which never arrived may have cost in this run.
    """

    tokens: int = 0
    money: float = 0.0
    prices: Prices = Prices()
    spent: Usage = Usage()
    reserved: Usage = Usage()
    lost: Usage = Usage()

    def __post_init__(self) -> None:
        if self.money and not (self.prices.input or self.prices.output):
            raise UserError("budget_money needs price_input and price_output (US dollars per million tokens), "
                            "or nothing could be counted against it")

    def allows(self, most: Usage) -> bool:
        """Whether a request that may cost ``most`` still fits."""
        after = self.spent + self.lost + self.reserved + most
        return not ((self.tokens and after.tokens > self.tokens)
                    or (self.money and self.prices.money(after) > self.money + 1e-12))

    def sentence(self) -> str:
        """What is spent and what the limit is."""
        limits = [f"{self.tokens:,} tokens"] * bool(self.tokens) + [f"${self.money:.4f}"] * bool(self.money)
        money = f" (${self.prices.money(self.spent):.4f})" if self.money else ""
        lost = f", and up to {self.lost.tokens:,} tokens on replies that never arrived" if self.lost.requests else ""
        return f"{self.spent.tokens:,} tokens{money} of {' and '.join(limits)} are spent{lost}"

    def too_small(self, most: Usage) -> UserError:
        """The error when ``most`` does not fit."""
        return UserError(f"the budget is too small to go on: {self.sentence()}, and what comes next may take up to "
                         f"{most.tokens:,} tokens; replies that came are kept, so raise budget_tokens or budget_money "
                         "and rerun")


@dataclass
class Progress:
    """How far a run of requests is; ``show`` is called at most about twice a second, and at the end."""

    total: int
    prices: Prices
    show: Callable[[str], None]
    done: int = 0
    fresh: Usage = Usage()
    started: float = field(default_factory=time.monotonic)
    _shown: float = 0.0

    def count(self, usage: Usage) -> None:
        """One more reply has come."""
        self.done += 1
        self.fresh += usage
        now = time.monotonic()
        if now - self._shown >= 0.5 or self.done == self.total:
            self._shown = now
            self.show(self.line(now))

    def line(self, now: float) -> str:
        """One line: replies, rate, tokens, money, time left."""
        rate = self.fresh.requests / max(now - self.started, 1e-9)
        parts = [f"{self.done} of {self.total} replies", f"{rate:.1f} a second", f"{self.fresh.tokens:,} tokens"]
        if self.prices != Prices():
            parts.append(f"${self.prices.money(self.fresh):.4f}")
        left = (self.total - self.done) / rate if rate else 0.0
        parts.append(f"{duration(left)} left" if self.done < self.total else f"{duration(now - self.started)} in all")
        return " · ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(95), duration(7300)
    ('1 min 35 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
