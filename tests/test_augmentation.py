"""Prompts, substitution and draws by hand and by property; and whether the shipped recordings hold what is said."""

import json
import random
import re
import string
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import augmentation, client, languages, paper, paths, prompts, studies, survey
from culturellm_utils.augmentation import Writer, draw, protected_positions, substitute, usable_substitutes
from culturellm_utils.client import Recording, Reply, Request, recording_key
from culturellm_utils.prompts import Phrasebook
from culturellm_utils.records import Candidate, Question, Substitution, read_rows
from culturellm_utils.usage import Budget

GOALS = "Few goals have driven me as strongly in life as making my parents proud."
QUESTION = Question(question_id="Q27", topic="Social values", question="Making my parents proud is a goal of mine.",
                    options={"1": "Agree", "2": "Disagree"}, protected=["my parents proud"])
# What notebook 02 asks for by default, and what was recorded for it.
KNOBS = studies.defaults("02_augmentation")
TEMPLATES, SUBSTITUTES = KNOBS["templates_requested"], KNOBS["substitutes_requested"]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3), max_leaves=9,
)
entries = st.fixed_dictionaries(
    {}, optional={"position": st.integers(-2, 20) | anything,
                  "word": st.sampled_from(languages.tokens(GOALS)) | anything,
                  "substitutes": st.lists(st.text(max_size=9) | anything, max_size=3) | anything},
)
# Any text at all, any JSON, and what nearly is a reply.
any_reply = (st.text(max_size=80) | anything.map(json.dumps) | st.lists(entries, max_size=4).map(
    lambda words: json.dumps({"words": words})))
templates = st.text(alphabet=string.ascii_letters + "áé0 \t\n,.?'’-", min_size=1, max_size=60)


def reply(*words: tuple[int, str, list]) -> str:
    return json.dumps({"words": [{"position": p, "word": w, "substitutes": s} for p, w, s in words]})


class Canned:
    """A client that says what it was told to, in order, and keeps what it was asked."""

    source = "canned"

    def __init__(self, *replies: str, retries: int = 0) -> None:
        self.replies, self.retries, self.budget = list(replies), retries, Budget()
        self.requests: list[Request] = []

    def known(self, requests: list[Request]) -> int:
        return 0

    def ask(self, requests: list[Request], show: client.Show = client.quiet) -> list[Reply]:
        self.requests += requests
        said, self.replies = self.replies[: len(requests)], self.replies[len(requests) :]
        return [Reply(text=text, prompt_tokens=1, completion_tokens=1) for text in said]


# --- prompts


def test_the_survey_prompt_word_for_word():
    options = {"1": "Strongly agree", "2": "Agree"}
    assert prompts.survey_prompt("Work is a duty.", options) == (
        "Do you agree with this statement? Work is a duty.\n"
        "Options: 1. Strongly agree 2. Agree\n"
        "Answer with one number from 1 to 2."
    )
    assert prompts.survey_prompt("Is it good?", options).startswith("Is it good?\nOptions: 1.")
    often = {"1": "Very often", "2": "Not often"}
    assert prompts.survey_prompt("Please say how often.", often).startswith("Please say how often.\nOptions: 1.")


def test_options_are_shown_in_their_order_and_unnamed_ones_are_in_the_range_alone():
    shown = prompts.survey_prompt("Jobs are filled.", {"2": "Agree", "1": "Hard to say", "0": "Disagree"})
    assert "Options: 2. Agree 1. Hard to say 0. Disagree\nAnswer with one number from 0 to 2." in shown
    ten = {str(code): "" for code in range(1, 11)} | {"1": "Completely disagree", "10": "Completely agree"}
    assert prompts.survey_prompt("Science helps.", ten).endswith(
        "Options: 1. Completely disagree 10. Completely agree\nAnswer with one number from 1 to 10.")


def test_the_other_prompts():
    assert prompts.classification_prompt("Go away.", ("RUDE", "NOT_RUDE"), "Is it rude?") == (
        "Is it rude? Answer with RUDE or NOT_RUDE only.\nText: Go away.")
    assert prompts.culture_system("Korean") == "You are a Korean chatbot that knows Korean culture very well."
    assert prompts.culture_system("Arabic").startswith("You are an Arabic chatbot")
    assert [turn.role for turn in prompts.chat("a", "b")] == ["system", "user"]
    assert [turn.role for turn in prompts.chat("a", "b", "c")] == ["system", "user", "assistant"]
    assert prompts.chat("a", "b", "")[2].content == ""


def test_the_whole_template_and_all_its_words_are_in_one_request():
    asked = prompts.substitutes_request("Don't men's e-mails, too?", ["men", "e-mails"], 4)[1].content
    assert "Item: Don't men's e-mails, too?\nWords: 0:Don't 1:men's 2:e-mails 3:, 4:too 5:?\n" in asked
    assert "or these words: men, e-mails." in asked
    assert "up to 4 substitutes" in asked
    assert "or these words: none." in prompts.substitutes_request("a", [], 4)[1].content
    assert "Write 12 paraphrases" in prompts.template_request("Work.", 12)[1].content


A = """man house year union university unit unique uniform unilateral unionized unanimous use useful usual user usurper
    utility utensil utopia uranium urine European euro eulogy ewe one one-off once U-turn UK UN US Ukrainian Ugandan
    Uruguayan Uyghur historic hotel home Honduran Hungarian yes TV PhD B 7 10 110 180 12-year-old NATO Men heifer"""
AN = """apple egg idea old umbrella unable unaware unimportant unimaginable unintended uninsured unidentified unresolved
    urban urgent usher utter utmost upper ugly hour hourly honest honesty honor honour honorary heir heiress onerous
    only ounce oneiric early eight 8 80 8th 11 18 18-year-old X-ray MP MRI NGO FBI SMS L émigré élite
    Arabic English Indian Urdu Uzbek Omani"""


@pytest.mark.parametrize("word", A.split())
def test_words_after_a(word):
    assert prompts.article(word) == "a"


@pytest.mark.parametrize("word", AN.split())
def test_words_after_an(word):
    assert prompts.article(word) == "an"


# --- which words may be replaced


def test_what_may_be_used_and_what_is_refused():
    verdict = usable_substitutes(reply(
        (1, "goals", ["aims", "objectives"]),
        (3, "driven", ["moved"]),
        (3, "Driven", ["motivated", "Motivated", "driven"]),  # a later entry counts; the word itself is no substitute
        (6, "strongly", ["deeply", "", " ", "more  than", "as much as ever was", "50%", 7, None]),
        (8, "years", ["days"]),
        (99, "life", ["years"]),
        (-1, ".", ["!"]),
        (0, "few", ["many"]),
        (11, "my", ["their"]),
        (12, "parents", ["elders"]),
        (13, "proud", ["happy"]),
    ), GOALS, ["My parents proud"])
    assert verdict.value == {1: ["aims", "objectives"], 3: ["Motivated"], 6: ["deeply"]}
    assert (verdict.worth, verdict.outcome) == (3, "used")
    assert verdict.detail.split("; ") == [
        "'Driven': 1 substitutes are not plain words",
        "'strongly': 7 substitutes are not plain words",
        "'years' is not word 8 of the template",
        "'life' is not word 99 of the template",
        "'.' is not word -1 of the template",
        "'few' is protected",
        "'my' is protected",
        "'parents' is protected",
        "'proud' is protected",
    ]


@pytest.mark.parametrize("text", [
    "", "sorry", "{}", '{"words": null}', '{"words": 1}', '{"words": "goals"}', '{"words": {"position": 1}}',
    '{"words": ["goals"]}', '{"words": [{"position": 1, "word": "goals"}]}',
    '{"words": [{"position": null, "word": "goals", "substitutes": []}]}',
    '{"words": [{"position": 1e999, "word": "goals", "substitutes": []}]}',
    '{"words": [{"position": 1, "word": "goals", "substitutes": "aims"}]}',  # not the letters a, i, m, s
    '{"words": [{"position": 1, "word": "goals", "substitutes": {"aims": 1}}]}',
])
def test_a_reply_that_is_none_is_not_used(text):
    verdict = usable_substitutes(text, GOALS, [])
    assert verdict.value is None
    assert verdict.worth == 0
    assert verdict.outcome in ("not JSON", "refusal")
    assert "\n" not in verdict.detail


@pytest.mark.parametrize(("words", "detail"), [
    ([], ""), ([(0, "few", ["many"])], "'few' is protected"),
    ([(1, "goals", ["Goals", "!"])], "'goals': 2 substitutes are not plain words"),
])
def test_a_reply_without_a_usable_substitute_is_unusable(words, detail):
    verdict = usable_substitutes(reply(*words), GOALS, [])
    assert (verdict.value, verdict.worth, verdict.outcome) == (None, 0, "unusable")
    assert verdict.detail.startswith(detail)


@given(text=any_reply)
def test_any_reply_gives_plain_words_at_free_positions(text):
    words = languages.tokens(GOALS)
    usable = usable_substitutes(text, GOALS, ["my parents proud"]).value or {}
    assert not usable.keys() & protected_positions(GOALS, ["my parents proud"])
    for position, offered in usable.items():
        assert words[position]
        assert offered
        assert len({word.lower() for word in offered}) == len(offered)
        assert all(word.split() == word.split(" ") and 1 <= len(word.split()) <= 3 for word in offered)


@pytest.mark.parametrize(("template", "protected", "locked"), [
    ("Men should never be rarely paid.", [], "should never rarely ."),
    ("They don't, can’t and WON'T.", [], "don't , can’t WON'T ."),
    ("At 18, 3 in ten, two or 1st.", [], "18 , 3 , two 1st ."),
    ("A mother's job harms the mother’s children.", ["mother", "children"], "A mother's the mother’s children ."),
    ("Motherhood and mothers-in-law", ["mother"], ""),
    ("Political leaders lead political parties", ["political leaders"], "Political leaders"),
    ("right and wrong, wrong and right", ["Right and wrong"], "right and wrong ,"),
    ("e-mail or e-mails", ["e-mail"], "e-mail"),
    ("people of all ages, most of the time", [""], "all , most the"),
])
def test_protected_positions(template, protected, locked):
    words = languages.tokens(template)
    positions = protected_positions(template, protected)
    assert " ".join(words[position] for position in sorted(positions)) == locked


# --- the draw


@given(
    substitutes=st.dictionaries(
        st.integers(0, 9), st.lists(st.text("abc", min_size=1), min_size=1, max_size=4, unique=True), max_size=5),
    draws=st.integers(1, 40), seed=st.integers(0, 9),
)
def test_a_draw_gives_distinct_choices_that_are_not_empty(substitutes, draws, seed):
    chosen = draw(substitutes, draws, random.Random(seed))
    there_are = 1
    for offered in substitutes.values():
        there_are *= len(offered) + 1
    assert len(chosen) == min(draws, there_are - 1)
    assert len({tuple(sorted(choice.items())) for choice in chosen}) == len(chosen)
    for choice in chosen:
        assert choice
        assert all(word in substitutes[position] for position, word in choice.items())
    assert chosen == draw(substitutes, draws, random.Random(seed))


def test_every_choice_is_drawn_when_there_are_few_and_about_equally_often_when_many():
    two = {1: ["a"], 4: ["b"]}
    assert sorted(map(str, draw(two, 3, random.Random(0)))) == ["{1: 'a', 4: 'b'}", "{1: 'a'}", "{4: 'b'}"]
    assert draw({}, 3, random.Random(0)) == []
    chance = random.Random(0)
    seen = Counter(str(draw(two, 1, chance)[0]) for _ in range(3000))
    assert len(seen) == 3
    assert max(seen.values()) < 1.15 * min(seen.values())


# --- substitution


@pytest.mark.parametrize(("template", "choice", "expected"), [
    (GOALS, {1: "aims", 3: "motivated"}, "Few aims have motivated me as strongly in life as making my parents proud."),
    ("Goals, goals; GOALS!", {0: "aims", 2: "targets", 4: "aims"}, "Aims, targets; Aims!"),
    ("The cat's catalogue.", {1: "dog's"}, "The dog's catalogue."),
    ("A duty  binds\tus .", {1: "obligation"}, "An obligation  binds\tus ."),
    ("It is an obligation.", {3: "duty"}, "It is a duty."),
    ("It is an open way.", {3: "honest", 4: "idea"}, "It is an honest idea."),
    ("It is AN act.", {3: "deed"}, "It is A deed."),
    ("It is a fair vote.", {4: "election"}, "It is a fair election."),
    ("Is it fair?", {2: "Fair-minded"}, "Is it Fair-minded?"),
    ("work", {}, "work"),
])
def test_substitution_by_position(template, choice, expected):
    assert substitute(template, choice)[0] == expected


def test_what_was_replaced_is_kept_with_the_sample():
    made = substitute("A duty binds people.", {3: "persons", 1: "obligation"})[1]
    assert made == [Substitution(position=1, word="duty", substitute="obligation"),
                    Substitution(position=3, word="people", substitute="persons")]
    (capital,) = substitute("Goals matter.", {0: "aims"})[1]
    assert (capital.word, capital.substitute) == ("Goals", "Aims")


@given(template=templates, data=st.data())
def test_all_other_tokens_and_all_white_space_stay(template, data):
    words = languages.tokens(template)
    free = sorted(set(range(len(words))) - protected_positions(template, []))
    choice = data.draw(st.dictionaries(st.sampled_from(free), st.sampled_from(["goal", "aim", "Honest", "e-mail"]))
                       if free else st.just({}))
    text, made = substitute(template, choice)
    new = languages.tokens(text)
    assert len(new) == len(words)
    assert re.findall(r"\s+", text) == re.findall(r"\s+", template)
    assert [row.position for row in made] == sorted(choice)
    for position, (old, found) in enumerate(zip(words, new, strict=True)):
        if position in choice:
            assert found.lower() == choice[position].lower()
            assert found[0].isupper() or not old[0].isupper()
        elif old.lower() in ("a", "an") and position + 1 in choice:
            assert found.lower() == prompts.article(new[position + 1])
            assert found[0].isupper() == old[0].isupper()
        else:
            assert found == old


# --- other languages

ZWNJ, ZWJ = "\u200c", "\u200d"


@pytest.mark.parametrize(("language", "template", "choice", "expected"), [
    ("Korean", "부모님을 자랑스럽게 하는 것이 내 목표다.", {0: "어머니를", 5: "꿈이다"},
     "어머니를 자랑스럽게 하는 것이 내 꿈이다."),
    ("Korean", "일은 일요일의 일이다.", {0: "노동은"}, "노동은 일요일의 일이다."),      # 일 stands in the others too
    ("Chinese", "工作是工作者的义务。", {0: "劳动"}, "劳动是工作者的义务。"),
    ("Chinese", "女人和妇女的工作。", {2: "女性", 4: "任务"}, "女人和女性的任务。"),
    ("Japanese", "仕事は仕事場の義務です。", {0: "労働", 4: "務め"}, "労働は仕事場の務めです。"),
    ("Thai", "พ่อแม่ของฉันภูมิใจ", {4: "ดีใจ"}, "พ่อแม่ของฉันดีใจ"),
    ("Arabic", "إِنَّ العَمَلَ وَاجِبٌ عَلَى العُمَّالِ.", {2: "فَرْضٌ"}, "إِنَّ العَمَلَ فَرْضٌ عَلَى العُمَّالِ."),
    ("Bengali", f"কাজ একটি কর্তব্য,  কাজের র{ZWJ}্যালি।", {0: "শ্রম", 5: "মিছিল"}, "শ্রম একটি কর্তব্য,  কাজের মিছিল।"),
    ("Persian", f"من می{ZWNJ}خواهم کتاب{ZWNJ}ها را بخرم.", {2: f"مجله{ZWNJ}ها"},
     f"من می{ZWNJ}خواهم مجله{ZWNJ}ها را بخرم."),
    ("German", "Arbeit ist Pflicht; Arbeiter wissen es.", {0: "tätigkeit"},
     "Tätigkeit ist Pflicht; Arbeiter wissen es."),
    ("Turkish", "İnsanlar mutlu.", {0: "işçiler"}, "İşçiler mutlu."),                 # mutlu (happy) is no particle
    ("Turkish", "İş önemli midir, işçi de önemli mi?", {1: "zorunlu", 6: "doğru"},
     "İş zorunlu mudur, işçi de doğru mu?"),
    ("Turkish", "Çocuklar da mutlu.", {0: "bebekler"}, "Bebekler de mutlu."),
    ("Turkish", "Kadın müdür geldi.", {0: "genç"}, "Genç müdür geldi."),              # nor is this director
    ("Spanish", "¿Es a veces un deber?", {3: "a menudo"}, "¿Es a a menudo un deber?"),  # "a" is no article here
])
def test_substitution_in_other_languages(language, template, choice, expected):
    assert substitute(template, choice, language)[0] == expected


@pytest.mark.parametrize(("language", "template"), [
    ("Korean", "부모님을 자랑스럽게 하는 것이, 내 목표다."), ("Chinese", "生活的目标是让父母骄傲，AI也是。"),
    ("Japanese", "テレビは 両親の家で働く。"), ("Thai", "งานเป็นหน้าที่ ของคนงาน"), ("Arabic", "هَلِ العَمَلُ، وَاجِبٌ؟"),
    ("Bengali", f"ক্{ZWNJ}ষ  র{ZWJ}্যাব ত্{ZWJ} হয়।"), ("Persian", f"می{ZWNJ}خواهم\u00a0کتاب{ZWNJ}هایم را."),
    ("Turkish", "Türkiye'nin \tinsanları çalışkan mı?"), ("Hindi", "क्या यह सही है?"),
])
def test_one_token_is_replaced_and_the_rest_stays_byte_for_byte(language, template):
    for position, (start, end) in enumerate(languages.spans(template, language)):
        text, (made,) = substitute(template, {position: "5"}, language)
        assert text == template[:start] + "5" + template[end:]
        assert (made.position, made.word) == (position, template[start:end])


@pytest.mark.parametrize(("language", "template", "protected", "locked"), [
    ("Korean", "우리 부모님을 위해 부모가 3번 일한다.", ["부모님"], "부모님을 3번 ."),
    ("Korean", "남자가 정치 지도자로 더 낫다.", ["정치 지도자", "남자"], "남자가 정치 지도자로 ."),
    ("Chinese", "男人是更好的政治领导人。", ["男人", "政治领导人"], "男人 政治 领导 人 。"),
    ("Arabic", "هَلْ يَضُرُّ عَمَلُ الأُمِّ بالأَطْفَالِ؟", ["الأم", "أطفال"], "الأُمِّ بالأَطْفَالِ ؟"),
    ("Turkish", "Çocuğun annesi hiç çalışmasın.", ["çocuk"], "Çocuğun ."),
    ("Bengali", "মায়ের কাজ শিশুদের ক্ষতি করে।", ["শিশু"], "শিশুদের ।"),
    ("German", "Never no Kinder, all die Kindern.", ["Kinder"], "Kinder , Kindern ."),   # no English guarded words
])
def test_protected_phrases_are_found_with_endings_and_clitics(language, template, protected, locked):
    words = languages.tokens(template, language)
    positions = protected_positions(template, protected, language)
    assert " ".join(words[position] for position in sorted(positions)) == locked


@pytest.mark.parametrize(("language", "template", "words", "expected"), [
    ("Korean", "부모님을 기쁘게 하는 것이 목표다.",
     [(0, "부모님을", ["어머니를"]), (1, "기쁘게", ["happy", "행복하게", "幸福"]),
      (4, "목표", ["꿈"]), (5, ".", ["!"])],
     {1: ["행복하게"]}),
    ("Turkish", "İnsanlar ışık arar.", [(0, "insanlar", ["KİŞİLER", "kişiler", "İNSANLAR"]), (1, "isik", ["nur"])],
     {0: ["kişiler"]}),
    ("Bengali", "সম\u09df মূল্যবান।", [(0, "সম\u09af\u09bc", ["কাল"]), (1, "মূল্যবান", ["দামি"])],
     {0: ["কাল"], 1: ["দামি"]}),
    ("Arabic", "العَمَلُ وَاجِبٌ.", [(0, "العمل", ["الشغل", "الشغلُ"]), (1, "واجب", ["فرض"])],
     {0: ["الشغلُ"], 1: ["فرض"]}),
    ("Chinese", "目标是让父母骄傲。", [(0, "目标", ["目的", "理想"]), (4, "骄傲", ["自豪"])],
     {0: ["目的", "理想"], 4: ["自豪"]}),
    ("Serbian", "Rad je dužnost.", [(2, "dužnost", ["obaveza"])], {2: ["obaveza"]}),  # in its other script
])
def test_substitutes_in_other_languages(language, template, words, expected):
    assert usable_substitutes(reply(*words), template, ["부모님"], language).value == expected


# --- the two stages


def test_templates_of_a_reply():
    listed = ['{"templates": [" Work is good. ", "", "Work \\n  matters.", "It is good to work."]}', "no way",
              '{"templates": "One."}', '{"templates": [1]}', '{"templates": ["Work is good.", "It is good to work."]}',
              '{"templates": ["Work is good."]}']
    questions = [QUESTION.model_copy(update={"question_id": f"Q{n}"}) for n in range(6)]
    writer = Writer(Canned(*listed))
    made = augmentation.make_templates(writer, questions, 2)
    assert [(t.candidate_id, t.text) for t in made] == [
        ("Q0-t01", "Work is good."), ("Q0-t02", "Work matters."), ("Q4-t01", "Work is good."),
        ("Q4-t02", "It is good to work."), ("Q5-t01", "Work is good.")]
    assert all((t.stage, t.template_id, t.source) == (1, t.candidate_id, "canned") for t in made)
    assert [row.subject for row in writer.replies] == ["Q0", "Q1", "Q2", "Q3", "Q4", "Q5"]
    outcomes = ["used", "not JSON", "not JSON", "not JSON", "used", "partly used"]
    assert [row.outcome for row in writer.replies] == outcomes
    assert {row.purpose for row in writer.replies} == {"templates"}
    asked = [request.messages for request in writer.client.requests]
    assert asked == [prompts.template_request(QUESTION.question, 2)] * 6


def test_an_unusable_reply_is_asked_again():
    writer = Writer(Canned("sorry", '{"templates": ["Work is good."]}', retries=1))
    assert [t.text for t in augmentation.make_templates(writer, [QUESTION], 1)] == ["Work is good."]
    assert [(row.attempt, row.outcome) for row in writer.replies] == [(0, "not JSON"), (1, "used")]


def test_samples_of_a_template():
    template = Candidate(candidate_id="Q27-t02", question_id="Q27", stage=1, template_id="Q27-t02", text=GOALS,
                         substitutions=[], source="canned")
    other = template.model_copy(update={"candidate_id": "Q27-t03", "template_id": "Q27-t03"})
    writer = Writer(Canned(reply((1, "goals", ["aims"]), (3, "driven", ["moved"]), (12, "parents", ["elders"])), "no"))
    made = augmentation.make_samples(writer, [template, other], [QUESTION], 4, 5, seed=0)
    assert [request.messages for request in writer.client.requests] == [
        prompts.substitutes_request(GOALS, ["my parents proud"], 4)] * 2
    assert {sample.text for sample in made} == {
        GOALS.replace("goals", "aims"), GOALS.replace("driven", "moved"),
        GOALS.replace("goals", "aims").replace("driven", "moved"),
    }
    assert [sample.candidate_id for sample in made] == ["Q27-t02-s1", "Q27-t02-s2", "Q27-t02-s3"]
    assert all((s.stage, s.template_id, s.source) == (2, "Q27-t02", "canned") for s in made)
    assert [(row.subject, row.outcome, row.detail.partition(" (")[0]) for row in writer.replies] == [
        ("Q27-t02", "used", "'parents' is protected"), ("Q27-t03", "not JSON", "no JSON object in the reply")]


def test_samples_in_korean_are_asked_for_and_made_in_korean():
    book = Phrasebook("Korean", {prompts.PHRASES["suggester"]: "단어를 제안하세요.", prompts.PHRASES["item"]: "문항:",
                                 prompts.PHRASES["substitutes"]: "{count}개까지 바꾸되 {protected} 제외."})
    question = QUESTION.model_copy(update={"question": "부모님을 기쁘게 하는 것이 목표다.", "protected": ["부모님"]})
    template = Candidate(candidate_id="Q27-t01", question_id="Q27", stage=1, template_id="Q27-t01",
                         text=question.question, substitutions=[], source="canned")
    writer = Writer(Canned(reply((0, "부모님을", ["어른을"]), (1, "기쁘게", ["행복하게"]))), book)
    (sample,) = augmentation.make_samples(writer, [template], [question], 4, 5, seed=0)
    assert sample.text == "부모님을 행복하게 하는 것이 목표다."
    system, user = (message.content for message in writer.client.requests[0].messages)
    assert system == "단어를 제안하세요."
    assert user.startswith("4개까지 바꾸되 부모님 제외.\n문항: 부모님을 기쁘게 하는 것이 목표다.\n")
    assert "0:부모님을 1:기쁘게 2:하는 3:것이 4:목표다 5:." in user


# --- the recordings that ship


@pytest.fixture(scope="module")
def shipped() -> SimpleNamespace:
    """Everything that notebook 02 makes of the recordings, and every request that it sends."""
    questions = survey.questions("")
    writer = Writer(client.Recorded())
    templates = augmentation.make_templates(writer, questions, TEMPLATES)
    samples = list(augmentation.make_samples(writer, templates, questions, SUBSTITUTES, 4, seed=0))
    by_id = {question.question_id: question for question in questions}
    asked = augmentation.substitutes_requests(templates, questions, SUBSTITUTES)
    verdicts = [usable_substitutes(r.text, t.text, by_id[t.question_id].protected)
                for r, t in zip(writer.client.ask(asked), templates, strict=True)]
    keys = [recording_key(request) for request in
            [*augmentation.template_requests(questions, TEMPLATES), *asked]]
    return SimpleNamespace(questions=questions, by_id=by_id, templates=templates, samples=samples, verdicts=verdicts,
                           replies=writer.replies, keys=keys)


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_every_question_has_twelve_different_templates_and_nothing_is_wrong(shipped):
    assert {(row.outcome, row.detail) for row in shipped.replies} == {("used", "")}
    assert len(shipped.questions) == 50
    assert Counter(t.question_id for t in shipped.templates) == dict.fromkeys(shipped.by_id, 12)
    texts = [plain(text) for text in [*(q.question for q in shipped.questions), *(t.text for t in shipped.templates)]]
    assert len(set(texts)) == 50 + 600


def test_every_recording_is_a_reply_to_something_that_an_augmenter_may_ask(shipped):
    rows = read_rows(paths.DATA / "recordings.jsonl", Recording)
    by_purpose = {purpose: {row.key for row in rows if row.purpose == purpose} for purpose in {r.purpose for r in rows}}
    assert sum(map(len, by_purpose.values())) == len(rows)
    assert by_purpose.pop("templates") | by_purpose.pop("substitutes") == set(shipped.keys)
    assert by_purpose.pop("sentences") == {recording_key(paper.sentences_request(question, attempt))
                                           for question in shipped.questions for attempt in range(paper.TRIES)}
    replies = {row.key: row.reply for row in rows}

    def synonyms(attempts: range) -> set[str]:
        """The keys of what is asked of the words of each question and of its sentences."""
        sentences = [text for question in shipped.questions for attempt in attempts for text in json.loads(
            replies[recording_key(paper.sentences_request(question, attempt))])["sentences"]]
        return {recording_key(paper.synonyms_request(word.lower(), tag))
                for text in [*sentences, *(question.question for question in shipped.questions)]
                for word, tag in paper.replaceable(text)}

    recorded = by_purpose.pop("synonyms")
    assert synonyms(range(2)) <= recorded
    assert len(recorded - synonyms(range(paper.TRIES))) <= 1  # "s", a piece of "country's"
    assert by_purpose.keys() == {"translation", "rephrasings"}
    assert {row.question_id for row in rows if row.purpose != "synonyms"} == shipped.by_id.keys()


def test_nearly_every_template_has_three_words_to_replace(shipped):
    counts = [verdict.worth for verdict in shipped.verdicts]
    assert min(counts) >= 2
    assert sum(count >= 3 for count in counts) >= 0.9 * len(counts)
    assert {verdict.detail for verdict in shipped.verdicts} == {""}


def test_what_a_template_is_about_is_never_offered_for_replacement(shipped):
    for template, verdict in zip(shipped.templates, shipped.verdicts, strict=True):
        words = languages.tokens(template.text)
        for phrase in shipped.by_id[template.question_id].protected:
            offered = {words[position].lower().removesuffix("'s") for position in verdict.value}
            assert phrase.lower() not in offered, template.text


def test_samples_of_a_template_differ_and_keep_its_end_and_length(shipped):
    assert Counter(sample.template_id for sample in shipped.samples) == {t.template_id: 4 for t in shipped.templates}
    by_id = {template.candidate_id: template.text for template in shipped.templates}
    for question in shipped.by_id:
        texts = [plain(row.text) for row in shipped.templates + shipped.samples if row.question_id == question]
        assert len(set(texts)) == len(texts)
    for sample in shipped.samples:
        assert sample.text[-1] == by_id[sample.template_id][-1]
        assert sample.text == substitute(by_id[sample.template_id],
                                         {made.position: made.substitute for made in sample.substitutions})[0]


def test_texts_are_sane(shipped):
    for row in shipped.templates + shipped.samples:
        assert re.fullmatch(r"[A-Z].*[.?]", row.text), row
        assert not re.search(r"\s\s|\s[,.;:?!]|[,;:](?=\S)|[^ -~’]", row.text), row
        assert not re.search(r"\b(\w+) \1\b", row.text, re.IGNORECASE), row
        for article, word in re.findall(r"\b(an?) ([\w-]+)", row.text, re.IGNORECASE):
            assert prompts.article(word) == article.lower(), row
        seed = shipped.by_id[row.question_id]
        stated = not seed.question.endswith("?")
        assert prompts.survey_prompt(row.text, seed.options).startswith(prompts.AGREE) == stated, row
        assert row.text.endswith("?") != stated or row.text.startswith(("Please ", "We would like to ")), row


def test_nothing_is_copied_from_the_released_paraphrases(shipped, reference: Path):
    released = set()
    for path in sorted((reference / "paraphrases").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            released |= {plain(row[name]) for name in ("q_content", "ori_content") if row.get(name)}
    assert len(released) > 500
    ours = [*(q.question for q in shipped.questions), *(t.text for t in shipped.templates + shipped.samples)]
    assert not [text for text in ours if plain(text) in released]


def test_the_draw_depends_on_the_seed_alone(shipped):
    some = shipped.templates[:30]
    one, again, other = (augmentation.make_samples(Writer(client.Recorded()), some, shipped.questions, SUBSTITUTES, 4,
                                                   seed) for seed in (0, 0, 1))
    assert one == again
    assert [row.text for row in one] != [row.text for row in other]
    assert one == shipped.samples[: len(one)]  # and not on what else is drawn
