"""Duroxide: an embedded Durable Task engine in Rust with its Python SDK, on an SQLite file.

Its defaults but for its concurrency and its poll interval, which are set for speed; waiting is the client's own, a
thread a lane.  It answers before anything is on disk (see `syncs` in its lines), so it is no durable peer.
"""

import itertools
import threading
import time
from pathlib import Path
from typing import Any

from duroxide import Client, Runtime, RuntimeOptions, SqliteProvider

from bench.measure import LANES, STEPS, Measured, drive_threads, report, scratch
from bench.peers.options import options


def noop(ctx: Any, number: int) -> int:
    """The activity."""
    return number


def chain(ctx: Any, steps: int) -> Any:
    """Activities in sequence."""
    for number in range(steps):
        yield ctx.schedule_activity("noop", number)
    return steps


def fan_out(ctx: Any, width: int) -> Any:
    """Activities at once."""
    results = yield ctx.all([ctx.schedule_activity("noop", number) for number in range(width)])
    return len(results)


def main(given: Any, folder: Path) -> None:
    """The scenario that the options name."""
    provider = SqliteProvider.open(f"sqlite:{folder}/duroxide.db?mode=rwc")
    settings = RuntimeOptions(orchestration_concurrency=4, worker_concurrency=8, dispatcher_poll_interval_ms=10)
    runtime, client, turn = Runtime(provider, settings), Client(provider), itertools.count()
    runtime.register_activity("noop")(noop)
    runtime.register_orchestration("chain")(chain)
    runtime.register_orchestration("fan_out")(fan_out)

    def call(name: str, argument: int) -> None:
        instance_id = f"{name}-{next(turn)}"
        client.start_orchestration(instance_id, name, argument)
        ended = client.wait_for_orchestration(instance_id, 120_000)
        if ended.status != "Completed":
            raise RuntimeError(f"{instance_id} ended as {ended.status}: {getattr(ended, 'error', None)}")

    def done(measured: Measured, work: int, unit: str) -> None:
        report("duroxide", given.scenario, measured, case=given.case, work=work, unit=unit, durable=False)

    if given.scenario == "start":
        client.start_orchestration("w", "chain", 1)
        measured = drive_threads(
            given.count, LANES, lambda number: client.start_orchestration(f"s{number}", "chain", 1)
        )
        done(measured, given.count, "starts/s")
        return
    threading.Thread(target=runtime.start, daemon=True).start()
    time.sleep(1)
    drive_threads(5, 1, lambda number: call("chain", STEPS))
    if given.scenario == "chain":
        done(
            drive_threads(given.count, LANES, lambda number: call("chain", STEPS)), given.count * STEPS, "activities/s"
        )
    elif given.scenario == "latency":
        done(drive_threads(given.count, 1, lambda number: call("chain", 1)), given.count, "instances/s")
    else:
        measured = drive_threads(given.count, 1, lambda number: call("fan_out", given.width))
        done(measured, given.count * given.width, "activities/s")
    runtime.shutdown()


if __name__ == "__main__":
    with scratch() as scratch_folder:
        main(options(__doc__), scratch_folder)
