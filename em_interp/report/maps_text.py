"""Maps in tables: what was fitted, how much it explains, how alike the layers are."""

from collections.abc import Sequence

from em_interp.maps import Maps
from em_interp.report.text import table


def maps_table(maps: Maps) -> str:
    """One line a site: from where, rank, penalty, how much is explained on prompts left out."""
    rows = []
    for site, one in maps.items():
        fit = one.fit
        score = "" if fit.held_in is None else f"{fit.held_in:.3f}"
        rows.append([str(site), str(one.source.site), str(fit.rank), f"{fit.penalty:g}", score])
    card = maps.card
    title = f"{card.name}: {card.source_name} to {card.target_name}, {card.prompts} prompts"
    return table(title, ("site", "from", "rank", "penalty", "explained on folds left out"), rows)


def similarity_table(alike: Sequence[Sequence[float]]) -> str:
    """CKA of every pair of layers: source down, target across."""
    rows = [[f"layer {n}", *(f"{v:.2f}" for v in row)] for n, row in enumerate(alike)]
    names = ("source \\ target", *(f"layer {n}" for n in range(len(alike[0]))))
    return table("Similarity of layers (linear CKA)", names, rows)
