"""A small key-value store on disk for what must not be paid for or computed twice.

One SQLite file, safe for several processes at once; what is put is on disk before ``put`` returns.

>>> Store(paths.cache() / "chat.sqlite").put({"9f2c...": b"{...}"})
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

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
    def alone(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold a lock that one process or thread at a time has; ``waiting`` is called when another has it."""
        lock = FileLock(self.path.with_name(f"{name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Commit when all went well, close in any case. The plain rollback journal: switching to a write-ahead log may
        fail at once when two processes do, and needs shared memory, which network disks lack."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as database, database:
                yield database
        except (sqlite3.DatabaseError, OSError) as error:
            broken = re.search("not a database|malformed", str(error))
            raise UserError(f"{paths.shown(self.path)} cannot be used as a cache ({error}); "
                            f"{'remove it and rerun, or' if broken else 'mend that and rerun, or'} "
                            "set CULTURELLM_CACHE to another folder") from None
