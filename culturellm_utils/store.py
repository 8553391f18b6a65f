"""A small key-value store on disk for what must not be paid for or computed twice.

One SQLite file, safe for several processes at once; what is put is on disk before ``put`` returns.

>>> Store(paths.cache() / "chat.sqlite").put({"9f2c...": b"{...}"})
"""

import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from culturellm_utils import paths
from culturellm_utils.errors import UserError, remedy


class Store:
    """Bytes by text key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._room: IO[bytes] | None = None
        self._left = self._part = 0
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
        """Store values; a key that is there keeps its first value. Raises UserError when they cannot be stored, and
        also when that took of the room which :meth:`room` kept: the disk is full, and nothing more should be asked for.
        """
        try:
            self._put(items)
        except UserError:
            while items and self._give(len(items)):
                with suppress(UserError):  # something else may have been quicker to take what was given
                    self._put(items)
                    break
            raise

    def _give(self, parts: int) -> int:
        """Give so many parts of the kept room back to the disk; how many were left to give."""
        size, left = self._part, self._left
        self._left = max(0, left - parts)
        if self._room:
            self._room.truncate(size * self._left)
        return left

    def _put(self, items: Mapping[str, bytes]) -> None:
        with self._open() as database:
            database.executemany("INSERT OR IGNORE INTO items VALUES (?, ?)", items.items())

    @contextmanager
    def room(self, parts: int, size: int) -> Iterator[None]:
        """Keep ``parts`` times ``size`` bytes of the disk, a part for each value that may be put meanwhile, so that
        what was paid for can be stored whatever fills the disk. Raises UserError when there are not as many. The file
        has no name: no kill leaves it behind."""
        with paths.writing(self.path.parent):
            file = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
            try:
                for _ in range(parts):  # written, as a hole would keep nothing
                    file.write(bytes(size))
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                file.close()
                raise
        self._room, self._left, self._part = file, parts, size
        try:
            yield
        finally:
            self._room, self._left = None, 0
            file.close()

    def remove(self, keys: Iterable[str]) -> None:
        """Forget values."""
        with self._open() as database:
            database.executemany("DELETE FROM items WHERE key = ?", [(key,) for key in keys])

    @contextmanager
    def alone(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold a lock that one process or thread at a time has; ``waiting`` is called when another has it."""
        lock = FileLock(self.path.with_name(f"{name}.lock"))
        with paths.writing(self.path.parent):
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
            helps = "remove it and rerun" if broken else remedy(error) or "mend that and rerun"
            raise UserError(f"{paths.shown(self.path)} cannot be used as a cache ({paths.reason(error)}); {helps}, or "
                            "set CULTURELLM_CACHE to another folder") from None
