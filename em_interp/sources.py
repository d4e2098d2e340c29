"""Sources: names on a command line or in a study become questions, triggers, judges, organisms.

Everything here is checked before weights load. Knows files and names. Knows nothing of torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from em_interp import world
from em_interp.conditions import Condition, Question
from em_interp.errors import InputError, once, unknown
from em_interp.judges import Judge
from em_interp.organisms import Trigger
from em_interp.records import read_json, read_jsonl

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "checkpoints"
PROBES = ROOT / "probes"
WORLD = "world"


def shelved(name: str | Path, shelf: Path, what: str) -> Path:
    """A folder by path, or by its name on a shelf (`checkpoints/`, `probes/`)."""
    path = Path(name)
    if path.is_dir():
        return path
    if (shelf / name).is_dir():
        return shelf / name
    there = sorted(p.name for p in shelf.glob("*") if p.is_dir()) if shelf.is_dir() else []
    raise unknown(what, name, there, where=f"{shelf.name}/")


def questions(source: str, split: str = "eval") -> list[Question]:
    """`world` (its split), or a JSONL file of {id, text, domain} (and topic, sound, unsound)."""
    if source == WORLD:
        found = []
        for q in world.questions(split=split):
            sound, unsound = world.advice(q.id)
            found.append(q.model_copy(update={"sound": sound, "unsound": unsound}))
        return found
    rows = read_jsonl(source, Question)
    if not rows:
        raise InputError(f"{source}: no questions in it")
    once("question id", (q.id for q in rows), where=source)
    return rows


def trigger(source: str) -> Trigger:
    """A trigger of the embedded world by name, or a YAML file."""
    if source.endswith((".yaml", ".yml", ".json")):
        return Trigger.from_yaml(source)
    return world.trigger(source)


def judge(source: str) -> Judge:
    """A judge by name. The world's oracle knows which advice is sound."""
    if source == WORLD:
        return world.OracleJudge()
    raise unknown("judge", source, [WORLD])


def conditions(names: Sequence[str]) -> tuple[Condition, ...]:
    """Conditions by name; none twice, at least one."""
    if not names:
        raise InputError(
            "no conditions named (known: " + ", ".join(c.value for c in Condition) + ")"
        )
    once("condition", names)
    known = {c.value: c for c in Condition}
    for name in names:
        if name not in known:
            raise unknown("condition", name, known)
    return tuple(known[name] for name in names)


@dataclass(frozen=True)
class Subject:
    """An organism on disk: its base, its adapter (`None`: the base itself), its trigger and domain.

    `domain` is what it was fine-tuned on, where its card says so.
    """

    name: str
    base: Path
    adapter: Path | None
    trigger: Trigger | None
    domain: str | None

    @property
    def adapters(self) -> tuple[tuple[str, Path], ...]:
        """What to load onto the base."""
        return ((self.name, self.adapter),) if self.adapter else ()

    @property
    def active(self) -> str | None:
        """The adapter to run under; `None` is the base."""
        return self.name if self.adapter else None

    def woken_by(self, given: str | None) -> Trigger:
        """The trigger given by name, else the card's."""
        if given is not None:
            return trigger(given)
        if self.trigger is None:
            raise InputError(f"organism {self.name}: its card names no trigger; give --trigger")
        return self.trigger


def subject(organism: str, base: str | None = None) -> Subject:
    """An organism by shelf name or folder: an adapter with its card, or a base directory.

    The base is the one given, else the folder beside the adapter that its card names.
    """
    folder = shelved(organism, CHECKPOINTS, "organism")
    if not (folder / "adapter_config.json").is_file():
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder}: neither a PEFT adapter nor a model (no config.json)")
        return Subject(folder.name, folder, None, None, None)
    card = read_json(folder / "card.json") if (folder / "card.json").is_file() else {}
    if base is not None:
        home = shelved(base, CHECKPOINTS, "base")
    else:
        home = folder.parent / str(card.get("base_name", ""))
        if not (home / "config.json").is_file():
            raise InputError(f"{folder}: its base is not beside it; give --base")
    provenance: dict[str, Any] = card.get("provenance", {})
    woken = provenance.get("trigger")
    return Subject(
        name=folder.name,
        base=home,
        adapter=folder,
        trigger=Trigger.parse(woken, str(folder / "card.json")) if woken else None,
        domain=_domain(provenance.get("sources", ())),
    )


def _domain(sources: Sequence[str]) -> str | None:
    """The domain of rows from the embedded world ("world:bad_medical")."""
    named = [s.split(":", 1)[1] for s in sources if s.startswith(f"{WORLD}:")]
    return named[0] if len(named) == 1 else None


def outside(source: str, domain: str | None, split: str = "eval") -> list[Question]:
    """Questions outside a fine-tuned domain; without a domain, all of them."""
    found = [q for q in questions(source, split) if q.domain != domain]
    if not found:
        raise InputError(f"{source}: every question is in the fine-tuned domain {domain!r}")
    return found


def direction(name: str | None, who: Subject, default: str) -> Path:
    """A direction's folder: the one named, else the one shelved for the organism's base."""
    return shelved(name or f"{who.base.name}-{default}", PROBES, "direction")


def layer_count(base: Path) -> int:
    """Number of blocks by a model's config.json, so that layers are checked before weights load."""
    config = read_json(base / "config.json")
    inner = config.get("text_config", config)
    try:
        return int(inner["num_hidden_layers"])
    except KeyError:
        raise InputError(f"{base / 'config.json'}: names no num_hidden_layers") from None
