"""Hand-written defects of the Azure Storage store, by the rule of its commit protocol that each breaks."""

from typing import NamedTuple


class Rule(NamedTuple):
    """A defect: the rule, what it does, where, the text it changes, and the search that likely finds it."""

    number: str
    what: str
    file: str
    old: str
    new: str
    first: str = "seeds"


AZURE = "stores/azure_storage/"

RULES = [
    Rule(
        "1",
        "an episode is sent before its commit",
        "committing.py",
        "            result = await self._write(held, planned, blobs, encode)\n",
        "            await self._poster.send(held, sent.outgoing)\n"
        "            result = await self._write(held, planned, blobs, encode)\n",
        first="chain",
    ),
    Rule(
        "1",
        "what drove an episode is deleted before its commit",
        "committing.py",
        "            result = await self._write(held, planned, blobs, encode)\n",
        "            await asyncio.gather(*(self._mail.delete(key) for key in commit.consumed))\n"
        "            result = await self._write(held, planned, blobs, encode)\n",
        first="away",
    ),
    Rule(
        "2", "a debt that was loaded is not sent", "adopting.py", "await self._pay(held, read)", "pass", first="chain"
    ),
    Rule(
        "3",
        "the ids of events are forgotten when their messages are deleted",
        "planning.py",
        "        seen=[*before.seen, *(one.seen for one in taken if one.seen is not None)],",
        "        seen=[],",
        first="told",
    ),
    Rule(
        "3",
        "what was used up is forgotten before its deletion is known",
        "planning.py",
        "        consumed=[*before.consumed, *(Used(one.id, now) for one in taken if one.kept is None)],",
        "        consumed=[],",
        first="told",
    ),
    Rule(
        "3",
        "an activity's result has the id of its place in history",
        "owing.py",
        'return derived_id(work_item, "", "result", "")',
        'return derived_id("", "", "result", "0")',
        first="rewound",
    ),
    Rule(
        "4",
        "a lost answer is taken for a success",
        "committing.py",
        "verdict = await self._read_back(held, part.state.episode)",
        "verdict = Verdict.COMMITTED",
        first="seeds",
    ),
    Rule(
        "4",
        "whatever stands there after a lost answer is taken for our own",
        "readback.py",
        "    return Verdict.STALE\n",
        "    return Verdict.COMMITTED\n",
    ),
    Rule(
        "4",
        "a commit asks for no etag",
        "committing.py",
        "key=SENTINEL, values=values, etag=held.etag)",
        "key=SENTINEL, values=values, etag=None)",
        first="chain",
    ),
    Rule(
        "5",
        "the first part of a commit names all messages as consumed",
        "planning.py",
        "        used = [one for one in taken if begun <= places.get(id(one.event), -1) < end]",
        "        used = list(taken) if not parts else []",
        first="away",
    ),
    Rule(
        "5",
        "a part of a commit owes nothing",
        "planning.py",
        "Owed(execution, last.episode, first, first + end)],",
        "],",
        first="parts",
    ),
    Rule(
        "4",
        "a conflict is taken for a lost lease",
        "committing.py",
        '                if not is_conflict(error):\n                    raise self._access.failure(f"instance',
        '                if type(error).__name__ == "Conflict":\n                    return CommitResult.LEASE_LOST\n'
        '                if not is_conflict(error):\n                    raise self._access.failure(f"instance',
        first="chain",
    ),
    Rule(
        "5",
        "a redo log is not rolled forward",
        "adopting.py",
        "await self._roll_forward(held, state)",
        "pass",
        first="parts",
    ),
    Rule(
        "6",
        "a custom status that no column holds is written into the row",
        "instances_row.py",
        "    return NONE if custom_status is None or is_large(custom_status) else custom_status",
        "    return NONE if custom_status is None else custom_status",
        first="big",
    ),
    Rule(
        "6",
        "what is too large for the sentinel stays on it",
        "payloads.py",
        "        if len(data) <= MOST_BYTES:",
        "        if len(data) <= 100 * MOST_BYTES:",
        first="big",
    ),
    Rule(
        "7",
        "a rewind of a child writes its row after its commit",
        "adopting.py",
        "            await self._rows.rewinds(held, read.row)",
        "            pass",
        first="rewound",
    ),
    Rule(
        "7",
        "the row alone tells a status",
        "verdicts.py",
        '    if row is None or row.execution_id in ("", sentinel.execution_id):\n',
        "    if row is not None:\n        return Told.ROW\n"
        '    if row is None or row.execution_id in ("", sentinel.execution_id):\n',
        first="slowly",
    ),
    Rule(
        "7",
        "the row is not read again after a sentinel that was not there",
        "verdicts.py",
        "        if not row_was_read_after:",
        "        if False:",
        first="slowly",
    ),
    Rule(
        "8",
        "a rewind of .NET's is not known by its row",
        "verdicts.py",
        "        projection is not None\n        and projection.status in TERMINAL\n",
        "        projection is not None\n        and projection.status in ()\n",
        first="beside .NET",
    ),
    Rule(
        "8",
        "an instance that .NET has rewound is taken for ended",
        "adopting.py",
        "            messages = [self._rewind(held), *messages]",
        "            pass",
        first="beside .NET",
    ),
    Rule(
        "9",
        "a row is written blindly",
        "row_writing.py",
        'do=Do.MERGE, partition=held.partition_key, key="", values=values, etag=held.row_etag',
        'do=Do.MERGE, partition=held.partition_key, key="", values=values, etag=None',
        first="slowly",
    ),
    Rule(
        "10",
        "a start that waits is taken for one that is stale",
        "verdicts.py",
        "    if row.start_id is not None and state.start_id:\n",
        "    return False\n    if row.start_id is not None and state.start_id:\n",
        first="slowly",
    ),
    Rule(
        "10",
        "a start takes whatever place there is",
        "starting.py",
        'key="", values=values, etag=standing.row.etag)',
        'key="", values=values, etag=None)',
        first="slowly",
    ),
    Rule(
        "10",
        "a start message that comes twice is run twice",
        "arrivals.py",
        "sentinel.execution_id == event.execution_id or (state.start_id and state.start_id == start_id)",
        "False and start_id",
        first="told",
    ),
    Rule(
        "11",
        "a message that comes before the start is dropped",
        "arrivals.py",
        "    if message.kept is None:\n        decided.keep.append(message)\n",
        '    if message.kept is None:\n        decided.drop.append((message, "too early"))\n',
        first="early",
    ),
    Rule(
        "11",
        "of many kept messages only the first are given",
        "committing.py",
        "            if held.kept_later and not commit.ended:",
        "            if False:",
        first="early",
    ),
    Rule(
        "12",
        "what a purge has begun to take is read like anything else",
        "verdicts.py",
        "    if sentinel is None or sentinel.state.purging or not sentinel.has_history:",
        "    if sentinel is None or not sentinel.has_history:",
        first="slowly",
    ),
    Rule(
        "12",
        "a purge leaves the history",
        "purging.py",
        "                await self.finish(instance_id, sentinel)\n            await",
        "                pass\n            await",
        first="slowly",
    ),
    Rule(
        "13",
        "a message that comes early is given at once",
        "taking.py",
        "if content.due is not None and content.due > self._access.environment.now():",
        "if False and content.due:",
        first="early",
    ),
    Rule(
        "14",
        "a host that stood still does not look at its clock",
        "ownership.py",
        "        return held is not None and self._lasts(partition, held)",
        "        return held is not None",
        first="chain",
    ),
    Rule(
        "2",
        "who clears a debt has not sent it",
        "committing.py",
        "            self._poster.send(held, outgoing),\n",
        "            self._poster.send(held, outgoing[1:]),\n",
    ),
    Rule(
        "16",
        "what runs without a message is named no longer when the debts are cleared",
        "planning.py",
        "state.local = [] if commit.ended or commit.replace else without(before.local, base.answered)",
        "state.local = []",
        first="beside",
    ),
    Rule(
        "16",
        "what runs without a message is named beyond its execution's end",
        "planning.py",
        "state.local = [] if commit.ended or commit.replace else",
        "state.local = [] if commit.replace else",
        first="beside",
    ),
    Rule(
        "16",
        "the keeper is deleted with the messages beside it",
        "committing.py",
        "numbers = [number for number in numbers if not self._stays_undeleted(held, number)]",
        "pass",
    ),
    Rule(
        "16",
        "the next owner deletes the keeper as a message come twice",
        "adopting.py",
        "(one for one in arrived if one.id == state.keeper and one.kept is None)",
        "(one for one in arrived if False)",
    ),
    Rule(
        "16",
        "an activity that kills its host is taken over for ever",
        "local.py",
        "LAST_DELIVERY = 3",
        "LAST_DELIVERY = 1_000_000",
        first="deadly",
    ),
    Rule(
        "16",
        "a host whose lease is lost goes on to renew its keepers",
        "local_runs.py",
        "            self._mail.forget(runs.keeper.number)\n",
        "            pass\n",
    ),
]
