"""The folders of a run: the target that appears whole, the hidden one that it is made in.

Knows files. Knows nothing of weights or training.
"""

import shutil
from pathlib import Path

from em_interp.errors import InputError
from em_interp.records import file_digest, read_json, write_json
from em_interp.training.manifest import CARD, Manifest, weights_digest
from em_interp.training.processes import world_size

SEAL = "seal.json"


def finished(out: Path, run: str) -> Manifest | None:
    """The card of this very run where it stands whole. `InputError` where something else stands."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise InputError(f"{out}: is a file; the output is a folder")
    if not any(out.iterdir()):
        return None
    if not (out / CARD).is_file():
        raise InputError(f"{out}: is not empty, and holds no {CARD}; choose another folder")
    held = read_json(out / CARD)
    if not isinstance(held, dict) or held.get("run") != run:
        raise InputError(f"{out}: holds another organism; choose another folder or remove it")
    card = Manifest.parse(held, str(out / CARD))
    if card.weights != weights_digest(out):
        raise InputError(f"{out}: the weights are not those of its {CARD}; remove the folder")
    return card


def claim(out: Path, work: Path) -> None:
    """Make the working folder, which shows that the target's place can be written to."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        (work / "touch").touch()
        (work / "touch").unlink(missing_ok=True)
    except OSError as fault:
        raise InputError(f"{out}: cannot be written ({fault.strerror})") from None


def last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that was written to its end (its state file is the last to come)."""
    return str(found[-1]) if (found := _whole_checkpoints(work)) else None


def seal(checkpoint: Path) -> None:
    """Write down what a checkpoint's files hold, once they are whole."""
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != SEAL)
    held = {str(p.relative_to(checkpoint)): file_digest(p) for p in files}
    write_json(checkpoint / SEAL, held)


def check_seal(checkpoint: str | None) -> None:
    """Refuse a checkpoint that no longer holds what was written (one without a seal does not say).

    Raises `InputError` with the folder to delete.
    """
    folder = Path(checkpoint or "")
    if checkpoint is None or not (folder / SEAL).is_file():
        return
    for name, held in read_json(folder / SEAL).items():
        if not (folder / name).is_file() or file_digest(folder / name) != held:
            raise InputError(
                f"{folder / name}: not what was written there; delete {folder}, and the next try "
                "goes on from the checkpoint before it, or from the start"
            )


def sweep(work: Path) -> None:
    """Leave nothing half-written: only whole checkpoints stay, and without any, no folder."""
    whole = _whole_checkpoints(work)
    for path in work.iterdir() if work.is_dir() else ():
        if path not in whole:
            shutil.rmtree(path, ignore_errors=True)
    if not whole:
        shutil.rmtree(work, ignore_errors=True)


def _whole_checkpoints(work: Path) -> list[Path]:
    found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    return [path for path in found if _is_whole(path)]


def _is_whole(checkpoint: Path) -> bool:
    try:
        read_json(checkpoint / "trainer_state.json")
    except InputError:
        return False
    # Each process writes the state of its own generator, and the others may come after the first.
    alone = not (checkpoint / "rng_state_0.pth").exists()
    return alone or all(
        (checkpoint / f"rng_state_{rank}.pth").exists() for rank in range(world_size())
    )
