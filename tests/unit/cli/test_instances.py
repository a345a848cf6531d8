"""Starting, listing, showing, waiting, raising: what is asked of the client, and what is printed."""

from types import SimpleNamespace

import msgspec
import pytest

from holdtrue.core import events as ev
from holdtrue.core.events import FailureDetails
from holdtrue.core.projection import Condition, Status
from tests.unit.cli.support import T0, FakeClient, documents, instance, moment, raw, run

SECOND = ev.TICKS_PER_SECOND


def test_start_prints_the_id_alone(client: FakeClient) -> None:
    result = run("start", "hello", '["Ada"]')
    assert (result.exit_code, result.stdout) == (0, "made\n")
    [(arguments, named)] = client.asked("start")
    assert arguments == ("hello",)
    assert named["input"] == ["Ada"]
    assert named["reuse"] == "default"


def test_start_without_input_gives_none(client: FakeClient) -> None:
    run("start", "hello")
    assert "input" not in client.asked("start")[0][1]


def test_start_reads_standard_input(client: FakeClient) -> None:
    assert run("start", "hello", "-", input='{"a": 1}\n').exit_code == 0
    assert client.asked("start")[0][1]["input"] == {"a": 1}


def test_start_with_every_option(client: FakeClient) -> None:
    words = [
        "--id",
        "x",
        "--reuse",
        "ignore",
        "--at",
        "2026-05-01T00:00:00Z",
        "--deadline",
        "2h",
        "--tag",
        "a=1",
        "--tag",
        "b=2",
        "--of-version",
        "2",
    ]
    result = run("start", "hello", *words, "--start-id", "s", "--event", 'go={"n":1}')
    assert result.exit_code == 0
    [(_, named)] = client.asked("start")
    assert named["instance_id"] == "x"
    assert named["reuse"] == "ignore"
    assert named["start_at"] == moment("2026-05-01T00:00:00+00:00")
    assert named["deadline"].total_seconds() == 7_200
    assert named["tags"] == {"a": "1", "b": "2"}
    assert named["version"] == "2"
    assert named["start_id"] == "s"
    assert named["event"] == ("go", {"n": 1})


@pytest.mark.parametrize(
    ("outcome", "reason", "text"),
    [
        ("started", None, "x\n"),
        ("running", None, "x is running already\n"),
        ("held", "new code", "x is held: new code\n"),
    ],
)
def test_start_if_not_running_tells_its_outcome(
    client: FakeClient, outcome: str, reason: str | None, text: str
) -> None:
    client.outcome = SimpleNamespace(outcome=outcome, instance_id="x", execution_id="e", status=None, reason=reason)
    assert run("start", "hello", "--id", "x", "--if-not-running").stdout == text
    [document] = documents(run("--json", "start", "hello", "--id", "x", "--if-not-running").stdout)
    assert document == {"instance_id": "x", "outcome": outcome, "execution_id": "e", "reason": reason}


@pytest.mark.parametrize(
    "words", [["--if-not-running"], ["--if-not-running", "--id", "x", "--reuse", "replace"], ["--timeout", "3s"]]
)
def test_start_refuses_options_that_do_not_fit(client: FakeClient, words: list[str]) -> None:
    assert run("start", "hello", *words).exit_code == 2
    assert client.calls == []


def test_start_and_wait_gives_the_output_and_the_code(client: FakeClient) -> None:
    client.add(instance("x", Status.COMPLETED, output='"done"'))
    result = run("start", "hello", "--id", "x", "--wait", "--timeout", "5s")
    assert (result.exit_code, result.stdout) == (0, '"done"\n')
    assert client.asked("wait_for_completion") == [(("x",), {"timeout": 5.0})]


def test_list_is_plain_and_aligned_without_a_terminal(client: FakeClient) -> None:
    client.add(instance("long-instance-id", Status.COMPLETED))
    client.add(instance("x", condition=Condition(kind="held", reason="why")))
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["INSTANCE", "ORCHESTRATION", "STATUS", "CREATED", "UPDATED"]
    assert lines[1] == "long-instance-id  hello          Completed       2026-01-01T00:00:00Z  2026-01-01T00:00:01Z"
    assert lines[2].split("  ")[0] == "x"
    assert "Running (held)" in lines[2]
    assert "\x1b" not in "".join(lines)


def test_list_passes_the_filters_on(client: FakeClient) -> None:
    words = (
        "--status failed --status running --name hello --prefix a --created-from 2026-01-01 --tag k=v --oldest-first"
    )
    assert run("list", *words.split(), "--limit", "0").exit_code == 0
    [(_, named)] = client.asked("query_page")
    assert named["statuses"] == {Status.FAILED, Status.RUNNING}
    assert (named["name"], named["prefix"], named["tags"]) == ("hello", "a", {"k": "v"})
    assert named["created_from"] == moment("2026-01-01T00:00:00+00:00")
    assert named["newest_first"] is False


def test_list_says_that_there_are_more(client: FakeClient) -> None:
    for number in range(3):
        client.add(instance(f"i{number}"))
    result = run("list", "--limit", "2")
    assert len(result.stdout.splitlines()) == 3
    assert "--after 2" in result.stderr
    assert run("list", "--limit", "3").stderr == ""
    assert [line.split()[0] for line in run("list", "--after", "2").stdout.splitlines()] == ["INSTANCE", "i2"]
    in_json = run("list", "--limit", "2", "--json")
    assert [document["instance_id"] for document in documents(in_json.stdout)] == ["i0", "i1"]
    assert [document["next"] for document in documents(in_json.stderr)] == ["2"]
    assert run("list", "--limit", "3", "--json").stderr == ""


def test_a_payload_that_is_null_is_no_missing_one(client: FakeClient) -> None:
    client.add(instance("x"))
    for words in ("start hello", "raise x go", "terminate x"):
        assert run(*words.split()).exit_code == 0
    for words in ("start hello null", "start hello --event go=null", "raise x go null", "terminate x --output null"):
        assert run(*words.split()).exit_code == 0
    [none, null, event] = [named for _, named in client.asked("start")]
    assert ("input" in none, raw(null["input"]), raw(event["event"])) == (False, None, ["go", None])
    for operation in ("raise_event", "terminate"):
        [(none, _), (null, _)] = client.asked(operation)
        assert (none[-1], type(null[-1]), raw(null[-1])) == (None, msgspec.Raw, None)


def test_list_as_json_is_one_document_a_line(client: FakeClient) -> None:
    client.add(instance("a", Status.FAILED, failure=FailureDetails("no", "builtins.ValueError"), input='{"n": 1.0}'))
    client.add(instance("b"))
    first, second = documents(run("list", "--json").stdout)
    assert first["status"] == "Failed"
    assert first["input"] == {"n": 1.0}
    assert first["failure"]["type"] == "builtins.ValueError"
    assert first["created_at"] == "2026-01-01T00:00:00.000000Z"
    assert (second["instance_id"], second["completed_at"]) == ("b", None)


def test_payloads_stand_in_json_exactly_as_they_are(client: FakeClient) -> None:
    client.add(instance("a", input='{"n": 12345678901234567890123, "x": 1.10}', output="not json"))
    line = run("list", "--json").stdout
    assert '"input":{"n": 12345678901234567890123, "x": 1.10}' in line
    assert documents(line)[0]["output"] == "not json"
    client.add(instance("a", input='{\r\n  "n": [1,\n2]\r\n}', output='"a\\nb"'))
    [document] = documents(run("list", "--json").stdout)
    assert (document["input"], document["output"]) == ({"n": [1, 2]}, "a\nb")


def test_show_tells_what_a_rewind_took_out(client: FakeClient) -> None:
    client.add(instance("a"), ev.GenericEvent(timestamp=T0, data="Rewound: TaskFailed"))
    assert "GenericEvent Rewound: TaskFailed" in run("show", "a").stdout


def family(client: FakeClient) -> None:
    """A parent with one activity done, one failed, a timer, and a child that has a history of its own."""
    at = T0 + SECOND
    client.add(
        instance("boss"),
        ev.OrchestratorStarted(timestamp=at),
        ev.ExecutionStarted(timestamp=at, instance_id="boss", execution_id="boss-x", name="hello", input='["Ada"]'),
        ev.TaskScheduled(timestamp=at, event_id=0, name="greet", input='"Ada"'),
        ev.SubOrchestrationInstanceCreated(timestamp=at, event_id=1, name="part", instance_id="kid"),
        ev.TimerCreated(timestamp=at, event_id=2, fire_at=at + SECOND),
        ev.OrchestratorCompleted(timestamp=at),
        ev.TaskCompleted(timestamp=at, task_scheduled_id=0, result='"Hello Ada"'),
        ev.TaskFailed(timestamp=at, task_scheduled_id=0, failure=FailureDetails("broke", "builtins.OSError")),
    )
    kid_done = ev.ExecutionCompleted(timestamp=at, status=int(Status.COMPLETED), result="7")
    client.add(
        instance("kid", Status.COMPLETED, name="part", output="7"),
        ev.ExecutionStarted(timestamp=at, instance_id="kid", execution_id="kid-x", name="part"),
        kid_done,
    )


def test_show_draws_the_tree(client: FakeClient) -> None:
    family(client)
    client.instances["boss"].waits_for = ["a timer", "activity 'greet'"]
    result = run("show", "boss")
    assert result.exit_code == 0
    tree = result.stdout.partition("\n\n")[2].splitlines()
    assert tree == [
        "boss hello Running",
        '  2026-01-01T00:00:01.000Z ExecutionStarted hello ["Ada"]',
        '  2026-01-01T00:00:01.000Z TaskScheduled #0 greet "Ada"',
        "  2026-01-01T00:00:01.000Z SubOrchestrationInstanceCreated #1 part [kid]",
        "    kid part Completed",
        "      2026-01-01T00:00:01.000Z ExecutionStarted part",
        "      2026-01-01T00:00:01.000Z ExecutionCompleted Completed = 7",
        "  2026-01-01T00:00:01.000Z TimerCreated #2 until 2026-01-01T00:00:02.000Z",
        '  2026-01-01T00:00:01.000Z TaskCompleted #0 greet = "Hello Ada"',
        "  2026-01-01T00:00:01.000Z TaskFailed #0 greet builtins.OSError: broke",
    ]
    fields = result.stdout.partition("\n\n")[0].splitlines()
    assert "Instance:      boss" in fields
    assert "Waits for:     a timer" in fields
    assert "Waits for:     activity 'greet'" in fields


def test_show_can_leave_out_and_cut(client: FakeClient) -> None:
    family(client)
    only_tree = run("show", "boss", "--no-history").stdout.partition("\n\n")[2].splitlines()
    assert only_tree == ["boss hello Running", "  kid part Completed"]
    assert "kid part" not in run("show", "boss", "--depth", "0").stdout
    cut = run("show", "boss", "--limit", "2").stdout
    assert "… 4 more (--full shows all)" in cut
    assert "OrchestratorStarted" in run("show", "boss", "--full").stdout


def test_show_as_json_is_one_whole_document(client: FakeClient) -> None:
    family(client)
    client.instances["boss"].waits_for = ["a timer"]
    [document] = documents(run("--json", "show", "boss").stdout)
    assert document["waits_for"] == ["a timer"]
    assert [event["type"] for event in document["history"]][:3] == [
        "OrchestratorStarted", "ExecutionStarted", "TaskScheduled",
    ]  # fmt: skip
    scheduled = document["history"][2]
    assert scheduled == {
        "type": "TaskScheduled",
        "timestamp": "2026-01-01T00:00:01.000000Z",
        "event_id": 0,
        "name": "greet",
        "input": "Ada",
    }
    [kid] = document["children"]
    assert (kid["instance_id"], kid["output"]) == ("kid", 7)
    assert kid["history"][1]["status"] == "Completed"


def test_show_tells_condition_and_failure_with_causes(client: FakeClient) -> None:
    cause = FailureDetails("disk", "builtins.OSError")
    failure = FailureDetails("bad", "app.Broken", stack_trace="line 1\nline 2", inner_failure=cause)
    client.add(instance("x", Status.FAILED, Condition(kind="held", reason="no fit"), failure=failure))
    text = run("show", "x", "--full").stdout
    for line in (
        "Condition:     held: no fit",
        "Failure:       app.Broken: bad",
        "Cause:         builtins.OSError: disk",
    ):
        assert line in text.splitlines()
    assert "line 2" in text


def test_texts_from_the_hub_cannot_drive_the_terminal(client: FakeClient) -> None:
    client.add(instance("x\x1b[2J", output='"[red]a\x07"'))
    for arguments in (["list"], ["show", "x\x1b[2J"]):
        text = run(*arguments).stdout
        assert "\x1b" not in text
        assert "x\\x1b[2J" in text
    assert "[red]a\\x07" in text


def test_wait_ends_as_the_instance_ended(client: FakeClient) -> None:
    client.add(instance("good", Status.COMPLETED, output='{"a":1}'))
    client.add(instance("bad", Status.FAILED, failure=FailureDetails("no", "builtins.ValueError")))
    client.add(instance("gone", Status.TERMINATED))
    good, bad = run("wait", "good"), run("wait", "bad")
    assert (good.exit_code, good.stdout, good.stderr) == (0, '{"a":1}\n', "")
    assert (bad.exit_code, bad.stdout) == (1, "")
    assert "builtins.ValueError: no" in bad.stderr
    assert run("wait", "gone").exit_code == 1
    assert documents(run("wait", "bad", "--json").stdout)[0]["status"] == "Failed"


def test_wait_times_out_with_a_code_of_its_own_and_says_what_is_open(client: FakeClient) -> None:
    client.add(instance("x"))
    client.instances["x"].waits_for = ["event 'go'"]
    result = run("wait", "x", "--timeout", "1s")
    assert result.exit_code == 6
    assert "has not ended" in result.stderr
    assert "event 'go'" in result.stderr


def test_wait_for_the_start(client: FakeClient) -> None:
    client.add(instance("x"))
    assert run("wait", "x", "--start").exit_code == 0
    assert client.asked("wait_for_start") == [(("x",), {"timeout": None})]


def test_raise(client: FakeClient) -> None:
    client.add(instance("x"))
    client.add(instance("over", Status.COMPLETED))
    assert run("raise", "x", "go", "[1]").exit_code == 0
    assert run("raise", "x", "go").exit_code == 0
    assert [arguments for arguments, _ in client.asked("raise_event")] == [("x", "go", [1]), ("x", "go", None)]
    assert run("raise", "nobody", "go").exit_code == 3
    dropped = run("raise", "over", "go")
    assert dropped.exit_code == 4
    assert "dropped" in dropped.stderr
