"""The report's own pages: methods, what could not be claimed, provenance, and the run before."""

import json
import re

import pytest
import reports

from culturellm_utils import report
from culturellm_utils.records import ReplyRow, write_json, write_rows
from culturellm_utils.report import headline, limits, methods, pages, provenance


@pytest.fixture
def home(outputs):
    """The outputs of the smoke study, of one culture."""
    reports.study(outputs / "laptop")
    return outputs / "laptop"


def read():
    return report.read("laptop", ["korean"])


def test_methods_are_written_from_the_parameters_that_were_used(home):
    reports.study(home, tau=0.71, epochs=9, label_rule="mean", lora_rank=3, held_out_questions=0)
    text = " ".join(methods.page(read()).split())
    for said in ("(countries: Korean: KOR)", "A question's label is the option nearest to the mean answer",
                 "(all-MiniLM-L6-v2) was above 0.71 and a guard", "LoRA (rank 3, alpha 32",
                 "for 9 passes", "wordings that they were not trained on. Of every allowed answer",
                 "2,000 bootstrap samples", "Random seeds of training: 0. With one seed"):
        assert said in text, said
    assert "| epochs | **9** (default 4) | passes over the training rows" in text
    assert "| batch\\_size | 16 | rows per step" in text
    assert "Where the variants differ" not in text


def test_methods_count_what_was_written(home):
    for file, lines in (("common/augmented.jsonl", 3), ("common/rejected.jsonl", 1), ("korean/train.jsonl", 1200)):
        reports.write(home / "main" / file, "{}\n" * lines)
    text = methods.page(read())
    assert "Kept: 3 of 4." in text
    assert "That is 1,200 rows a culture." in text


def test_methods_say_where_variants_differ(outputs, tmp_path, monkeypatch):
    plan = {"title": "Toy", "question": "", "cultures": ["korean"], "compare": ["epochs"], "seeds": [], "one": False,
            "parameters": {}, "variants": {"few": {}, "many": {}}}
    found = [pages.Page(variant, "korean", "04_fine_tuning", reports.notebook("04_fine_tuning", {"epochs": epochs}))
             for variant, epochs in (("few", 1), ("many", 20))]
    rows = methods._differences(pages.Study("toy", plan, outputs, found))[1].splitlines()
    assert rows[0] == "| variant | 04 epochs |"
    assert rows[2:] == ["| few | 1 |", "| many | 20 |"]


def test_what_a_user_names_stays_text(home):
    reports.study(home, base_model="<b>|evil|</b> [x](y)")
    for text in (methods.page(read()), limits.page(limits.found(read()))):
        assert "<b>" not in text
    assert "\\<b\\>\\|evil\\|\\</b\\> \\[x\\](y)" in methods.page(read())


def claims(home):
    return {limit.claim: limit.reason for limit in limits.found(read())}


def test_what_could_not_be_claimed_is_computed(home):
    found = claims(home)
    assert found.keys() >= {"Anything about a language model in use, or about the paper's figures",
                            "How well a chat model words questions anew",
                            "That readers find samples to mean what their seeds mean",
                            "That fine-tuning helps or harms classification in any set",
                            "That another random seed gives the same figures",
                            "That anybody would prefer the adapter's open-ended answers"}
    unseen = "On questions never trained on: that an own adapter is right more often than the base model, or less"
    assert found[unseen] == "Not beyond chance in 1 of 1 cultures: korean."
    assert unseen.replace("questions never trained on", "held-out wordings") not in found     # p is 0.001 there
    assert found["On questions never trained on: that small differences would have been found"].startswith(
        "There are 10 questions a culture")
    assert "9" not in found["That all cultures answered the same questions"]
    assert "korean (48 of 50)" in found["That all cultures answered the same questions"]
    assert "same digit in 90% of items, and the same meaning in 10%" in found[
        "That the adapters learned what the answers mean, and not which digit to say"]


def test_what_is_claimed_is_no_limit(home):
    found = {name: json.loads(json.dumps(value)) for name, value in reports.SUMMARY.items()}
    for row in found["comparison"]:
        row |= {"clusters": 50, "p": row["p"] and 0.001}
    found["forgetting"][0]["verdict"] = "lost"
    found["win_rates"] = [{"judge": "gpt-9", "low": 0.1, "high": 0.2, "n": 14}]
    found["paper_cost"][0]["asked"] = 50
    write_json(home / "main/common/summary.json", found)
    write_json(home / "main/korean/scores.json", {"tasks": [], "stability": []})
    write_json(home / "main/common/agreement.json", {"human": {"raters": 3}})
    for stage in ("04_fine_tuning", "05_evaluation"):
        for folder in ("korean", "one"):
            reports.put(home / "main" / folder / f"{stage}.ipynb",
                        reports.notebook(stage, {"base_model": "org/real", "random_seed": len(folder)}))
    reports.put(home / "main/common/02_augmentation.ipynb",
                reports.notebook("02_augmentation", {"chat_backend": "openai"}))
    left = claims(home)
    assert set(left) == {"That adapters transfer better between cultures that answer alike"}     # no 08 has tested it


def test_arms_that_do_not_differ_are_named(outputs):
    reports.compared(outputs / "toy", ("few", "many"))
    page = pages.Page("comparison", "common", "10_comparison", reports.notebook("10_comparison"), home=outputs / "toy")
    study = pages.Study("toy", {"compare": ["epochs"]}, outputs / "toy", [
        page, pages.Page("few", "korean", "01_seed_extraction", reports.notebook("01_seed_extraction"))])
    limit, = limits._arms(study)
    assert limit.claim == "That these variants differ from `few` in accuracy: many"
    assert limit.reason == "1 of 1 differences are not beyond chance."


def test_provenance_says_what_ran_when_and_on_what(home):
    text = provenance.page(read())
    assert text.count("2026-01-02 03:04:05") == len(reports.PLACES)
    assert "| Abacus 9 · 2 cores · 8 GB memory · no GPU | 11 | 11 min 13 s |" in text      # 11 times 61.2 s
    assert text.count("`0f3a5c7e9b1d`") == len(reports.PLACES)
    assert "No notebook asked a chat model" in text


def test_provenance_adds_up_tokens_and_money(home):
    rows = [ReplyRow(key=str(n), purpose="templates", subject="Q1", attempt=0, outcome="used", detail="",
                     prompt_tokens=1000, completion_tokens=500, text="") for n in range(4)]
    write_rows(home / "main/common/replies.jsonl", rows)
    paid = {"chat_backend": "openai", "price_input": 2.5, "price_output": 10.0}
    for backend, money in (("openai", "$0.03"), ("batch", "$0.01"), ("recorded", "$0.00")):    # 4 x (0.0025 + 0.005)
        reports.put(home / "main/common/02_augmentation.ipynb",
                    reports.notebook("02_augmentation", paid | {"chat_backend": backend}))
        text = provenance.page(read())
        assert re.search(rf"4 replies.* \| 6,000 \| {re.escape(money)} \|", text), backend
    reports.put(home / "main/common/02_augmentation.ipynb",
                reports.notebook("02_augmentation", {"chat_backend": "openai"}))
    assert "6,000 | no price given |" in provenance.page(read())
    write_json(home / "main/korean/training_log.json", {"processes": None, "seconds": 90, "tokens": 700, "money": 1.5})
    text = provenance.page(read())
    assert "fine-tuning by a server | 700 | $1.50 |" in text
    assert "In all $1.50, as far as prices were given." in text
    assert "Servers took 1 min 30 s to fine-tune." in text


def test_a_second_run_is_compared_with_the_first(home):
    first = headline.of(read())
    assert headline.remember(home, first) == {}
    assert headline.section(first, {}) == ""
    headline.keep(home, first, {})
    assert headline.remember(home, first) == {}                      # a report built again is the same run
    reports.study(home, epochs=9)
    changed = json.loads(json.dumps(reports.SUMMARY))
    changed["comparison"][1]["value"] = 0.9
    write_json(home / "main/common/summary.json", changed)
    reports.put(home / "main/common/07_summary.ipynb",
                reports.notebook("07_summary", started="2026-02-02T03:04:05.678+00:00"))
    second = headline.of(read())
    assert headline.remember(home, second) == first
    headline.keep(home, second, first)
    assert headline.remember(home, second) == first
    text = headline.section(second, first)
    assert "The run of 2026-01-02 03:04:05 (UTC) beside this one, of 2026-02-02 03:04:05." in text
    assert "- Parameter epochs: the default before, 9 now (2 notebooks)." in text
    assert "| Held-out wordings, adapter | 0.800 | 0.900 | +0.100 |" in text
    assert "| Held-out wordings, base | 0.500 | 0.500 | +0.000 |" in text


def test_a_rerun_without_a_change_says_so(home):
    first = headline.of(read())
    text = headline.section(first | {"run": "another"}, first)
    assert "The same revision, cultures and parameters" in text
    assert "Revision: 1a2b3c4 before, 5d6e7f8 now." in headline.section(first | {"revision": ["5d6e7f8"]}, first)


def test_what_only_one_run_has_is_no_difference(home):
    first = headline.of(read())
    text = headline.section(first | {"figures": {"New": 0.5}}, first | {"figures": {"Old": 0.25}})
    assert "| New | – | 0.500 | – |" in text
    assert "| Old | 0.250 | – | – |" in text
