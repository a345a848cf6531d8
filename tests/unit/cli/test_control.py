"""Steering instances and dead letters: what is asked of the client, and how each ends."""

import sys

import pytest

from holdtrue.client.errors import InstanceNotEnded
from holdtrue.core.projection import Status
from tests.unit.cli.support import FakeClient, documents, instance, letter, run


@pytest.mark.parametrize("operation", ["suspend", "resume", "cancel", "rewind"])
def test_a_command_with_a_reason(client: FakeClient, operation: str) -> None:
    client.add(instance("x"))
    assert run(operation, "x", "--reason", "because").exit_code == 0
    assert client.asked(operation) == [(("x", "because"), {})]


def test_several_instances_each_get_their_turn(client: FakeClient) -> None:
    client.add(instance("a"))
    client.add(instance("c"))
    result = run("--json", "suspend", "a", "b", "c", "a")
    assert [document["instance_id"] for document in documents(result.stdout)] == ["a", "c"]
    assert documents(result.stderr)[0]["error"]["type"] == "InstanceNotFound"
    assert result.exit_code == 3


def test_terminate(client: FakeClient) -> None:
    client.add(instance("x"))
    assert run("terminate", "x", "--output", '{"why": 1}', "--no-recursive").exit_code == 0
    assert client.asked("terminate") == [(("x", {"why": 1}), {"recursive": False})]


def test_to_end_what_has_ended_is_no_failure(client: FakeClient) -> None:
    client.add(instance("x", Status.COMPLETED))
    for operation in ("cancel", "terminate"):
        result = run(operation, "x")
        assert (result.exit_code, result.stdout) == (0, "x had ended.\n")


def test_restart_prints_the_id(client: FakeClient) -> None:
    client.add(instance("x"))
    assert run("restart", "x").stdout == "x\n"
    assert run("restart", "x", "--new-id", "y").stdout == "y\n"


def test_purge_by_id(client: FakeClient) -> None:
    client.add(instance("x", Status.COMPLETED))
    assert run("purge", "x").exit_code == 0
    assert client.asked("purge") == [(("x",), {"recursive": True})]
    assert run("purge", "nobody").exit_code == 3
    client.error = InstanceNotEnded("x", "purged")
    assert run("purge", "x").exit_code == 4


def test_purge_by_filter_wants_a_yes(client: FakeClient) -> None:
    refused = run("purge", "--status", "completed")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert client.calls == []
    done = run("purge", "--status", "completed", "--prefix", "a", "--yes")
    assert (done.exit_code, done.stdout) == (0, "Purged 7 instances.\n")
    assert "\x1b" not in done.stderr
    assert client.asked("purge_where") == [((), {"statuses": {Status.COMPLETED}, "prefix": "a"})]


@pytest.mark.parametrize(
    "words", [[], ["--all", "--name", "x"], ["x", "--name", "y"], ["x", "--all"], ["--status", "running"]]
)
def test_purge_of_what_is_not_clear_is_refused(client: FakeClient, words: list[str]) -> None:
    assert run("purge", *words, "--yes").exit_code == 2
    assert client.calls == []


def test_dead_letters_are_listed_and_shown(client: FakeClient) -> None:
    client.letters = [letter(4), letter(9, "b")]
    assert [line.split()[0] for line in run("dead-letters", "list").stdout.splitlines()] == ["NUMBER", "4", "9"]
    shown = run("dead-letters", "show", "4").stdout
    assert "Reason:" in shown
    assert "no such entity" in shown
    [document] = documents(run("dead-letters", "show", "9", "--json").stdout)
    assert document["instance_id"] == "b"
    assert document["event"]["input"] == {"n": 1}
    assert run("dead-letters", "show", "5").exit_code == 3


def test_dead_letters_are_sent_again_or_dismissed(client: FakeClient) -> None:
    client.letters = [letter(4), letter(9)]
    assert run("dead-letters", "resend", "9", "9").exit_code == 0
    assert client.asked("resend_dead_letters") == [(([9],), {})]
    assert run("dead-letters", "dismiss", "--all").exit_code == 0
    assert client.asked("dismiss_dead_letters") == [(([4, 9],), {})]
    assert run("dead-letters", "resend", "5").exit_code == 3
    assert run("dead-letters", "resend").exit_code == 2
    assert run("dead-letters", "resend", "4", "--all").exit_code == 2


def test_dead_letters_that_cannot_be_sent_show_in_the_exit_code(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.letters = [letter(4), letter(9)]
    monkeypatch.setattr(client, "resend_dead_letters", lambda numbers: 1)
    result = run("dead-letters", "resend", "--all")
    assert (result.exit_code, result.stdout) == (4, "Sent 1 of 2 again.\n")


def test_a_bar_for_several_while_a_person_looks_on(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        client.add(instance(name))
    client.letters = [letter(number) for number in range(1, 451)]
    commands = (["suspend", "a", "b", "a"], ["purge", "--all", "--yes"], ["dead-letters", "resend", "--all"])
    plain = [run(*words) for words in commands]
    assert [result.stderr for result in plain] == ["", "", ""]
    assert [len(numbers) for (numbers,), _ in client.asked("resend_dead_letters")] == [200, 200, 50]
    monkeypatch.setattr("holdtrue.cli.output.is_terminal", lambda stream: stream is sys.stderr)
    env = {"TERM": "xterm", "FORCE_COLOR": "1", "COLUMNS": "100"}
    for words, before, end in zip(commands, plain, ("2/2", "7 ...", "450/450"), strict=True):
        looked_at = run(*words, env=env)
        assert end in looked_at.stderr, words
        assert looked_at.stdout == before.stdout, "a result must not be drawn with the bar"
    assert "\x1b" not in run("suspend", "a", env=env).stderr
    assert run("suspend", "a", "b", "--json", env=env).stderr == ""


def test_a_question_that_is_interrupted_or_answered_with_no(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdtrue.cli.control.is_terminal", lambda stream: True)
    assert run("purge", "--all", input="n\n").exit_code == 1
    assert run("purge", "--all", input="").exit_code == 130
    assert client.calls == []
    assert run("purge", "--all", input="y\n").exit_code == 0
