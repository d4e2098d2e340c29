"""Every arm in a target as tables: effects, geometry, read-outs, each beside its chance."""

from em_interp.report.numbers import free, gap, mark, p_value, percent, rate
from em_interp.report.tables import Block, Cells, Table
from em_interp.report.transfers.grid import (
    ABLATED,
    ACTS,
    SYMBOLS,
    Grid,
    Shown,
    gate,
    layer_of,
)
from em_interp.stats import Auroc, Fraction
from em_interp.study.transfers.inputs import Group
from em_interp.study.transfers.results import lacking
from em_interp.transferring import Cell, Chance, ProbeCell, Reading


def effects(grid: Grid, target: Group, role: str, effect: str) -> Table | None:
    """Every arm of one kind of effect in one target."""
    column = grid.column(target, role)
    if column is None:
        return None
    plain = column.transfer.plain_ablated if effect == ABLATED else column.transfer.plain_added
    blocks: dict[str, list[Cells]] = {}
    for cell in column.transfer.cells:
        one = grid.shown(cell, target, role, effect)
        if one is not None:
            blocks.setdefault(_origin(grid, cell), []).append(_effect(one))
    return Table(
        f"{ACTS[effect].capitalize()} in {target.name}, {gate(role)}; without any edit "
        f"{rate(plain)}. Changes in points, paired by question; p: the largest over its nulls; "
        "q: false discovery rate over the grid.",
        ("direction", "EM rate [95%]", "change", "of native", "coherent", "p", "q", "verdict"),
        tuple(Block(name, tuple(rows)) for name, rows in blocks.items()),
    )


def _origin(grid: Grid, cell: Cell) -> str:
    if cell.own:
        return "its own: the ceiling"
    base = next((g.base for g in grid.groups if g.name == cell.source), cell.source)
    return f"from {base}" + (": nulls" if cell.null else "")


def _name(cell: Cell) -> str:
    return (
        SYMBOLS[cell.thing]
        if cell.own
        else (f"{cell.source}: {SYMBOLS[cell.thing]} via {cell.via}")
    )


def _effect(one: Shown) -> Cells:
    e = one.effect
    word = "ceiling" if one.cell.own else "null" if one.cell.null else "nothing scored"
    return (
        _name(one.cell),
        rate(e.em),
        gap(e.change),
        _fraction(e.of_native),
        percent(e.coherent.point) if e.coherent else "",
        "" if e.p is None else p_value(e.p),
        "" if one.q is None else p_value(one.q),
        "; ".join([one.verdict.value, *lacking(e, one.q)]) if one.verdict else word,
    )


def _fraction(one: Fraction | None) -> str:
    if one is None:
        return ""
    ends = f"[{percent(one.low, 0)}, {percent(one.high, 0)}]"
    return f"{percent(one.fraction, 0)} {ends}{mark(one)}"


def geometry(grid: Grid, target: Group, role: str) -> Table | None:
    """Every arm's cosine to the target's own, layer by layer."""
    column = grid.column(target, role)
    if column is None:
        return None
    sites = sorted({s for cell in column.transfer.cells for s in cell.cosines}, key=layer_of)
    blocks: dict[str, list[Cells]] = {}
    for cell in column.transfer.cells:
        row = (_name(cell), *(_cosine(cell, site) for site in sites))
        blocks.setdefault(_origin(grid, cell), []).append(row)
    return Table(
        f"Cosines to the own direction of {target.name}, {gate(role)}. In brackets what 99% of "
        "three nulls stay under; *: above all three.",
        ("direction", *(f"layer {layer_of(site)}" for site in sites)),
        tuple(Block(name, tuple(rows)) for name, rows in blocks.items()),
    )


def _cosine(cell: Cell, site: str) -> str:
    if site not in cell.cosines:
        return ""
    text, like = free(cell.cosines[site]), cell.likeness.get(site)
    if like is None:
        return text
    return f"{text}{'*' if like.transfers else ''} [{free(like.high)}]"


def readings(grid: Grid, target: Group, role: str) -> Table | None:
    """Every arm and every probe as a read-out of the trigger."""
    column = grid.column(target, role)
    if column is None:
        return None
    blocks: dict[str, list[Cells]] = {}
    for cell in column.transfer.cells:
        blocks.setdefault(_origin(grid, cell), []).append(_reading(_name(cell), cell.reading))
    for one in column.transfer.probes:
        blocks.setdefault("trigger-on probes", []).append(_reading(_probe(one), one.reading))
    layer = column.transfer.cells[0].reading.layer
    return Table(
        f"Read-outs in {target.name}, {gate(role)}, at layer {layer}: AUROC [95%], then what 95% "
        "of random directions by the same way stay under, and the share that reaches it.",
        ("read-out", "trigger", "chance", "p", "paraphrases", "chance", "p"),
        tuple(Block(name, tuple(rows)) for name, rows in blocks.items()),
    )


def _probe(one: ProbeCell) -> str:
    return "its own" if one.own else f"{one.source}: probe via {one.via}"


def _reading(name: str, one: Reading) -> Cells:
    return (
        name,
        *_auroc(one.trigger, one.trigger_chance),
        *_auroc(one.paraphrase, one.paraphrase_chance),
    )


def _auroc(one: Auroc | None, chance: Chance | None) -> Cells:
    if one is None or chance is None:
        return "", "", ""
    area = f"{free(one.auroc, 3)} [{free(one.low)}, {free(one.high)}]"
    return area, free(chance.high, 3), p_value(chance.p)
