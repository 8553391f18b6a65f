"""A small general ability, sums and differences of numbers up to six, to see whether fine-tuning makes a model forget.

>>> items()[9]
("What is 1 plus 2? Answer with one number.", "3")
"""

import random

#: Every answer is one of these numbers, so a reply can be scored by likelihood.
ANSWERS = tuple(str(number) for number in range(13))


def items(count: int | None = None, seed: int = 0) -> list[tuple[str, str]]:
    """Question and answer of all 77 sums and differences (none negative) of 0 to 6, or of ``count`` of them drawn
    with ``seed``."""
    every = [(f"What is {a} plus {b}? Answer with one number.", str(a + b)) for a in range(7) for b in range(7)]
    every += [(f"What is {a} minus {b}? Answer with one number.", str(a - b)) for a in range(7) for b in range(a + 1)]
    return every if count is None or count >= len(every) else random.Random(seed).sample(every, count)
