"""A program of its own: its CPU-bound activity stands in `__main__`.  Prints results as JSON lines."""

import asyncio
import json
import os
import sys
from typing import Any

from holdtrue.authoring.app import App

app = App()
print(json.dumps({"loaded": __name__}), flush=True)


@app.activity(cpu=True)
def square(ctx: Any, number: int) -> dict[str, Any]:
    return {"square": number * number, "parent": os.getppid()}


@app.activity(cpu=True)
def spin(ctx: Any, path: str) -> None:
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(str(os.getpid()))
    os.replace(path + ".part", path)
    while True:
        pass


def main() -> None:
    from tests.unit.activities.bench import Bench, result

    async def work() -> None:
        bench = Bench(app)
        if len(sys.argv) > 1:
            await bench.run("spin", json.dumps(sys.argv[1]))
        value = json.loads(result(await bench.run("square", "7")) or "")
        print(json.dumps({"square": value["square"], "child": value["parent"] == os.getpid()}), flush=True)
        await bench.pool.drain(0)

    asyncio.run(work())


if __name__ == "__main__":
    main()
