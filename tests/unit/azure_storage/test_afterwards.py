"""What is done a while after a commit (rule 9, and the debts that no commit clears), seen in the account itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec

import holdtrue
from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.afterwards import Afterwards
from holdtrue.stores.azure_storage.holding import Held
from holdtrue.stores.azure_storage.sentinel import Sentinel, read_sentinel
from holdtrue.stores.azure_storage.service import Do, Instant, Operation, Row, Unsure
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.protocol import CommitOutcome, Committing, Lease
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

SETTINGS = AzureStorageSettings(partition_count=1, max_queue_polling_interval=0.2, lease_acquire_interval=1.0)

app = holdtrue.App()


@app.activity
async def slow(ctx: holdtrue.ActivityContext, seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.orchestrator
async def tells(ctx: holdtrue.OrchestrationContext, pauses: list[float]) -> None:
    for number, pause in enumerate(pauses):
        ctx.set_custom_status(number)
        await ctx.call_activity(slow, input=pause)
    await ctx.wait_for_external_event("go")


@app.orchestrator
async def works(ctx: holdtrue.OrchestrationContext, seconds: float) -> None:
    await ctx.call_activity(slow, input=seconds)


@app.orchestrator
async def child(ctx: holdtrue.OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(seconds=30))


@app.orchestrator
async def leaves_a_child(ctx: holdtrue.OrchestrationContext) -> None:
    ctx.call_sub_orchestrator(child, instance_id="left")


@app.orchestrator
async def waits_for_a_child(ctx: holdtrue.OrchestrationContext) -> str:
    try:
        await ctx.call_sub_orchestrator(child, instance_id="replaced")
    except holdtrue.TaskFailedError as error:
        return str(error)
    return "it ended well"


@app.orchestrator
async def sleeps(ctx: holdtrue.OrchestrationContext, seconds: float) -> None:
    await ctx.create_timer(timedelta(seconds=seconds))


class Stage:
    """An account, a host on it, and what was written."""

    def __init__(self) -> None:
        self.account = StorageModel(SimulatedEnvironment(1))
        self.writes: list[tuple[float, str, Operation]] = []
        self.account.account.watch = self._wrote
        self._hosts = 0

    def _wrote(self, verb: str, given: tuple[Any, ...], outcome: Any) -> None:
        if verb in ("write", "transact"):
            at = asyncio.get_running_loop().time()
            operations = given[1] if verb == "transact" else [given[1]]
            self.writes += [(at, given[0], operation) for operation in operations]

    async def host(self, *, local: bool = True, code: holdtrue.App = app, **more: Any) -> holdtrue.Host:
        self._hosts += 1
        environment = SimulatedEnvironment(self._hosts)
        given = msgspec.structs.replace(SETTINGS, local_activities=local)
        store = AzureStorageStore(self.account, "Rows", environment=environment, settings=given)
        await store.open()
        settings = HostSettings(name=f"h{self._hosts}", retention=False, schedules=False, **more)
        host = holdtrue.Host(code, store, settings=settings, environment=environment)
        await host.start()
        return host

    def row(self, name: str) -> Row:
        (row,) = self.account.tables.look("RowsInstances", name)  # type: ignore[attr-defined]
        return row  # type: ignore[no-any-return]

    def sentinel(self, name: str) -> Sentinel:
        rows = self.account.tables.look("RowsHistory", name)  # type: ignore[attr-defined]
        return next(read_sentinel(row) for row in rows if row.key == "sentinel")

    def row_writes(self) -> list[tuple[float, Operation]]:
        return [(at, operation) for at, table, operation in self.writes if table == "RowsInstances"]


def on_stage(test: Callable[[Stage], Awaitable[None]]) -> Callable[[], None]:
    def play() -> None:
        async def main() -> None:
            async with asyncio.timeout(3_600):
                await test(Stage())

        run(main())

    play.__name__, play.__doc__ = test.__name__, test.__doc__
    return play


@on_stage
async def test_a_custom_status_reaches_the_row_a_second_after_the_first_change(stage: Stage) -> None:
    host = await stage.host()
    await host.client.start(tells, input=[0.2, 0.2, 0.2, 30.0], instance_id="one")
    while not stage.row_writes()[1:]:
        await asyncio.sleep(0.01)
    begun = asyncio.get_running_loop().time()
    await asyncio.sleep(0.9)
    assert len(stage.row_writes()) == 2  # the client's start, the first commit
    status = await host.client.get_status("one")
    assert status is not None and status.custom_status == 3  # who reads does not wait for it
    assert stage.row("one").values["CustomStatus"] == "0"
    await asyncio.sleep(1.0)
    (at, _), *more = stage.row_writes()[2:]
    assert not more and begun + 0.9 < at < begun + 1.6
    assert stage.row("one").values["CustomStatus"] == "3"
    await asyncio.sleep(20)
    assert len(stage.row_writes()) == 3
    await host.stop()


@on_stage
async def test_a_row_that_lags_is_written_although_its_session_was_put_back(stage: Stage) -> None:
    host = await stage.host(live_instances=0)
    await host.client.start(tells, input=[0.1, 30.0], instance_id="one")
    await asyncio.sleep(3.0)
    assert stage.row("one").values["CustomStatus"] == "1"
    await host.stop()


@on_stage
async def test_a_row_that_lags_is_written_before_the_host_leaves(stage: Stage) -> None:
    host = await stage.host()
    await host.client.start(tells, input=[0.1, 30.0], instance_id="one")
    while (status := await host.client.get_status("one")) is None or status.custom_status != 1:
        await asyncio.sleep(0.01)
    assert stage.row("one").values["CustomStatus"] == "0"
    await host.stop()
    assert stage.row("one").values["CustomStatus"] == "1"


@on_stage
async def test_a_row_that_a_dead_host_left_behind_is_written_by_the_next_owner(stage: Stage) -> None:
    host = await stage.host()
    await host.client.start(tells, input=[0.1, 5.0], instance_id="one")
    await asyncio.sleep(3.0)
    row = stage.row("one")
    await host.stop()
    stale = {"CustomStatus": "0", "LastUpdatedTime": Instant(row.values["LastUpdatedTime"].ticks - TICKS_PER_SECOND)}  # type: ignore[union-attr]
    await stage.account.tables.write("RowsInstances", Operation(do=Do.MERGE, partition="one", key="", values=stale))
    other = await stage.host()
    await asyncio.sleep(200.0)  # nothing comes for it: the scan finds it
    assert stage.row("one").values["CustomStatus"] == "1"
    await other.stop()


@on_stage
async def test_what_was_sent_is_no_more_owed_a_second_later(stage: Stage) -> None:
    host = await stage.host(local=False)
    await host.client.start(works, input=30.0, instance_id="works")
    await host.client.start(leaves_a_child, instance_id="leaves")
    await asyncio.sleep(0.8)
    assert stage.sentinel("works").state.owed and stage.sentinel("leaves").state.owed
    await asyncio.sleep(2.0)
    assert not stage.sentinel("works").state.owed
    assert not stage.sentinel("leaves").state.owed  # an end: no commit will come
    await asyncio.sleep(60.0)
    for name in ("works", "leaves", "left"):
        status = await host.client.get_status(name)
        assert status is not None and status.runtime_status is holdtrue.Status.COMPLETED
    await host.stop()


@on_stage
async def test_a_timer_is_owed_until_the_next_commit(stage: Stage) -> None:
    """Nobody waits to know that it was sent: it costs no write."""
    host = await stage.host()
    await host.client.start(sleeps, input=30.0, instance_id="sleeps")
    await asyncio.sleep(5.0)
    assert stage.sentinel("sleeps").state.owed
    sentinels = [at for at, table, one in stage.writes if table == "RowsHistory" and one.key == "sentinel"]
    assert len(sentinels) == 1
    await host.stop()


@on_stage
async def test_a_session_that_is_taken_anew_meanwhile_is_not_disturbed(stage: Stage) -> None:
    host = await stage.host(live_instances=0)
    for number in range(20):
        await host.client.start(works, input=0.9 + number / 100, instance_id=f"w{number}")
    for number in range(20):
        status = await host.client.wait_for_completion(f"w{number}")
        assert status.runtime_status is holdtrue.Status.COMPLETED
    await host.stop()


@on_stage
async def test_a_debt_is_not_cleared_between_a_start_over_an_end_and_its_first_commit(stage: Stage) -> None:
    """What stood there stands until then: the write of a session that begins anew said that there was nothing."""
    host = await stage.host()
    await host.client.start(leaves_a_child, instance_id="leaves")
    await host.client.wait_for_completion("leaves")
    before = stage.sentinel("leaves")
    assert before.state.owed
    commit = host.store.commit

    async def late(commits: Sequence[Committing]) -> list[CommitOutcome]:
        await asyncio.sleep(3.0)
        return await commit(commits)

    host.store.commit = late  # type: ignore[method-assign]
    await host.client.restart("leaves")
    await asyncio.sleep(2.0)
    assert stage.sentinel("leaves").state.episode == before.state.episode
    status = await host.client.wait_for_completion("leaves")
    assert status.runtime_status is holdtrue.Status.COMPLETED
    assert stage.sentinel("leaves").execution_id != before.execution_id
    await host.stop()


@on_stage
async def test_a_start_that_waits_for_its_code_leaves_what_it_replaces(stage: Stage) -> None:
    """Written as gone while the start was kept, the live child was forgotten, and its parent waited for ever."""
    host = await stage.host()
    await host.client.start(waits_for_a_child, instance_id="parent")
    await asyncio.sleep(2.0)
    before = stage.sentinel("replaced")
    await host.client.start("elsewhere", input=1.0, instance_id="replaced", reuse="replace")
    await asyncio.sleep(2.0)
    kept = stage.sentinel("replaced")
    assert kept.state.waits and kept.state.rows == before.state.rows
    await host.stop()
    more = holdtrue.App()
    for name, code in (("waits_for_a_child", waits_for_a_child), ("child", child), ("elsewhere", sleeps)):
        more.orchestrator(name=name)(code)
    host = await stage.host(code=more)
    status = await host.client.wait_for_completion("parent")
    assert "was replaced by another start" in str(status.output)
    await host.stop()


@on_stage
async def test_the_parent_of_what_is_replaced_is_told_also_where_its_message_cannot_be_put_at_once(
    stage: Stage,
) -> None:
    host = await stage.host()
    await host.client.start(waits_for_a_child, instance_id="parent")
    await asyncio.sleep(2.0)
    put, refused = stage.account.queues.put, []

    async def refuses_once(queue: str, text: str, *more: Any, **named: Any) -> Any:
        if "was replaced by another start" in text and len(refused) < 100:
            refused.append(text)
            raise Unsure("simulated")
        return await put(queue, text, *more, **named)

    stage.account.queues.put = refuses_once  # type: ignore[method-assign]
    await host.client.start(sleeps, input=100.0, instance_id="replaced", reuse="replace")
    status = await host.client.wait_for_completion("parent")
    assert refused and "was replaced by another start" in str(status.output)
    await host.stop()


def test_what_is_due_for_a_session_that_is_followed_is_not_done() -> None:
    """Also where it was taken up just now, and its own task has not begun."""

    async def main() -> None:
        cleared: list[Held] = []

        async def clear(held: Held) -> bool:
            cleared.append(held)
            return True

        async def write(held: Held) -> None:
            await clear(held)

        afterwards = Afterwards(
            SimulatedEnvironment(1), row_delay=1.0, write_row=write, clear_debt=clear, is_mine=lambda partition: True
        )
        held = {name: Held(name, name, 0, Lease(1, 1)) for name in ("followed", "other")}
        working = asyncio.ensure_future(afterwards._all(list(held.values()), []))
        await asyncio.sleep(0)
        await afterwards.hand_over("followed")
        await working
        assert cleared == [held["other"]]
        assert not afterwards._in_work

    run(main())
