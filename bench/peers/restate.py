"""Restate: its server with the default profile and a Python service under hypercorn, both children of this script.

chain, latency: a call through the HTTP ingress, waited for to its result; fanout: one handler starts its steps and
gathers them; start: `/send`, durably accepted; the handler runs too, because Restate cannot accept without delivering.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench.measure import LANES, ROOT, STEPS, Measured, drive, report, scratch
from bench.peers.options import options
from bench.peers.ports import free_ports


def app() -> Any:
    """The service (an ASGI app), for hypercorn."""
    import restate

    service = restate.Service("Bench")

    async def noop() -> int:
        return 1

    @service.handler()
    async def chain(ctx: restate.Context, steps: int) -> int:
        for number in range(steps):
            await ctx.run_typed(f"s{number}", noop)
        return steps

    @service.handler()
    async def fan_out(ctx: restate.Context, width: int) -> int:
        await restate.gather(*[ctx.run_typed(f"s{number}", noop) for number in range(width)])
        return width

    @service.handler()
    async def nothing(ctx: restate.Context, number: int) -> int:
        return number

    return restate.app([service])


def answer(url: str, body: object = None, seconds: float = 40) -> None:
    """Ask until there is an answer."""
    request = urllib.request.Request(url)
    if body is not None:
        request = urllib.request.Request(
            url, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST"
        )
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).read()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


async def bench(given: Any, ingress: int) -> None:
    """The scenario that the options name."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(path: str, argument: int) -> None:
            async with session.post(f"http://127.0.0.1:{ingress}/Bench/{path}", json=argument) as response:
                body = await response.read()
                if response.status >= 300:
                    raise RuntimeError(body.decode())

        def done(measured: Measured, work: int, unit: str) -> None:
            report("restate", given.scenario, measured, case=given.case, work=work, unit=unit)

        await drive(60, LANES, lambda number: call("chain", STEPS))
        if given.scenario == "chain":
            measured = await drive(given.count, LANES, lambda number: call("chain", STEPS))
            done(measured, given.count * STEPS, "activities/s")
        elif given.scenario == "latency":
            done(await drive(given.count, 1, lambda number: call("chain", 1)), given.count, "instances/s")
        elif given.scenario == "start":
            done(await drive(given.count, LANES, lambda number: call("nothing/send", number)), given.count, "starts/s")
        else:
            measured = await drive(given.count, 1, lambda number: call("fan_out", given.width))
            done(measured, given.count * given.width, "activities/s")


def main(given: Any, folder: Path) -> None:
    """Start both, register the service, measure, stop both."""
    service, admin, ingress, node = free_ports(4)
    environment = dict(
        os.environ,
        DO_NOT_TRACK="1",
        RESTATE_DISABLE_TELEMETRY="true",
        RESTATE_LISTEN_MODE="tcp",
        RESTATE_BIND_IP="127.0.0.1",
        RESTATE_BIND_ADDRESS=f"127.0.0.1:{node}",
        RESTATE_ADVERTISED_ADDRESS=f"http://127.0.0.1:{node}",
        RESTATE_ADMIN__BIND_ADDRESS=f"127.0.0.1:{admin}",
        RESTATE_INGRESS__BIND_ADDRESS=f"127.0.0.1:{ingress}",
    )
    log = (folder / "log").open("w")
    server = [given.server, "--base-dir", str(folder), "--no-logo"]
    hypercorn = [sys.executable, "-m", "hypercorn", "-b", f"127.0.0.1:{service}", "bench.peers.restate:app()"]
    children = [
        subprocess.Popen(words, env=environment, stdout=log, stderr=log, cwd=ROOT) for words in (server, hypercorn)
    ]
    try:
        answer(f"http://127.0.0.1:{admin}/health")
        answer(f"http://127.0.0.1:{ingress}/restate/health")
        answer(f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://127.0.0.1:{service}"})
        asyncio.run(bench(given, ingress))
    except Exception:
        print((folder / "log").read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            try:
                child.wait(8)
            except subprocess.TimeoutExpired:
                child.kill()


if __name__ == "__main__":
    with scratch() as scratch_folder:
        main(options(__doc__), scratch_folder)
