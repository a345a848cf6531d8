"""The commands with the real client on a real hub: what they write is what they read."""

import json
from pathlib import Path

import pytest

from holdtrue.client.sync import SyncClient
from tests.unit.cli.support import documents, run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own; no hub is there yet."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "holdtrue.db"


def ids(*arguments: str) -> list[str]:
    """The instances that `list` finds."""
    result = run("list", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return [document["instance_id"] for document in documents(result.stdout)]


def test_start_makes_the_hub_and_keeps_its_promises(hub: Path) -> None:
    assert run("start", "hello", '{"n": [1, 2.5, "ü"]}', "--id", "a/b", "--tag", "k=v").exit_code == 0
    assert hub.exists()
    [shown] = documents(run("show", "a/b", "--json").stdout)
    assert shown["status"] == "Pending"
    assert shown["input"] == {"n": [1, 2.5, "ü"]}
    assert shown["tags"] == {"k": "v"}
    assert shown["condition"]["kind"] == "no worker"
    again = run("start", "hello", "--id", "a/b")
    assert again.exit_code == 4
    assert "'a/b'" in again.stderr
    assert run("start", "hello", "--id", "a/b", "--reuse", "ignore").stdout == "a/b\n"
    assert run("start", "hello", "--id", "a/b", "--if-not-running").stdout == "a/b is running already\n"
    assert run("start", "other", "--id", "a/b", "--reuse", "replace").exit_code == 0
    assert documents(run("show", "a/b", "--json").stdout)[0]["name"] == "other"


@pytest.mark.parametrize("instance_id", ["", "@counter", "x" * 501, "\x01" * 300])
def test_an_id_that_cannot_be(hub: Path, instance_id: str) -> None:
    assert run("start", "hello", "--id", instance_id).exit_code == 2


def test_a_payload_that_is_too_large(hub: Path) -> None:
    result = run("start", "hello", "-", input=json.dumps("x" * (16 * 1024 * 1024 + 1)))
    assert result.exit_code == 2
    assert len(result.stderr) < 1_000


def test_list_filters_and_order(hub: Path) -> None:
    for name, instance_id in (("one", "a1"), ("two", "a2"), ("one", "b1")):
        assert run("start", name, "--id", instance_id, "--tag", f"of={name}").exit_code == 0
    assert ids() == ["b1", "a2", "a1"]
    assert ids("--oldest-first") == ["a1", "a2", "b1"]
    assert ids("--name", "one") == ["b1", "a1"]
    assert ids("--prefix", "a") == ["a2", "a1"]
    assert ids("--tag", "of=two") == ["a2"]
    assert ids("--status", "completed") == []
    assert ids("--created-from", "+1h") == []
    assert ids("--created-to", "+1h", "--limit", "2") == ["b1", "a2"]


def test_pages_of_a_list(hub: Path) -> None:
    for number in range(5):
        run("start", "hello", "--id", f"i{number}")
    token, seen = None, []
    while True:
        page = run("list", "--json", "--limit", "2", *([] if token is None else ["--after", token]))
        assert page.exit_code == 0, page.stderr
        seen.append([document["instance_id"] for document in documents(page.stdout)])
        if not page.stderr:
            break
        [note] = documents(page.stderr)
        token = note["next"]
    assert seen == [["i4", "i3"], ["i2", "i1"], ["i0"]]
    assert ids("--limit", "0") == ["i4", "i3", "i2", "i1", "i0"]
    for token in ("", "x", "-1", "9" * 5_000):
        assert run("list", "--after", token).exit_code == 2


def test_null_reaches_the_hub(hub: Path) -> None:
    run("start", "hello", "null", "--id", "null")
    run("start", "hello", "--id", "none")
    with SyncClient(str(hub)) as client:
        inputs = [client.get_status(name).serialized_input for name in ("null", "none")]  # type: ignore[union-attr]
    assert inputs == ["null", None]


def test_what_is_not_there(hub: Path) -> None:
    run("start", "hello")
    for words in ("show x", "wait x", "raise x e", "suspend x", "resume x", "cancel x", "terminate x", "rewind x",
                  "restart x", "purge x", "dead-letters show 1", "schedule show x", "schedule pause x",
                  "schedule resume x", "schedule trigger x", "schedule delete x", "schedule next x", "schedule ticks x",
                  ):  # fmt: skip
        result = run(*words.split())
        assert result.exit_code == 3, (words, result.stderr)
        assert "Traceback" not in result.stderr


def test_what_is_refused(hub: Path) -> None:
    run("start", "hello", "--id", "x")
    assert run("purge", "x").exit_code == 4
    assert run("rewind", "x").exit_code == 4
    assert run("restart", "x").exit_code == 4
    assert run("raise", "x", "holdtrue:cancel").exit_code == 2
    timed_out = run("wait", "x", "--timeout", "10ms")
    assert timed_out.exit_code == 6
    assert "no worker" in timed_out.stderr


def test_a_message_is_on_disk_when_its_command_ends(hub: Path) -> None:
    run("start", "hello", "--id", "x")
    for words in ('raise x go {"n":1}', "suspend x --reason why", "resume x", "cancel x"):
        assert run(*words.split()).exit_code == 0
    [info] = documents(run("info", "--json").stdout)
    assert info["instances"]["Pending"] == 1
    assert info["messages"] >= 4
    assert info["workers"] == []


def test_a_schedule_lives(hub: Path) -> None:
    run("start", "hello", "--id", "other")
    words = ["--cron", "0 0 3 * * *", "--time-zone", "Europe/Vienna", "--id", "job"]
    created = run("schedule", "create", "nightly", "job", '{"a": 1}', *words)
    assert created.exit_code == 0, created.stderr
    assert run("schedule", "create", "nightly", "job", *words).exit_code == 4
    assert run("schedule", "create", "nightly", "job", *words, "--put", "--missed", "skip").exit_code == 0
    [shown] = documents(run("schedule", "show", "nightly", "--json").stdout)
    assert (shown["missed"], shown["cron"], shown["paused"]) == ("skip", "0 0 3 * * *", False)
    assert len(run("schedule", "next", "nightly", "-n", "3").stdout.splitlines()) == 3
    assert run("schedule", "trigger", "nightly").stdout.startswith("started job")
    assert ids("--name", "job") == ["job"]
    refused = run("schedule", "trigger", "nightly")
    assert (refused.exit_code, refused.stdout.split()[0]) == (4, "skipped")
    decisions = [tick["decision"] for tick in documents(run("schedule", "ticks", "nightly", "--json").stdout)]
    assert decisions == ["started", "skipped"]
    assert run("schedule", "pause", "nightly").exit_code == 0
    assert "paused" in run("schedule", "list").stdout
    assert run("schedule", "resume", "nightly").exit_code == 0
    assert run("schedule", "delete", "nightly").exit_code == 0
    assert run("schedule", "list").stderr == "No schedules.\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--cron", "0 0 31 2 *"],
        ["--cron", "never"],
        ["--cron", "9" * 5_000 + " * * * *"],
        ["--every", "0s"],
        ["--cron", "* * * * *", "--time-zone", "Mars/Base"],
        ["--every", "5s", "--overlap", "allow", "--id", "x"],
    ],
)
def test_a_schedule_that_cannot_be(hub: Path, words: list[str]) -> None:
    run("start", "hello")
    assert run("schedule", "create", "s", "job", *words).exit_code == 2


def test_backup_and_restore(hub: Path) -> None:
    run("start", "hello", "--id", "kept")
    made = run("backup", "copy.db")
    assert made.exit_code == 0, made.stderr
    assert run("backup", "copy.db").exit_code == 4
    assert run("backup", "copy.db", "--force").exit_code == 0
    assert run("backup", "holdtrue.db", "--force").exit_code == 4
    assert run("backup", "no/where.db").exit_code == 2
    run("start", "hello", "--id", "later")
    assert ids() == ["later", "kept"]

    assert run("restore", "copy.db").exit_code == 4
    restored = run("restore", "copy.db", "--force")
    assert restored.exit_code == 0, restored.stderr
    assert ids() == ["kept"]
    run("start", "hello", "--id", "new")
    assert ids() == ["new", "kept"]
    assert run("--hub", "second.db", "restore", "copy.db").exit_code == 0
    assert ids("--hub", "second.db") == ["kept"]
    leftovers = {path.name for path in hub.parent.iterdir() if "replaced" in path.name or path.name.startswith(".")}
    assert leftovers == set()


def test_a_backup_that_cannot_be_used_changes_nothing(hub: Path) -> None:
    run("start", "hello", "--id", "kept")
    run("backup", "good.db")
    damaged = bytearray((hub.parent / "good.db").read_bytes())
    damaged[8_000:40_000] = b"\xff" * 32_000
    (hub.parent / "damaged.db").write_bytes(damaged)
    (hub.parent / "text.db").write_text("not a database at all" * 100)
    assert run("restore", "nowhere.db", "--force").exit_code == 3
    for name in ("damaged.db", "text.db"):
        result = run("restore", name, "--force")
        assert result.exit_code == 5, result.stderr
    assert ids() == ["kept"]


def test_a_hub_in_use_by_a_client_is_not_replaced(hub: Path) -> None:
    run("start", "hello", "--id", "kept")
    run("backup", "copy.db")
    with SyncClient(str(hub)) as client:
        result = run("restore", "copy.db", "--force")
        assert result.exit_code == 5
        assert client.get_status("kept") is not None
    assert ids() == ["kept"]


def test_a_file_that_is_no_hub(hub: Path) -> None:
    hub.write_text("hello " * 1_000)
    result = run("list")
    assert result.exit_code == 5
    assert "Traceback" not in result.stderr
    assert hub.read_text() == "hello " * 1_000


def test_purge_by_filter_deletes_what_has_ended(hub: Path) -> None:
    run("start", "hello", "--id", "alive")
    assert run("purge", "--all", "--yes").stdout == "Purged 0 instances.\n"
    assert ids() == ["alive"]
