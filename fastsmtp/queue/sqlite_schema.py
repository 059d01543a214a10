"""The tables of one SQLite database, and how they become what this version needs.

A message and its items share one line of numbers: message M has the items M, M + 1, ... as many as it has
destinations. So the items of a message are a range of the primary key, and need no index of their own. Numbers are
microseconds of the clock, so that a number is not used again, even when all that is younger was deleted.

Each partial index holds only the items of its states. An item that is taken leaves ``ready`` and enters ``waiting``;
one that is held or dead is in neither, so any number of dead letters costs consumers nothing.
"""

from __future__ import annotations

from typing import Final

# Script N brings a database from version N to N + 1; `PRAGMA user_version` says which one it has.
MIGRATIONS: Final = (
    """
    CREATE TABLE shard (name TEXT NOT NULL);
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        items INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        sender TEXT NOT NULL,
        size INTEGER NOT NULL,
        file TEXT,
        content BLOB
    );
    CREATE TABLE items (
        id INTEGER PRIMARY KEY,
        message INTEGER NOT NULL,
        destination TEXT NOT NULL,
        recipients TEXT NOT NULL,
        state INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        accepted_at REAL NOT NULL,
        due REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        token INTEGER,
        reason TEXT,
        notes TEXT
    );
    CREATE INDEX ready ON items (destination, rank, due) WHERE state = 0;
    CREATE INDEX waiting ON items (due) WHERE state IN (1, 2);
    """,
)

# The head of the statement, and a row of it: one statement takes many.
INSERT_MESSAGES: Final = ("INSERT INTO messages VALUES ", "(?, ?, ?, ?, ?, ?, ?)")
INSERT_ITEMS: Final = (
    "INSERT INTO items (id, message, destination, recipients, state, rank, accepted_at, due) VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?)",
)
LAST_NUMBER: Final = "SELECT id + items FROM messages ORDER BY id DESC LIMIT 1"

# A lease that ran out is a failed attempt: a message that kills its consumers must not do so for ever.
# So many at a time: whoever puts mail in meanwhile waits for the end of it.
WAKE: Final = """
    UPDATE items SET state = 0, attempts = attempts + (state = 2),
        reason = CASE state WHEN 2 THEN 'the consumer died, or lost its lease' ELSE reason END
    WHERE id IN (SELECT id FROM items WHERE state IN (1, 2) AND due <= ? ORDER BY due LIMIT 1000)
"""
NEXT_DUE: Final = "SELECT min(due) FROM items WHERE state IN (1, 2)"
FIRST_DESTINATION: Final = "SELECT min(destination) FROM items WHERE state = 0"
NEXT_DESTINATION: Final = "SELECT min(destination) FROM items WHERE state = 0 AND destination > ?"
TAKE: Final = """
    UPDATE items SET state = 2, due = ?, token = ?
    WHERE id IN (SELECT id FROM items WHERE state = 0 AND destination = ? ORDER BY rank, due LIMIT ?)
    RETURNING id, message, recipients, accepted_at, attempts, reason, notes
"""
MESSAGE: Final = "SELECT message_id, sender, size, file, content FROM messages WHERE id = ?"

FINISH: Final = "DELETE FROM items WHERE id = ? AND token = ? RETURNING message"
DROP: Final = "DELETE FROM items WHERE id = ? RETURNING message"
# Once the last of its items is gone.
DELETE_MESSAGE: Final = """
    DELETE FROM messages WHERE id = :id
        AND NOT EXISTS (SELECT 1 FROM items WHERE id >= :id AND id < :id + messages.items)
    RETURNING file
"""
CHANGE: Final = """
    UPDATE items SET state = ?, due = coalesce(?, due), attempts = attempts + 1, token = NULL, reason = ?,
        recipients = coalesce(?, recipients), notes = ?
    WHERE id = ? AND token = ?
"""
EXTEND: Final = "UPDATE items SET due = ? WHERE id = ? AND token = ? AND state = 2"
# No attempt: nobody had it.
PUT_OFF: Final = "UPDATE items SET state = 1, due = ?, token = NULL, reason = ? WHERE id = ? AND token = ?"
GIVE_BACK: Final = "UPDATE items SET state = 0, token = NULL WHERE id = ? AND token = ? AND state = 2"

STATS: Final = "SELECT state, count(*), min(accepted_at) FROM items GROUP BY state"
SUMMARY: Final = """
    SELECT items.id, message_id, state, destination, sender, recipients, size, accepted_at, due, attempts, reason, notes
    FROM items JOIN messages ON messages.id = items.message
"""
CONTENT: Final = "SELECT file, content FROM messages WHERE id = (SELECT message FROM items WHERE id = ?)"
