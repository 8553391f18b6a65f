"""Which tau an encoder needs: a cosine means a different thing under every encoder.

On labelled pairs, the curve of good paraphrases kept and bad ones rejected over tau, and the largest tau at which the
cosine alone still keeps nearly all good ones: bad ones are the guard's to find, since a cosine hardly sees them::

    python -m culturellm_utils.calibration tests/data/pairs/dev.jsonl --encoder sentence-transformers/LaBSE

A row of the curve, as ``data/tau_curve.csv`` has it for the bundled encoder: tau, kept_good, rejected_bad (by the
cosine alone), filter_kept_good, filter_rejected_bad (with the guard).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from culturellm_utils import encoder as encoders
from culturellm_utils.encoder import Encoder
from culturellm_utils.errors import UserError, command_line
from culturellm_utils.filtering import Guards, Judge, filter_pairs
from culturellm_utils.guard import LABELS, LabelledPair
from culturellm_utils.records import read_rows, write_table

TAUS = np.round(np.arange(0.30, 0.991, 0.01), 2)
#: Share of good pairs that the cosine alone must keep.
LEAST_KEPT = 0.98


def curve(rows: Sequence[LabelledPair], encoder: Encoder, guard: Judge) -> pd.DataFrame:
    """Shares of good pairs kept and bad ones rejected, by tau. Raises UserError when either kind is missing."""
    good = np.array([row.label == "same" for row in rows])
    if good.all() or not good.any():
        raise UserError("calibration needs pairs labelled 'same' and pairs labelled otherwise")
    cosine = (encoder.encode(row.seed for row in rows) * encoder.encode(row.text for row in rows)).sum(1)
    passed = np.array([not reason for reason in guard.judge([(row.seed, row.text) for row in rows])])
    found = []
    for tau in TAUS:
        close = cosine > tau
        both = close & passed
        found.append((tau, close[good].mean(), 1 - close[~good].mean(), both[good].mean(), 1 - both[~good].mean()))
    columns = ["tau", "kept_good", "rejected_bad", "filter_kept_good", "filter_rejected_bad"]
    return pd.DataFrame(found, columns=columns)


def calibrated(table: pd.DataFrame) -> float:
    """The largest tau of a curve at which the cosine alone keeps :data:`LEAST_KEPT` of the good pairs."""
    enough = table.loc[table["kept_good"] >= LEAST_KEPT, "tau"]
    if enough.empty:
        raise UserError(f"no tau from {TAUS[0]:.2f} on keeps {LEAST_KEPT:.0%} of the good pairs: this encoder does not "
                        "see that they mean the same")
    return float(enough.max())


def by_label(rows: Sequence[LabelledPair], reasons: Sequence[str]) -> pd.DataFrame:
    """For each label: pairs, and the share rejected by each kind of reason and in all."""
    table = pd.DataFrame({"label": [row.label for row in rows], "kind": [r.partition(":")[0] for r in reasons]})
    shares = pd.crosstab(table["label"], table["kind"], normalize="index").drop(columns="", errors="ignore")
    shares.insert(0, "pairs", table["label"].value_counts())
    shares["rejected"] = shares.drop(columns="pairs").sum(axis=1)
    return shares.loc[[label for label in LABELS if label in shares.index]].rename_axis(columns=None).reset_index()


@command_line
def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m culturellm_utils.calibration", description="Calibrate tau.")
    parser.add_argument("pairs", type=Path, help="labelled pairs, as tests/data/pairs/dev.jsonl")
    parser.add_argument("--encoder", default=encoders.BUNDLED, help="sentence-transformers name or folder")
    parser.add_argument("--no-guard", action="store_true", help="leave the trained (English) guard out")
    parser.add_argument("--nli-model", default="", help="NLI cross-encoder as a further guard")
    parser.add_argument("--curve", type=Path, help="write the curve to this CSV file")
    arguments = parser.parse_args()
    rows = read_rows(arguments.pairs, LabelledPair)
    guard = Guards(not arguments.no_guard, arguments.nli_model)
    encoder = encoders.load(arguments.encoder)
    table = curve(rows, encoder, guard)
    if arguments.curve:
        write_table(arguments.curve, table, "%.4f")
    tau = calibrated(table)
    reasons = [row["reason"] for row in filter_pairs([row.model_dump() for row in rows], encoder, tau, guard)]
    print(by_label(rows, reasons).to_string(index=False, float_format="%.3f"))
    print(table[table["tau"].mul(100).round().astype(int) % 5 == 0].to_string(index=False, float_format="%.3f"))
    at = table[table["tau"] == tau].iloc[0]
    print(f"tau for {arguments.encoder}: {tau:.2f}; the filter keeps {at['filter_kept_good']:.1%} of the good pairs "
          f"and rejects {at['filter_rejected_bad']:.1%} of the others ({len(rows)} pairs)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
