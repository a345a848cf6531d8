"""A program of its own: its CPU-bound activity stands in `__main__`.  Prints results as JSON lines."""

import asyncio
import json
import os
import sys
from typing import Any

from holdtrue.authoring.app import App

app = App()


@app.error(properties=["number"])
class Odd(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(f"{number} is odd")
        self.number = number


print(json.dumps({"loaded": __name__}), flush=True)


@app.activity(cpu=True)
def square(ctx: Any, number: int) -> dict[str, Any]:
    return {"square": number * number, "parent": os.getppid()}


@app.activity(cpu=True)
def halve(ctx: Any, number: int) -> int:
    try:
        raise Odd(number + 2)
    except Odd as error:
        raise Odd(number) from error


@app.activity(cpu=True)
def spin(ctx: Any, path: str) -> None:
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(str(os.getpid()))
    os.replace(path + ".part", path)
    while True:
        pass


def main() -> None:
    from tests.unit.activities.bench import Bench, failure, result

    async def work() -> None:
        bench = Bench(app)
        if len(sys.argv) > 1:
            await bench.run("spin", json.dumps(sys.argv[1]))
        value = json.loads(result(await bench.run("square", "7")) or "")
        print(json.dumps({"square": value["square"], "child": value["parent"] == os.getpid()}), flush=True)
        odd = failure(await bench.run("halve", "3"))
        told = {"failed": odd.error_type, "cause": odd.inner_failure.error_type, "properties": odd.properties}
        print(json.dumps(told), flush=True)
        await bench.pool.drain(0)

    asyncio.run(work())


if __name__ == "__main__":
    main()
