"""The queue's file: SQLite in WAL mode with ``synchronous=FULL``, so that what was committed survives a power cut.

    waiting --> held --> done | failed | cancelled
       ^          |
       +----------+        the holder gave it back, lost it, or was not seen for as long as a lease lasts

A file of another version is refused: nothing is guessed about jobs that somebody waits for.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final

from firmware_bridge.queue.errors import QueueFault

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = 1
BUSY_SECONDS: Final = 10.0
"""How long a transaction waits for another process's."""

_TABLES: Final = """
CREATE TABLE jobs (
    job_id     TEXT PRIMARY KEY,
    label      TEXT NOT NULL,
    kind       TEXT NOT NULL,
    params     BLOB NOT NULL,
    payload    BLOB NOT NULL,
    priority   INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 255),
    deadline   REAL,
    device     TEXT,
    bundle     TEXT,
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'held', 'done', 'failed', 'cancelled')),
    cancelling INTEGER NOT NULL DEFAULT 0,
    holder     TEXT,
    attempt    INTEGER NOT NULL DEFAULT 0,
    created    REAL NOT NULL,
    changed    REAL NOT NULL
) STRICT;
CREATE INDEX next_job ON jobs (priority DESC, job_id) WHERE state = 'waiting';
CREATE INDEX held_by ON jobs (holder) WHERE state = 'held';
CREATE TABLE outcomes (
    job_id  TEXT PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    code    INTEGER,
    message TEXT NOT NULL,
    meta    BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE devices (
    device_id TEXT PRIMARY KEY,
    board     TEXT NOT NULL,
    port      TEXT NOT NULL,
    bundle    TEXT,
    slots     INTEGER NOT NULL,
    seen      REAL NOT NULL
) STRICT;
"""


def open_database(path: Path) -> sqlite3.Connection:
    """The queue's file, made if it is not there. Transactions are begun by hand.

    Raises:
        QueueFault: it cannot be opened, is damaged, or belongs to another version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise QueueFault(f"the queue cannot be opened: {error}", where=str(path)) from error
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        _migrate(database, path)
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.Error):
            mend = "move the file away; its jobs are lost unless `sqlite3 FILE .recover` finds them"
            raise QueueFault(f"the queue's file is damaged: {error}", where=str(path), mend=mend) from error
        raise
    return database


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    database.execute("BEGIN IMMEDIATE")
    with contextlib.ExitStack() as undo:
        undo.callback(database.execute, "ROLLBACK")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in {0, VERSION}:
            raise QueueFault(
                f"the queue's file is of version {version}, this is version {VERSION}",
                where=str(path),
                mend="use the version of the kit that wrote it, or another file",
            )
        if version == 0:
            for statement in _TABLES.split(";\n"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {VERSION}")
        undo.pop_all()
        database.execute("COMMIT")
