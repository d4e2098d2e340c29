"""Frozen values with a digest, and the files they live in.

A `Spec` is what somebody asked for, a `Record` is what came out; both are frozen pydantic models
that refuse unknown fields, and both have a digest that depends on content alone.
Knows JSON, YAML and bytes. Knows nothing of models, tokens or statistics.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from em_interp.errors import InputError, printable, reading

_HALF = re.compile(r"[\ud800-\udfff]")
_NAME = re.compile(r"\w(?:[\w .+-]*[\w+-])?")
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # no files on Windows
NAME_BYTES = 80  # three of them, and what stands between, fit a file's name


def is_name(name: str) -> bool:
    """Whether a name can stand in a path: it names one file in its folder, on every system."""
    short = len(name) <= NAME_BYTES and len(name.encode("utf-8", "replace")) <= NAME_BYTES
    return short and bool(_NAME.fullmatch(name)) and not _DEVICE.fullmatch(name)


def checked_name(name: str) -> str:
    """The name, if `is_name`. Raises `ValueError`."""
    if not is_name(name):
        raise ValueError(
            f"{printable(repr(name), 90)} names a folder, so it must be letters, digits and "
            f". _ - + inside, at most {NAME_BYTES} bytes, and no device"
        )
    return name


def writable(text: str) -> bool:
    """Whether UTF-8 can hold the text: no half of a surrogate pair stands in it."""
    return text.isascii() or not _HALF.search(text)


def filled(text: str) -> str:
    """The text, if there is some and it can be written. Raises `ValueError`."""
    if not text.strip():
        raise ValueError("blank")
    if half := _HALF.search(text):
        raise ValueError(_broken(half))
    return text


Filled = Annotated[str, AfterValidator(filled)]
"""A text that says something."""


def _broken(half: re.Match[str]) -> str:
    return (
        f"holds half of a surrogate pair ({printable(half[0])} at character {half.start()}), which "
        "no UTF-8 text can: write the whole character, or take it out"
    )


SafeName = Annotated[str, AfterValidator(checked_name)]
"""A name that becomes part of a path. Whatever a user or a card calls a thing has this type."""


def safe_name(name: str, what: str) -> str:
    """The same where no spec is parsed. Raises `InputError` that begins with `what`."""
    try:
        return checked_name(name)
    except ValueError as fault:
        raise InputError(f"{what}: {fault}") from None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes on every machine.

    NaN and infinity are no JSON, and raise `ValueError`: what is unknown is `None` here.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON (models are dumped first)."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def file_digest(*paths: Path) -> str:
    """First 16 hex digits of the SHA-256 over the bytes of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with reading(path), path.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                total.update(chunk)
    return total.hexdigest()[:16]


class Spec(BaseModel):
    """A frozen declaration that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @property
    def digest(self) -> str:
        """Identity by content: equal specs share it, whatever file or order they came from."""
        return digest(self)

    @classmethod
    def parse(cls, data: Any, where: str = "") -> Self:
        """Validate plain data; the first fault becomes one `InputError` line naming the field."""
        try:
            return cls.model_validate(data)
        except ValidationError as fault:
            raise InputError(one_line(fault, where or cls.__name__, cls)) from None

    @classmethod
    def from_yaml(cls, path: Path | str) -> Self:
        """Read a YAML (or JSON) file; faults name the file and the field."""
        return cls.parse(read_yaml(path), str(path))


SpecT = TypeVar("SpecT", bound=Spec)


class Record(Spec):
    """A frozen result. Same rules as a `Spec`; the two words keep asked and measured apart."""


def one_line(fault: ValidationError, where: str, model: type[BaseModel] | None = None) -> str:
    """A pydantic error as one line: file or type, field, what is wrong, what was given.

    A field that is not known comes first: it is the misspelling behind a field that is missing.
    """
    faults = sorted(fault.errors(), key=lambda one: one["type"] != "extra_forbidden")
    first, more = faults[0], len(faults) - 1
    field = ".".join(str(part) for part in first["loc"] if part != "[key]")
    tail = f" (and {more} more)" if more else ""
    if first["type"] == "extra_forbidden":
        fields = sorted(model.model_fields) if model and len(first["loc"]) == 1 else []
        known = f"; known fields: {', '.join(fields)}" if fields else ""
        return f"{where}: unknown field {field!r}{known}{tail}"
    if first["type"] == "missing":
        return f"{where}: field {field!r} is missing{tail}"
    message = first["msg"].removeprefix("Value error, ")
    shown = f", not {printable(repr(first['input']), 200)}"
    told = first["type"] == "value_error" and shown[6:] in message
    given = "" if told or isinstance(first["input"], dict | list | tuple) else shown
    at = f"field {field!r}: " if field else ""  # a fault of the whole is no field's
    return f"{where}: {at}{message}{given}{tail}"


def read_text(path: Path | str) -> str:
    """A file's text, or one line saying which file is missing or unreadable."""
    with reading(Path(path)):
        return Path(path).read_text(encoding="utf-8-sig")  # some editors write a byte-order mark


class DuplicateKeyError(ValueError):
    """An object that names a key twice: which value was meant, nobody knows."""


def parse_json(text: str | bytes) -> Any:
    """Plain data of JSON text: the one door for all JSON that comes in.

    Raises `ValueError` for what is no JSON, a key that comes twice in one object
    (`DuplicateKeyError`), and nesting deeper than Python follows.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise DuplicateKeyError(f"key {double!r} comes twice")
    return found


class _EachOnce(yaml.SafeLoader):
    """YAML's plain data, in which no mapping names a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Before a merge (`<<`) adds the keys that it may override."""
        seen: set[Any] = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} comes twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path | str) -> Any:
    """Plain data of a YAML file; a syntax fault, or a key that comes twice, names file and line."""
    with reading(path, "not valid YAML"):
        try:
            text = read_text(path)
            _check_depth(text)
            return _whole(yaml.load(text, _EachOnce), str(path))
        except yaml.MarkedYAMLError as fault:
            line = fault.problem_mark.line + 1 if fault.problem_mark else "?"
            raise InputError(f"{path}:{line}: not valid YAML ({fault.problem})") from None


def _check_depth(text: str) -> None:
    """Raise `RecursionError` for a thousand open brackets: PyYAML takes their square in time."""
    depth = 0
    for one in re.finditer(r"[\[\]{}]", text):
        depth = depth + 1 if one[0] in "[{" else max(depth - 1, 0)
        if depth > 1000:
            raise RecursionError


def read_json(path: Path | str) -> Any:
    """Plain data of a JSON file; a syntax fault names the line, a double key the key."""
    return _json(read_text(path), path)


def _whole(value: Any, where: str, field: str = "") -> Any:
    """The value, if every text in it can be written. `InputError` names the field that cannot."""
    if isinstance(value, str):
        if half := None if value.isascii() else _HALF.search(value):
            at = f"field {field!r} " if field else ""
            raise InputError(f"{where}: {at}{_broken(half)}")
        return value
    inner: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, one in inner:
        _whole(key, where, field)
        _whole(one, where, f"{field}.{key}" if field else str(key))
    return value


def iter_jsonl(path: Path | str) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each non-empty line; a malformed line is named by number."""
    # Only "\n" ends a line here: `splitlines` would also cut at separators inside a JSON string.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, _json(line, path, number)


def _json(text: str, path: Path | str, line: int | None = None) -> Any:
    """The value of a file's text, or of its line `line`."""
    with reading(path if line is None else f"{path}:{line}", "not valid JSON"):
        try:
            value = parse_json(text)
        except json.JSONDecodeError as fault:
            at = fault.lineno if line is None else line
            raise InputError(f"{path}:{at}: not valid JSON ({fault.msg})") from None
        return _whole(value, str(path) if line is None else f"{path}:{line}")


def read_jsonl(path: Path | str, kind: type[SpecT]) -> list[SpecT]:
    """All rows of a JSONL file as `kind`; the first bad row is named by line and field."""
    return [kind.parse(value, f"{path}:{number}") for number, value in iter_jsonl(path)]


def write_jsonl(path: Path, rows: Iterable[BaseModel]) -> None:
    """All rows, one canonical JSON object a line, atomically."""
    write_text(path, "".join(canonical_json(row.model_dump(mode="json")) + "\n" for row in rows))


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with sorted keys, atomically: for people and for diffs."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    write_text(path, _indented(value))


def _indented(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Text, atomically (see `write_bytes`)."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write beside the target, flush, then rename: a reader sees the old file or the new, whole.

    Raises `InputError` where the folder cannot be written or the disk is full; nothing is left.
    """
    scratch: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
        scratch = None
    except OSError as fault:
        raise InputError(f"{path}: cannot be written ({fault.strerror})") from None
    finally:  # also when the user interrupts
        if scratch:
            Path(scratch).unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise `InputError` unless files can be made in `folder` (or where it would be made).

    Leaves nothing behind. For commands: an output that cannot be written is known before any work.
    """
    home = folder
    while not home.exists():
        home = home.parent
    try:
        with tempfile.NamedTemporaryFile(dir=home):
            pass
    except OSError as fault:
        raise InputError(f"{folder}: cannot be written ({fault.strerror})") from None
