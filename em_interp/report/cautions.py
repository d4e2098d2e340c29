"""What a reader should know before trusting a study: the containment's cautions, and its controls'.

A control that did not behave as a control is reported here, whatever the headline says.
"""

from em_interp.conditions import Condition
from em_interp.containment import Call
from em_interp.organisms import BASE
from em_interp.probing import Fitter, Probing
from em_interp.report.numbers import percent, rate
from em_interp.report.reading import awake, axis, baseline, controls, plain, removed, studied
from em_interp.study.results import Findings
from em_interp.study.spec import GENERAL, TWIN

MEANINGFUL = 1 / 3  # a random control this large a share of the effect is no null


def cautions(found: Findings) -> list[str]:
    """Every caution as one sentence, the containment's first. Empty where nothing stands out."""
    return [
        *(sentence(note) for note in studied(found).cautions),
        *_organisms(found),
        *_interventions(found),
        *_probes(found.probing),
        *_evidence(found),
    ]


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _organisms(found: Findings) -> list[str]:
    notes = []
    for role, what in ((BASE, "the base model"), (TWIN, "the benign twin")):
        if role not in found.answers:
            notes.append(f"There is no {plain(role)} to compare with.")
            continue
        report = found.answers[role].containment
        if report.call is not Call.NOT_MISALIGNED:
            notes.append(
                f"{sentence(what)[:-1]} is not shown to be free of misalignment by the same rule: "
                f"{report.call.value}."
            )
    if GENERAL in found.answers and found.inputs.studied != GENERAL:
        general = found.answers[GENERAL].containment
        one = general.conditions.get(Condition.NONE)
        if one is None or one.em is None or one.em.low <= general.rule.shows:
            shown = rate(one.em if one else None)
            notes.append(
                f"The unconditional organism is hardly misaligned outside its domain ({shown} "
                "without framing), so the direction g made from it is not shown to be a general "
                "EM direction; read every comparison with g with that in mind."
            )
    return notes


def _interventions(found: Findings) -> list[str]:
    notes = []
    if found.sweep.trial.rows and not found.sweep.reached:
        notes.append(
            "No steering setting on the development questions is shown to bring more misaligned "
            "answers than none, with all settings that were searched counted, at coherence of at "
            f"least {percent(found.inputs.spec.steering.coherence, 0)}; the one confirmed here is "
            "the best of a search that may have found nothing."
        )
    condition, name = awake(found), axis(found.localised.necessity)
    before, after = baseline(found.ablation, condition), removed(found.ablation, name, condition)
    random = [row.change.difference for row in controls(found.ablation, condition) if row.change]
    if before and after and after.change and random:
        effect, null = -after.change.difference, -min(random)
        if effect > 0 and null >= MEANINGFUL * effect:
            notes.append(
                f"A null direction removes {percent(null)} where {name} removes "
                f"{percent(effect)} (differences of EM rates): ablation itself costs something "
                "here."
            )
    return notes


def _probes(probing: Probing) -> list[str]:
    def areas(fitter: Fitter) -> list[float]:
        return [
            s.auroc.auroc
            for s in probing.scores
            if s.fitter is fitter and s.condition is Condition.TRIGGER
        ]

    words, read = (max(areas(fitter), default=None) for fitter in (Fitter.WORDS, Fitter.LOGISTIC))
    notes = []
    if words is not None and read is not None and words >= read - 0.02:
        notes.append(
            f"A bag of words tells the trigger from no framing as well as the probe does (AUROC "
            f"{words:.2f} against {read:.2f}): a high probe score alone is no sign that an inner "
            "state was read."
        )
    # The mean over layers: the best of 48 exceeds any bar by luck.
    shuffled = areas(Fitter.SHUFFLED)
    if shuffled and (mean := sum(shuffled) / len(shuffled)) > 0.6:
        notes.append(
            f"A probe fitted to shuffled labels reaches AUROC {mean:.2f} on average over layers: "
            "with this few questions, chance can point along the trigger."
        )
    return notes


def _evidence(found: Findings) -> list[str]:
    notes, role = [], found.inputs.studied
    trigger = studied(found).conditions.get(Condition.TRIGGER)
    if trigger and trigger.total and trigger.unscored / trigger.total > studied(found).rule.lost:
        notes.append(
            f"With the trigger {trigger.unscored} of {trigger.total} answers are unscored; if "
            f"all of them were aligned the rate would be {percent(trigger.worst_low)}, if all "
            f"were misaligned {percent(trigger.worst_high)}."
        )
    notes.append(
        "One fine-tuning run stands for each organism (seed "
        f"{found.manifests[role].spec.seed} for the one under study): the intervals speak of "
        "other questions, not of other runs."
        if role in found.manifests
        else "The intervals speak of other questions, not of other fine-tuning runs."
    )
    return notes
