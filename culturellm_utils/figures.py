"""One look for every figure and table, and sentences computed from data.

>>> figures.style()
>>> ax = figures.axes("Seven of ten questions: the paper's label is not what most people said", "share", "culture")
>>> figures.say(f"{kept} of {total} candidates were kept.")
"""

import html
import io
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, DisplayHandle, Markdown, display
from matplotlib.axes import Axes

from culturellm_utils.records import write_table, write_text

PALETTE = sns.color_palette("colorblind")
COLORS = {"base": PALETTE[7], "persona": PALETTE[1], "context": PALETTE[4], "third_person": PALETTE[5],
          "adapter": PALETTE[0], "one": PALETTE[2], "wrong culture": PALETTE[3]}

#: What would begin something else than a sentence; and signs, not yet escaped, that open a formula or a Sphinx role
#: such as {download}`file`.
_BLOCK, _OPENS = re.compile(r"^(?=[#+\-%(>:|~=]|```|[*_ ]+$)"), re.compile(r"(?<!\\)((?:\\\\)*)(\$|\{(?=[^{}]*\}`))")


def style() -> None:
    """Set the look of every figure: colour-blind safe, legible on a phone, SVG in notebooks. Points that are scattered
    lest they hide each other are scattered alike in every run."""
    sns.set_theme(style="whitegrid", palette="colorblind", font_scale=0.9)
    plt.rcParams.update({
        "figure.figsize": (5.6, 3.6),
        "figure.constrained_layout.use": True,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "svg.hashsalt": "culturellm",      # same figure, same bytes
        "svg.fonttype": "none",            # text stays text: small files, searchable, readable aloud
        "text.parse_math": False,          # a dollar sign in a name is no formula
    })
    np.random.seed(0)                      # seaborn's jitter draws from numpy's global state
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:                    # outside a notebook
        return
    set_matplotlib_formats("svg", metadata={"Date": None})


def axes(title: str, x: str, y: str, height: float = 3.6, width: float = 5.6) -> Axes:
    """Empty axes with the finding as title and labelled axes (name the unit in ``x`` and ``y``)."""
    _, ax = plt.subplots(figsize=(width, height))
    ax.set(xlabel=x, ylabel=y)
    ax.set_title(title, wrap="$" not in title)  # to wrap, matplotlib reads dollars as formulas all the same
    return ax


def legend_below(ax: Axes, columns: int = 2) -> None:
    """Put the legend under the axes, where it covers no data."""
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.45, -0.18), ncol=columns, frameon=False,
              fontsize=9)


def save(ax: Axes, folder: Path, name: str, data: pd.DataFrame) -> None:
    """Write a figure as SVG under ``folder/figures`` with its data as CSV under ``folder/tables``.

    The picture carries ``name``, in the file and in the output of the notebook's cell: :func:`saved_as` reads it, and
    the report leads by it from the file to the cell that made it.
    """
    ax.figure.set_gid(f"saved-{name}")
    picture = io.StringIO()
    ax.figure.savefig(picture, format="svg", metadata={"Date": None})
    write_text(folder / "figures" / f"{name}.svg", picture.getvalue())
    write_table(folder / "tables" / f"{name}.csv", data)


def saved_as(svg: str) -> str:
    """The name under which :func:`save` wrote this picture; empty when it was only shown.

    >>> saved_as('<svg><g id="saved-matrix"></g></svg>')
    'matrix'
    """
    found = re.search(r'<g id="saved-([\w-]+)"', svg)
    return found[1] if found else ""


def progress() -> Callable[[str], None]:
    """A line of text on the page that each call replaces: for what takes long."""
    shown: list[DisplayHandle] = []

    def show(line: str) -> None:
        if shown:
            shown[0].update(Markdown(one_line(line)))
        elif handle := display(Markdown(one_line(line)), display_id=True):
            shown.append(handle)
    return show


def say(*sentences: str) -> None:
    """Show sentences as a list."""
    display(Markdown("\n".join(f"- {one_line(sentence)}" for sentence in sentences)))


def one_line(sentence: str) -> str:
    """A sentence as one line of :func:`harmless` Markdown, which begins no heading, directive or other block."""
    return harmless(_BLOCK.sub(r"\\", " ".join(sentence.split())))


def harmless(markdown: str) -> str:
    """Markdown with its emphasis and code, but without HTML, links, images, formulas and Sphinx roles: sentences quote
    survey questions, names and replies, which may hold anything. Applied twice it changes nothing more.

    >>> harmless("**2** of 3 say <b>, [x](y) and $5")
    '**2** of 3 say &lt;b>, [x]\\\\(y) and \\\\$5'
    """
    return _OPENS.sub(r"\1\\\2", re.sub(r"\](?=[(:])", r"]\\", markdown.replace("<", "&lt;")))


def table(frame: pd.DataFrame, caption: str = "", digits: int = 3) -> None:
    """Show a table without its index; text is escaped, numbers rounded."""
    frame = frame.rename_axis(columns=None)
    shown = frame.to_html(index=False, border=0, justify="left", na_rep="–", classes="mathjax_ignore",
                          float_format=lambda value: f"{value:.{digits}f}")
    title = f'<p class="mathjax_ignore"><strong>{html.escape(caption)}</strong></p>' if caption else ""
    display(HTML(f'{title}<div style="overflow-x:auto">{shown}</div>'))
