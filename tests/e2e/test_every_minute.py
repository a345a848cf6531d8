"""The main job: a short storm ends with the proof, and the proof finds every lie that is planted in it."""

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from examples.every_minute import job, plan, report, storm, tables, weather
from holdtrue.core import events as ev
from holdtrue.core.projection import Status

ROOT = Path(__file__).resolve().parents[2]
MONTHS = list(weather.months())


# -- the data set ----------------------------------------------------------------------------------------


def test_the_data_are_48_whole_months() -> None:
    assert (len(MONTHS), MONTHS[0], MONTHS[-1], len(weather.days())) == (48, "2012-01", "2015-12", 1461)


def test_the_figures_of_a_month() -> None:
    """January 2012, added up by hand from the file."""
    january = weather.summarize("2012-01", [weather.days()[date] for date in weather.months()["2012-01"]])
    assert january == weather.Figures("2012-01", 31, 1733, 128, -33, 1209, 18)
    assert [report._directly(m) for m in MONTHS] == [
        weather.summarize(m, [weather.days()[date] for date in weather.months()[m]]) for m in MONTHS
    ]


# -- the tables: exactly once by themselves ------------------------------------------------------------------


def _figures(month: str) -> weather.Figures:
    return weather.summarize(month, [weather.days()[date] for date in weather.months()[month]])


def test_an_activity_that_runs_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.db"
    tables.create(path)
    assert tables.begin(path, "e1", MONTHS) == tables.begin(path, "e1", MONTHS) == "2012-01"
    assert tables.finish(path, "e1", _figures("2012-01")) is True
    first = tables.read(path)
    assert tables.finish(path, "e1", _figures("2012-01")) is False
    assert tables.read(path) == first
    assert [attempt.ended_at is not None for attempt in first[1]] == [True, True]
    assert tables.begin(path, "e2", MONTHS) == "2012-02"


def test_a_month_of_another_execution_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.db"
    tables.create(path)
    tables.begin(path, "e1", MONTHS)
    tables.begin(path, "e2", MONTHS)
    tables.finish(path, "e1", _figures("2012-01"))
    with pytest.raises(tables.AlreadyLoaded, match="2012-01 was loaded by execution e1, and again by e2"):
        tables.finish(path, "e2", _figures("2012-01"))
    assert [row.execution for row in tables.read(path)[0]] == ["e1"]


# -- the plan ------------------------------------------------------------------------------------------------


def test_a_plan_is_drawn_again_from_its_seed() -> None:
    drawn = plan.draw(7, 24, 60.0)
    assert drawn == plan.draw(7, 24, 60.0) != plan.draw(8, 24, 60.0)
    assert sum(len(kill.workers) for kill in drawn) == 24
    assert sum(len(kill.workers) == 2 for kill in drawn) >= 3
    assert sum(kill.wait for kill in drawn) == pytest.approx(60.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_storm_that_is_stopped_leaves_nobody_behind(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "examples.every_minute.storm", "--directory", str(tmp_path / "run")]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        until = time.monotonic() + 60
        while len(workers := children.read_text().split()) < plan.WORKERS:
            assert time.monotonic() < until and running.poll() is None
            time.sleep(0.02)
        running.send_signal(number)
        printed, _ = running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130
    assert "Interrupted" in printed and "Traceback" not in printed and "PROVEN" not in printed
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_a_storm_clears_away_only_what_storms_leave(tmp_path: Path) -> None:
    (tmp_path / "hub.db-hosts").mkdir()
    for name in ("hub.db", "hub.db-wal", "hub.db-hosts/1", "report.db", "worker-0.log", "mine.txt"):
        (tmp_path / name).touch()
    storm.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("words", ["--months 0", "--kills -1", "--kills x", "--seed x"])
def test_a_storm_that_cannot_be(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["storm", *words.split()])
    with pytest.raises(SystemExit) as refused:
        storm.command()
    assert refused.value.code == 2
    assert words.split()[0] in capsys.readouterr().err


# -- the proof -------------------------------------------------------------------------------------------------


def _evidence(months: int = 3) -> report.Evidence:
    """What an honest run leaves: each month by an execution of its own, one after the other."""
    rows, attempts, ticks = [], [], []
    for number, month in enumerate(MONTHS[:months]):
        at, name = 1000.0 + 3 * number, f"e{number}"
        ticks.append(report.Tick(at, at + 0.01, "started", name, None))
        ticks.append(report.Tick(at + 1, at + 1.01, "skipped", None, "Running"))
        attempts.append(tables.Attempt(number, name, month, at + 0.1, at + 1.5))
        rows.append(tables.ReportRow(month, name, _figures(month), at + 1.5))
    return report.Evidence(rows, attempts, ticks, [_instance()], 0, 0, [])


def _instance() -> report.Instance:
    name = job.load_next_month.__name__
    history: list[ev.HistoryEvent] = [
        ev.OrchestratorStarted(timestamp=10),
        ev.ExecutionStarted(timestamp=10, instance_id=job.INSTANCE, execution_id="e2", name=name),
        ev.ExecutionCompleted(timestamp=20, event_id=0, status=int(Status.COMPLETED), result='"2012-03"'),
        ev.OrchestratorCompleted(timestamp=20),
    ]
    claims = {
        "execution_id": "e2",
        "name": name,
        "runtime_status": Status.COMPLETED,
        "output": '"2012-03"',
        "failure": None,
    }
    return report.Instance(job.INSTANCE, claims, history)


def test_an_honest_run_has_no_differences() -> None:
    assert report.differences(_evidence(), 3) == []


def _changed(evidence: report.Evidence, **changes: object) -> report.Evidence:
    return msgspec.structs.replace(evidence, **changes)  # type: ignore[arg-type]


def _planted() -> Iterator[tuple[str, report.Evidence, str]]:
    good = _evidence()
    row, attempt, tick, instance = good.rows[1], good.attempts[1], good.ticks[2], good.instances[0]
    replace = msgspec.structs.replace
    yield "doubled month", _changed(good, rows=[*good.rows, row]), "month 2012-02 is in the report table 2 times"
    wrong = replace(row, figures=replace(row.figures, wind=row.figures.wind + 1))
    yield (
        "wrong figure",
        _changed(good, rows=[good.rows[0], wrong, good.rows[2]]),
        "month 2012-02 (execution e1): the report says",
    )
    yield "left out", _changed(good, rows=[good.rows[0], good.rows[2]]), "month 2012-02 was left out"
    yield "no row", _changed(good, rows=good.rows[:2]), "month 2012-03 was begun by e2 and has no row"
    twice = [*good.attempts, replace(attempt, number=9, execution="e9", begun_at=1100.0, ended_at=1101.0)]
    yield "loaded twice", _changed(good, attempts=twice), "month 2012-02 was loaded by 2 executions: e1, e9"
    yield "outside the schedule", _changed(good, attempts=twice), "execution e9 was logged, and no tick started it"
    long = [good.attempts[0], replace(attempt, ended_at=1007.0), good.attempts[2]]
    yield "overlap in the log", _changed(good, attempts=long), "executions e1 and e2 overlapped by 0.900 s"
    yield "overlap by the ticks", _changed(good, attempts=long), "execution e2 was started while e1 still ran"
    never = [good.attempts[0], replace(attempt, ended_at=None), good.attempts[2]]
    yield "never ended", _changed(good, attempts=never), "execution e1 began ('2012-02',) and never ended"
    other = [*good.attempts, replace(attempt, number=9, month="2012-03")]
    yield "another month", _changed(good, attempts=other), "execution e1 went from one month to another"
    yield "tick twice", _changed(good, ticks=[*good.ticks, tick]), f"the tick due at {tick.due} was decided 2 times"
    yield (
        "started twice",
        _changed(good, ticks=[*good.ticks, replace(tick, due=1.0)]),
        "execution e1 was started by 2 ticks",
    )
    lost = replace(tick, due=2000.0, decided_at=2000.0, execution="e7")
    yield (
        "lost start",
        _changed(good, ticks=[*good.ticks, lost]),
        "execution e7 was started by the tick due at 2000.0 and logged nothing",
    )
    held = replace(tick, due=2000.0, decision="held", execution=None)
    yield "held", _changed(good, ticks=[*good.ticks, held]), "the tick due at 2000.0 was decided 'held'"
    for name, value in (("runtime_status", Status.FAILED), ("output", '"2012-09"'), ("execution_id", "e0")):
        lie = replace(instance, claims={**instance.claims, name: value})
        yield f"lying {name}", _changed(good, instances=[lie]), f"instance 'load-next-month': its status says {name}"
    # The reported failure itself: the history says Completed, the status still says Running.
    stuck = replace(instance, claims={**instance.claims, "runtime_status": Status.RUNNING})
    yield "split brain", _changed(good, instances=[stuck]), "instance 'load-next-month' is stuck: RUNNING"
    yield "messages left", _changed(good, messages=2), "2 messages wait in the hub"
    yield "activities left", _changed(good, activities=1), "1 activities are left over"
    yield "dead letter", _changed(good, dead_letters=["load-next-month: no such thing"]), "dead letter: load-next-month"


@pytest.mark.parametrize(("evidence", "words"), [pytest.param(e, w, id=name) for name, e, w in _planted()])
def test_a_planted_difference_is_found(evidence: report.Evidence, words: str) -> None:
    found = report.differences(evidence, 3)
    assert any(line.startswith(words) for line in found), found


def test_too_few_months_are_a_difference() -> None:
    assert report.differences(_evidence(3), 5) == ["3 months were loaded, 5 should have been"]


# -- all of it, with real processes -------------------------------------------------------------------------------


def _report(directory: Path, months: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.every_minute.report", str(directory), str(months)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def after_storm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A short storm: five kills (one blow hits both), four months; its directory and what it printed."""
    directory = tmp_path_factory.mktemp("storm") / "run"
    command = [
        sys.executable, "-m", "examples.every_minute.storm",
        "--months", "4", "--kills", "5", "--seconds", "8", "--seed", "20120101", "--directory", str(directory),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    logs = "".join(path.read_text() for path in directory.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    return directory, done.stdout


def test_a_short_storm_ends_with_the_proof(after_storm: tuple[Path, str]) -> None:
    _, printed = after_storm
    assert "seed 20120101" in printed
    assert len(re.findall(r"^SIGKILL ", printed, re.MULTILINE)) == 4
    assert "SIGKILL worker-0 and worker-1" in printed
    assert re.search(r"^slowest recovery +(\d+\.\d\d s|none)", printed, re.MULTILINE)
    assert "PROVEN: every month exactly once" in printed
    assert "NOT PROVEN" not in printed
    assert "DIFFERENCE" not in printed


def test_the_proof_is_read_afresh_and_finds_lies_on_disk(after_storm: tuple[Path, str], tmp_path: Path) -> None:
    """The same files, tampered with one at a time: exit code 1, and the thing named."""
    directory, _ = after_storm
    assert _report(directory, 4).returncode == 0

    def tampered(name: str, file: Path, sql: str) -> subprocess.CompletedProcess[str]:
        copy = tmp_path / name
        shutil.copytree(directory, copy)
        connection = sqlite3.connect(copy / file.name)
        changed = connection.execute(sql).rowcount
        connection.commit()
        connection.close()
        assert changed > 0, f"{sql} changed nothing: the test plants no lie"
        return _report(copy, 4)

    table, hub = job.table_file(directory), job.hub_file(directory)
    wrong = tampered(
        "figure",
        table,
        "UPDATE report SET figures = replace(figures, '\"days\":31', '\"days\":30') WHERE month = '2012-01'",
    )
    assert wrong.returncode == 1 and "DIFFERENCE: month 2012-01" in wrong.stdout
    doubled = tampered(
        "doubled",
        table,
        "INSERT INTO attempts (execution, month, begun_at, ended_at) "
        "SELECT 'another', month, begun_at, ended_at FROM attempts LIMIT 1",
    )
    assert doubled.returncode == 1 and "DIFFERENCE: month 2012-01 was loaded by 2 executions" in doubled.stdout
    lie = tampered("status", hub, "UPDATE instance SET status = 0")
    assert lie.returncode == 1 and "DIFFERENCE: instance 'load-next-month'" in lie.stdout


def test_a_worker_told_to_stop_before_it_is_one_stops_in_order(tmp_path: Path) -> None:
    worker = storm.Worker(0, tmp_path)
    worker.start()
    assert worker.stop() == 0 and not worker.is_up
