"""Who plays a run again, by the kind that a line of the corpus and `again.py` name."""

from collections.abc import Callable
from functools import partial

import azure_search
import saved
import search

from holdtrue.testing.storage_faults import CallFault

PLAYERS: dict[str, Callable[[int], object]] = {
    **{name: partial(search.by_seed, kind=hub) for name, hub in saved.HUBS.items()},
    **azure_search.BY_SEED,
}
"""Each plays the run of a seed, and raises Failed where something in it is not as it must be."""


def on_azure(scenario: str, text: str) -> Callable[[], None]:
    """A fixed scenario on Azure Storage with the one fault that JSON names, of a call or at a step; raises BadInput."""
    fault = saved.fault_on_azure("--fault", text)
    known = azure_search.fixed_on_azure()
    if scenario not in known:
        raise saved.BadInput("--fixed", scenario, 0, f"there is no fixed scenario {scenario!r}: {', '.join(known)}")
    if isinstance(fault, CallFault):
        return partial(azure_search.with_one, scenario, fault)
    return partial(azure_search.with_step, scenario, fault)
