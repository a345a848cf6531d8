"""An older hub is brought forward on a disk that fails at each of its calls, or whose power is cut after it."""

from pathlib import Path
from random import Random

import apsw

from holdtrue.stores import errors
from holdtrue.stores.sqlite import connection

from .disk_recorded import FAULTS, Fault, RecordedDisk, images

STEPS = {
    2: "alter table instance add column colour text; update instance set colour = 'red'",
    3: "create table shade (a); insert into shade select id from instance",
}
ROWS = 300


def old_hub(path: Path, disk: RecordedDisk) -> None:
    """A hub of version 1 in good order, and the record of how it was made."""
    disk.begin(path.parent)
    old = apsw.Connection(str(path))
    old.execute("pragma journal_mode = wal").fetchall()
    old.execute("begin; create table instance (key integer primary key, id text)")
    for n in range(ROWS):
        old.execute("insert into instance (id) values (?)", (f"i{n}",))
    old.execute("create table counter (id integer primary key); insert into counter values (1)")
    old.execute(f"pragma application_id = {connection.APPLICATION_ID}; pragma user_version = 1; commit")
    old.close()
    disk.say("old")


def bring_forward(path: Path) -> list[errors.StoreError]:
    """What the migration raised until it was done."""
    failures: list[errors.StoreError] = []
    while len(failures) < 3:
        try:
            opened = connection.connect(str(path))
            try:
                connection.prepare(opened, str(path), STEPS)
                return failures
            finally:
                connection.shut(opened)
        except errors.StoreError as error:
            failures.append(error)
    raise AssertionError(f"it does not go on: {failures}")


def version_of(path: Path) -> int:
    """The version of a hub that is wholly of that version."""
    opened = connection.connect(str(path))
    assert opened.execute("pragma integrity_check").fetchall() == [("ok",)]
    version: int = opened.execute("pragma user_version").get
    colour = [(f"i{n}", *(["red"] if version > 1 else [])) for n in range(ROWS)]
    assert opened.execute("select * from instance order by key").fetchall() == [
        (n, *row) for n, row in enumerate(colour, 1)
    ]
    assert opened.execute("select id from counter").fetchall() == [(version,)]
    shades = opened.execute("select count(*) from sqlite_schema where name = 'shade'").get
    assert shades == (version == 3)
    assert not shades or opened.execute("select count(*) from shade").get == ROWS
    connection.shut(opened)
    return version


def test_each_call_fails_once(recorded: RecordedDisk, tmp_path: Path) -> None:
    old_hub(_place(tmp_path, "whole"), recorded)
    begins = len(recorded.kinds)
    bring_forward(tmp_path / "whole" / "hub.db")
    assert len(recorded.kinds) > begins
    for call, kind in enumerate(recorded.kinds.copy(), 1):
        for how in FAULTS.get(kind, ("error",)) if call > begins else ():
            path = _place(tmp_path, f"{call}-{how}")
            old_hub(path, recorded)
            recorded.fault = Fault(call, how)
            for found in bring_forward(path):
                assert isinstance(found, errors.StoreUnavailable), (call, kind, how, found)
            with recorded.aside():
                assert version_of(path) == 3, (call, kind, how)


def test_the_power_is_cut_after_each_call(recorded: RecordedDisk, tmp_path: Path) -> None:
    path = _place(tmp_path, "whole")
    old_hub(path, recorded)
    begins = len(recorded.log)
    bring_forward(path)
    recorded.say("forward")
    log = recorded.log
    found = set()
    with recorded.aside():
        for at, cut, image in images(log, Random(3), moments=range(begins, len(log) + 1)):
            left = _place(tmp_path, f"{at}-{cut}")
            for name, content in image.items():
                (left.parent / name).write_bytes(content)
            found.add(version_of(left))
            assert log[at - 1].name != "forward" or version_of(left) == 3, cut
            assert bring_forward(left) == [] and version_of(left) == 3
    assert found == {1, 3}


def _place(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name / "hub.db"
