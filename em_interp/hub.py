"""Names become folders: a shelf name, a directory, or a repository on the Hugging Face hub.

A hub repository is a folder as well: the snapshot of one commit in the local cache, of which the
small files come at once and the weights when they are needed. So nothing else here knows hubs.
Knows names and files. Knows nothing of models.
"""

import re
from pathlib import Path

from em_interp.errors import InputError, cause, reading, unknown
from em_interp.records import read_json

SMALL = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
WEIGHTS = ("*.safetensors",)
# Files that may name code, and what names a kernel to fetch and run.
NAMING = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)
ATTENTION = ("attn_implementation", "_attn_implementation")
_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[^@]+))?")


def folder(name: str | Path, shelf: Path, what: str, revision: str | None = None) -> Path:
    """A folder by path, by its name on a shelf, or by hub id (`org/name`, `org/name@revision`).

    Of a hub repository only configuration and tokenizer are fetched; see `complete`. Raises
    `InputError` for a name that is none of these.
    """
    with reading(f"{what} {name}"):  # a name may be too long for a path, or its folder closed
        if Path(name).is_dir():
            return Path(name)
        if (shelf / name).is_dir():
            return shelf / name
    if found := _ID.fullmatch(str(name)):
        return _snapshot(found["repo"], found["revision"] or revision, SMALL, f"{what} {name!r}")
    if "/" in str(name):
        raise InputError(f"{what} {name}: no such directory")
    there = sorted(p.name for p in shelf.glob("*") if p.is_dir()) if shelf.is_dir() else []
    raise unknown(what, name, there, where=f"{shelf.name}/")


def is_id(name: str) -> bool:
    """Whether a name has the form of a hub id."""
    return _ID.fullmatch(name) is not None


def complete(home: Path) -> None:
    """Fetch the weights of a hub snapshot whose small files are there; other folders are whole."""
    if repo := repository(home):
        _snapshot(repo, home.name, (*SMALL, *WEIGHTS), f"the weights of {repo!r}")


def check_no_code(home: str | Path) -> None:
    """Raise `InputError` for a folder whose files name code to run: classes, kernels of the hub."""
    for name in NAMING:
        if (path := Path(home) / name).is_file():
            found = read_json(path)
            plain = found if isinstance(found, dict) else {}
            parts = [plain, *(one for one in plain.values() if isinstance(one, dict))]
            if own := next((one["auto_map"] for one in parts if one.get("auto_map")), None):
                raise InputError(
                    f"{path}: names code of its own (auto_map: {own}), which is never run; if "
                    "transformers' own class computes the same, take auto_map out of a copy"
                )
            kernels = (str(one.get(key, "")) for one in parts for key in ATTENTION)
            if kernel := next((one for one in kernels if "/" in one), None):
                raise InputError(
                    f"{path}: names a kernel of the hub ({kernel}), which is never run; "
                    "take attn_implementation out of a copy"
                )


def title(home: Path) -> str:
    """What people call a folder: its name, or that of the repository it is a snapshot of."""
    repo = repository(home)
    if repo:
        return repo.rsplit("/", 1)[-1]
    return home.name if home.name not in ("", "..") else home.resolve().name


def repository(home: Path) -> str | None:
    """The hub id of a cache folder (models--ORG--NAME/snapshots/COMMIT), else `None`."""
    cache = home.parent.parent.name
    if home.parent.name != "snapshots" or not cache.startswith("models--"):
        return None
    return cache.removeprefix("models--").replace("--", "/")


def _snapshot(repo: str, revision: str | None, files: tuple[str, ...], what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision {revision!r}" if revision else ""
    try:
        with reading(f"{what}{at}", "cannot be fetched", passing=(HfHubHTTPError, OSError)):
            return Path(snapshot_download(repo, revision=revision, allow_patterns=list(files)))
    except GatedRepoError:
        why = "the hub asks for its licence to be accepted, and for a login (`hf auth login`)"
    except RepositoryNotFoundError:
        why = "neither a directory here nor a repository of the hub"
    except RevisionNotFoundError:
        why = "the hub's repository has no such revision"
    except LocalEntryNotFoundError:
        why = "neither a directory nor in the local cache, and the hub cannot be reached"
    except (HfHubHTTPError, OSError) as fault:
        why = cause(fault)
    raise InputError(f"{what}{at}: {why}") from None
