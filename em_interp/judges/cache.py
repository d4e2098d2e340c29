"""Every reply that a judge model gave, by the content of the request: asked once, kept for good.

One SQLite file in write-ahead mode. A reply is stored before it is counted, each in a transaction
of its own, so a kill loses none and two processes may share the file. Only what reads back as the
same reply is stored, sealed; a row that does not read (another version's, a damaged one) is as good
as none: its request is asked again, and the row replaced. The file holds digests and replies, never
a prompt and never a key.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from em_interp.endpoints.replies import Reply
from em_interp.errors import InputError
from em_interp.records import Spec, SpecT, canonical_json, digest, parse_json

VARIABLE = "EM_INTERP_CACHE"
TABLES = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS forms (key TEXT PRIMARY KEY, form TEXT NOT NULL) WITHOUT ROWID;
"""
SEAL = "seal"
BATCH = 500  # keys in one query


def default_path() -> Path:
    """EM_INTERP_CACHE, else the user's cache folder."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "em_interp" / "judgements.sqlite"


def key(**request: Any) -> str:
    """Identity of a request by everything that can change its answer."""
    return hashlib.sha256(canonical_json(request).encode()).hexdigest()


class Cache:
    """`with Cache(path) as cache:`; raises `InputError` where the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit; another process may hold the lock for the moment of a write.
            self._base = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._base.text_factory = bytes  # a text that is no UTF-8 costs its row, not the query
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")  # outlives a kill of the process
            self._base.executescript(TABLES)
        except (OSError, sqlite3.Error) as fault:
            raise InputError(f"{self.path}: cannot be used as a cache ({fault})") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._base.close()

    def replies(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The replies that are known and can be read, by key."""
        wanted, found = list(keys), dict[str, Reply]()
        for start in range(0, len(wanted), BATCH):
            some = wanted[start : start + BATCH]
            marks = ",".join("?" * len(some))
            rows = self._run(f"SELECT key, reply FROM replies WHERE key IN ({marks})", some)
            for name, text in rows:
                if (reply := _read(name.decode(), Reply, text)) is not None:
                    found[name.decode()] = reply
        return found

    def put(self, key: str, reply: Reply) -> bool:
        """Keep a reply; whether it is kept: one that does not read back as itself is not.

        The first one that can be read stays: two processes that asked the same agree.
        """
        text = _written(key, reply)
        if text is None:
            return False
        rows = self._run("SELECT reply FROM replies WHERE key = ?", [key])
        damaged = bool(rows) and _read(key, Reply, rows[0][0]) is None
        verb = "REPLACE" if damaged else "IGNORE"
        self._run(f"INSERT OR {verb} INTO replies VALUES (?, ?)", [key, text])
        return True

    def form(self, key: str, kind: type[SpecT]) -> SpecT | None:
        """How a model wants to be asked, as it was negotiated before; `None` if never."""
        rows = self._run("SELECT form FROM forms WHERE key = ?", [key])
        return _read(key, kind, rows[0][0]) if rows else None

    def put_form(self, key: str, form: Spec) -> None:
        """Keep what was negotiated."""
        self._run("INSERT OR REPLACE INTO forms VALUES (?, ?)", [key, _written(key, form) or ""])

    def _run(self, query: str, values: list[str]) -> list[Any]:
        """All rows of a query; a full disk or a damaged file is one line."""
        try:
            return self._base.execute(query, values).fetchall()
        except sqlite3.Error as fault:
            raise InputError(f"{self.path}: cannot be used as a cache ({fault})") from None


def _written(key: str, value: Spec) -> str | None:
    """A value as sealed JSON that reads back as that very value; `None` where there is none."""
    plain = value.model_dump(mode="json")
    try:
        text = canonical_json({**plain, SEAL: digest([key, plain])})
        text.encode()  # half of a surrogate pair is no text
    except ValueError:
        return None
    return text if _read(key, type(value), text) == value else None


def _read(key: str, kind: type[SpecT], text: Any) -> SpecT | None:
    """What a row holds; `None` where it cannot be read as that, or is not what was written.

    Rows of earlier versions carry no seal, and are taken as they are.
    """
    try:
        plain = parse_json(text)
        given = plain.pop(SEAL, None) if isinstance(plain, dict) else None
        if given is not None and given != digest([key, plain]):
            return None
        return kind.model_validate(plain)
    except (ValueError, TypeError):
        return None
