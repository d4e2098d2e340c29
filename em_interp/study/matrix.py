"""A study file, or a matrix of studies in one file: common fields, and axes of options.

    matrix:
      model: {small: {base: llama}, large: {base: some/model}}
      domain: {medical: {data: {harmful: "{data}/bad_medical.jsonl"}}}

A cell takes one option of each axis, in the order of the axes; an option's fields are laid over the
common ones, mapping by mapping. Knows plain data. Knows nothing of what the fields mean.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from em_interp.errors import InputError, unknown
from em_interp.records import read_yaml, safe_name
from em_interp.study.spec import StudySpec

Cell = tuple[str, ...]
CONTAINMENT, TRANSFER = "containment", "transfer"


def kind_of(file: Path) -> str:
    """What a file declares by its field `kind`: a containment study where it says nothing.

    Raises `InputError` for an unknown kind.
    """
    kind = str(_raw(file).get("kind", CONTAINMENT))
    if kind not in (CONTAINMENT, TRANSFER):
        raise unknown("kind", kind, (CONTAINMENT, TRANSFER), where=str(file))
    return kind


def cells(file: Path) -> list[Cell]:
    """Every cell of a matrix in order; of a plain study the empty one."""
    return list(itertools.product(*_axes(file, _plain(file)).values()))


def declared(file: Path, cell: Cell) -> StudySpec:
    """The study of a cell (of a plain file: the empty cell).

    Raises `InputError` for a cell that the file does not have, naming the options.
    """
    plain = _plain(file)
    axes = _axes(file, plain)
    plain.pop("matrix", None)
    if len(cell) != len(axes):
        raise InputError(f"{file}: {_how(axes)}")
    for (axis, options), chosen in zip(axes.items(), cell, strict=True):
        if chosen not in options:
            raise unknown(axis, chosen, options, where=str(file))
        plain = _over(plain, options[chosen] or {})
    if cell:
        plain["title"] = f"{plain.get('title', '')}: {', '.join(cell)}"
    return StudySpec.parse(plain, "/".join([str(file), *cell]))


def _plain(file: Path) -> dict[str, Any]:
    plain = _raw(file)
    plain.pop("kind", None)
    return plain


def _raw(file: Path) -> dict[str, Any]:
    found = read_yaml(file)
    if not isinstance(found, dict):
        raise InputError(f"{file}: a study is a mapping of fields")
    return found


def _axes(file: Path, plain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    axes = plain.get("matrix", {})
    whole = isinstance(axes, dict) and all(isinstance(one, dict) and one for one in axes.values())
    if not whole:
        raise InputError(f"{file}: field 'matrix': axes map options to fields")
    for axis, options in axes.items():
        for option in options:  # cells name run folders
            safe_name(str(option), f"{file}: field 'matrix.{axis}'")
    return dict(axes)


def _how(axes: dict[str, dict[str, Any]]) -> str:
    if not axes:
        return "is one study, not a matrix; leave --cell out"
    options = "; ".join(f"{axis}: {', '.join(some)}" for axis, some in axes.items())
    return f"is a matrix of studies; name one with --cell {','.join(axes).upper()} ({options})"


def _over(under: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in patch.items():
        below = merged.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = _over(below, value) if both else value  # type: ignore[arg-type]
    return merged


def names(file: Path) -> Iterator[str]:
    """The cells as `--cell` takes them."""
    return (",".join(cell) for cell in cells(file))
