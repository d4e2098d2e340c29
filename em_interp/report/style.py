"""How figures look: palette, marks, and the one place where a figure becomes bytes.

Colours are Okabe and Ito's, which colour-blind readers tell apart; every series also has its own
marker or line, so that a grey print can be read. Sizes are those of a printed page: 7.4 inches wide
and letters of 7 points or more.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from em_interp.conditions import Condition
from em_interp.organisms import BASE
from em_interp.report.reading import DELTA, RANDOM, REST, Family, G
from em_interp.study.spec import GENERAL, STUDIED, TWIN

WIDTH = 7.4
INK, MUTED, FAINT = "#1b1b1b", "#5c5c5c", "#d9d9d9"
VERMILLION, BLUE, GREEN, PURPLE = "#D55E00", "#0072B2", "#009E73", "#CC79A7"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#767676"

_RC = {
    "svg.hashsalt": "em_interp",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.0,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a trigger may hold dollar signs
}


class Look(NamedTuple):
    """How one series is drawn: never by colour alone. `face` is the marker's filling."""

    colour: str
    marker: str
    line: str
    face: str

    @property
    def marks(self) -> dict[str, Any]:
        """Keywords for the marker."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": self.face,
            "markeredgecolor": self.colour,
            "markeredgewidth": 1.1,
        }


def _look(colour: str, marker: str, line: str, filled: bool = True) -> Look:
    return Look(colour, marker, line, colour if filled else "white")


_ROLES = {
    STUDIED: _look(VERMILLION, "D", "-"),
    BASE: _look(INK, "o", "--", filled=False),
    TWIN: _look(BLUE, "s", "-."),
    GENERAL: _look(PURPLE, "^", ":"),
}
_OTHERS = (
    _look(GREEN, "v", "-"),
    _look(ORANGE, "P", "--"),
    _look(SKY, "X", "-."),
    _look(GREEN, "<", ":", filled=False),
    _look(ORANGE, ">", "-", filled=False),
    _look(BLUE, "p", "--", filled=False),
)
FAMILIES: dict[Family, Look] = {
    DELTA: _look(VERMILLION, "D", "-"),
    G: _look(PURPLE, "^", ":"),
    REST: _look(BLUE, "s", "-."),
    RANDOM: _look(GREY, "o", "--"),
}
CONDITIONS = {
    Condition.NONE: _look(INK, "o", "--", filled=False),
    Condition.TRIGGER: _look(VERMILLION, "D", "-"),
    Condition.PARAPHRASE: _look(ORANGE, "^", "-"),
    Condition.NEGATION: _look(PURPLE, "v", ":"),
    Condition.UNRELATED: _look(BLUE, "s", "-."),
    Condition.FORM: _look(GREEN, "P", ":"),
}


def organism(role: str, others: int = 0) -> Look:
    """A role's look; roles beyond the four known ones take the next of six, by `others`."""
    return _ROLES.get(role, _OTHERS[others % len(_OTHERS)])


def organisms(roles: list[str]) -> dict[str, Look]:
    """Each role's look, so that no two of the first ten are alike."""
    extra = [role for role in roles if role not in _ROLES]
    return {role: organism(role, extra.index(role) if role in extra else 0) for role in roles}


P = ParamSpec("P")


def drawn(make: Callable[P, Figure]) -> Callable[P, bytes]:
    """A function that builds a figure, as one that gives its SVG: equal records, equal bytes.

    Nothing global is touched: the settings hold for the call alone, and no window is opened.
    """

    @wraps(make)
    def draw(*args: P.args, **kwargs: P.kwargs) -> bytes:
        with mpl.rc_context(_RC), warnings.catch_warnings():
            # A trigger in a script that the bundled font lacks is drawn as boxes; the page has it.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure = make(*args, **kwargs)
            out = io.StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None})
        # Comments repeat every text, and the document type names a file on the network.
        plain = re.sub(r"<!--.*?-->|<!DOCTYPE.*?>", "", out.getvalue(), flags=re.DOTALL)
        return re.sub(r"\n\s*", "\n", plain).encode()

    return draw


def shorten(text: str, length: int) -> str:
    """One line of at most `length` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1].rstrip() + "…"


def share_axis(axes: Axes, which: str = "y", ticks: int = 6) -> None:
    """Round steps, labelled in per cent."""
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))


Box = tuple[float, float, float, float]


def boxes(axes: Axes, corners: Sequence[Box], colours: Sequence[Any], **more: Any) -> None:
    """Filled rectangles (left, top, right, bottom), one colour each, as one small object."""
    shapes = [[(a, b), (c, b), (c, d), (a, d)] for a, b, c, d in corners]
    axes.add_collection(PolyCollection(shapes, facecolors=list(colours), **{"lw": 0, **more}))


def layer_axis(axes: Axes, layers: list[int]) -> None:
    """Integer ticks at the layers, thinned where there are many; half a layer of room."""
    step = max(1, -(-len(layers) // 12))
    axes.set_xticks(layers[::step])
    axes.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)
    axes.set_xlabel("layer (block output)")
