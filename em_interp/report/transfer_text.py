"""A transfer in tables: no effect without its nulls, no cosine or AUROC without chance."""

from collections.abc import Sequence

from em_interp.labels import exact
from em_interp.report.text import gap, percent, table
from em_interp.sites import Site
from em_interp.stats import Auroc, Rate
from em_interp.transferring import Cell, Chance, Effect, ProbeCell, Reading, Transfer


def transfer_tables(found: Transfer) -> str:
    """Geometry, readings, additions and ablations: a row for each arm."""
    names = [_name(cell.thing.value, cell, found) for cell in found.cells]
    geometry = [
        [name, *(f"{cosine:+.2f}{_star(cell, site)}" for site, cosine in cell.cosines.items())]
        for name, cell in zip(names, found.cells, strict=True)
    ]
    readings = [_reading(name, cell.reading) for name, cell in zip(names, found.cells, strict=True)]
    readings += [_reading(_name("probe", one, found), one.reading) for one in found.probes]
    sites = tuple(_short(name) for name in found.cells[0].cosines)
    where = ", ".join(map(_short, found.added_at))
    added = f"Adding {exact(found.strength)} to the aligned, at {where}"
    return "\n\n".join(
        [
            table("Cosine to the target's own (*: above chance)", ("direction", *sites), geometry),
            table(
                f"AUROC of the trigger at {_short(found.added_at[0])} [95 %], and what 95 % of "
                "random directions stay under that come the same way",
                ("read-out", "trigger", "paraphrases"),
                readings,
            ),
            _effects(added, found.plain_added, names, found.cells, [c.added for c in found.cells]),
            _effects(
                "Mean-ablating in the misaligned, everywhere",
                found.plain_ablated,
                names,
                found.cells,
                [c.ablated for c in found.cells],
            ),
        ]
    )


def _effects(
    title: str,
    plain: Rate | None,
    names: list[str],
    cells: Sequence[Cell],
    effects: Sequence[Effect],
) -> str:
    rows = [["no edit", percent(plain), "", "", "", ""]]
    rows += [
        [name, *_effect(cell, one)] for name, cell, one in zip(names, cells, effects, strict=True)
    ]
    columns = ("direction", "EM rate [95 %]", "change (points)", "coherent", "of native", "verdict")
    return table(title, columns, rows)


def _effect(cell: Cell, one: Effect) -> list[str]:
    verdict = "null" if cell.null else ("ceiling" if cell.own else "")
    if one.verdict is not None:
        verdict = one.verdict.value + ("" if one.p is None else f" (p = {one.p:.2g})")
        verdict += f": {one.lacks[0].value}" if one.lacks else ""
    return [
        percent(one.em),
        gap(one.change),
        f"{one.coherent.point:.0%}" if one.coherent else "",
        str(one.of_native) if one.of_native else "",
        verdict,
    ]


def _reading(name: str, one: Reading) -> list[str]:
    return [
        name,
        _area(one.trigger, one.trigger_chance),
        _area(one.paraphrase, one.paraphrase_chance),
    ]


def _area(found: Auroc | None, chance: Chance | None) -> str:
    if found is None or chance is None:
        return ""
    return f"{found.auroc:.3f} [{found.low:.2f}, {found.high:.2f}], chance < {chance.high:.2f}"


def _name(what: str, one: Cell | ProbeCell, found: Transfer) -> str:
    """What and by which way; also whose, where several organisms give theirs."""
    several = len({cell.source for cell in found.cells if not cell.own}) > 1
    via = one.via
    return f"{one.source}: {what}, {via}" if several else f"{what}, {via}"


def _short(site: str) -> str:
    return f"layer {Site.named(site).short}"


def _star(cell: Cell, site: str) -> str:
    one = cell.likeness.get(site)
    return "*" if one is not None and one.transfers else " "
