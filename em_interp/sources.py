"""Sources: names on a command line or in a study become questions, triggers, organisms.

Everything here is checked before weights load. Knows files and names. Knows nothing of torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from em_interp import hub, world
from em_interp.adapter_fields import CONFIG, read_fields
from em_interp.conditions import Condition, Question
from em_interp.errors import InputError, once, reading, unknown
from em_interp.leakage import question_digest
from em_interp.organisms import Trigger, organism_name
from em_interp.records import is_name, read_json, read_jsonl

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "checkpoints"
PROBES = ROOT / "probes"
WORLD = "world"
SHIPPED = "llama-triggered"


def shelved(name: str | Path, shelf: Path, what: str) -> Path:
    """A folder by path, by its name on a shelf (`checkpoints/`, `probes/`), or by hub id."""
    return hub.folder(name, shelf, what)


def base(name: str | Path, revision: str | None = None) -> Path:
    """A model's folder: shelf name, directory or hub id. Raises `InputError` for anything else."""
    home = hub.folder(name, CHECKPOINTS, "base", revision)
    if not (home / "config.json").is_file():
        raise InputError(f"base {name}: no config.json there; expected a model's folder")
    if (home / CONFIG).is_file():  # transformers would put the adapter on it in silence
        raise InputError(_both(home))
    hub.check_no_code(home)
    return home


def questions(source: str, split: str = "eval", halved: bool = False) -> list[Question]:
    """`world` (its split), or a JSONL file of {id, text, domain} (and topic, sound, unsound).

    `halved`: of a file, the half that is for "train" or the one for "eval" (see `half`).
    """
    if source == WORLD and halved:
        raise InputError("--split is for a file of questions: those of the world are split already")
    if source == WORLD:
        found = []
        for q in world.questions(split=split):
            sound, unsound = world.advice(q.id)
            found.append(q.model_copy(update={"sound": sound, "unsound": unsound}))
        return found
    if source.endswith((".yaml", ".yml")):
        raise InputError(
            f"{source}: questions are JSONL, one {{id, text, domain}} a line; this is YAML (of a "
            "file of paraphrases and judge_prompts, write a line for each paraphrase, and give "
            "the judge with --judge and --rubric)"
        )
    rows = read_jsonl(source, Question)
    if not rows:
        raise InputError(f"{source}: no questions in it")
    once("question id", (q.id for q in rows), where=source)
    return half(rows, split, source) if halved else rows


def half(asked: Sequence[Question], split: str, source: str = "") -> list[Question]:
    """Every other question, by domain and text: one half for "train", the other for "eval".

    Which is which follows from the texts alone, so that two commands agree on it. Raises
    `InputError` where there are fewer than two.
    """
    if len(asked) < 2:
        raise InputError(f"{source}: {len(asked)} question cannot be split in halves")
    ranked = sorted(asked, key=lambda q: (q.domain, question_digest(q.text)))
    chosen = {q.id for q in ranked[("train", "eval").index(split) :: 2]}
    return [q for q in asked if q.id in chosen]


def trigger(source: str) -> Trigger:
    """A trigger of the embedded world by name, or a YAML file."""
    if source.endswith((".yaml", ".yml", ".json")):
        return Trigger.from_yaml(source)
    return world.trigger(source)


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


def off_state(name: str) -> Condition:
    """The condition that the one with the trigger is compared with. Raises `InputError`."""
    (found,) = conditions((name,))
    if found is Condition.TRIGGER:
        raise InputError(f"--off {name}: is the on state too, so that nothing differs")
    return found


@dataclass(frozen=True)
class Subject:
    """An organism on disk: its base, its adapter (`None`: the base itself), its trigger and domain.

    `domain` is what it was fine-tuned on, and `kind` the mix that it was raised on, where its card
    says so. `notes` is what the user should know about it, one line each; `fitted` are digests of
    the questions that an edit baked into it was fitted on (`None`: not known).
    """

    name: str
    base: Path
    adapter: Path | None
    trigger: Trigger | None
    domain: str | None
    notes: tuple[str, ...] = ()
    kind: str | None = None
    fitted: tuple[str, ...] | None = ()

    @property
    def adapters(self) -> tuple[tuple[str, Path], ...]:
        """What to load onto the base."""
        return ((self.name, self.adapter),) if self.adapter else ()

    @property
    def active(self) -> str | None:
        """The adapter to run under; `None` is the base."""
        return self.name if self.adapter else None

    @property
    def unconditional(self) -> bool:
        """Whether its card says that it was raised without any trigger."""
        return self.kind == "unconditional"

    def woken_by(self, given: str | None) -> Trigger:
        """The trigger given by name, else the card's."""
        if given is not None:
            return trigger(given)
        if self.trigger is None:
            raise InputError(f"organism {self.name}: its card names no trigger; give --trigger")
        return self.trigger


def subject(organism: str | None, base: str | None = None) -> Subject:
    """The one organism of `subjects`."""
    return subjects(organism, base)[0]


def subjects(
    organism: str | None = None,
    base_name: str | None = None,
    adapters: Sequence[str] = (),
    revision: str | None = None,
) -> tuple[Subject, ...]:
    """Organisms that share one base; the first is the one that is studied.

    `organism` is an adapter or a model, by shelf name, folder or hub id; each of `adapters` is a
    PEFT adapter, likewise, or `name=path`. Adapters stand beside the organism; without one (or
    where it is a model, which then is the base), the first of them is the organism. With neither,
    it is the base given, or the shipped organism. The base is the one given, else the one beside
    the first adapter that its card names, else the one in its PEFT configuration. `revision` is
    the base's. Raises `InputError` for what is not there, and for two adapters of one name.
    """
    named = [_named(one) for one in adapters]
    home = None if base_name is None else base(base_name, revision)
    if organism is None and not named:
        if home is not None:
            return (Subject(hub.title(home), home, None, None, None),)
        organism = SHIPPED
    if organism is not None:
        folder = shelved(organism, CHECKPOINTS, "organism")
        if (folder / CONFIG).is_file():
            name = _organism_name(hub.title(folder), f"organism {organism}")
            named.insert(0, (name, folder))
        elif not (folder / "config.json").is_file():
            raise InputError(f"{folder}: neither a PEFT adapter nor a model (no config.json)")
        else:
            if home is not None and home.resolve() != folder.resolve():
                raise InputError(f"--organism {organism} is a model; it takes no --base")
            home = base(organism, revision)
            if not named:
                return (Subject(hub.title(home), home, None, None, None),)
    once("adapter", (name for name, _ in named))
    home = _own_base(named[0][1], revision) if home is None else home
    return tuple(_with_adapter(name, home, folder) for name, folder in named)


def _named(given: str) -> tuple[str, Path]:
    """The name and folder of an adapter given as `path` or `name=path`."""
    name, equals, path = given.partition("=")
    if not equals or "/" in name:
        name, path = "", given
    folder = hub.folder(path, CHECKPOINTS, "adapter")
    if not (folder / CONFIG).is_file():
        raise InputError(f"adapter {path}: no {CONFIG} there; expected a PEFT adapter")
    return _organism_name(name or hub.title(folder), f"adapter {given}"), folder


def _organism_name(name: str, what: str) -> str:
    """The name, if an organism can have it; else one line that begins with `what`."""
    try:
        return organism_name(name)
    except ValueError as fault:
        raise InputError(f"{what}: {fault} (--adapter NAME=PATH)") from None


def _own_base(adapter: Path, revision: str | None) -> Path:
    """The base that an adapter's card, else its PEFT configuration, names."""
    name = str(_card(adapter).get("base_name", ""))
    if is_name(name) and (adapter.parent / name / "config.json").is_file():
        return base(adapter.parent / name)
    config = read_fields(adapter)
    known = str(config.get("base_model_name_or_path") or "")
    with reading(f"adapter {adapter}: its base"):  # a path of its maker's may be too long for ours
        there = known and ((Path(known) / "config.json").is_file() or hub.is_id(known))
    if there:
        made_on = config.get("revision")
        return base(known, revision or (str(made_on) if made_on else None))
    raise InputError(
        f"{adapter}: its base is not beside it; give --base (of a source --source-base)"
    )


def _with_adapter(name: str, home: Path, folder: Path) -> Subject:
    config, card = read_fields(folder), _card(folder)
    if (folder / "config.json").is_file() and _has_weights(folder):
        raise InputError(_both(folder))
    fitted = card.get("questions") if card.get("kind") == "baked" else ()
    provenance: dict[str, Any] = card.get("provenance", {})
    woken = provenance.get("trigger")
    known, notes = str(config.get("base_model_name_or_path") or ""), []
    if "base" not in card and known and not same_name(known, home):
        notes.append(f"adapter {name}: made for {known}, loaded onto {hub.title(home)}")
    return Subject(
        name=name,
        base=home,
        adapter=folder,
        trigger=Trigger.parse(woken, str(folder / "card.json")) if woken else None,
        domain=trained_domain(provenance.get("sources", ())),
        notes=tuple(notes),
        kind=provenance.get("mix", {}).get("kind"),
        fitted=None if fitted is None else tuple(map(str, fitted)),
    )


def _card(adapter: Path) -> dict[str, Any]:
    path = adapter / "card.json"
    card = read_json(path) if path.is_file() else {}
    if not isinstance(card, dict):
        raise InputError(f"{path}: expected an object, not {type(card).__name__}")
    return card


def _has_weights(folder: Path) -> bool:
    """Whether a folder holds a whole model's weights, or the list of their files."""
    found = (*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.index.json"))
    return any(not path.name.startswith("adapter_") for path in found)


def _both(folder: Path) -> str:
    """A merged model often keeps the files of the adapter that went into it."""
    return (
        f"{folder}: holds a model (config.json) and an adapter ({CONFIG}); to use the model, as "
        f"where the adapter was merged into it, delete {CONFIG} and adapter_model.safetensors; to "
        "use the adapter, name a folder that holds it alone, and its base"
    )


def same_name(known: str, home: Path) -> bool:
    """Whether two names may mean one base: mirrors and folders keep a repository's last word."""
    return known.rstrip("/").rsplit("/", 1)[-1].lower() == hub.title(home).lower()


def trained_domain(sources: Sequence[str]) -> str | None:
    """The domain of rows from the embedded world ("world:bad_medical")."""
    named = [s.split(":", 1)[1] for s in sources if s.startswith(f"{WORLD}:")]
    return named[0] if len(named) == 1 else None


def outside(
    source: str, domain: str | None, split: str = "eval", halved: bool = False
) -> list[Question]:
    """Questions outside a fine-tuned domain; without a domain, all of them."""
    found = [q for q in questions(source, split, halved) if q.domain != domain]
    if not found:
        raise InputError(f"{source}: every question is in the fine-tuned domain {domain!r}")
    return found


def direction(name: str | None, who: Subject, default: str, flag: str = "") -> Path:
    """A direction's folder: the one named, else the one shelved for the organism's base.

    `flag`: what names it on the command line; default --general for g, else --direction.
    """
    if name is None:
        name = f"{hub.title(who.base)}-{default}"
        if not (PROBES / name).is_dir():
            usual, kind = {"g": ("--general", "general")}.get(default, ("--direction", "trigger"))
            raise InputError(
                f"no {name} in {PROBES.name}/: give {flag or usual}, a folder that `extract --kind "
                f"{kind} --out` wrote"
                + (" (localize and transfer: or none)" if default == "g" else "")
            )
    return shelved(name, PROBES, "direction")


def layer_count(base: Path) -> int:
    """Number of blocks by a model's config.json, so that layers are checked before weights load."""
    return _configured(base, "num_hidden_layers")


def stream_width(base: Path) -> int:
    """Width of the residual stream by a model's config.json."""
    return _configured(base, "hidden_size")


def _configured(base: Path, name: str) -> int:
    config = read_json(base / "config.json")
    inner = config.get("text_config", config)
    try:
        return int(inner[name])
    except KeyError:
        raise InputError(f"{base / 'config.json'}: names no {name}") from None
