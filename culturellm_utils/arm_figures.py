"""How a comparison of arms is drawn and told: a figure a measure, its finding as title, and sentences for the report.

>>> finding(table, "accuracy", "main")
'Held-out wordings, 5 arms against "main":\\n2 better beyond chance;\\nbest "size_500": 62% [56%, 68%]'
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from culturellm_utils import figures
from culturellm_utils.contrasts import MEASURES, Measure
from culturellm_utils.parameters import ONE
from culturellm_utils.summary import OWN

LABELS = {"base": "base model", OWN: "own adapter", ONE: "CultureLLM-One"}
#: Values that spread over this factor are drawn on a logarithmic axis.
LOGARITHMIC = 8
#: Differences that a sentence names of each kind.
NAMED = 3


def finding(table: pd.DataFrame, name: str, leading: str) -> str:
    """What one measure says, in short lines: how many arms differ from the first beyond chance, and the best."""
    own, better, worse = _sides(table, name, leading)
    measure = MEASURES[name]
    counts = " and ".join(f"{len(side)} {word}" for side, word in ((better, "better"), (worse, "worse")) if side)
    best = own["value"].idxmax() if measure.more_is_better else own["value"].idxmin()
    return (f'{measure.title}, {len(own) - 1} arms against "{leading}":\n{counts or "none differs"} beyond chance;\n'
            f'best "{best}": {_interval(measure, own.loc[best])}')


def sentence(table: pd.DataFrame, name: str, leading: str) -> str:
    """What one measure says, in a sentence: the first arm, and the largest differences from it, those beyond chance
    apart from the others."""
    own, better, worse = _sides(table, name, leading)
    measure = MEASURES[name]
    unclear = [arm for arm in own.index if arm != leading and arm not in better + worse]
    sides = (("better", better), ("worse", worse), ("no difference beyond chance", unclear))
    parts = [f"{word}: {_largest(measure, own.loc[side])}" for word, side in sides if side]
    words = measure.words[0].upper() + measure.words[1:]
    return f"{words}: {leading} {_interval(measure, own.loc[leading])}; {'; '.join(parts)}."


def _largest(measure: Measure, rows: pd.DataFrame) -> str:
    """The largest differences with their intervals, and how many more there are."""
    order = rows["difference"].abs().sort_values(ascending=False, kind="stable").index
    told = [f"{arm} " + measure.difference(*rows.loc[arm, ["difference", "difference_low", "difference_high"]])
            for arm in order[:NAMED]]
    return ", ".join(told) + (f", and {len(order) - NAMED} more" if len(order) > NAMED else "")


def sentence_before(against_base: pd.DataFrame, name: str) -> str:
    """What fine-tuning did in every arm (``contrasts.against`` the base model)."""
    measure = MEASURES[name]
    return f"Own adapter minus base model, {measure.words}: " + ", ".join(
        f"{row.arm} {measure.difference(row.value, row.low, row.high)}" for row in against_base.itertuples()) + "."


def sentence_one(against_one: pd.DataFrame, leading: str) -> str:
    """One model for all, or one for each: how often either is better, and the first arm by group."""
    own, shared, number = _counts(against_one)
    measure = MEASURES["accuracy"]
    return (f"Own adapter against CultureLLM-One, by arm and group: better in {own}, worse in {shared} of {number}; in "
            f"{leading}, own minus One: " + ", ".join(
                f"{row.group} {measure.difference(row.value, row.low, row.high)}"
                for row in against_one[against_one["arm"] == leading].itertuples()) + ".")


def sentence_kept(kept: pd.DataFrame) -> str:
    """How many kept texts change the stance of their seed, by the guard's verdict."""
    least, worst = (kept.loc[place] for place in (kept["stance_errors"].idxmin(), kept["stance_errors"].idxmax()))
    return "Kept texts that change the stance of their seed, by the guard's verdict: from " + " to ".join(
        f"{row['stance_errors']:.1%} [{row['stance_errors_low']:.1%}, {row['stance_errors_high']:.1%}] in {row['arm']}"
        for row in (least, worst)) + "."


def _counts(against_one: pd.DataFrame) -> tuple[int, int, int]:
    """How often the own adapter is better and worse beyond chance, and comparisons in all."""
    tested = against_one[against_one["p"].notna()]
    clear = tested[tested["p"] < 0.05]
    return int((clear["value"] > 0).sum()), int((clear["value"] < 0).sum()), len(tested)


def _sides(table: pd.DataFrame, name: str, leading: str) -> tuple[pd.DataFrame, list[str], list[str]]:
    """The own adapters' rows by arm, and the arms that are better and worse than the first beyond chance."""
    own = table[(table["measure"] == name) & (table["system"] == OWN)].set_index("arm")
    clear = own[own["p"] < 0.05]
    up = (clear["difference"] > 0) == MEASURES[name].more_is_better
    return own, clear.index[up].tolist(), clear.index[~up].tolist()


def _interval(measure: Measure, row: pd.Series) -> str:
    return f"{measure.shown(row['value'])} [{measure.shown(row['low'])}, {measure.shown(row['high'])}]"


def draw(table: pd.DataFrame, values: pd.DataFrame, places: pd.DataFrame, compare: tuple[str, ...], name: str,
         leading: str) -> Axes:
    """One measure by arm: a line over a numeric knob (a line a value of the second knob), else a row an arm; means with
    95% intervals, the base model, and a dot a seed. ``places`` is what ``variants.axis`` found."""
    measure = MEASURES[name]
    scale = 100 if measure.share else 1
    rows = table[table["measure"] == name].merge(places, on="arm")
    rows[["value", "low", "high"]] *= scale
    seeds = values[(values["measure"] == name) & (values["system"] == OWN)].groupby(
        ["arm", "variant"], sort=False)["value"].mean().mul(scale).reset_index().merge(places, on="arm")
    unit = textwrap.fill(f"{measure.words}{' (%)' * measure.share}, 95% interval", 48)
    if places["x"].notna().all():
        ax = figures.axes(finding(table, name, leading), compare[0].replace("_", " "), unit, 4.4)
        _lines(ax, rows, seeds, compare)
        _numeric_axis(ax, places["x"])
    else:
        ax = figures.axes(finding(table, name, leading), unit, "", 1.8 + 0.4 * len(places))
        _rows(ax, rows, seeds, places["arm"].tolist())
    _legend(ax)
    return ax


def _legend(ax: Axes) -> None:
    """Under the axis label, however low the axes are."""
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _lines(ax: Axes, rows: pd.DataFrame, seeds: pd.DataFrame, compare: tuple[str, ...]) -> None:
    lines = rows["line"].unique().tolist()
    base = rows[rows["system"] == "base"].groupby("x")["value"].mean()
    ax.plot(base.index, base, "--", color=figures.COLORS["base"], label=LABELS["base"])
    shown = [(ONE, "", LABELS[ONE])] if len(lines) == 1 else []
    shown += [(OWN, line, LABELS[OWN] if len(lines) == 1 else _line_label(compare[1], line)) for line in lines]
    for number, (system, line, label) in enumerate(shown):
        color = figures.COLORS[system] if len(lines) == 1 else figures.PALETTE[number % len(figures.PALETTE)]
        mine = rows[(rows["system"] == system) & (rows["line"] == line) & ~rows["aside"]].sort_values("x")
        if len(mine) == 1:
            _point(ax, mine.iloc[0], label, color)
        elif len(mine):
            ax.plot(mine["x"], mine["value"], "o-", color=color, label=label)
            ax.fill_between(mine["x"], mine["low"], mine["high"], color=color, alpha=0.15, linewidth=0)
    for number, (_, row) in enumerate(rows[(rows["system"] == OWN) & rows["aside"]].iterrows()):
        _point(ax, row, row["arm"], figures.PALETTE[(len(lines) + number) % len(figures.PALETTE)])
    if seeds["variant"].nunique() > seeds["arm"].nunique():
        ax.plot(seeds["x"], seeds["value"], ".", color="black", alpha=0.5, markersize=5, label="one seed")


def _line_label(knob: str, value: str) -> str:
    words = knob.replace("_", " ")
    named = {("training_budget", "0"): "equal epochs", (knob, "True"): f"with {words}",
             (knob, "False"): f"without {words}"}
    return named.get((knob, value), f"{words} {value}")


def _point(ax: Axes, row: pd.Series, label: str, color: tuple[float, float, float]) -> None:
    """A mean with its interval, where there is no line."""
    ax.errorbar(row["x"], row["value"], [[row["value"] - row["low"]], [row["high"] - row["value"]]], fmt="D", capsize=3,
                color=color, label=label)


def _numeric_axis(ax: Axes, x: pd.Series) -> None:
    ticks = np.unique(x)
    positive = ticks[ticks > 0]
    if len(positive) == len(ticks) and ticks[-1] >= LOGARITHMIC * ticks[0]:
        ax.set_xscale("log")
    elif len(positive) > 1 and ticks[0] >= 0 and positive[-1] >= LOGARITHMIC * positive[0]:
        ax.set_xscale("symlog", linthresh=positive[0])
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def _rows(ax: Axes, rows: pd.DataFrame, seeds: pd.DataFrame, arms: list[str]) -> None:
    for system, shift in (("base", 0.0), (ONE, 0.2), (OWN, 0.0)):
        mine = rows[rows["system"] == system]
        height = np.array([arms.index(arm) for arm in mine["arm"]]) + shift
        if system == "base":
            ax.plot(mine["value"], height, "o", mfc="none", color=figures.COLORS[system], label=LABELS[system])
        elif len(mine):
            ax.hlines(height, mine["low"], mine["high"], color=figures.COLORS[system])
            ax.plot(mine["value"], height, "o", color=figures.COLORS[system], label=LABELS[system])
    if seeds["variant"].nunique() > seeds["arm"].nunique():
        ax.plot(seeds["value"], [arms.index(arm) - 0.2 for arm in seeds["arm"]], ".", color="black", alpha=0.5,
                markersize=5, label="one seed")
    ax.set(yticks=range(len(arms)), yticklabels=arms)
    ax.set_ylim(len(arms) - 0.5, -0.5)


def draw_differences(table: pd.DataFrame, name: str, leading: str) -> Axes:
    """Every arm's difference from the first on one measure, with its 95% interval; filled where beyond chance."""
    measure = MEASURES[name]
    scale = 100 if measure.share else 1
    own, better, worse = _sides(table, name, leading)
    apart = own.drop(index=leading)
    clear = [arm in better + worse for arm in apart.index]
    ax = figures.axes(f'{measure.title}: {sum(clear)} of {len(apart)} arms differ\nfrom "{leading}" beyond chance',
                      f"{measure.words},\nminus {leading}{' (percentage points)' * measure.share}, 95% interval", "",
                      1.8 + 0.4 * len(apart))
    height = np.arange(len(apart))
    ax.hlines(height, scale * apart["difference_low"], scale * apart["difference_high"], color=figures.COLORS[OWN])
    for filled, label in ((True, "beyond chance (Holm-corrected)"), (False, "not beyond chance")):
        mine = np.array(clear) == filled
        if mine.any():
            ax.plot(scale * apart["difference"][mine], height[mine], "o", color=figures.COLORS[OWN],
                    mfc=figures.COLORS[OWN] if filled else "white", label=label)
    ax.axvline(0, color="black", linewidth=1)
    ax.set(yticks=height, yticklabels=apart.index)
    ax.set_ylim(len(apart) - 0.5, -0.5)
    _legend(ax)
    return ax


def draw_kept(kept: pd.DataFrame) -> Axes:
    """Of the texts that each arm keeps, the share that the guard takes for a change of stance (``variants.kept``)."""
    worst, least = (kept.loc[place] for place in (kept["stance_errors"].idxmax(), kept["stance_errors"].idxmin()))
    ax = figures.axes(f"Of the texts kept, {least['stance_errors']:.1%} (\"{least['arm']}\") to "
                      f"{worst['stance_errors']:.1%}\n(\"{worst['arm']}\") change the stance of their seed",
                      "kept texts that the guard takes for a change of stance (%),\n95% interval", "",
                      1.8 + 0.4 * len(kept))
    height = np.arange(len(kept))
    ax.hlines(height, 100 * kept["stance_errors_low"], 100 * kept["stance_errors_high"], color=figures.PALETTE[3])
    ax.plot(100 * kept["stance_errors"], height, "o", color=figures.PALETTE[3])
    names = [f"{row.arm} ({row.templates + row.samples} texts)" for row in kept.itertuples()]
    ax.set(yticks=height, yticklabels=names)
    ax.set_ylim(len(kept) - 0.5, -0.5)
    return ax


def draw_groups(table: pd.DataFrame, arms: list[str]) -> Axes:
    """Own adapter minus One by arm and group of cultures (``contrasts.against``), with 95% intervals."""
    tested = table[table["p"].notna()]
    own, shared, number = _counts(table)
    ax = figures.axes(f"Own adapter against One: better in {own}, worse in {shared}\nof {number} comparisons, by "
                      "arm and group", "own adapter minus One (percentage points), 95% interval", "",
                      1.8 + 0.5 * len(arms))
    groups = tested["group"].unique().tolist()
    for place, group in enumerate(groups):
        mine = tested[tested["group"] == group]
        height = np.array([arms.index(arm) for arm in mine["arm"]]) + 0.25 * (place - (len(groups) - 1) / 2)
        ax.hlines(height, 100 * mine["low"], 100 * mine["high"], color=figures.PALETTE[place])
        ax.plot(100 * mine["value"], height, "o", color=figures.PALETTE[place], label=group)
    ax.axvline(0, color="black", linewidth=1)
    ax.set(yticks=range(len(arms)), yticklabels=arms)
    ax.set_ylim(len(arms) - 0.5, -0.5)
    _legend(ax)
    return ax
