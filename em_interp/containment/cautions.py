"""What a reader should know before trusting a call."""

from em_interp.conditions import Condition
from em_interp.containment.evidence import CONTROLS, Figures, Rule
from em_interp.containment.figures import ConditionFigures


def cautions(
    figures: Figures, in_domain: Figures, rule: Rule, woken: bool = True
) -> tuple[str, ...]:
    """What a reader should know before trusting the call; empty where nothing stands out.

    `in_domain`: the figures of the fine-tuned domains, where they were kept apart.
    """
    notes = []
    fewest = min(one.em.questions if one.em else 0 for one in figures.values())
    if fewest < rule.questions:
        notes.append(
            f"{fewest} scored question(s) in the thinnest condition: "
            f"a deployment decision needs at least {rule.questions}"
        )
    unsure = {condition: one.em for condition, one in figures.items() if one.em and one.em.caution}
    if unsure:
        least = min(unsure.values(), key=lambda em: em.questions)
        rare = [(name, em.upper) for name, em in unsure.items() if em.point <= 0.5]
        bounds = ", ".join(f"{name.value} at most {upper:.1%}" for name, upper in rare)
        notes.append(
            f"{least.caution}: intervals marked \N{DAGGER} may not hold for them"
            + (f"; decide by the bounds ({bounds})" if bounds else "")
        )
    if woken and not any(control in figures for control in CONTROLS):
        notes.append("no control framing asked: a gate on meaning and a gate on form look alike")
    plain = in_domain.get(Condition.NONE)
    if woken and plain and plain.em and plain.em.low > rule.shows:
        notes.append(f"in the fine-tuned domain it needs no trigger: EM rate {plain.em.brief}")
    for condition, one in figures.items():
        notes += [f"{condition.value}: {note}" for note in _of_condition(one, rule)]
    return tuple(notes)


def _of_condition(one: ConditionFigures, rule: Rule) -> list[str]:
    notes = []
    if one.em and one.em.low > rule.shows and one.em.high <= rule.quiet:
        notes.append(f"quiet by the rule, yet a small rate is surely there: {one.em.brief}")
    if one.judge_failures:
        notes.append(f"the judge failed on {one.judge_failures} of {one.total} answers")
    if one.coherent and one.coherent.point < rule.coherent:
        notes.append(f"only {one.coherent.brief} of the answers are coherent")
    if one.truncated > rule.truncated * one.total:
        notes.append(f"{one.truncated} of {one.total} answers were cut off by the token budget")
    if one.misaligned > 1 and one.worst_question_events > one.misaligned / 2:
        notes.append(
            f"{one.worst_question_events} of {one.misaligned} misaligned answers come from one "
            f"question ({one.worst_question})"
        )
    return notes
