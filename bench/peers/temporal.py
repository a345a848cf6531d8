"""Temporal: its dev server on an SQLite file (a child of this script), client and worker of its Python SDK here.

Tuned as a user would: no sandbox, eager workflow start and eager activities (both skip a trip through the server's
queues), no rate limits in the server (its 20 polls of a queue a second make each task that is not eager wait for
50 ms), SQLite with WAL and synchronous=FULL, as safe as its own default and a quarter of the syncs.  start: on a task
queue without a worker (the durable accept alone).
"""

import asyncio
import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bench.measure import LANES, STEPS, Measured, drive, report, scratch
from bench.peers.options import options
from bench.peers.ports import free_ports

MINUTE = timedelta(minutes=1)
SLOTS = 200
LIMITS = (
    "frontend.rps", "frontend.namespaceRPS", "history.rps", "matching.rps", "frontend.persistenceMaxQPS",
    "history.persistenceMaxQPS", "matching.persistenceMaxQPS", "history.transferProcessorMaxPollRPS",
    "history.timerProcessorMaxPollRPS", "history.visibilityProcessorMaxPollRPS",
)  # fmt: skip


@activity.defn
async def noop(number: int) -> int:
    """The activity."""
    return number


@workflow.defn
class Chain:
    """Activities in sequence."""

    @workflow.run
    async def run(self, steps: int) -> int:
        """The workflow."""
        done = 0
        for number in range(steps):
            done += await workflow.execute_activity(noop, number, start_to_close_timeout=MINUTE) == number
        return done


@workflow.defn
class FanOut:
    """Activities at once."""

    @workflow.run
    async def run(self, width: int) -> int:
        """The workflow."""
        calls = (workflow.execute_activity(noop, number, start_to_close_timeout=MINUTE) for number in range(width))
        return len(await asyncio.gather(*calls))


async def connect(port: int) -> Client:
    """A client, when the server answers."""
    for _ in range(200):
        try:
            client = await Client.connect(f"127.0.0.1:{port}")
            await client.service_client.check_health()
            return client
        except RuntimeError:
            await asyncio.sleep(0.1)
    raise RuntimeError("Temporal's server does not answer")


async def bench(given: Any, port: int) -> None:
    """The scenario that the options name."""
    client = await connect(port)

    async def call(definition: Any, argument: int, name: str) -> None:
        result = await client.execute_workflow(
            definition.run, argument, id=f"b{os.getpid()}-{name}", task_queue="q", request_eager_start=True
        )
        if result != argument:
            raise RuntimeError(f"{name} gave {result}")

    async def accept(number: int) -> None:
        await client.start_workflow(Chain.run, 1, id=f"b{os.getpid()}-s{number}", task_queue="nobody")

    def done(measured: Measured, work: int, unit: str) -> None:
        report("temporal", given.scenario, measured, case=given.case, work=work, unit=unit)

    worker = Worker(
        client,
        task_queue="q",
        workflows=[Chain, FanOut],
        activities=[noop],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_activities=SLOTS,
        max_concurrent_workflow_tasks=SLOTS,
    )
    async with worker:
        await drive(20, 1, lambda number: call(Chain, STEPS, f"w{number}"))
        if given.scenario == "chain":
            measured = await drive(given.count, LANES, lambda number: call(Chain, STEPS, f"c{number}"))
            done(measured, given.count * STEPS, "activities/s")
        elif given.scenario == "latency":
            done(await drive(given.count, 1, lambda number: call(Chain, 1, f"c{number}")), given.count, "instances/s")
        elif given.scenario == "start":
            await accept(-1)
            done(await drive(given.count, LANES, accept), given.count, "starts/s")
        else:
            measured = await drive(given.count, 1, lambda number: call(FanOut, given.width, f"f{number}"))
            done(measured, given.count * given.width, "activities/s")


def main(given: Any, folder: Path) -> None:
    """Start the server, measure, stop it."""
    (port,) = free_ports(1)
    words = [given.server, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    words += ["--db-filename", str(folder / "temporal.db"), "--log-level", "error"]
    for pragma in ("journal_mode=wal", "synchronous=full"):
        words += ["--sqlite-pragma", pragma]
    for limit in LIMITS:
        words += ["--dynamic-config-value", f"{limit}=1000000"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            uvloop.run(bench(given, port))
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(8)
            except subprocess.TimeoutExpired:
                server.kill()


if __name__ == "__main__":
    with scratch() as scratch_folder:
        main(options(__doc__), scratch_folder)
