"""Versions of the schema, where a hub may lie, and that hot statements look nothing up by going through a table."""

import os
import signal
import sqlite3
from pathlib import Path

import apsw
import pytest

from holdtrue.stores import errors
from holdtrue.stores.sqlite import connection, statements
from tests.conformance.acting import Hub, create, in_hub, start


def old_hub(path: Path, version: int) -> None:
    """A hub of an old version: a table with a row, and the one that holds the version."""
    with sqlite3.connect(path) as old:
        old.execute("create table instance (key integer primary key, id text)")
        old.execute("insert into instance values (1, 'a')")
        old.execute("create table counter (id integer primary key)")
        old.execute("insert into counter values (1)")
        old.execute(f"pragma application_id = {connection.APPLICATION_ID}")
        old.execute(f"pragma user_version = {version}")


STEPS = {
    2: "alter table instance add column colour text; update instance set colour = 'red'",
    3: "create table shade (a)",
}


def test_an_old_hub_is_brought_forward_step_by_step(tmp_path: Path) -> None:
    old_hub(tmp_path / "old.db", 1)
    opened = connection.connect(str(tmp_path / "old.db"))
    connection.prepare(opened, "old.db", STEPS)
    assert opened.execute("pragma user_version").get == 3
    assert opened.execute("select id, colour from instance").fetchall() == [("a", "red")]
    assert opened.execute("select count(*) from shade").get == 0
    connection.prepare(opened, "old.db", STEPS)
    opened.close()


def test_a_step_that_fails_leaves_the_old_version_whole(tmp_path: Path) -> None:
    old_hub(tmp_path / "old.db", 1)
    opened = connection.connect(str(tmp_path / "old.db"))
    with pytest.raises(errors.StoreError):
        connection.prepare(opened, "old.db", {**STEPS, 3: "insert into nowhere values (1)"})
    assert opened.execute("pragma user_version").get == 1
    assert [name for (_, name, *_) in opened.execute("pragma table_info(instance)")] == ["key", "id"]
    opened.close()


def test_a_process_killed_in_the_midst_of_a_migration(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old_hub(path, 1)
    child = os.fork()
    if child == 0:
        try:
            opened = connection.connect(str(path))
            opened.create_scalar_function("die", lambda: os.kill(os.getpid(), signal.SIGKILL))
            # Its changes so far are on the disk, in the log.
            opened.execute("pragma cache_size = 1; pragma cache_spill = 1; pragma journal_mode = wal")
            filling = "with recursive n (n) as (values (1) union all select n + 1 from n where n < 20000) "
            steps = {**STEPS, 3: f"create table shade (a); insert into shade {filling} select n from n; select die()"}
            connection.prepare(opened, str(path), steps)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (tmp_path / "old.db-wal").stat().st_size > 100_000
    opened = connection.connect(str(path))
    assert opened.execute("pragma user_version").get == 1
    assert [name for (_, name, *_) in opened.execute("pragma table_info(instance)")] == ["key", "id"]
    connection.prepare(opened, str(path), STEPS)
    assert opened.execute("pragma user_version").get == 3
    assert opened.execute("select id, colour from instance").fetchall() == [("a", "red")]
    opened.close()


@in_hub
async def test_who_has_the_hub_open_while_it_is_migrated_writes_no_more(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host()
    await create(store, start("a"))
    later = connection.connect(str(tmp_path / "hub.db"))
    connection.prepare(later, "hub.db", {2: "create table shade (a)"})
    before = later.execute("select * from counter").fetchall()
    for call in (lambda: store.create([start("b")]), lambda: store.lock(1)):
        with pytest.raises(errors.SchemaTooNew, match="newer Holdtrue"):
            await call()
    assert later.execute("select id from instance").fetchall() == [("a",)]
    assert later.execute("select * from counter").fetchall() == before
    later.close()


@in_hub
async def test_a_newer_hub_is_refused_and_left_alone(hub: Hub, tmp_path: Path) -> None:
    old_hub(tmp_path / "hub.db", 99)
    with pytest.raises(errors.SchemaTooNew, match="version 99"):
        await hub.open()
    with sqlite3.connect(tmp_path / "hub.db") as found:
        assert found.execute("select * from instance").fetchall() == [(1, "a")]


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\nserver:/x /net\\040work {kind} rw 0 0\n/dev/b /net\\040work/local xfs rw 0 0\n"
    )
    connection.refuse_network("/var/hub.db", str(mounts))
    connection.refuse_network("/net worker/hub.db", str(mounts))
    connection.refuse_network("/net work/local/hub.db", str(mounts))
    with pytest.raises(errors.UnsuitableFileSystem, match=kind.replace(".", r"\.")):
        connection.refuse_network("/net work/deep/hub.db", str(mounts))


def test_every_statement_compiles_and_says_what_it_is_for() -> None:
    opened = apsw.Connection(":memory:")
    opened.execute(statements.schema())
    for _name, text in statements.read("statements.sql").items():
        for one in filter(None, (part.strip() for part in text.split(";"))):
            opened.execute(f"explain {one}", _anything(one))
    opened.close()
    lines = Path(statements.__file__).with_name("statements.sql").read_text().splitlines()
    for at, line in enumerate(lines):
        if line.startswith("-- name:"):
            assert lines[at + 1].startswith("-- ") and lines[at + 1].endswith("."), line


def _anything(statement: str) -> object:
    found: dict[str, object] = {}
    probe = apsw.Connection(":memory:")
    probe.execute(statements.schema())
    cursor = probe.cursor()

    def seen(cursor: apsw.Cursor, text: str, bindings: object) -> bool:
        names = cursor.bindings_names
        found["values"] = (
            {n: None for n in names if n}
            if any(n and not n.isdigit() for n in names)
            else (None,) * cursor.bindings_count
        )
        return False

    cursor.exec_trace = seen
    try:
        cursor.execute(f"explain {statement}", apsw._null_bindings if hasattr(apsw, "_null_bindings") else None)
    except apsw.Error:
        pass
    return found.get("values") or None


HOT = [
    "record_by_id", "record_by_key", "target", "ready_instances", "waiting_messages", "release_instance", "due_messages",
    "earliest_due", "episode", "episode_changed", "episode_ended", "episode_replaced", "delete_message", "ready_activities",
    "delete_activity", "activities_of", "history_of", "history_page", "history_piece", "cancel_messages", "cancel_activities",
    "children", "mail", "query_ascending", "query_descending", "query_open_ascending", "query_failed_descending", "query_prefix_ascending", "ticks",
    "held_instances", "release_instances_of_host", "any_ready", "ready_of", "any_activity", "ending_instances", "any_ending",
    "episode:json", "delete_message:json", "delete_activity:json", "lock_instance:json", "fire:json",
]  # fmt: skip


@pytest.mark.parametrize("name", HOT)
def test_hot_statements_search(name: str) -> None:
    opened = apsw.Connection(":memory:")
    opened.execute(statements.schema())
    text = statements.read("statements.sql")[name]
    plan = [row[3] for row in opened.execute(f"explain query plan {text}", _anything(text))]
    for step in plan:
        assert not step.startswith("SCAN") or "json_each" in step or "VIRTUAL TABLE" in step or "USING" in step, plan
        assert "AUTOMATIC" not in step, plan
        if name in (
            "ready_instances",
            "query_ascending",
            "query_descending",
            "query_open_ascending",
            "ready_activities",
        ):
            assert "TEMP B-TREE" not in step, plan


@in_hub
async def test_rows_of_big_inputs_stay_small(hub: Hub, tmp_path: Path) -> None:
    store = await hub.host()
    await create(store, start("a", input='"' + "x" * 1_000_000 + '"'))
    assert apsw.Connection(str(tmp_path / "hub.db")).execute("select length(started) from instance").get == 0
    (record,) = await store.status(["a"])
    assert record is not None and record.started.input is not None and len(record.started.input) == 1_000_002
