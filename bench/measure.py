"""Measuring and reporting: the stopwatch, lanes of concurrent calls, percentiles, the JSON line of a result.

Only the standard library: the scripts of the peers import this module in virtual environments of their own.
"""

import asyncio
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

STEPS = 5
"""Activities in sequence of one instance of `chain`."""

LANES = 32
"""Instances in flight at a time in `chain` and `start`."""

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"


@dataclass
class Measured:
    """What one stretch took: seconds in all and of each call, CPU seconds of this process, syncs of the disk."""

    seconds: float = 0.0
    samples: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    syncs: int | None = None


def data_folder() -> Path:
    """Where all stores under test lie, on one disk: `HOLDTRUE_BENCH_DIR`, or `.cache/bench/data`."""
    folder = Path(os.environ.get("HOLDTRUE_BENCH_DIR") or CACHE / "data")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the disk to be measured, gone afterwards."""
    with TemporaryDirectory(dir=data_folder(), ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def disk_syncs() -> int | None:
    """Flushes that the disk under the data has done for all processes so far; None where the system does not tell."""
    try:
        device = os.stat(data_folder()).st_dev
        for line in Path("/proc/diskstats").read_text().splitlines():
            fields = line.split()
            if (int(fields[0]), int(fields[1])) == (os.major(device), os.minor(device)):
                return int(fields[18])
    except (OSError, IndexError, ValueError):
        pass
    return None


@contextmanager
def stopwatch() -> Iterator[Measured]:
    """Measures the block; the figures are there at its end."""
    measured = Measured()
    syncs, cpu, began = disk_syncs(), time.process_time(), time.perf_counter()
    yield measured
    measured.seconds = time.perf_counter() - began
    measured.cpu_seconds = time.process_time() - cpu
    after = disk_syncs()
    measured.syncs = after - syncs if after is not None and syncs is not None else None


async def drive(count: int, lanes: int, call: Callable[[int], Awaitable[object]]) -> Measured:
    """Calls `call(0)` … `call(count - 1)`, `lanes` at a time."""
    todo = iter(range(count))
    with stopwatch() as measured:

        async def lane() -> None:
            for number in todo:
                began = time.perf_counter()
                await call(number)
                measured.samples.append(time.perf_counter() - began)

        await asyncio.gather(*(lane() for _ in range(min(count, lanes))))
    return measured


async def drive_for(seconds: float, lanes: int, call: Callable[[int], Awaitable[object]]) -> Measured:
    """Calls `call` again and again, `lanes` at a time, until the time is over; calls begun by then are finished."""
    numbers = iter(range(1 << 60))
    with stopwatch() as measured:
        end = time.perf_counter() + seconds

        async def lane() -> None:
            while (began := time.perf_counter()) < end:
                await call(next(numbers))
                measured.samples.append(time.perf_counter() - began)

        await asyncio.gather(*(lane() for _ in range(lanes)))
    return measured


def drive_threads(count: int, lanes: int, call: Callable[[int], object]) -> Measured:
    """`drive` for a blocking `call`, a thread a lane."""
    todo = iter(range(count))
    turn = threading.Lock()
    with stopwatch() as measured, ThreadPoolExecutor(lanes) as pool:

        def lane() -> None:
            while True:
                with turn:
                    number = next(todo, None)
                if number is None:
                    return
                began = time.perf_counter()
                call(number)
                measured.samples.append(time.perf_counter() - began)

        for future in [pool.submit(lane) for _ in range(lanes)]:
            future.result()
    return measured


def percentile(samples: Sequence[float], share: float) -> float | None:
    """The sample below which `share` of them lie, in milliseconds; None without samples."""
    if not samples:
        return None
    ordered = sorted(samples)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


def report(
    system: str, scenario: str, measured: Measured, *, work: int, unit: str, case: str = "", **more: object
) -> None:
    """Prints the JSON line of one result: `work` units were done in the measured time."""
    line: dict[str, object] = {
        "system": system,
        "scenario": scenario,
        "case": case,
        "unit": unit,
        "work": work,
        "seconds": round(measured.seconds, 4),
        "rate": round(work / measured.seconds, 2),
        "p50_ms": percentile(measured.samples, 0.50),
        "p99_ms": percentile(measured.samples, 0.99),
        "cpu_seconds": round(measured.cpu_seconds, 3),
        "syncs": measured.syncs,
    }
    print(json.dumps(line | more), flush=True)


def report_value(system: str, scenario: str, value: float, *, unit: str, case: str = "", **more: object) -> None:
    """Prints the JSON line of a result that is no rate (memory, a share of a core, a ratio within one program)."""
    line = {"system": system, "scenario": scenario, "case": case, "unit": unit, "value": round(value, 4)}
    print(json.dumps(line | more), flush=True)
