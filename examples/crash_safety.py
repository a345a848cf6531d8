"""A charge that comes twice when a host dies: found, and mended by its idempotency key.

Prints:
    not idempotent: the host died after `charge` had run, before its result was recorded
      state: {"cents": 1999} undisturbed, {"cents": 3998} here
    True
"""

import holdtrue
from holdtrue.testing import check_crash_safety

app = holdtrue.App()
charges: dict[str, int] = {}


@app.activity
def charge(ctx: holdtrue.ActivityContext, cents: int) -> str:
    charges[f"charge {len(charges)}"] = cents
    return "paid"


@app.orchestrator
async def order(ctx: holdtrue.OrchestrationContext, cents: int) -> str:
    return await ctx.call_activity(charge, input=cents)


def charge_once(ctx: holdtrue.ActivityContext, cents: int) -> str:
    charges[ctx.idempotency_key] = cents
    return "paid"


def charged() -> dict[str, int]:
    return {"cents": sum(charges.values())}


report = check_crash_safety(app, order, 1999, state=charged, reset=charges.clear)
for finding in report.findings:
    print(f"{finding.kind}: {finding.fault}", *finding.differences, sep="\n  ")

print(check_crash_safety(app, order, 1999, state=charged, reset=charges.clear, fakes={charge: charge_once}).ok)
