"""Any event that the core can make, with any texts in it, for property tests of the format."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from holdtrue.core import events as ev
from holdtrue.core.actions import ActivityOptions

UNUSUAL = [
    "",
    "null",
    "ä",
    "\u2028\u2029\u0085",
    "\ufffe\uffff",
    "\x00\x1f\x7f",
    '"\\',
    "😀",
    "{}",
    "]]>&lt;",
    "x" * 40_000,
]

texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.sampled_from(UNUSUAL))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ticks = st.one_of(
    st.integers(ev.MIN_TICKS, ev.MAX_TICKS),
    st.integers(0, 10**10).map(lambda seconds: min(seconds * ev.TICKS_PER_SECOND, ev.MAX_TICKS)),
)
numbers = st.integers(-1, 2**31 - 1)
keys = st.one_of(names, st.sampled_from(["$type", "$id", "$ref", "a$"]))
tags = st.dictionaries(keys, texts, max_size=3)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
traces = st.one_of(
    texts,
    st.just('{"TraceParent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","TraceState":null}'),
    st.just('{"$type":"System.Diagnostics.Process"}'),
)


def _failures(depth: int) -> st.SearchStrategy[ev.FailureDetails]:
    inner: Any = st.none() if depth == 0 else st.one_of(st.none(), _failures(depth - 1))
    return st.builds(
        ev.FailureDetails,
        message=texts,
        error_type=st.one_of(st.just(""), texts),
        stack_trace=st.one_of(st.none(), texts),
        inner_failure=inner,
        properties=st.one_of(st.none(), st.dictionaries(keys, json_values, max_size=3)),
        is_non_retriable=st.booleans(),
    )


failures = st.one_of(
    _failures(2), st.builds(ev.FailureDetails, message=texts, error_type=st.just(""), stack_trace=texts)
)
parents = st.builds(
    ev.ParentInstance,
    instance_id=names,
    execution_id=texts,
    task_id=numbers,
    scheduled=numbers,
    name=texts,
    version=st.one_of(st.none(), texts),
)
options = st.builds(
    ActivityOptions,
    start_to_close=st.one_of(st.none(), st.floats(0, 1e9)),
    schedule_to_start=st.one_of(st.none(), st.floats(0, 1e9)),
    tag=st.one_of(st.none(), texts),
    attempt=st.integers(1, 99),
    details=st.one_of(st.none(), texts),
    first=st.one_of(st.none(), numbers),
)

_BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "timestamp": ticks,
    "fire_at": ticks,
    "scheduled_start": st.one_of(st.none(), ticks),
    "event_id": numbers,
    "task_scheduled_id": numbers,
    "timer_id": numbers,
    "generation": st.integers(0, 1000),
    "status": st.integers(0, 7),
    "recurse": st.booleans(),
    "failure": st.one_of(st.none(), failures),
    "parent": st.one_of(st.none(), parents),
    "tags": st.one_of(st.none(), tags),
    "parent_trace_context": st.one_of(st.none(), traces),
}


def _events_of(kind: type[ev.HistoryEvent]) -> st.SearchStrategy[Any]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in msgspec.structs.fields(kind):
        known = _BY_NAME.get(field.name)
        if known is None:
            known = names if field.type is str else st.one_of(st.none(), texts)
        fields[field.name] = known
    return st.builds(kind, **fields)


events: st.SearchStrategy[Any] = st.one_of(*(_events_of(kind) for kind in ev.EVENT_TYPES))
"""Any event of any type."""
