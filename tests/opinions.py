"""Hand-made seeds, wordings and predictions, for the tests of what is asked, answered and scored."""

from culturellm_utils import survey
from culturellm_utils.records import Augmented, Prediction, Question, Seed

KOREAN = "You are a Korean chatbot that knows Korean culture very well."
AGREE = {"1": "Agree", "2": "Neither", "3": "Disagree"}
OFTEN = {"1": "Often", "2": "Never"}


def question(name, topic="Work"):
    return Question(question_id=name, topic=topic, question=f"Is {name} so?", options=AGREE, protected=[name])


def seed(name, shares, options=AGREE, rule="mode", label="", countries=("KOR",), culture="korean", respondents=10):
    """A question with the shares of its options in their order; without shares nobody was asked."""
    distribution = dict(zip(options, shares, strict=True)) if shares else {}
    return Seed(question_id=name, topic="Work", question=f"Is {name} so?", options=options, culture=culture,
                countries=list(countries), respondents=respondents if shares else 0, distribution=distribution,
                label=label or survey.mode(distribution), label_rule=rule)


def wording(name, template, stage=1, sample=1):
    """The template ``Q1-t03`` of a question, or with stage 2 its sample ``Q1-t03-s1``."""
    place = f"{name}-t{template:02d}"
    text = f"{name} in words {template}" + (f" sample {sample}" if stage == 2 else "")
    return Augmented(candidate_id=place if stage == 1 else f"{place}-s{sample}", question_id=name, stage=stage,
                     template_id=place, text=text, substitutions=[], source="test", similarity=0.9)


def prediction(culture="korean", system="base", part="held_out_wording", question="Q1", item=None, p=(0.1, 0.6, 0.3),
               gold=(0.2, 0.5, 0.3), label=None, options=AGREE):
    """An answer, by default its likeliest option; with label "" one that could not be parsed."""
    probabilities = dict(zip(options, p, strict=True))
    golden = dict(zip(options, gold, strict=True))
    label = survey.mode(probabilities) if label is None else label
    return Prediction(item_id=item or question, part=part, culture=culture, system=system, question_id=question,
                      messages=[], probabilities=probabilities, reply=label or "", label=label or None,
                      gold=survey.mode(golden), gold_distribution=golden)


def labelled(item, gold, label, system="base", culture="korean", task="spam", p=None, labels=("yes", "no")):
    """An answer to an item of a classification set; ``label`` "" could not be parsed."""
    shares = p or [float(name == label) if label else 1 / len(labels) for name in labels]
    return Prediction(item_id=item, part="task", culture=culture, system=system, question_id=task, messages=[],
                      probabilities=dict(zip(labels, shares, strict=True)), reply=label or "x", label=label or None,
                      gold=gold)
