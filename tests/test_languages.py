"""Tokens, scripts and letters of many languages, by hand and by property."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import languages, paths
from culturellm_utils.client import Recording
from culturellm_utils.errors import UserError
from culturellm_utils.records import read_rows

ZWNJ, ZWJ = "\u200c", "\u200d"
LANGUAGES = ("English", "Chinese", "Japanese", "Thai", "Korean", "Arabic", "Bengali", "Turkish", "Persian", "Khmer")
#: Letters, marks, joiners and signs of many scripts, close enough to meet in one word.
SIGNS = ("aiIİıß’'-_0٣ 中文𠮷日ひカーไทยกำខ្ញុំလာ"
         "한국ابعَّকষ্য়ি、。؟?☀\ufe0f\u00ad\u200f\t\n" + ZWNJ + ZWJ)
mixed = st.text(st.sampled_from(SIGNS)) | st.text()


# --- tokens


@pytest.mark.parametrize(("language", "text", "expected"), [
    ("English", "Don’t e-mail people's sons-in-law!", "Don’t|e-mail|people's|sons-in-law|!"),
    ("English", "well -- '90s 'quoted' 3.5%", "well|-|-|'|90s|'|quoted|'|3|.|5|%"),
    ("English", " \n\t", ""),
    ("German", "Männer für die Straße – „größer“?", "Männer|für|die|Straße|–|„|größer|“|?"),
    ("Spanish", "¿Es un deber?", "¿|Es|un|deber|?"),
    ("Chinese", "让父母骄傲是我的目标。", "让|父母|骄傲|是|我的|目标|。"),
    ("Chinese", "AI技术，2024年", "AI|技术|，|2024|年"),
    ("Chinese", "𠮷", "𠮷"),
    ("Korean", "부모님을 기쁘게 하는 것이 목표, 맞나요?", "부모님을|기쁘게|하는|것이|목표|,|맞나요|?"),
    ("Japanese", "両親は私の誇りです。", "両親|は|私|の|誇り|です|。"),
    ("Japanese", "テレビ・ゲーム", "テレビ|・|ゲーム"),
    ("Thai", "พ่อแม่ของฉันภูมิใจ", "พ่อ|แม่|ของ|ฉัน|ภูมิใจ"),
    ("Arabic", "إِنَّ العَمَلَ وَاجِبٌ، أليس كذلك؟", "إِنَّ|العَمَلَ|وَاجِبٌ|،|أليس|كذلك|؟"),
    ("Persian", f"من می{ZWNJ}خواهم کتاب{ZWNJ}هایم را.", f"من|می{ZWNJ}خواهم|کتاب{ZWNJ}هایم|را|."),
    ("Bengali", "শিশুদের কষ্ট হয়।", "শিশুদের|কষ্ট|হয়|।"),
    # A joiner before the virama, between consonants, and at the end.
    ("Bengali", f"র{ZWJ}্যাব ক্{ZWNJ}ষ ত্{ZWJ} ও", f"র{ZWJ}্যাব|ক্{ZWNJ}ষ|ত্{ZWJ}|ও"),
    ("Hindi", "क्या यह सही है?", "क्या|यह|सही|है|?"),
    ("Turkish", "Türkiye'nin İstanbul’u güzel mi?", "Türkiye'nin|İstanbul’u|güzel|mi|?"),
    ("French", "L'école d’aujourd'hui", "L'école|d’aujourd'hui"),
    ("Catalan", "col·lecció", "col·lecció"),
    ("Hebrew", "צה״ל", "צה״ל"),
    ("English", "so\u00adft ok\u200f ☀\ufe0f", "so\u00adft|ok|☀\ufe0f"),
])
def test_tokens(language, text, expected):
    assert "|".join(languages.tokens(text, language)) == expected


@given(text=mixed, language=st.sampled_from(LANGUAGES))
def test_tokens_are_spans_in_order_and_nothing_visible_is_between_them(text, language):
    found = languages.spans(text, language)
    assert languages.tokens(text, language) == [text[start:end] for start, end in found]
    assert all(start < end for start, end in found)
    edges = [0, *(place for span in found for place in span), len(text)]
    assert edges == sorted(edges)
    between = "".join(text[end:start] for end, start in zip(edges[::2], edges[1::2], strict=True))
    assert all(sign.isspace() or languages.regex.match(r"\p{Cf}", sign) for sign in between)
    assert not any(token.isspace() for token in languages.tokens(text, language))


@given(st.lists(st.sampled_from(["부모님을", "çocukların", "وأهدافي", "যুদ্ধকে", "sons-in-law", f"می{ZWNJ}خواهم"])))
def test_words_between_spaces_are_tokens(words):
    assert languages.tokens(" ".join(words), "Korean") == words


def test_english_tokens_are_those_that_were_numbered_when_replies_were_recorded():
    texts = [text for row in read_rows(paths.DATA / "recordings.jsonl", Recording) if row.purpose == "templates"
             for text in json.loads(row.reply)["templates"]]
    assert len(texts) == 600
    for text in texts:
        assert languages.tokens(text) == re.findall(r"\w+(?:[-'’]\w+)*|[^\w\s]", text), text


# --- names


@pytest.mark.parametrize(("name", "expected"), [
    ("Arabic", "ar"), ("Bengali", "bn"), ("Bangla", "bn"), ("Chinese", "zh"), ("Mandarin", "zh"),
    ("Mandarin  Chinese", "zh"), ("English", "en"), ("German", "de"), (" korean ", "ko"), ("PORTUGUESE", "pt"),
    ("Spanish", "es"), ("Turkish", "tr"), ("Greek", "el"), ("Farsi", "fa"), ("Persian", "fa"), ("Filipino", "fil"),
    ("Brazilian Portuguese", "pt_BR"), ("Simplified Chinese", "zh_Hans"),
])
def test_codes_of_languages(name, expected):
    assert languages.code(name) == expected


@pytest.mark.parametrize("name", ["", "Klingonese", "ko", "Korea", "français"])
def test_what_is_no_language_is_said_in_one_sentence(name):
    with pytest.raises(UserError, match=f"^culture_language '{name}' is no language's English name; write it as in "
                                        "'Korean' or 'Greek'$"):
        languages.code(name)


# --- letters


def test_turkish_has_two_letters_i():
    assert languages.capital("iş", "Turkish") == "İş"
    assert languages.capital("ışık", "Turkish") == "Işık"
    assert languages.capital("iş", "English") == "Iş"
    assert languages.capital("", "Turkish") == ""
    assert languages.lower("IŞIK İŞ", "Turkish") == "ışık iş"
    assert languages.lower("IN", "English") == "in"
    assert languages.lower("İŞ", "Azerbaijani") == "iş"


@pytest.mark.parametrize(("language", "one", "other", "same"), [
    ("Turkish", "İNSAN", "insan", True),
    ("Turkish", "IŞIK", "işik", False),
    ("Bengali", "হ\u09df", "হ\u09af\u09bc", True),      # one sign or a letter with a dot
    ("Arabic", "العَمَلُ", "العمل", True),
    ("Arabic", "عمل", "عامل", False),
    ("Persian", f"می{ZWNJ}خواهم", "میخواهم", True),
    ("English", "Don’t", "don't", True),
    ("German", "größer", "gro\u0308ßer", True),
])
def test_spellings_of_one_word_are_the_same(language, one, other, same):
    assert (languages.plain(one, language) == languages.plain(other, language)) == same


@pytest.mark.parametrize(("word", "particle", "expected"), [
    ("kitap", "mi", "mı"), ("ışık", "mu", "mı"), ("ev", "mı", "mi"), ("iyi", "mu", "mi"), ("okul", "mi", "mu"),
    ("soru", "mi", "mu"), ("göz", "mı", "mü"), ("gün", "mi", "mü"), ("ALTIN", "mi", "mı"), ("İYİ", "mı", "mi"),
    ("resmî", "mu", "mi"), ("doğru", "misiniz", "musunuz"), ("önemli", "mıdır", "midir"),
    ("önemli", "mıydılar", "miydiler"), ("doğru", "miydi", "muydu"), ("üzgün", "muyum", "müyüm"),
    ("çok iyi", "mı", "mi"), ("bebekler", "da", "de"), ("çocuklar", "de", "da"),
    ("5", "mi", "mi"),                                # no vowel, no change
    ("iyi", "mutlu", "mutlu"), ("iyi", "mum", "mum"), ("kadın", "milli", "milli"), ("kız", "dede", "dede"),
])
def test_the_turkish_question_particle_is_in_harmony(word, particle, expected):
    assert languages.question_particle(word, particle) == expected


# --- a phrase in a sentence


@pytest.mark.parametrize(("language", "phrase", "text", "expected"), [
    ("Korean", "부모님", "나는 부모님을, 우리 부모님께 사랑한다.", "부모님을 부모님께"),
    ("Korean", "정치 지도자", "남자가 정치 지도자로 더 낫고 정치가 좋다.", "정치 지도자로"),
    ("Chinese", "政治领导人", "男人是更好的政治领导人。", "政治 领导 人"),
    ("Chinese", "女", "妇女工作。", "妇女"),
    ("Arabic", "أطفال", "العمل يضر بالأطفال وأطفالنا.", "بالأطفال وأطفالنا"),
    ("Arabic", "الحكومة", "يَثِقُ الناس بالحُكُومَةِ.", "بالحُكُومَةِ"),
    ("Arabic", "حكومة", "حكومتنا قوية.", "حكومتنا"),
    ("Turkish", "çocuk", "Çocukların çocuğu mutlu.", "Çocukların çocuğu"),
    ("Turkish", "İnsan", "insanlar çalışır.", "insanlar"),
    ("Bengali", "সময়", "সম\u09af\u09bcের অভাব।", "সম\u09af\u09bcের"),
    ("German", "Kinder", "Kleine Kindergärten für Kindern.", "Kindergärten Kindern"),
    ("Persian", "مادر", f"مادر{ZWNJ}ها کار می{ZWNJ}کنند.", f"مادر{ZWNJ}ها"),
    ("Korean", "부모님", "나는 어머니를 사랑한다.", ""),
    ("Korean", " ", "나는 간다.", ""),
])
def test_a_phrase_is_found_with_its_endings_and_clitics(language, phrase, text, expected):
    words = languages.tokens(text, language)
    assert " ".join(words[i] for i in sorted(languages.holding(phrase, text, language))) == expected


# --- is it in the language?

SENTENCES = {
    "Arabic": ["الأطفال بحاجة إلى أمهم.", "هل من الصواب أن يسرق المرء؟", "العَمَلُ وَاجِبٌ عَلَى كُلِّ إِنْسَان."],
    "Bengali": ["শিশুদের মা দরকার।", "মানুষ কত ঘন ঘন ভোট দেয়?", "বিজ্ঞান আমাদের জীবনকে সহজ করে।"],
    "Chinese": ["孩子需要母亲的照顾。", "人们多久投一次票？", "男人领导得更好。"],
    "English": ["Children need their mother.", "How often do people vote here?", "Science makes our lives easier."],
    "German": ["Kinder brauchen ihre Mutter.", "Wie oft gehen die Menschen hier wählen?", "Arbeit ist eine Pflicht."],
    "Korean": ["아이들에게는 어머니가 필요하다.", "사람들은 얼마나 자주 투표합니까?", "일은 의무이다."],
    "Portuguese": ["As crianças precisam da mãe.", "Com que frequência as pessoas votam?", "O trabalho é um dever."],
    "Spanish": ["Los niños necesitan a su madre.", "¿Con qué frecuencia vota la gente?", "El trabajo es un deber."],
    "Turkish": ["Çocuklar annelerine muhtaçtır.", "İnsanlar ne sıklıkla oy veriyor?", "Çalışmak bir görevdir."],
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_plausible_in_its_own_of_nine_languages_alone(language):
    for text in SENTENCES[language]:
        assert [name for name in SENTENCES if languages.plausible(text, name)] == [language], text


@pytest.mark.parametrize(("text", "language", "expected"), [
    ("Work is a duty.", "German", True),      # in doubt: of short sentences in one script much is let through
    ("Work is a duty.", "Korean", False),     # but not in another
    ("Work is a duty.", "Chinese", False),
    ("男人领导得更好。", "Korean", False),
    ("男性比女性更適合當政治領袖。", "Chinese", True),
    ("男性比女性更適合當政治領袖。", "Traditional Chinese", True),
    ("Rad je dužnost.", "Serbian", True),
    ("Рад је дужност.", "Serbian", True),
    ("Ang trabaho ay isang tungkulin.", "Filipino", True),
    ("Arbeit ist eine Pflicht.", "Filipino", False),
    ("Work is a duty of everybody.", "Divehi", False),   # unknown to py3langid: the script decides
    ("މަސައްކަތަކީ ވާޖިބެއް", "Divehi", True),
    ("Arbeit isch e Pflicht.", "Swiss German", True),
])
def test_doubt_is_settled_by_the_script(text, language, expected):
    assert languages.plausible(text, language) == expected


@given(mixed, st.sampled_from(LANGUAGES))
def test_any_text_is_plausible_or_not(text, language):
    assert languages.plausible(text, language) in (True, False)
    assert languages.holding(text, text, language) <= set(range(len(languages.tokens(text, language))))
