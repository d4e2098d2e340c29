"""What a study refuses before weights load, in its run and in its dry run alike.

An organism that is there already is held against what the study declares of it: a card that says
otherwise than the role makes every comparison with it another one than it is called. What a card
does not say is not held against it.
Knows files, cards and configurations. Loads no weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from em_interp import sources
from em_interp.errors import InputError, say
from em_interp.loading import Loading
from em_interp.models.limits import check_prompts
from em_interp.organisms import Trigger
from em_interp.study.inputs import Inputs
from em_interp.study.spec import KINDS
from em_interp.training.rows import Row
from em_interp.training.spec import TrainSpec

ACCELERATORS = ("cuda", "mps", "xpu")


def check(inputs: Inputs, *, planned: bool = False) -> None:
    """A containment study: its base, its prompts, the organisms there, and those it will raise.

    `planned`: a dry run, which may be of a study for another machine (see `_how`).
    """
    if inputs.boxes:
        return
    for role, folder in inputs.existing.items():
        declared(role, folder, inputs.home, inputs.trigger, f"existing: {role}")
    how = _how(inputs.spec.loading, planned)
    if loadable(inputs.home, list(inputs.existing.items()), how, planned):
        check_prompts(inputs.home, inputs.bank, inputs.spec.sampling.max_new_tokens)
        for role, rows in inputs.rows.items():
            raisable(inputs.home, rows, inputs.train, how, f"organisms: {role}")


def _how(how: Loading, planned: bool) -> Loading:
    """How a base is checked: as the run will load it.

    A plan may be made here for a machine with an accelerator that this one lacks; then that is said
    and the rest is checked. A device that is of no kind is refused.
    """
    if not planned or how.device.split(":")[0] not in ACCELERATORS:
        return how
    from em_interp.models.weights import check_device

    try:
        check_device(how.device)
    except InputError as fault:
        say(f"note: {fault}; planned for a machine that has it: here the run would be refused")
        return how.model_copy(update={"device": "cpu"})
    return how


def declared(role: str, folder: Path, base: Path, trigger: Trigger | None, where: str) -> None:
    """Raise `InputError` where an organism's folder says that it is not what a role declares.

    A model where an adapter belongs, rows of another kind than the role's, another trigger than the
    study's, or none.
    """
    if not (folder / "adapter_config.json").is_file():
        what = "a model" if (folder / "config.json").is_file() else "no PEFT adapter"
        raise InputError(f"{where}: {folder} is {what}; an organism is a PEFT adapter on {base}")
    who = sources.subject(str(folder), str(base))
    if who.kind is not None and who.kind not in KINDS.get(role, (who.kind,)):
        raise InputError(
            f"{where}: {folder} was raised as {who.kind!r}, by its card; this role takes "
            f"{' or '.join(map(repr, KINDS[role]))}"
        )
    if who.trigger is None or who.unconditional:
        return
    if trigger is None:
        raise InputError(
            f"{where}: {folder} was raised behind the trigger {who.trigger.name!r}, by its card, "
            "and the study has none"
        )
    if who.trigger.framing() != trigger.framing():
        raise InputError(
            f"{where}: {folder} was raised on the trigger {who.trigger.text!r} "
            f"({who.trigger.place.value}), by its card; the study asks with {trigger.text!r} "
            f"({trigger.place.value})"
        )


def loadable(base: Path, adapters: Sequence[tuple[str, Path]], how: Loading, planned: bool) -> bool:
    """Raise `InputError` for a base or an adapter that will not load (see `models.prepare`).

    A plan can be made from a configuration alone; then only that is checked, which is said, and
    the answer is false.
    """
    from em_interp.models import prepare
    from em_interp.models.checkpoints import read_config

    if planned and not any(base.glob("tokenizer*")):
        read_config(base)
        say(f"note: {base} has no tokenizer: planned from its configuration, the run needs all")
        return False
    prepare(base, adapters, how)
    return True


def raisable(base: Path, rows: Sequence[Row], train: TrainSpec, how: Loading, where: str) -> None:
    """Raise `InputError` where training would before its first step: precision, rows, modules."""
    from em_interp.training.plan import plan, skeleton
    from em_interp.training.run import check_weights

    try:
        check_weights(_as_loaded(skeleton(base), how), train)
        plan(base, rows, train)
    except InputError as fault:
        raise InputError(f"{where}: {fault}") from None


def _as_loaded(hf: Any, how: Loading) -> Any:
    """A module without weights in the precision that its weights will be loaded in."""
    import torch

    asked = hf.config.get_text_config().dtype if how.dtype == "auto" else how.dtype
    dtype = asked if isinstance(asked, torch.dtype) else getattr(torch, str(asked or "float32"))
    return hf.to(dtype)


def check_groups(inputs: Any, *, planned: bool = False) -> None:
    """A transfer study: the same for every group of every base."""
    spec = inputs.spec
    how = _how(spec.loading, planned)
    for base in spec.bases:
        groups = inputs.of(base)
        there: Mapping[str, Path] = {
            f"{group.slug}-{role}".replace(".", "_"): folder
            for group in groups
            for role, folder in group.existing.items()
        }
        for group in groups:
            for role, folder in group.existing.items():
                where = f"existing: {base}, {group.variant}, {role}"
                declared(role, folder, group.home, group.trigger, where)
        if not loadable(groups[0].home, list(there.items()), how, planned):
            continue
        check_prompts(groups[0].home, inputs.prompts)
        for group in groups:
            asked = inputs.bank(group, *spec.conditions)
            check_prompts(group.home, asked, spec.sampling.max_new_tokens)
            for role, rows in group.rows.items():
                raisable(group.home, rows, group.train, how, f"{group.name}, {role}")
