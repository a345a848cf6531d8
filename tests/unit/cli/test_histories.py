"""`check-replay`, `export-history` and `import-history`, on real hubs."""

from pathlib import Path

import pytest

import holdtrue
from tests.unit.cli.support import documents, run

ORIGINAL = """
import holdtrue

app = holdtrue.App()

@app.activity
def charge(ctx, n: int) -> int:
    return n

@app.activity
def refund(ctx, n: int) -> int:
    return n

@app.orchestrator
async def order(ctx, n: int):
    await ctx.call_activity(charge, input=n)
    await ctx.wait_for_external_event("paid")
    return n
"""
CHANGED = ORIGINAL.replace("call_activity(charge, input=n)", "call_activity(refund, input=n)")
LINE = CHANGED[: CHANGED.index("call_activity(refund")].count("\n") + 1
HANGING = ORIGINAL.replace('    await ctx.wait_for_external_event("paid")', "    while n:\n        n += 1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a hub in which two orders wait and one has ended, and applications beside it."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("good.py", ORIGINAL), ("bad.py", CHANGED), ("slow.py", HANGING)):
        # Modules stay loaded: each test has its own.
        (tmp_path / f"{tmp_path.name}_{name}").write_text(text)
    (tmp_path / "empty_app.py").write_text("import holdtrue\napp = holdtrue.App()\n")
    _fill(tmp_path / "holdtrue.db")
    return tmp_path


def _fill(hub: Path) -> None:
    import asyncio

    scope: dict[str, holdtrue.App] = {}
    exec(compile(ORIGINAL, "original.py", "exec"), scope)

    async def main() -> None:
        async with holdtrue.Host(scope["app"], hub) as host:
            for number in (1, 2, 3):
                await host.client.start("order", input=number, instance_id=f"order-{number}")
            for number in (1, 2, 3):
                while (await host.client.get_status(f"order-{number}")).history_size < 7:  # type: ignore[union-attr]
                    await asyncio.sleep(0.01)
            await host.client.raise_event("order-3", "paid")
            await host.client.wait_for_completion("order-3")

    asyncio.run(main())


def app(place: Path, name: str) -> str:
    return f"{place.name}_{name}.py"


def test_code_that_fits(place: Path) -> None:
    done = run("check-replay", app(place, "good"))
    assert (done.exit_code, done.stdout) == (0, "2 instances checked: 2 would go on.\n")
    assert run("check-replay", app(place, "good"), "--all", "--json").stdout == '{"checked":3,"fits":3}\n'


def test_code_that_does_not_fit(place: Path) -> None:
    done = run("check-replay", app(place, "bad"), "--store", "holdtrue.db")
    first, second, last = done.stdout.splitlines()
    assert done.exit_code == 1
    assert first == (
        "order-1 (order, Running): would be held: history has TaskScheduled 'charge' (task 0) (event 2), the code asks "
        f"for activity 'refund' (task 0) at {place / app(place, 'bad')}:{LINE}"
    )
    assert second.startswith("order-2 ") and last == "2 instances checked: 2 would be held."

    found = documents(run("check-replay", app(place, "bad"), "--json", "--prefix", "order-2").stdout)
    assert found[0] | {"reason": ""} == {
        "instance_id": "order-2",
        "name": "order",
        "version": None,
        "status": "Running",
        "events": 7,
        "verdict": "held",
        "reason": "",
        "step": "TaskScheduled 'charge' (task 0) (event 2)",
        "event": 2,
        "call": f"asks for activity 'refund' (task 0) at {place / app(place, 'bad')}:{LINE}",
        "place": f"{place / app(place, 'bad')}:{LINE}",
    }
    assert found[1:] == [{"checked": 1, "held": 1}]
    ended = run("check-replay", app(place, "bad"), "--status", "completed")
    assert ended.exit_code == 1 and "order-3 (order, Completed): ended, and would do otherwise now: " in ended.stdout


def test_an_app_without_the_code_and_one_that_hangs(place: Path) -> None:
    unknown = run("check-replay", "empty_app.py")
    assert unknown.exit_code == 1 and "2 would wait for a worker that has the code" in unknown.stdout
    assert run("check-replay", "empty_app.py", "--ignore-unknown").exit_code == 0
    slow = run("check-replay", app(place, "slow"), "--prefix", "order-1", "--time-limit", "300ms")
    assert slow.exit_code == 1
    assert (
        f"order-1 (order, Running): would hang: its replay was not done within 0.3 s (it was at {place}" in slow.stdout
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nowhere.py",), 2),
        (("broken_app.py",), 7),
        (("empty_app.py", "--time-limit", "0"), 2),
        (("empty_app.py", "--hub", "nowhere.db"), 5),
        (("empty_app.py", "--file", "nowhere.jsonl"), 3),
        (("empty_app.py", "--file", "empty_app.py"), 2),
        (("empty_app.py", "--file", "."), 2),
    ],
)
def test_what_cannot_be_checked(words: tuple[str, ...], code: int, place: Path) -> None:
    (place / "broken_app.py").write_text("import nothing_of_this_name")
    done = run("check-replay", *words)
    assert done.exit_code == code, done.stderr
    assert done.stderr.startswith("Error: ")


def test_out_of_a_hub_into_another(place: Path) -> None:
    done = run("export-history", "x.jsonl", "--all", "--json")
    assert done.exit_code == 0, done.stderr
    assert documents(done.stdout) == [
        {"operation": "export-history", "file": "x.jsonl", "instances": 3, "events": 25, "redacted": False}
    ]
    assert run("export-history", "x.jsonl").exit_code == 4
    assert run("export-history", "x.jsonl", "--all", "--force").exit_code == 0
    checked = run("check-replay", app(place, "bad"), "--file", "x.jsonl", "--hub", "nowhere.db")
    assert checked.exit_code == 1 and "2 would be held" in checked.stdout

    imported = run("import-history", "x.jsonl", "--hub", "look.db")
    assert (imported.exit_code, imported.stdout) == (0, "Imported 3 instances into look.db, 2 of them at rest.\n")
    listed = documents(run("list", "--hub", "look.db", "--json", "--oldest-first").stdout)
    assert [(one["instance_id"], one["status"]) for one in listed] == [
        ("order-1", "Running"),
        ("order-2", "Running"),
        ("order-3", "Completed"),
    ]
    assert [one["condition"] and one["condition"]["kind"] for one in listed] == ["imported", "imported", None]
    assert run("export-history", "y.jsonl", "--all", "--hub", "look.db").exit_code == 0
    assert Path("y.jsonl").read_bytes() == Path("x.jsonl").read_bytes()

    again = run("import-history", "x.jsonl", "--hub", "look.db")
    assert again.exit_code == 4 and "3 instances stand in look.db already" in again.stderr
    running = run("import-history", "x.jsonl", "--hub", "look.db", "--replace", "--run", "--json")
    assert documents(running.stdout) == [{"operation": "import-history", "instances": 3, "unfinished": 2, "run": True}]
    assert documents(run("show", "order-1", "--hub", "look.db", "--json").stdout)[0]["condition"] is None
    assert run("purge", "order-1", "--hub", "look.db").exit_code == 4


def test_some_instances(place: Path) -> None:
    def exported(*words: str) -> int:
        done = run("export-history", "x.jsonl.gz", *words, "--force", "--json")
        assert done.exit_code == 0, done.stderr
        count: int = documents(done.stdout)[0]["instances"]
        return count

    assert exported() == 2
    assert exported("order-3", "order-1") == 2
    assert exported("order-3", "--with-children") == 1
    assert exported("--status", "completed") == 1
    assert exported("--prefix", "order-2") == 1
    assert exported("--name", "other") == 0
    assert run("export-history", "x.jsonl", "order-9").exit_code == 3
    assert run("export-history", "x.jsonl", "order-1", "--all").exit_code == 2
    assert run("export-history", "x.jsonl", "--with-children").exit_code == 2
    assert not Path("x.jsonl").exists()


def test_a_redacted_file_is_for_looking_at(place: Path) -> None:
    assert run("export-history", "x.jsonl", "--redact").exit_code == 0
    assert "is redacted" in run("check-replay", app(place, "good"), "--file", "x.jsonl").stderr
    refused = run("import-history", "x.jsonl", "--hub", "look.db", "--run")
    assert refused.exit_code == 2 and not Path("look.db").exists()
    assert run("import-history", "x.jsonl", "--hub", "look.db").exit_code == 0


def test_nothing_of_a_damaged_file_is_imported(place: Path) -> None:
    assert run("export-history", "x.jsonl").exit_code == 0
    whole = Path("x.jsonl").read_text()
    Path("cut.jsonl").write_text(whole[:-30])
    done = run("import-history", "x.jsonl", "cut.jsonl", "--hub", "look.db")
    assert done.exit_code == 2 and "history file 'cut.jsonl', line 4, column " in done.stderr
    assert not Path("look.db").exists()
    twice = run("import-history", "x.jsonl", "x.jsonl", "--hub", "look.db")
    assert twice.exit_code == 2 and "stands in two of the files" in twice.stderr
    assert run("import-history", "nowhere.jsonl").exit_code == 3


def test_at_rest_it_can_be_purged(place: Path) -> None:
    run("export-history", "x.jsonl")
    run("import-history", "x.jsonl", "--hub", "look.db")
    assert run("purge", "order-1", "--hub", "look.db").exit_code == 0
    assert run("show", "order-1", "--hub", "look.db").exit_code == 3
