"""The tables in PostgreSQL, and how they become what this version needs.

They are in a schema of their own, ``fastsmtp``, and mean the same as those in SQLite (sqlite_schema.py). What is
different, and why:

* Content is in a table that is written once and never updated, so an update of an item does not copy it. It is stored
  without compression: mail with attachments does not get smaller, and the server's CPU is what a queue runs out of.
* Numbers come in blocks from a sequence, so that acceptors on many machines make keys without asking for each.
* Items are updated twice in their life, and deleted. The state is in the predicates of the indexes, so these updates
  are not heap-only; instead the table is narrow, has room for new versions on each page (fillfactor), and is vacuumed
  after some thousand changes, not after a share of a table that has been large once.
* What takes several statements is a function: one way over the network, and each statement in it sees what others have
  committed up to then.
"""

from __future__ import annotations

from typing import Final

# Any number that nobody else uses: who migrates holds this lock until the end of its transaction.
MIGRATION_LOCK: Final = 0x66617374736D7470
BLOCK: Final = 65536  # numbers that one acceptor takes at a time; a message has no more destinations than that

_TABLES: Final = f"""
    CREATE TABLE fastsmtp.shard (version integer NOT NULL, name text NOT NULL);
    CREATE SEQUENCE fastsmtp.numbers START {BLOCK} INCREMENT {BLOCK};

    CREATE TABLE fastsmtp.messages (
        id bigint PRIMARY KEY,
        items integer NOT NULL,
        message_id text NOT NULL,
        sender text NOT NULL,
        size bigint NOT NULL,
        content bytea NOT NULL
    ) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
            toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_threshold = 4000);
    ALTER TABLE fastsmtp.messages ALTER content SET STORAGE EXTERNAL;

    CREATE TABLE fastsmtp.items (
        id bigint PRIMARY KEY,
        message bigint NOT NULL,
        destination text COLLATE "C" NOT NULL,
        recipients text NOT NULL,
        state smallint NOT NULL,
        rank smallint NOT NULL,
        accepted_at double precision NOT NULL,
        due double precision NOT NULL,
        attempts integer NOT NULL DEFAULT 0,
        token bigint,
        reason text,
        notes text
    ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
            autovacuum_vacuum_cost_delay = 0);
    CREATE INDEX ready ON fastsmtp.items (destination, rank, due) WHERE state = 0;
    CREATE INDEX waiting ON fastsmtp.items (due) WHERE state IN (1, 2);
"""

_CLAIM: Final = """
    CREATE FUNCTION fastsmtp.claim(
        wanted integer, each integer, busy text[], working integer[], behind text, lease double precision, mark bigint
    ) RETURNS TABLE (
        item bigint, message_id text, destination text, sender text, recipients text, content bytea,
        accepted_at double precision, attempts integer, reason text, notes text
    ) LANGUAGE plpgsql AS $$
    #variable_conflict use_column
    DECLARE
        clock double precision := extract(epoch FROM clock_timestamp());
        place text COLLATE "C" := behind;
        wrapped boolean := false;
        room integer;
        taken bigint[] := '{}';
    BEGIN
        UPDATE fastsmtp.items SET state = 0, attempts = attempts + (state = 2)::integer,
            reason = CASE state WHEN 2 THEN 'the consumer died, or lost its lease' ELSE reason END
        WHERE id IN (
            SELECT id FROM fastsmtp.items WHERE state IN (1, 2) AND due <= clock
            ORDER BY due LIMIT 1000 FOR UPDATE SKIP LOCKED
        );
        FOR step IN 1..1000 LOOP
            EXIT WHEN cardinality(taken) >= wanted;
            place := (
                SELECT i.destination FROM fastsmtp.items i WHERE i.state = 0 AND i.destination > place
                ORDER BY i.destination LIMIT 1
            );
            IF place IS NULL OR (wrapped AND place > behind COLLATE "C") THEN
                EXIT WHEN wrapped;
                wrapped := true;
                place := (
                    SELECT i.destination FROM fastsmtp.items i WHERE i.state = 0 ORDER BY i.destination LIMIT 1
                );
                EXIT WHEN place IS NULL;
            END IF;
            room := least(
                each - coalesce(working[array_position(busy, place)], 0), wanted - cardinality(taken)
            );
            IF room > 0 THEN
                taken := taken || ARRAY(
                    SELECT i.id FROM fastsmtp.items i WHERE i.state = 0 AND i.destination = place
                    ORDER BY i.rank, i.due LIMIT room FOR UPDATE SKIP LOCKED
                );
            END IF;
        END LOOP;
        RETURN QUERY
            WITH leased AS (
                UPDATE fastsmtp.items SET state = 2, due = clock + lease, token = mark
                WHERE id = ANY (taken)
                RETURNING items.*
            )
            SELECT leased.id, m.message_id, leased.destination::text, m.sender, leased.recipients, m.content,
                leased.accepted_at, leased.attempts, leased.reason, leased.notes
            FROM leased JOIN fastsmtp.messages m ON m.id = leased.message
            ORDER BY array_position(taken, leased.id);
    END $$;
"""

# The lock on the message makes two consumers that finish its last two items come one behind the other: else each
# would see the other's item, and nobody would delete the content.
_REMOVE: Final = """
    CREATE FUNCTION fastsmtp.remove(keys bigint[], tokens bigint[]) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
    DECLARE
        gone bigint[];
        parents bigint[];
    BEGIN
        PERFORM 1 FROM fastsmtp.messages m
            WHERE m.items > 1 AND m.id IN (SELECT i.message FROM fastsmtp.items i WHERE i.id = ANY (keys))
            ORDER BY m.id FOR UPDATE;
        WITH removed AS (
            DELETE FROM fastsmtp.items i USING unnest(keys, tokens) AS done (id, token)
            WHERE i.id = done.id AND (done.token IS NULL OR i.token = done.token)
            RETURNING i.id, i.message
        )
        SELECT array_agg(removed.id), array_agg(DISTINCT removed.message) INTO gone, parents FROM removed;
        DELETE FROM fastsmtp.messages m WHERE m.id = ANY (parents) AND NOT EXISTS (
            SELECT 1 FROM fastsmtp.items i WHERE i.id >= m.id AND i.id < m.id + m.items
        );
        RETURN QUERY SELECT unnest(gone);
    END $$;
"""

# Script N brings a database from version N to N + 1; `fastsmtp.shard` says which one it has.
MIGRATIONS: Final = (_TABLES + _CLAIM + _REMOVE,)

VERSION: Final = "SELECT version, name FROM fastsmtp.shard"
PUT: Final = """
    WITH stored AS (
        INSERT INTO fastsmtp.messages
        SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::text[], $5::bigint[], $6::bytea[])
    )
    INSERT INTO fastsmtp.items (id, message, destination, recipients, state, rank, accepted_at, due)
    SELECT * FROM unnest(
        $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::smallint[], $12::smallint[],
        $13::float8[], $14::float8[]
    )
"""
NEXT_BLOCK: Final = "SELECT nextval('fastsmtp.numbers')"
CLAIM: Final = "SELECT * FROM fastsmtp.claim($1, $2, $3, $4, $5, $6, $7)"
NEXT_DUE: Final = """
    SELECT min(due) - extract(epoch FROM clock_timestamp())::float8 FROM fastsmtp.items WHERE state IN (1, 2)
"""
REMOVE: Final = "SELECT * FROM fastsmtp.remove($1::bigint[], $2::bigint[])"
CHANGE: Final = """
    UPDATE fastsmtp.items SET state = $1, due = coalesce($2, due), attempts = attempts + 1, token = NULL, reason = $3,
        recipients = coalesce($4, recipients), notes = $5
    WHERE id = $6 AND token = $7
"""
EXTEND: Final = """
    UPDATE fastsmtp.items i SET due = extract(epoch FROM clock_timestamp()) + $3
    FROM unnest($1::bigint[], $2::bigint[]) AS held (id, token)
    WHERE i.id = held.id AND i.token = held.token AND i.state = 2
    RETURNING i.id
"""
GIVE_BACK: Final = """
    UPDATE fastsmtp.items i SET state = 0, token = NULL
    FROM unnest($1::bigint[], $2::bigint[]) AS held (id, token)
    WHERE i.id = held.id AND i.token = held.token AND i.state = 2
"""
MOVE: Final = """
    UPDATE fastsmtp.items SET attempts = CASE state WHEN 4 THEN 0 ELSE attempts END, state = $1,
        due = extract(epoch FROM clock_timestamp())
    WHERE id = ANY ($2::bigint[]) AND state = ANY ($3::smallint[])
    RETURNING id
"""
STATS: Final = """
    SELECT state, count(*), min(accepted_at) FROM fastsmtp.items GROUP BY state
"""
SUMMARY: Final = """
    SELECT i.id, message_id, state, destination, sender, recipients, size, accepted_at, due, attempts, reason, notes
    FROM fastsmtp.items i JOIN fastsmtp.messages m ON m.id = i.message
"""
LS: Final = f"""
    {SUMMARY} WHERE ($1::smallint IS NULL OR state = $1) AND ($2::text IS NULL OR destination = $2)
    ORDER BY accepted_at, i.id LIMIT $3
"""
SHOW: Final = f"{SUMMARY} WHERE i.id = $1"
CONTENT: Final = "SELECT content FROM fastsmtp.messages WHERE id = (SELECT message FROM fastsmtp.items WHERE id = $1)"
