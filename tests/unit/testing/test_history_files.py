"""History files: what was written comes back equal, or is refused with its place; nothing is guessed."""

import gzip
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import holdtrue
from holdtrue.core import events as ev
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import Condition
from holdtrue.host import Host
from holdtrue.stores.memory import MemoryHub, MemoryStore
from holdtrue.stores.protocol import InstanceCopy
from holdtrue.stores.sqlite import SqliteStore
from holdtrue.testing import history_format
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.history_files import read_histories, write_histories
from holdtrue.testing.history_format import HistoryFileError, HistoryFileTooNew
from tests.unit.testing.histories import all_of, app_of, in_virtual_time, plain, recorded, served

LATER = datetime(2027, 1, 1, tzinfo=UTC)


async def job(ctx: Any, n: int = 1) -> Any:
    ctx.set_custom_status({"step": n})
    try:
        await ctx.call_activity("fail", input=n)
    except holdtrue.TaskFailedError:
        pass
    await holdtrue.when_any([ctx.call_activity("nobody has it", tag="gpu"), ctx.wait_for_external_event("go")])
    return {"text": "żółć 𝄞 \u2028", "n": 1.5}


async def parent(ctx: Any, n: int = 1) -> Any:
    return await ctx.call_sub_orchestrator("job", input=n, instance_id="kid")


async def fails(ctx: Any, text: str) -> Any:
    raise ValueError("sécret")


@pytest.fixture(scope="module")
def copies() -> list[InstanceCopy]:
    """Instances of many kinds: ended, failed, waiting with messages and work items, parent and child, held."""

    async def main(environment: SimulatedEnvironment) -> list[InstanceCopy]:
        hub = MemoryHub()

        async def act(host: Host) -> None:
            client = host.client
            await client.start("parent", input=7, instance_id="top", tags={"team": "red"}, version="2", deadline=LATER)
            await client.start("fails", input="secret", instance_id="bad")
            await client.start("job", instance_id="done")
            await client.raise_event("done", "go", {"who": "Ada"})
            await client.start("job", instance_id="later", start_at=LATER)

        await served(app_of(job, parent, fails), hub, environment, act, 5)
        store = MemoryStore(hub, environment=environment)
        await store.open()
        await store.send([OutboundMessage(instance_id="top", event=ev.ExecutionSuspended(timestamp=3, reason="why"))])
        await store.close()
        found = await recorded(hub, environment)
        for copy in found:
            if copy.record.projection.instance_id == "kid":
                copy.record.condition = Condition(kind="held", reason="history has a step", since=9)
        return plain(found)

    made: list[InstanceCopy] = in_virtual_time(main)
    assert [len(copy.activities) for copy in made].count(1) == 1 and any(copy.messages for copy in made)
    return made


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_what_was_written_comes_back(copies: list[InstanceCopy], name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    written = write_histories(file, copies)
    assert (written.instances, written.events) == (len(copies), sum(len(copy.history) for copy in copies))
    found = read_histories(file)
    assert plain(found.instances) == copies and not found.is_redacted
    assert file.read_bytes()[:2] == (b"\x1f\x8b" if name.endswith("gz") else b'{"')
    again = tmp_path / f"again-{name}"
    write_histories(again, found.instances)
    assert again.read_bytes() == file.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, again.name])


@pytest.mark.parametrize("run", [False, True])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_through_a_hub_it_is_the_same_file(kind: str, run: bool, copies: list[InstanceCopy], tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    write_histories(first, copies)

    async def main(environment: SimulatedEnvironment) -> None:
        hub = MemoryHub() if kind == "memory" else None
        store: Any = (
            SqliteStore(str(tmp_path / "hub.db"), environment=environment)
            if hub is None
            else MemoryStore(hub, environment=environment)
        )
        await store.open()
        assert await store.put_copies(read_histories(first).instances, run=run) == []
        write_histories(second, await all_of(store))
        await store.close()

    in_virtual_time(main)
    assert second.read_bytes() == first.read_bytes()


def test_a_file_that_cannot_be_written_whole_leaves_nothing(copies: list[InstanceCopy], tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("precious")

    def broken() -> Any:
        yield copies[0]
        raise RuntimeError("the hub is gone")

    with pytest.raises(RuntimeError):
        write_histories(file, broken())
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"] and file.read_text() == "precious"


# -- damage ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(copies: list[InstanceCopy], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Any]]:
    """The bytes of a small file, plain and packed, and what is in it."""
    chosen = [copy for copy in copies if copy.record.projection.instance_id in ("later", "bad")]
    assert len(chosen) == 2
    found = {}
    for name in ("x.jsonl", "x.jsonl.gz"):
        file = tmp_path_factory.mktemp("small") / name
        write_histories(file, chosen)
        found[name] = (file.read_bytes(), plain(read_histories(file).instances))
    return found


def read_or_refused(data: bytes, file: Path, whole: Any) -> bool:
    """True where the file was read, and then it holds the same; false where it was refused with its name."""
    file.write_bytes(data)
    try:
        found = read_histories(file)
    except HistoryFileError as error:
        assert str(file) in str(error)
        return False
    assert plain(found.instances) == whole, data
    return True


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_cut_anywhere_it_is_whole_or_refused(small: dict[str, tuple[bytes, Any]], name: str, tmp_path: Path) -> None:
    data, whole = small[name]
    read = [at for at in range(len(data) + 1) if read_or_refused(data[:at], tmp_path / name, whole)]
    # But for its last line end (and the packing's own checksum) nothing may be missing.
    assert read == ([len(data) - 1, len(data)] if name == "x.jsonl" else [len(data)])


@pytest.mark.parametrize("bit", [0, 5, 7])
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_a_flipped_bit_is_without_effect_or_refused(
    small: dict[str, tuple[bytes, Any]], name: str, bit: int, tmp_path: Path
) -> None:
    data, whole = small[name]
    read = 0
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        read += read_or_refused(bytes(flipped), tmp_path / name, whole)
    # The line ends of the plain file and the packing's header (its time, its system) are the only ones to spare.
    assert read <= (0 if name == "x.jsonl" else 10)


def resealed(line: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A line with another content, and a checksum that fits it."""
    value = json.loads(line)
    del value["sum"]
    change(value)
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
    return body + b',"sum":"%08x"}\n' % zlib.crc32(body)


def _set(member: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(line: dict[str, Any]) -> None:
        at: Any = line
        *path, last = member.split(".")
        for part in path:
            at = at[int(part) if part.isdigit() else part]
        at[int(last) if last.isdigit() else last] = value

    return change


def _swap_events(line: dict[str, Any]) -> None:
    history = line["history"]
    at = next(n for n, event in enumerate(history) if event["e"] == 6)
    history[at], history[2] = history[2], history[at]


def _double_event(line: dict[str, Any]) -> None:
    at = next(n for n, event in enumerate(line["history"]) if event["e"] == 6)
    line["history"].insert(at, line["history"][at])
    line["events"] += 1


def _drop_event(line: dict[str, Any]) -> None:
    del line["history"][-1]


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (_set("status", "Completed"), "$.status", "not what the history gives (Running)"),
        (_set("status", "Restless"), "$.status", "'Restless' is not one of Running, "),
        (_set("output", "1"), "$.output", "not what the history gives (None)"),
        (_set("dialect", "klingon"), "$.dialect", "'klingon' is not one of dotnet, python"),
        (_set("events", 3), "$.events", "says 3 events"),
        (_set("started.instance_id", "other"), "$.started.instance_id", "'other', of another instance"),
        (_set("started.execution_id", "other"), "$.history", "not that of `started`"),
        (_set("activities.0.task.instance_id", "other"), "$.activities[0].task.instance_id", "of another instance"),
        (_set("activities.0.at", "soon"), "$.activities[0].at", "Expected `int`, got `str`"),
        (_set("history.0.e", 99), "$.history[0].e", "Invalid value 99"),
        (_set("colour", "red"), None, "unknown field `colour`"),
        (
            _set("messages", [{"instance_id": "x", "event": {"e": 17, "at": 1}}]),
            "$.messages[0].instance_id",
            "of another",
        ),
        (_swap_events, "$.history[2]", "this event cannot come here"),
        (_double_event, "$.history[", "this event cannot come here"),
        (_drop_event, "$.events", "events, and there are"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_that_do_not_belong_together(
    change: Any, place: str | None, words: str, copies: list[InstanceCopy], tmp_path: Path
) -> None:
    file = tmp_path / "x.jsonl"
    kid = [copy for copy in copies if copy.record.projection.instance_id == "kid"]
    write_histories(file, kid)
    header, line, last = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(header + resealed(line, change) + last)
    with pytest.raises(HistoryFileError) as caught:
        read_histories(file)
    assert caught.value.line == 2 and f"{str(file)!r}, line 2" in str(caught.value)
    assert place is None or str(caught.value.place).startswith(place)
    assert words in str(caught.value)


def test_files_that_are_none(copies: list[InstanceCopy], tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    write_histories(file, copies[:2])
    data = file.read_bytes()
    lines = data.splitlines(keepends=True)

    def refusal(content: bytes) -> str:
        file.write_bytes(content)
        with pytest.raises(HistoryFileError) as caught:
            read_histories(file)
        return str(caught.value)

    assert "it is empty" in refusal(b"")
    assert "line 1: this is no history file of Holdtrue's" in refusal(b'{"some": "json"}\n')
    assert "line 1: this is no history file" in refusal(b"SQLite format 3\n")
    assert "byte order mark" in refusal(data.decode().encode("utf-16"))
    assert "byte order mark" in refusal(b"\xef\xbb\xbf" + data)
    assert "line 2, column" in refusal(lines[0] + lines[1].decode().replace("x", "é").encode("latin-1"))
    assert "line 2: is empty" in refusal(lines[0] + b"\n" + b"".join(lines[1:]))
    assert "line 5: stands after the file's last line" in refusal(data + data)
    assert "its last line, which counts the instances, is missing" in refusal(b"".join(lines[:3]))
    assert "lines are missing or were added" in refusal(lines[0] + lines[1] + lines[3])
    assert "stands in line 2 already" in refusal(lines[0] + lines[1] + lines[1] + lines[3])
    assert "$.schema: this is a file of 'recipes'" in refusal(resealed(lines[0], _set("schema", "recipes")))
    assert "gzip" in refusal(gzip.compress(data)[:-4])
    file.write_bytes(resealed(lines[0], lambda line: line.update(version=2, news={"of": "tomorrow"})))
    with pytest.raises(HistoryFileTooNew, match=r"version 2, this Holdtrue reads up to 1: use the newer one"):
        read_histories(file)
    # Line ends as some tools write them change nothing.
    file.write_bytes(data.replace(b"\n", b"\r\n"))
    assert len(read_histories(file).instances) == 2


# -- redaction ---------------------------------------------------------------------------------------------


def test_a_redacted_file_holds_no_payload(copies: list[InstanceCopy], tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    write_histories(file, copies, redact=True)
    text = file.read_text()
    found = read_histories(file)
    assert found.is_redacted
    for secret in ("sécret", "Ada", "żółć", "red", "why", "secret", "history has"):
        assert secret not in text.replace("redacted", ""), secret
    for kept in ("nobody has it", "builtins.ValueError", "gpu", "team", "step", "holdtrue:deadline"):
        assert kept in text
    assert [len(copy.history) for copy in found.instances] == [len(copy.history) for copy in copies]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"a": [1, 2.5, true, null, "Ada"], "b": {}}', '{"a":[0,0.0,true,null,"xxx"],"b":{}}'),
        ('"2026-01-31"', '"xxxxxxxxxx"'),
        ("-17", "0"),
        ("no JSON", '"xxxxxxx"'),
        ("", '""'),
    ],
)
def test_the_form_of_a_payload_stays(text: str, form: str) -> None:
    from holdtrue.testing.redaction import payload

    assert payload(text) == form


def test_every_member_with_a_text_is_known_to_the_redaction() -> None:
    """A new member of an event cannot leak: it is a payload, a text, or named as one to keep."""
    from holdtrue.core.actions import ActivityOptions
    from holdtrue.core.messages import ActivityTask
    from holdtrue.stores.protocol import ActivityCopy
    from holdtrue.testing.redaction import KEPT, PAYLOADS, TEXTS

    handled = KEPT | PAYLOADS | TEXTS | {"tags", "properties", "failure", "inner_failure", "parent", "task", "options"}
    kinds = [
        *ev.EVENT_TYPES,
        ev.FailureDetails,
        ev.ParentInstance,
        Condition,
        ActivityCopy,
        ActivityTask,
        ActivityOptions,
    ]
    for kind in kinds:
        for field in msgspec.structs.fields(kind):
            if field.type not in (int, bool, float, int | None, float | None):
                assert field.name in handled, f"{kind.__name__}.{field.name} is not known to the redaction"


def test_the_page_names_every_member() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "history-files.md").read_text()
    for kind in (history_format.Header, history_format.InstanceLine, history_format.EndLine):
        for field in msgspec.structs.fields(kind):
            assert f"`{field.encode_name}`" in page, (
                f"docs/reference/history-files.md does not tell of {field.encode_name}"
            )
    assert f"`{history_format.SCHEMA}`" in page and f"version {history_format.VERSION}" in page
