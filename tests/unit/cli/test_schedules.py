"""Schedules: what is asked of the client, and what is printed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdtrue.client.schedules import ScheduleInfo, ScheduleSpec, ScheduleTick
from tests.unit.cli.support import FakeClient, documents, moment, run

DUE = datetime(2026, 1, 1, tzinfo=UTC)


def tick(decision: str = "started", number: int = 0) -> ScheduleTick:
    due = DUE + timedelta(seconds=number)
    return ScheduleTick(
        schedule_id="s", due=due, decided_at=due, decision=decision, count=3 if decision == "missed" else 1,
        instance_id="job", execution_id="e", status="RUNNING", reason="code is new" if decision == "held" else None,
    )  # fmt: skip


class FakeSchedules:
    """Answers with one schedule, and remembers what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.decision = "started"
        self.paused = False

    def __getattr__(self, name: str) -> Any:
        def act(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, arguments, named))
            match name:
                case "list":
                    return [self.info()]
                case "trigger":
                    return tick(self.decision)
                case "next_runs":
                    return [DUE, DUE + timedelta(seconds=5)]
                case "delete":
                    return None
                case _:
                    return self.info()

        return act

    def all_ticks(self, schedule_id: str, *, after: datetime | None = None) -> Iterator[ScheduleTick]:
        self.calls.append(("all_ticks", (schedule_id,), {"after": after}))
        yield from (tick("held" if number % 2 else "missed", number) for number in range(6))

    def info(self) -> ScheduleInfo:
        spec = ScheduleSpec(
            schedule_id="s", orchestrator="job", input='{"a": 1}', cron="*/5 * * * * *", time_zone="Europe/Vienna",
            instance_id="job",
        )  # fmt: skip
        due = None if self.paused else DUE
        return ScheduleInfo(
            spec=spec,
            paused=self.paused,
            next_due=due,
            queued_since=None,
            last_instance_id="job",
            last_tick=tick("held"),
        )


@pytest.fixture
def schedules(client: FakeClient) -> FakeSchedules:
    fake = FakeSchedules()
    client.schedules = fake  # type: ignore[attr-defined]
    return fake


def test_create_with_few_words_leaves_the_defaults_to_the_engine(schedules: FakeSchedules) -> None:
    result = run("schedule", "create", "s", "job", "--every", "5s")
    assert (result.exit_code, result.stdout) == (0, "Created s: next due 2026-01-01T00:00:00.000Z.\n")
    [(name, arguments, named)] = schedules.calls
    assert (name, arguments) == ("create", ("s", "job"))
    assert named == {"interval": 5.0, "time_zone": "UTC", "overlap": "skip", "missed": "one", "paused": False}


def test_create_with_every_option(schedules: FakeSchedules) -> None:
    words = (
        "--time-zone Europe/Vienna --id job --overlap replace --missed all --missed-limit 3 --grace 10s --jitter 1s "
        "--start 2026-01-01 --end 2027-01-01 --tag a=1 --of-version 2 --keep-ticks 1d --paused --put"
    )
    assert run("schedule", "create", "s", "job", '{"a":1}', "--cron", "0 0 3 * * *", *words.split()).exit_code == 0
    [(name, _, named)] = schedules.calls
    assert name == "put"
    assert named == {
        "cron": "0 0 3 * * *", "time_zone": "Europe/Vienna", "instance_id": "job", "overlap": "replace",
        "missed": "all", "missed_limit": 3, "grace": 10.0, "jitter": 1.0,
        "start_at": moment("2026-01-01T00:00:00+00:00"),
        "end_at": moment("2027-01-01T00:00:00+00:00"), "tags": {"a": "1"}, "version": "2", "keep_ticks": 86_400.0,
        "paused": True, "input": {"a": 1},
    }  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--cron", "* * * * *", "--every", "5s"], ["--every", "often"]])
def test_create_wants_one_rhythm(schedules: FakeSchedules, words: list[str]) -> None:
    assert run("schedule", "create", "s", "job", *words).exit_code == 2
    assert schedules.calls == []


def test_list_and_show(schedules: FakeSchedules) -> None:
    row = run("schedule", "list").stdout.splitlines()[1]
    assert row == (
        "s         job            */5 * * * * * (Europe/Vienna)  active  2026-01-01T00:00:00Z"
        "  held 2026-01-01T00:00:00Z"
    )
    shown = run("schedule", "show", "s").stdout.splitlines()
    assert "Reason:        code is new" in shown
    assert "When:          */5 * * * * * (Europe/Vienna)" in shown
    [document] = documents(run("schedule", "show", "s", "--json").stdout)
    assert document["input"] == {"a": 1}
    assert document["next_due"] == "2026-01-01T00:00:00.000000Z"
    assert document["last_tick"]["decision"] == "held"


def test_pause_and_resume(schedules: FakeSchedules) -> None:
    schedules.paused = True
    assert run("schedule", "pause", "s").stdout == "Paused s: paused.\n"
    schedules.paused = False
    assert run("schedule", "resume", "s", "--no-catch-up").exit_code == 0
    assert schedules.calls[-1] == ("resume", ("s",), {"catch_up": False})


@pytest.mark.parametrize(
    ("decision", "code"), [("started", 0), ("replaced", 0), ("queued", 0), ("skipped", 4), ("held", 4)]
)
def test_trigger_tells_whether_it_made_a_run(schedules: FakeSchedules, decision: str, code: int) -> None:
    schedules.decision = decision
    result = run("schedule", "trigger", "s")
    assert result.exit_code == code
    assert result.stdout.startswith(f"{decision} job")


def test_next_ticks_and_delete(schedules: FakeSchedules) -> None:
    assert run("schedule", "next", "s", "-n", "2").stdout == "2026-01-01T00:00:00.000Z\n2026-01-01T00:00:05.000Z\n"
    assert schedules.calls[-1] == ("next_runs", ("s", 2), {})
    assert run("schedule", "delete", "s").exit_code == 0


def test_ticks_are_the_latest(schedules: FakeSchedules) -> None:
    lines = run("schedule", "ticks", "s", "--limit", "2", "--since", "2025-12-31").stdout.splitlines()
    assert schedules.calls[-1][2] == {"after": moment("2025-12-31T00:00:00+00:00")}
    assert [line.split()[0] for line in lines[1:]] == ["2026-01-01T00:00:04.000Z", "2026-01-01T00:00:05.000Z"]
    assert "missed ×3" in lines[1]
    assert "code is new" in lines[2]
    assert len(documents(run("schedule", "ticks", "s", "--json", "--limit", "0").stdout)) == 6
