"""What the system "context" is told about a culture: an encyclopaedic paragraph, never what its people answered."""

import re

import pytest

from culturellm_utils import parameters, studies

NINE = studies.study("laptop")["cultures"]
#: Words with which a paragraph would begin to say what people think, or how many.
OPINION = re.compile(r"\b(survey\w*|believe\w*|think\w*|thought|opinions?|attitudes?|values?|agree\w*|trust\w*|"
                     r"important|prefer\w*|proud|happy|satisf\w+|tend|typical\w*|per ?cent|majority)\b|%", re.I)


@pytest.mark.parametrize("name", NINE)
def test_a_culture_has_one_neutral_paragraph(name):
    context = studies.culture(name).culture_context
    assert 60 <= len(context.split()) <= 90
    assert "\n" not in context
    assert context.endswith(".")
    assert not OPINION.search(context), OPINION.search(context)


def test_each_culture_has_its_own_and_05_alone_takes_it():
    assert len({studies.culture(name).culture_context for name in NINE}) == len(NINE) == 9
    takers = [notebook for notebook in parameters.MODELS if "culture_context" in parameters.names(notebook)]
    assert takers == ["05_evaluation"]
