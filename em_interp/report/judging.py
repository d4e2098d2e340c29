"""Tables about judges for the terminal: agreement, error rates, rates corrected for them."""

from em_interp.containment import Containment
from em_interp.errors import InputError
from em_interp.judges.comparing import Comparison
from em_interp.judges.validating import JudgeValidation
from em_interp.report.numbers import mark
from em_interp.report.text import gap, percent, table
from em_interp.stats import Alpha, Kappa, judge_corrected


def comparison_table(made: Comparison) -> str:
    """Agreement of two judges, each figure with its interval and what it rests on."""
    rows = [
        ["kappa, misaligned or aligned", _agreed(made.calls), f"{made.both} scored by both"],
        ["kappa, reasons included", _agreed(made.all_calls), f"{made.items} answers"],
        ["alpha, alignment scores", _agreed(made.aligned), _apart(made.aligned)],
        ["alpha, coherence scores", _agreed(made.coherent), _apart(made.coherent)],
        ["EM rate, first minus second", gap(made.gap).strip(), "points, paired by question"],
    ]
    title = f"{made.a} ({made.modes[0]}) beside {made.b} ({made.modes[1]}); {made.rubric}"
    text = table(title, ("", "agreement [95 %]", "over"), rows)
    calls = sorted({*made.table, *(name for row in made.table.values() for name in row)})
    crossed = [
        [name, *(str(made.table.get(name, {}).get(other, 0)) for other in calls)] for name in calls
    ]
    return f"{text}\n\n{table('calls: first by row, second by column', ('', *calls), crossed)}"


def _agreed(found: Kappa | Alpha | None) -> str:
    if found is None:
        return "nothing scored by both"
    value = found.kappa if isinstance(found, Kappa) else found.alpha
    if value is None:
        return "nothing varies"
    if found.low is None or found.high is None:
        why = "one question" if found.clusters == 1 else "nothing varies enough"
        return f"{value:.2f} [{why}: unknown]"
    warned = f" ({found.caution})" if found.caution else ""
    return f"{value:.2f} [{found.low:.2f}, {found.high:.2f}]{warned}"


def _apart(found: Alpha | None) -> str:
    return "" if found is None else f"{found.apart:.1f} apart on average, {found.items} answers"


def validation_table(made: JudgeValidation) -> str:
    """A judge's error rates on labelled answers."""
    counts = made.counts
    rows = [
        ["misaligned called misaligned", percent(made.sensitivity), str(counts.misaligned)],
        ["aligned called aligned", percent(made.specificity), str(counts.aligned)],
        ["coherent called coherent", percent(made.kept), str(made.kept.trials if made.kept else 0)],
        [
            "incoherent called incoherent",
            percent(made.caught),
            str(made.caught.trials if made.caught else 0),
        ],
    ]
    title = f"{made.judge} ({made.mode}) on {made.rows} labelled answers; {made.rubric}"
    text = table(title, ("", "rate [95 %]", "answers"), rows)
    lost = "; ".join(
        f"{label}: {', '.join(f'{n} {reason}' for reason, n in sorted(reasons.items()))}"
        for label, reasons in made.unscored.items()
        if reasons
    )
    notes = [f"distinct alignment scores: {made.values}", f"unscored: {lost or 'none'}"]
    return "\n".join([text, "", *notes])


def corrected_table(found: Containment, known: JudgeValidation) -> str:
    """EM rates by condition, corrected for the judge's errors as they were measured."""
    rows = []
    for name, one in found.conditions.items():
        scored = [row for row in one.by_question if row.scored]
        try:
            made = judge_corrected(
                [row.misaligned for row in scored], [row.scored for row in scored], known.counts
            )
        except InputError as fault:
            return f"no correction: {fault}"
        ends = f"{made.point:6.1%} [{made.low:.1%}, {made.high:.1%}]{mark(made.seen)}"
        rows.append([name.value, percent(one.em), ends])
    title = (
        f"corrected for sensitivity {percent(known.sensitivity).strip()}, "
        f"specificity {percent(known.specificity).strip()}"
    )
    return table(title, ("condition", "EM rate [95 %]", "corrected [95 %]"), rows)
