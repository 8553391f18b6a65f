"""Notebook 06 from top to bottom on simulated raters (simulation, for tests alone) and a chat rater on the loopback."""

import json

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from chat_server import running_server, said  # noqa: F401

from culturellm_utils import encoder, human_study, paths, records, survey
from culturellm_utils.records import Augmented

QUESTIONS = survey.questions("")


class Words:
    """An encoder that knows four letters."""

    def encode(self, texts):
        rows = np.array([[1 + text.count(letter) for letter in "aeio"] for text in texts], dtype=float)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def folder(outputs, monkeypatch):
    """A study with 30 samples of 15 questions; it is drawn from once, so that people can rate."""
    monkeypatch.setattr(encoder, "load", lambda name: Words())
    plt.switch_backend("agg")
    folder = outputs / "toy" / "main" / "common"
    rows = [Augmented(candidate_id=f"{question.question_id}-s{n}", question_id=question.question_id, stage=2,
                      template_id="t", substitutions=[], text=f"Version {n}: {question.question}", source="toy",
                      similarity=0.9) for question in QUESTIONS[::3][:15] for n in range(2)]
    records.write_rows(folder / "augmented.jsonl", rows)
    return folder


def run(**changed):
    """Execute the notebook's cells in order; the namespace they leave."""
    notebook = nbformat.read(paths.ROOT / "notebooks" / "06_human_study.ipynb", as_version=4)
    namespace = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "06", "exec"), namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace |= {"study": "toy", "pairs": 20, "attention_checks": 4, "bootstrap_samples": 200, **changed}
    plt.close("all")
    return namespace


def simulate(folder, names, careless=()):
    """Simulated people rate the pairs that were drawn."""
    pairs, key = human_study.read_pairs(folder)
    chance = np.random.default_rng(0)
    ease = {pair.pair_id: chance.normal(0, 0.5) for pair in pairs}
    for name in names:
        lines = ["rater_id,pair_id,rating,seconds,position"]
        for place, pair in enumerate(chance.permutation([pair.pair_id for pair in pairs]), start=1):
            exact = {"same": 5, "different": 1}.get(key[pair].check, 4 + ease[pair] + chance.normal(0, 0.4))
            value = 3 if name in careless else int(np.clip(round(exact), 1, 5))
            lines.append(f"{name},{pair},{value},6,{place}")
        (folder / "ratings" / f"{name}.csv").write_text("\n".join(lines))


def test_without_people_nothing_is_said_of_people(folder):
    found = run()["found"]
    assert found["human"] is None
    assert found["against_people"] is None
    assert records.read_json(folder / "agreement.json") == found
    assert not (folder / "rating_replies.jsonl").exists()
    assert (folder / "figures" / "human_plan.svg").is_file()


def test_with_people_and_a_chat_model(folder, server):
    run()
    simulate(folder, ["ann", "ben", "cem", "dai"], careless=["dai"])
    server.answer = lambda prompt, before: said(json.dumps({"rating": 5 if "Version 0" in prompt else 4}))
    found = run(chat_rater=True, chat_backend="openai", base_url=server.base_url, chat_model="toy")["found"]
    assert found["human"]["raters"] == 3
    assert [row["rater_id"] for row in found["raters"] if row["excluded"]] == ["dai"]
    assert found["human"]["mean"]["method"] == "mixed model"
    assert found["cleaning"]["changes"] == []
    assert found["chat_order"] == {"pairs": 24, "rated": 24, "both_orders": 24, "same": 1.0, "shift": 0.0}
    assert "automatic: chat toy" in {row["rater_id"] for row in found["against_people"]["automatic"]}
    assert {row["text"] for row in map(json.loads, (folder / "rating_replies.jsonl").read_text().splitlines())} == {""}
    assert (folder / "figures" / "human_drift.svg").is_file()


def test_changed_rules_are_reported(folder, tmp_path, capsys):
    run()
    simulate(folder, ["ann", "ben"])
    (tmp_path / "rules.yaml").write_text("median_seconds: 8")
    found = run(cleaning_path=str(tmp_path / "rules.yaml"))["found"]
    assert found["human"] is None
    assert found["human_note"].startswith("No human rating of a real pair is left: the rules leave out 2 of 2")
    assert found["cleaning"]["changes"] == [
        "After people had rated, the rule median_seconds was changed from 2.0 to 8.0."]
