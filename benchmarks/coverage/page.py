"""The page of coverage, made from its record alone."""

from collections.abc import Sequence
from typing import Any

NOMINAL, SLACK = 0.95, 0.02
LEAST = 0.5  # of the evaluations of a cell: what is shown less often is a matter of luck
Row = dict[str, Any]

HEAD = """# How often the intervals hold

Written by `python -m benchmarks.coverage` (about eight minutes on one core); do not edit. \
{reps:,} simulated evaluations a cell, nominal {nominal:.0%}, standard error {error:.1%}.

An interval either holds, or it is shown with a warning (`caution` on its record), or it is \
refused (`None`). The warning is computed from the data alone, never from the truth, and says one\
 thing: with K questions, a kind of question whose share is 1 - 0.05^(1/K) (31 % at 8, 12 % at \
24, 6 % at 50, 3 % at 100; about 3 / K) is missed by all of them once in twenty times. Where such\
 a kind could change the number by more than itself, no method can know, so the number says so. \
What stands here is therefore read in two ways, and both must pass:

- **held**: coverage among the evaluations whose interval is shown without a warning, in cells \
where at least half of them are; no more than {slack:.0%} below nominal. Below half, whether one \
is shown depends on chance events in the data themselves, and the second way is the one that \
counts.
- **missed**: the share of all evaluations in which a reader is shown, without a warning, an \
interval that misses; no more than {most:.0%}, in every cell.

Over-coverage is allowed and counted openly: near 0 and 1 counts are few and whole, so that no \
interval can hit 95 % (rates of 1 % with few answers, TPR, bounds). `upper`, which a gate decides\
 by, is conservative on purpose: it allows for unseen questions that always fire, so it holds \
without any warning, also where 5 % of questions fire at 90 % and none of them was drawn.
"""

WORDS = {
    "rate": "`rate`: `low`, `high`, for questions like these",
    "rate, upper bound": "`rate`: `upper`, one-sided, for a gate",
    "rate of these questions": "`rate`: `fixed_low`, `fixed_high`, for exactly these questions",
    "contrast": "`paired`: a difference of two rates on the same questions",
    "ratio": "`ratio` of two rates",
    "fraction": "`fraction` of a native effect",
    "share": "`share` of a measured gap",
    "kappa": "`kappa` of two judges' calls",
    "alpha": "`alpha` of two judges' scores",
    "rate corrected for the judge": "`judge_corrected`",
    "seeds": "`seeds`: for seeds and questions like these",
    "seeds, these questions": "`seeds`: `these_low`, `these_high`, for exactly these questions",
    "AUROC": "`auroc`",
    "TPR at 1 % FPR": "`auroc`: TPR at 1 % FPR",
    "TPR at 5 % FPR": "`auroc`: TPR at 5 % FPR",
}


def shown(row: Row) -> bool:
    """Whether a cell's interval is shown without a warning at least half of the time."""
    return bool(row["shown"] >= LEAST)


def short(row: Row) -> bool:
    """Whether a cell falls short: among what is shown, or in what all evaluations are told."""
    low = shown(row) and row["held"] < NOMINAL - SLACK
    return bool(low or row["missed"] > 1 - NOMINAL + SLACK)


def page(record: Row) -> str:
    """The whole page."""
    rows, reps = record["rows"], record["reps"]
    error = (NOMINAL * (1 - NOMINAL) / reps) ** 0.5
    text = HEAD.format(
        reps=reps, nominal=NOMINAL, slack=SLACK, most=1 - NOMINAL + SLACK, error=error
    )
    kinds = {name: [row for row in rows if row["interval"] == name] for name in WORDS}
    parts = [text, "## In short\n", _summary(kinds)]
    for name, words in WORDS.items():
        parts += [f"\n## {words[0].upper()}{words[1:]}\n", _table(kinds[name])]
    return "\n".join(parts) + "\n"


def _summary(kinds: dict[str, list[Row]]) -> str:
    lines = [
        "| interval | cells | shown | least | median | > 97 % | missed | short | with warned |",
        "|---" * 9 + "|",
    ]
    for name, rows in kinds.items():
        some = sorted(row["held"] for row in rows if shown(row))
        lines.append(
            f"| {WORDS[name]} | {len(rows)} | {len(some)} | "
            f"{_percent(some[0]) if some else '–'} | "
            f"{_percent(some[len(some) // 2]) if some else '–'} | "
            f"{sum(one > NOMINAL + SLACK for one in some)} | "
            f"{_percent(max(row['missed'] for row in rows))} | {sum(map(short, rows))} | "
            f"{_percent(min(row['held_with_warned'] for row in rows if row['given']))} |"
        )
    lines.append(
        "\nCells of the grid; of them those where the interval is shown; of those the least and "
        "the median coverage and how many lie above 97 %; the most missed in any cell; and, "
        "for those who would disregard the warning, the least coverage of any cell with it."
    )
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> str:
    """Designs down, questions across: coverage where shown, else what share of times it is."""
    across = sorted({row["questions"] for row in rows})
    lines = [
        "| design | " + " | ".join(f"K = {k}" for k in across) + " |",
        "|---" * (1 + len(across)) + "|",
    ]
    for design in dict.fromkeys(row["design"] for row in rows):
        cells = {row["questions"]: row for row in rows if row["design"] == design}
        lines.append(f"| {design} | " + " | ".join(_cell(cells.get(k)) for k in across) + " |")
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row["given"] == 0:
        return "refused"
    mark = " **short**" if short(row) else ""
    if shown(row):
        return f"{_percent(row['held'])}{mark}"
    if row["shown"] == 0 and row["given"] == 1:
        return f"warned{mark}"
    return f"shown {row['shown']:.0%}, missed {_percent(row['missed'])}{mark}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
