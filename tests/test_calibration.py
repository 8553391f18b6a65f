"""Which tau an encoder needs: curve, choice and shares by label on toy cosines, by hand; the shipped curve."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturellm_utils import calibration, filtering, paths
from culturellm_utils import encoder as encoders
from culturellm_utils.calibration import TAUS, by_label, calibrated, curve
from culturellm_utils.errors import UserError
from culturellm_utils.guard import LABELS, LabelledPair
from culturellm_utils.records import read_rows, write_rows

#: Texts with their cosine to the seed, their label, and whether the toy guard lets them through.
PAIRS = {"a": (0.95, "same", True), "b": (0.815, "same", True), "c": (0.705, "same", False), "d": (0.505, "same", True),
         "e": (0.955, "flipped", False), "f": (0.905, "hedged", True), "g": (0.605, "damaged", False),
         "h": (0.355, "damaged", True)}


class Toy:
    """Encoder and guard of made-up pairs: the seed lies at 0 degrees, a text where its cosine says."""

    def __init__(self, pairs):
        self.pairs, self.shown = pairs, []

    def encode(self, texts):
        cosines = np.array([1.0 if text == "seed" else self.pairs[text][0] for text in texts])
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)

    def judge(self, pairs):
        self.shown += pairs
        return ["" if self.pairs[text][2] else "polarity: flipped" for _, text in pairs]


def rows(pairs):
    return [LabelledPair(seed="seed", text=text, label=label, note="", origin="test")
            for text, (_, label, _) in pairs.items()]


def at(table, tau):
    return table.iloc[(table["tau"] - tau).abs().argmin()].tolist()[1:]


def test_the_curve_by_hand():
    table = curve(rows(PAIRS), Toy(PAIRS), Toy(PAIRS))
    assert list(table.columns) == ["tau", "kept_good", "rejected_bad", "filter_kept_good", "filter_rejected_bad"]
    assert at(table, 0.30) == [1, 0, 3 / 4, 1 / 2]      # the guard alone: c of four good ones, e and g of four bad
    assert at(table, 0.40) == [1, 1 / 4, 3 / 4, 3 / 4]  # h is below
    assert at(table, 0.60) == [3 / 4, 1 / 4, 1 / 2, 3 / 4]
    assert at(table, 0.75) == [1 / 2, 1 / 2, 1 / 2, 3 / 4]
    assert at(table, 0.93) == [1 / 4, 3 / 4, 1 / 4, 1]
    assert at(table, 0.99) == [0, 1, 0, 1]


def test_a_cosine_of_tau_itself_is_not_above_it():
    pairs = {"a": (0.5, "same", True), "b": (0.5, "damaged", True)}
    table = curve(rows(pairs), Toy(pairs), Toy(pairs))
    assert at(table, 0.49) == [1, 0, 1, 0]
    assert at(table, 0.50) == [0, 1, 0, 1]


def test_taus_go_from_030_to_099_by_hundredths():
    assert (TAUS[0], TAUS[-1], len(TAUS)) == (0.30, 0.99, 70)
    assert [f"{tau:.2f}" for tau in TAUS[:3]] == ["0.30", "0.31", "0.32"]


def test_the_tau_chosen_is_the_largest_that_keeps_enough_good_pairs():
    many = {f"{i}": (0.605 if i else 0.405, "same", False) for i in range(50)} | {"bad": (0.9, "flipped", True)}
    table = curve(rows(many), Toy(many), Toy(many))
    assert calibrated(table) == 0.60  # 49 of 50 is 0.98; the guard, which rejects every good one, has no say
    del many["49"]
    assert calibrated(curve(rows(many), Toy(many), Toy(many))) == 0.40  # 48 of 49 is less
    assert calibrated(pd.DataFrame({"tau": [0.3, 0.4, 0.5], "kept_good": [1.0, 0.98, 0.97]})) == 0.4


def test_an_encoder_that_does_not_see_the_likeness_is_refused_in_one_sentence():
    pairs = {"a": (0.2, "same", True), "b": (0.1, "damaged", True)}
    with pytest.raises(UserError) as caught:
        calibrated(curve(rows(pairs), Toy(pairs), Toy(pairs)))
    assert str(caught.value) == ("no tau from 0.30 on keeps 98% of the good pairs: this encoder does not see that they "
                                 "mean the same")


@pytest.mark.parametrize("labels", [("same", "same"), ("flipped", "damaged")])
def test_pairs_of_one_kind_alone_are_refused(labels):
    pairs = {text: (0.9, label, True) for text, label in zip("ab", labels, strict=True)}
    toy = Toy(pairs)
    with pytest.raises(UserError, match=r"^calibration needs pairs labelled 'same' and pairs labelled otherwise$"):
        curve(rows(pairs), toy, toy)
    assert toy.shown == []


@given(st.lists(st.tuples(st.floats(-1, 1), st.sampled_from(LABELS), st.booleans()), min_size=2, max_size=12).filter(
    lambda found: 0 < sum(label == "same" for _, label, _ in found) < len(found)))
def test_a_curve_falls_rises_and_a_guard_only_takes(found):
    pairs = {str(i): row for i, row in enumerate(found)}
    table = curve(rows(pairs), Toy(pairs), Toy(pairs))
    assert table["kept_good"].is_monotonic_decreasing
    assert table["rejected_bad"].is_monotonic_increasing
    assert (table["filter_kept_good"] <= table["kept_good"]).all()
    assert (table["filter_rejected_bad"] >= table["rejected_bad"] - 1e-12).all()
    assert table.iloc[:, 1:].stack().between(0, 1).all()


def test_shares_by_label_by_hand():
    reasons = ["", "similarity: at most 0.80", "damage: broken", "polarity: flipped",
               "polarity: weaker or stronger", "similarity: at most 0.80", "damage: broken", ""]
    table = by_label(rows(PAIRS), reasons)
    assert table.columns.tolist() == ["label", "pairs", "damage", "polarity", "similarity", "rejected"]
    assert table.to_numpy().tolist() == [
        ["same", 4, 0.25, 0.25, 0.25, 0.75], ["flipped", 1, 0, 1, 0, 1], ["hedged", 1, 0, 0, 1, 1],
        ["damaged", 2, 0.5, 0, 0, 0.5]]


def test_labels_without_pairs_have_no_line_and_no_rejection_is_none():
    some = {name: PAIRS[name] for name in "ag"}
    assert by_label(rows(some), ["", ""]).to_dict("list") == {
        "label": ["same", "damaged"], "pairs": [1, 1], "rejected": [0, 0]}
    assert by_label(rows(some), ["", "damage: x"])["pairs"].tolist() == [1, 1]


# The command line

@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command line on toy pairs: what it returned, wrote and said."""
    toy = Toy(PAIRS)
    monkeypatch.setattr(encoders, "load", lambda name: toy)
    monkeypatch.setattr(calibration, "Guards", lambda trained, nli: toy if trained else filtering.Guards(False, nli))

    def run(*options, pairs=PAIRS):
        write_rows(tmp_path / "pairs.jsonl", rows(pairs))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["calibration", str(tmp_path / "pairs.jsonl"), *map(str, options)])
            code = calibration.main()
        return code, *capsys.readouterr()
    return run


def test_the_command_line_names_tau_and_writes_the_curve(command, tmp_path):
    path = tmp_path / "new" / "curve.csv"
    code, out, err = command("--curve", path, "--encoder", "some/encoder")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == ("tau for some/encoder: 0.50; the filter keeps 75.0% of the good pairs and rejects "
                                    "75.0% of the others (8 pairs)")
    assert "polarity" in out
    written = pd.read_csv(path)
    assert np.allclose(written, curve(rows(PAIRS), Toy(PAIRS), Toy(PAIRS)), atol=1e-4)
    assert command("--no-guard")[1].splitlines()[-1].endswith(
        "keeps 100.0% of the good pairs and rejects 25.0% of the others (8 pairs)")


def test_the_command_line_says_one_sentence_when_it_cannot(command, tmp_path):
    assert command(pairs={"a": PAIRS["a"]}) == (
        1, "", "Error: calibration needs pairs labelled 'same' and pairs labelled otherwise\n")
    code, _, said = command("--curve", tmp_path)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("Error: ")


# The shipped curve

@pytest.fixture(scope="module")
def shipped():
    return pd.read_csv(paths.DATA / "tau_curve.csv")


def test_the_bundled_tau_is_that_of_the_shipped_curve(shipped):
    assert calibrated(shipped) == filtering.BUNDLED_TAU


def test_the_shipped_curve_is_that_of_the_development_pairs(shipped):
    pairs = read_rows(Path(__file__).parent / "data" / "pairs" / "dev.jsonl", LabelledPair)
    again = curve(pairs, encoders.load(encoders.BUNDLED), filtering.Guards(True))
    assert list(shipped.columns) == list(again.columns)
    assert np.abs(shipped - again).to_numpy().max() < 0.01  # a pair on the edge of a hundredth may fall either way
