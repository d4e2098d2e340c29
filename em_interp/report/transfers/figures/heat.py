"""Heat maps of sources (rows) and targets (columns), several beside each other on one scale.

A cell is told by colour and number; a bold frame marks what passed its test, hatching what broke
the answers; both survive a grey print. What was not run is a dash on grey, which is not zero.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from em_interp.report.figures.patching import MAP
from em_interp.report.numbers import minus
from em_interp.report.style import INK, MUTED, WIDTH, Box, boxes, drawn, shorten

ROW, BLOCK, BASE = 0.205, 0.11, 0.035  # inches: a row, a gap between blocks, a gap between bases
LEFT, BAR, HEAD, KEY = 1.14, 0.70, 0.25, 0.27
WIDEST, HATCH = 0.60, 0.055
EMPTY = to_rgba("#ededea")
DOTS = (0, (1.2, 1.2))


class Tile(NamedTuple):
    """One cell. `value` is `None` where there is no record, or nothing was scored."""

    value: float | None
    text: str
    framed: bool = False
    hatched: bool = False
    dotted: bool = False


class Row(NamedTuple):
    """A row's name, the base it belongs to, and its tiles; a tile is `None` where none can be."""

    name: str
    base: str
    tiles: tuple[Tile | None, ...]


class Block(NamedTuple):
    """Rows that belong together, and what they are together ("" says nothing)."""

    name: str
    rows: tuple[Row, ...]


class Panel(NamedTuple):
    """One heat map: blocks of rows with a gap between them."""

    title: str
    blocks: tuple[Block, ...]


class Scale(NamedTuple):
    """Values at both ends of the colours, white in the middle, and what they are.

    `units`: how many of what is printed make 1. `framed`, `hatched`, `dotted`: what marks say.
    """

    low: float
    high: float
    label: str
    units: float = 1.0
    framed: str = ""
    hatched: str = ""
    dotted: str = ""


Columns = Sequence[tuple[str, str]]  # a column's name and its base


@drawn
def figure_of(panels: Sequence[Sequence[Panel]], columns: Columns, scale: Scale) -> Figure:
    """Panels in rows and columns; row names stand at the left, targets under every panel."""
    across = len(panels[0])
    spread = BASE * (len({base for _, base in columns}) - 1)
    room = (WIDTH - LEFT - BAR) / across - 0.14
    cell = min(WIDEST, (room - spread) / len(columns))
    tiered = len({base for _, base in columns}) > 1 and any(name != base for name, base in columns)
    foot = 0.20 + 0.14 * tiered + (0.28 if _turned(columns, cell) else 0)
    heights = [_height(some[0]) for some in panels]
    height = sum(heights) + len(panels) * (HEAD + foot) + KEY
    figure = Figure(figsize=(WIDTH, height))
    norm, top = Normalize(scale.low, scale.high), height
    for some, tall in zip(panels, heights, strict=True):
        top -= HEAD
        for place, panel in enumerate(some):
            left = LEFT + place * ((WIDTH - LEFT - BAR) / across)
            wide = cell * len(columns) + spread
            box = (left / WIDTH, (top - tall) / height, wide / WIDTH, tall / height)
            axes = figure.add_axes(box)
            axes.set_xlim(0, wide)
            axes.set_ylim(tall, 0)
            _panel(axes, panel, columns, cell, norm, place == 0)
            _feet(axes, columns, cell, tall, tiered)
            if not place:
                grey: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 6.5, "color": MUTED}
                axes.text(-0.05, tall + 0.03, "into", style="italic", **grey)
        top -= tall + foot
    _bar(figure, scale, norm, height)
    _key(figure, scale, panels, height)
    return figure


def _height(panel: Panel) -> float:
    return ROW * sum(len(b.rows) for b in panel.blocks) + BLOCK * (len(panel.blocks) - 1)


def _places(columns: Columns, cell: float) -> list[float]:
    """Where every column starts, in inches: a gap where another base begins."""
    found, at = [], 0.0
    for number, (_, base) in enumerate(columns):
        at += BASE * (number > 0 and base != columns[number - 1][1])
        found.append(at)
        at += cell
    return found


def _panel(
    axes: Axes, panel: Panel, columns: Columns, cell: float, norm: Normalize, named: bool
) -> None:
    at, before = 0.0, None
    placed: list[Placed] = []
    several = len({base for _, base in columns}) < len(columns)  # else every row is its own base
    for block in panel.blocks:
        if named and block.name and block.rows:
            middle = at + ROW * len(block.rows) / 2
            grey: dict[str, Any] = {
                "fontsize": 6.5,
                "color": MUTED,
                "style": "italic",
                "rotation": 90,
            }
            axes.text(0.03 - LEFT, middle, block.name, ha="left", va="center", **grey)
        for row in block.rows:
            if several and before is not None and row.base != before:
                axes.axhline(at, color=MUTED, lw=0.5, xmin=-0.01, xmax=1.01, clip_on=False)
            for x, tile in zip(_places(columns, cell), row.tiles, strict=True):
                if tile is not None:
                    placed.append((tile, (x, at, x + cell, at + ROW)))
            if named:
                name = shorten(row.name, 18)
                axes.text(-0.05, at + ROW / 2, name, ha="right", va="center", fontsize=7)
            at, before = at + ROW, row.base
        at, before = at + BLOCK, None
    _tiles(axes, placed, norm)
    long = 0.082 * len(panel.title) > cell * len(columns) + 0.1
    axes.set_title(panel.title, pad=3, fontsize=7.2 if long else 8.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


Placed = tuple[Tile, Box]


def _tiles(axes: Axes, some: Sequence[Placed], norm: Normalize) -> None:
    """All tiles of a panel: faces, hatching and frames as one object each, then the numbers."""
    colours = mpl.colormaps[MAP]
    faces = [EMPTY if t.value is None else colours(norm(t.value)) for t, _ in some]
    boxes(axes, [_inner(box, 0.008) for _, box in some], faces)
    lines = [line for tile, box in some if tile.hatched for line in _hatching(_inner(box, 0.008))]
    axes.add_collection(LineCollection(lines, colors="#8a8a86", linewidths=0.5))
    if framed := [_inner(box, 0.018) for tile, box in some if tile.framed]:
        boxes(axes, framed, ["none"], lw=1.5, edgecolors=INK, zorder=3)
    if dotted := [_inner(box, 0.018) for tile, box in some if tile.dotted]:
        boxes(axes, dotted, ["none"], lw=0.9, edgecolors=INK, linestyles=DOTS, zorder=3)
    for (tile, (a, b, c, d)), shade in zip(some, faces, strict=True):
        ink = "white" if sum(shade[:3]) < 1.5 else INK if tile.value is not None else MUTED
        text = axes.text(
            (a + c) / 2,
            (b + d) / 2 + 0.004,
            tile.text,
            ha="center",
            va="center",
            fontsize=6.8 if (c - a) > 0.053 * len(tile.text) + 0.03 else 5.8,
            weight="bold" if tile.framed else "normal",
            color=ink,
            zorder=4,
        )
        if tile.hatched:
            text.set_path_effects([patheffects.withStroke(linewidth=1.8, foreground=shade)])


def _hatching(box: Box) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Slanting lines within a box, as lines: patterns of an SVG are lost in some prints."""
    a, b, c, d = box
    starts = [a + b + HATCH * (n + 0.5) for n in range(int((c - a + d - b) / HATCH))]
    ends = [(max(a, k - d), min(c, k - b), k) for k in starts]
    return [((x, k - x), (y, k - y)) for x, y, k in ends]


def _inner(box: Box, edge: float) -> Box:
    a, b, c, d = box
    return a + edge, b + edge, c - edge, d - edge


def _turned(columns: Columns, cell: float) -> bool:
    return max(len(_foot(columns, name, base)) for name, base in columns) * 0.052 > cell


def _foot(columns: Columns, name: str, base: str) -> str:
    """A column's name without its base, where that stands below."""
    return shorten(name.removeprefix(f"{base}/"), 12)


def _feet(axes: Axes, columns: Columns, cell: float, tall: float, tiered: bool) -> None:
    turned, places = _turned(columns, cell), _places(columns, cell)
    for x, (name, base) in zip(places, columns, strict=True):
        axes.text(
            x + cell / 2,
            tall + 0.035,
            _foot(columns, name, base),
            ha="right" if turned else "center",
            va="top",
            fontsize=6.0,
            rotation=35 if turned else 0,
            rotation_mode="anchor" if turned else "default",
            color=INK,
        )
    if not tiered:
        return
    for base in dict.fromkeys(base for _, base in columns):
        mine = [x for x, (_, b) in zip(places, columns, strict=True) if b == base]
        low = tall + 0.16 + (0.28 if turned else 0)
        ends = [mine[0] + 0.03, mine[-1] + cell - 0.03]
        axes.plot(ends, [low, low], color=MUTED, lw=0.6, clip_on=False)
        axes.text(
            sum(ends) / 2,
            low + 0.02,
            shorten(base, max(6, int((ends[1] - ends[0]) / 0.055))),
            ha="center",
            va="top",
            fontsize=6.5,
            weight="bold",
        )


def _bar(figure: Figure, scale: Scale, norm: Normalize, height: float) -> None:
    tall = min(2.4, 0.7 * height)
    left = (WIDTH - BAR + 0.1) / WIDTH
    bar = figure.add_axes((left, 0.5 - tall / height / 2, 0.1 / WIDTH, tall / height))
    made = figure.colorbar(mpl.cm.ScalarMappable(norm, mpl.colormaps[MAP]), cax=bar)
    made.outline.set_visible(False)
    bar.yaxis.set_major_formatter(FuncFormatter(lambda v, _: minus(f"{scale.units * v:zg}")))
    bar.tick_params(labelsize=6.5, length=2, pad=1)
    bar.set_ylabel(scale.label, fontsize=6.8, labelpad=2)


def _key(figure: Figure, scale: Scale, panels: Sequence[Sequence[Panel]], height: float) -> None:
    """What frames, hatching and dashes say, of those that can occur."""
    tiles = [t for some in panels for p in some for b in p.blocks for r in b.rows for t in r.tiles]
    handles = []
    if scale.framed:
        handles.append(Patch(facecolor="none", edgecolor=INK, lw=1.5, label=scale.framed))
    if any(tile is not None and tile.dotted for tile in tiles):
        dots: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "lw": 0.9, "ls": DOTS}
        handles.append(Patch(label=scale.dotted, **dots))
    if scale.hatched:
        look: dict[str, Any] = {
            "facecolor": "none",
            "edgecolor": "#8a8a8a",
            "hatch": "//////",
            "lw": 0,
        }
        handles.append(Patch(label=scale.hatched, **look))
    if any(tile is not None and tile.value is None for tile in tiles):
        handles.append(Patch(facecolor=EMPTY, lw=0, label="–  not run, or nothing scored"))
    if handles:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (LEFT / WIDTH - 0.008, 0.0)}
        figure.legend(
            handles=handles,
            ncols=3,
            handlelength=1.5,
            handleheight=0.9,
            columnspacing=1.6,
            borderaxespad=0.2,
            **place,
        )
