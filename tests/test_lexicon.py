"""Refusals, generalising words and names of cultures: found where they are meant, and not elsewhere."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import languages, lexicon, studies

GERMAN = ["german", "germany", "deutsch", "deutschland"]


# --- refusals


@pytest.mark.parametrize("text", [
    "I'm sorry, but I cannot answer that.",
    "I’m sorry, I can’t help with that.",
    "**Sorry, but as an AI, I am unable to take a position on this.**",
    "Assistant: I cannot discuss politics.",
    "It is a hard question. Unfortunately, I am not able to provide a personal view. Many say that it depends.",
    "As an AI language model, I don't have opinions. I must decline.",
    "I would prefer not to answer.",
    "Leider kann ich diese Frage nicht beantworten.",
    "Es tut mir leid, aber ich kann dazu keine Auskunft geben.",
    "Lo siento, pero no puedo responder a esa pregunta.",
    "Sinto muito, mas não posso responder a isso.",
    "抱歉，我无法回答这个问题。",
    "죄송하지만, 이 질문에는 답변드릴 수 없습니다.",
    "Üzgünüm, bu soruya cevap veremem.",
    "عذراً، لا أستطيع الإجابة على هذا السؤال.",
    "দুঃখিত, আমি এই প্রশ্নের উত্তর দিতে পারছি না।",
    "Λυπάμαι, αλλά δεν μπορώ να απαντήσω σε αυτό.",
])
def test_refusals_in_many_languages(text):
    assert lexicon.declines(text) == "refusal"


@pytest.mark.parametrize("text", [
    "I'm sorry to hear that.",
    '"I cannot answer that," the guard said.',
    "„Ich kann dazu nichts sagen“, sagte er.",
    "I cannot leave my parents alone when they are old.",
    "I cannot give up my job for that.",
    "I refuse to be frightened by anybody.",
    "I would rather not live alone.",
    "I am not able to ignore an insult.",
    "Nobody should say: I cannot answer.",
    "As an AI engineer, I build systems.",
    "Als Kind habe ich das gelernt.",
    "An election is fair when all may vote. It is open. I cannot answer for others.",
    "My answers are short. I work. I cannot discuss that.",
    "자식은 부모님께 효도해야 합니다.",
    "", " ", "...", "4",
])
def test_what_only_looks_like_a_refusal(text):
    assert lexicon.declines(text) == ""


@pytest.mark.parametrize("text", [
    "As an AI language model, I don't have personal opinions, but many people say so.",
    "I am a language model. Families differ.",
    "Als KI habe ich dazu eine Übersicht.",
    "作为一个人工智能，我认为家庭很重要。",
])
def test_a_disclaimer_is_no_refusal(text):
    assert lexicon.declines(text) == "disclaimer"


@given(st.text())
def test_any_text_declines_or_does_not(text):
    assert lexicon.declines(text) in ("refusal", "disclaimer", "")


# --- words


@pytest.mark.parametrize(("text", "expected"), [
    ("All parents want the best; everyone knows it, always.", {"generalising": 3}),
    ("Not all, after all.", {"hedging": 1}),
    ("He did not mind at all, above all not then.", {}),
    ("It is typical, by nature, without exception.", {"generalising": 3}),
    ("Some say so, often; it depends, and may change.", {"hedging": 4}),
    ("Almost always almost all.", {"hedging": 2}),
    ("Everyone's duty, ALL the same.", {"generalising": 1}),
    ("The small hall and an ally, an all-round man, a mayor.", {}),
    ("", {}),
])
def test_words_are_counted_once_and_the_longest_first(text, expected):
    assert lexicon.count(text, GERMAN) == expected


@pytest.mark.parametrize(("text", "number"), [
    ("Germans always save.", 1),
    ("German people are punctual, and people in Germany have savings.", 2),
    ("The Germans I met saved.", 0),
    ("In Germany the law says so.", 0),
    ("Germany is a country.", 0),
    ("Koreans always save.", 0),
    ("I like the German language. Families in Germany teach it.", 1),
])
def test_generic_statements_about_the_people_named(text, number):
    assert lexicon.count(text, GERMAN)["generic"] == number


@given(st.text(), st.text())
def test_counts_of_two_sentences_add_up(first, second):
    both = lexicon.count(f"{first} . {second}", GERMAN)
    assert both == lexicon.count(first, GERMAN) + lexicon.count(second, GERMAN)


# --- names


def test_names_of_a_culture():
    assert set(lexicon.names(studies.culture("korean"))) >= {"korean", "korea", "south korea", "대한민국", "한국어"}
    assert set(lexicon.names(studies.culture("german"))) == {"german", "deutsch", "germany", "deutschland"}
    assert set(lexicon.names(studies.culture("spanish"))) >= {"spanish", "español", "argentina", "méxico", "mexican"}


def test_a_culture_whose_country_has_no_further_names():
    greek = studies.Culture(culture="greek", countries=["GRC"], culture_language="Greek", prompt_name="Greek")
    assert lexicon.names(greek) == ["greek", "ελληνικά", "greece", "ελλάδα"]


@pytest.mark.parametrize(("text", "names", "expected"), [
    ("Many Germans say so.", ["german"], True),
    ("MANY GERMANS", ["german"], True),
    ("Usage differs.", ["usa"], False),
    ("In the USA it differs.", ["usa"], True),
    ("우리 대한민국에서는 그렇다.", ["대한민국"], True),
    ("That is germane.", ["germany"], False),
    ("Anything.", [], False),
])
def test_a_text_that_names_a_culture(text, names, expected):
    assert lexicon.named(text, names) is expected


# --- the file


def test_the_lexicon_is_written_as_texts_are_compared():
    found = lexicon.shipped()
    for kind in ("generalising", "hedging", "neither"):
        words = [word for group in getattr(found, kind) for word in group]
        assert [languages.plain(word) for word in words] == words
        assert len(set(words)) == len(words)
    for phrases in (*found.refusal.values(), *found.disclaimer.values()):
        assert not [phrase for phrase in (*phrases.heads, *phrases.holds) if regex.search(r"[^\w\p{M}\s'-]", phrase)]
    for language in (*found.refusal, *found.disclaimer):
        assert languages.code(language)


def test_no_phrase_of_a_refusal_opens_a_disclaimer_alone():
    for language, phrases in lexicon.shipped().refusal.items():
        for phrase in (*phrases.heads, *phrases.holds):
            assert lexicon.declines(f"{phrase}.") == "refusal", (language, phrase)
