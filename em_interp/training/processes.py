"""Several processes that raise one organism together (`torchrun`, `accelerate launch`).

Knows the environment that launchers set. Knows nothing of models.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from em_interp.errors import EmInterpError, InputError
from em_interp.training.spec import TrainSpec


def world_size() -> int:
    """How many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process may touch the folders and speak."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def agreed(on_cpu: bool) -> Iterator[None]:
    """What one process refuses here, all of them refuse, with the same words.

    Otherwise the others would wait for it in their next common step, for ever.
    """
    if world_size() == 1:
        yield
        return
    fault: EmInterpError | None = None
    try:
        yield
    except EmInterpError as own:
        fault = own
    said = next((one for one in _everyones(str(fault) if fault else None, on_cpu) if one), None)
    if said is not None:
        fault = fault or InputError(said)
        fault.common = True
        raise fault


def _everyones(word: str | None, on_cpu: bool) -> list[str | None]:
    """What each process says, the first one first."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    PartialState(cpu=on_cpu)
    return list(gather_object([word]))


def firsts(word: bool) -> bool:
    """What the first process says: clocks differ, and all must do the same."""
    if world_size() == 1:
        return word
    from accelerate.utils import broadcast_object_list

    said = [word]
    broadcast_object_list(said)
    return said[0]


def computes_on_cpu(device: str, fsdp: bool) -> bool:
    """Whether training runs on the CPU; shared-out weights go to accelerators, if there are any."""
    from torch import cuda

    return device == "cpu" and not (fsdp and cuda.is_available())


def share_on_cpu() -> None:
    """Let accelerate share weights out among CPU processes, too.

    Its FSDP2 code runs on any device, but it asks for it on GPUs and their like only, and leaves
    the weights whole elsewhere without a word.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


@contextmanager
def launchers_words() -> Iterator[None]:
    """The launcher's environment, put back: accelerate notes in it how a run shares weights out."""
    before = set(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - before:
            if name.startswith(("ACCELERATE_", "FSDP_")):
                del os.environ[name]


def leave() -> None:
    """Part from the other processes in order."""
    if world_size() > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()


def check_shares(spec: TrainSpec) -> int:
    """The number of processes, each of which makes as many passes of a step as the others.

    A recipe's step keeps its rows however many processes share it, so they must be able to. Raises
    `InputError` where they cannot, and where weights are to be shared out among one.
    """
    processes = world_size()
    if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true" and not spec.fsdp:
        raise InputError(
            "the launcher was told to share weights out, and the recipe was not; give --fsdp to "
            "the command, and leave it out of accelerate's settings"
        )
    if spec.fsdp and processes == 1:
        raise InputError(
            "fsdp shares weights out among processes, and there is one; start several with "
            "`torchrun --nproc-per-node N -m em_interp.train ...`, or leave fsdp out"
        )
    if spec.accumulation % processes:
        fits = [n for n in range(1, spec.step_rows + 1) if spec.step_rows % (n * processes) == 0]
        hint = f"take batch_size {fits[-1]}" if fits else f"no {processes} processes can share it"
        raise InputError(
            f"{processes} processes cannot share a step of batch_size {spec.batch_size} × "
            f"accumulation {spec.accumulation} rows evenly; {hint}"
        )
    return processes


def own_device(device: str, spec: TrainSpec) -> str:
    """Where this process loads the base: its own GPU, or the CPU where weights are shared out."""
    if spec.fsdp:
        return "cpu"  # each process takes its share to its device afterwards
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device
