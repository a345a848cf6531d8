"""Sayiir: a Rust core with Python tasks that checkpoints after each, on PostgreSQL.

chain, latency: a workflow run to its end in this process, a thread a lane, all on one engine (the SDK's own
`run_durable_workflow` makes an engine at each call and is ten times slower); fanout: one workflow forks its branches
and joins them; start: submitted without a worker (the durable accept alone).
"""

from typing import Any

import psycopg
from sayiir import DurableEngine, Flow, PostgresBackend, WorkflowClient

from bench.measure import LANES, STEPS, Measured, drive_threads, report
from bench.peers.options import options


def sequence(steps: int) -> Any:
    """A workflow of tasks in sequence."""
    flow = Flow(f"chain{steps}")
    for number in range(steps):
        flow = flow.then(lambda value: value + 1, name=f"s{number}")
    return flow.build()


def fork(width: int) -> Any:
    """A workflow of branches at once."""
    flow = Flow(f"fan{width}").fork()
    for number in range(width):
        flow = flow.branch(lambda value: 1, name=f"b{number}")
    return flow.join(lambda results: sum(results.values()), name="join").build()


def main(given: Any) -> None:
    """The scenario that the options name."""
    with psycopg.connect(f"{given.postgresql}/postgres", autocommit=True) as connection:
        connection.execute("drop database if exists sayiir_bench with (force)")
        connection.execute("create database sayiir_bench")
    backend = PostgresBackend(f"{given.postgresql}/sayiir_bench", max_connections=LANES)
    engine = DurableEngine(backend)

    def call(workflow: Any, instance_id: str, expected: int) -> None:
        ended = engine.run(workflow._inner, instance_id, 0, workflow._task_registry)
        if not ended.is_completed() or ended.output != expected:
            raise RuntimeError(f"{instance_id} ended as {ended}")

    def done(measured: Measured, work: int, unit: str) -> None:
        report("sayiir", given.scenario, measured, case=given.case, work=work, unit=unit)

    if given.scenario == "start":
        client, workflow = WorkflowClient(backend), sequence(STEPS)
        drive_threads(LANES, LANES, lambda number: client.submit(workflow, f"w{number}", number))
        measured = drive_threads(given.count, LANES, lambda number: client.submit(workflow, f"s{number}", number))
        done(measured, given.count, "starts/s")
    elif given.scenario == "fanout":
        call(fork(5), "w", 5)
        wide = fork(given.width)
        measured = drive_threads(given.count, 1, lambda number: call(wide, f"f{number}", given.width))
        done(measured, given.count * given.width, "activities/s")
    else:
        steps, lanes = (1, 1) if given.scenario == "latency" else (STEPS, LANES)
        workflow = sequence(steps)
        drive_threads(2 * LANES, lanes, lambda number: call(workflow, f"w{number}", steps))
        measured = drive_threads(given.count, lanes, lambda number: call(workflow, f"c{number}", steps))
        done(measured, given.count * steps, "activities/s" if steps > 1 else "instances/s")


if __name__ == "__main__":
    main(options(__doc__))
