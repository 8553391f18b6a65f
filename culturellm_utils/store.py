"""A small key-value store on disk for what must not be paid for or computed twice.

One SQLite file, safe for several processes at once; what is put is on disk before ``put`` returns.

>>> Store(paths.cache() / "chat.sqlite").put({"9f2c...": b"{...}"})
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from culturellm_utils import paths
from culturellm_utils.errors import UserError


class Store:
    """Bytes by text key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as database:
            database.execute("CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value BLOB NOT NULL)")

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values that are there, by key."""
        found: dict[str, bytes] = {}
        keys = list(keys)
        with self._open() as database:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                found.update(database.execute(f"SELECT key, value FROM items WHERE key IN ({marks})", part))
        return found

    def put(self, items: Mapping[str, bytes]) -> None:
        """Store values; a key that is there keeps its first value."""
        with self._open() as database:
            database.executemany("INSERT OR IGNORE INTO items VALUES (?, ?)", items.items())

    def remove(self, keys: Iterable[str]) -> None:
        """Forget values."""
        with self._open() as database:
            database.executemany("DELETE FROM items WHERE key = ?", [(key,) for key in keys])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Commit when all went well, close in any case."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                database.execute("PRAGMA journal_mode=WAL")
                yield database
        except (sqlite3.DatabaseError, OSError) as error:
            raise UserError(f"{paths.shown(self.path)} cannot be used as a cache ({error}); remove it and rerun "
                            "or set CULTURELLM_CACHE to another folder") from None
