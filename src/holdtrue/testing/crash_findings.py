"""Judges a disturbed run by the undisturbed one: what differs, and whose line it is.

What differs from run to run by itself (ids, times of the clock, chance in an activity) is known from undisturbed
runs, and is not compared.
"""

import json
import re
from collections import Counter
from collections.abc import Collection
from typing import Any

import msgspec

from holdtrue.core.projection import TERMINAL
from holdtrue.engine.sessions import MISMATCH_ERROR_TYPE

from .crash_account import Account
from .crash_compare import both, differing, in_order, plain, same, shown
from .crash_report import Finding, FindingKind
from .crash_watch import ActivityRun, shortened

_ENDS = {status.name for status in TERMINAL}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What of a run is compared."""

    end: str
    output: Any
    failure: str
    state: Any
    calls: list[tuple[str, str]]


class Judge:
    """Compares runs with the undisturbed one.

    `varying` are the activities that give another result in each run; `timely` collects the names of runs that
    ended otherwise since a timer came first, which may be as it is meant.
    """

    def __init__(self, base: Account, *, probed: bool, idempotent: Collection[str], place: str) -> None:
        self.base = base
        self.varying: set[str] = set()
        self.timely: list[Account] = []
        self.masks: dict[str, Any] = {"output": None, "failure": None, "state": None}
        self._calls_vary = False
        self._guilty: set[str] = set()
        self._probed = probed
        self._idempotent = idempotent
        self._place = place
        self._seen = _seen(base)

    def state_differs(self, run: Account) -> str | None:
        """How the state is other than in the undisturbed run, None where it is not."""
        return self._difference("state", self._seen.state, _seen(run).state)

    def learn(self, run: Account) -> None:
        """What differs in this undisturbed run differs by itself."""
        seen = _seen(run)
        for part in self.masks:
            mask = differing(getattr(self._seen, part), getattr(seen, part))
            self.masks[part] = both(self.masks[part], mask)
        self._calls_vary |= seen.calls != self._seen.calls
        self.varying |= self._gave_another(run)

    def _gave_another(self, run: Account) -> set[str]:
        """The activities of an undisturbed run that gave another result to the same call."""
        first = {
            one.item: (one.name, _clean(one.input, self.base), _clean(one.result, self.base)) for one in self.base.runs
        }
        found = set()
        for one in run.runs:
            name, given, result = first.get(one.item, ("", None, None))
            if (one.name, _clean(one.input, run)) == (name, given) and _clean(one.result, run) != result:
                found.add(name)
        return found

    def again(self, run: Account) -> list[Finding]:
        """What is wrong where the same run, undisturbed, is not the same; what an activity gives may vary."""
        differences = self._outcome(run)
        if not differences or self._gave_another(run):
            return []
        what = "two undisturbed runs of it with the same results of activities do not come to the same"
        changed = run.changed or self.base.changed
        if changed:
            return [self._finding(FindingKind.MEMORY, run, self._kept(changed), changed[0][1], differences)]
        return [self._finding(FindingKind.NONDETERMINISM, run, what, self._place, differences)]

    def judge(self, run: Account) -> list[Finding]:
        """What is wrong in a disturbed run."""
        again = self._run_again(run)
        if run.status == "HELD" or run.failure.startswith(MISMATCH_ERROR_TYPE):
            return [self._held(run)]
        found = [] if self._probed else self._ignored(run, again)
        state = self.state_differs(run) if self._probed else None
        outcome = self._outcome(run)
        differences = ([state] if state else []) + outcome
        if not differences:
            return found
        other = [one for one in again if one.name not in self.varying and _gives_another(one, run)]
        for one in other:
            first, then = (shortened(text or "") for text in (_first(one.item, run).result, one.result))
            differences.append(f"{one.what} gave {first} first, and {then} when it ran again")
        guilty = other or (again if state else [])
        if guilty:
            return [self._not_idempotent(run, guilty, differences)]
        if run.disturbance.sort != "replayed" and run.delivered != self.base.delivered and not state:
            if run.fired != self.base.fired:
                self.timely.append(run)
                return found
            if Counter(run.delivered) == Counter(self.base.delivered) or run.disturbance.sort in ("order", "late"):
                return [*found, self._order(run, differences)]
        if run.fired != self.base.fired and run.disturbance.sort in ("late", "death"):
            self.timely.append(run)
            return found
        if again and run.disturbance.sort in ("death", "twice") and not run.changed and not self.base.changed:
            return [self._not_idempotent(run, again, differences)]
        return [*found, self._of_code(run, differences)]

    # -- kinds of findings -------------------------------------------------------------------------------

    def _held(self, run: Account) -> Finding:
        reason = run.reason or run.failure
        places = re.findall(r"/\S+\.py:\d+", reason)
        changed = run.changed or self.base.changed
        differences = [f"held: {reason.partition(' Deploy code')[0]}"]
        if changed:
            return self._finding(FindingKind.MEMORY, run, self._kept(changed), changed[0][1], differences)
        what = "its code, run again from the history, does not decide what it had decided"
        return self._finding(FindingKind.NONDETERMINISM, run, what, places[0] if places else self._place, differences)

    def _of_code(self, run: Account, differences: list[str]) -> Finding:
        changed = run.changed or self.base.changed
        if changed:
            return self._finding(FindingKind.MEMORY, run, self._kept(changed), changed[0][1], differences)
        if run.disturbance.sort == "replayed":
            what = "its code, run again from the history, comes to another end"
            return self._finding(FindingKind.NONDETERMINISM, run, what, self._place, differences)
        what = "it ends otherwise than undisturbed"
        return self._finding(FindingKind.OUTCOME, run, what, self._place, differences)

    @staticmethod
    def _kept(changed: list[tuple[str, str]]) -> str:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(name for name, _ in changed))
        return f"the orchestrator changes {names}, which lives in the memory of the process"

    def _ignored(self, run: Account, again: list[ActivityRun]) -> list[Finding]:
        found = []
        for one in again:
            runs = [other for other in run.runs if other.key == one.key]
            # Of one that failed each time nobody knows whether it would have looked at its key.
            if one.name in self._idempotent or any(other.keyed for other in runs) or all(map(_failed, runs)):
                continue
            what = f"activity `{one.name}` ran twice under the same key, and never read ctx.idempotency_key"
            found.append(self._finding(FindingKind.KEY_IGNORED, run, what, one.place, [], one.called_at))
        return found

    def _not_idempotent(self, run: Account, guilty: list[ActivityRun], differences: list[str]) -> Finding:
        known = [one for one in guilty if one.name in self._guilty]
        guilty = known or guilty
        names = list(dict.fromkeys(one.name for one in guilty))
        if len(names) == 1:
            self._guilty.add(names[0])
            what = f"activity `{names[0]}` ran again, and that shows"
        else:
            what = f"activities {', '.join(f'`{name}`' for name in names)} ran again, and that shows of one of them"
        one = guilty[0]
        return self._finding(FindingKind.NOT_IDEMPOTENT, run, what, one.place, differences, one.called_at)

    def _order(self, run: Account, differences: list[str]) -> Finding:
        moved = {a for a, b in zip(self.base.delivered, run.delivered, strict=False) if a != b}
        places = sorted({one.called_at or one.place for one in self.base.runs if one.item in moved})
        usual = ", ".join(self._names(self.base))
        other = ", ".join(self._names(run))
        differences = [f"order of results: {usual} undisturbed, {other} here", *differences]
        what = "what comes of it depends on the order in which results come"
        return self._finding(FindingKind.ORDER, run, what, places[0] if places else self._place, differences)

    def _names(self, run: Account) -> list[str]:
        named = {one.item: one.what for one in run.runs}
        return [named.get(item, "?") for item in run.delivered]

    def _finding(
        self,
        kind: FindingKind,
        run: Account,
        what: str,
        place: str | None,
        differences: list[str],
        called_at: str | None = None,
    ) -> Finding:
        return Finding(
            kind=kind,
            what=what,
            place=place,
            called_at=called_at,
            fault=run.disturbance.words,
            run=run.disturbance.name,
            differences=differences,
            undisturbed=self._story(self.base),
            disturbed=self._story(run),
        )

    def _story(self, run: Account) -> list[str]:
        lines = list(run.story)
        if run.status == "HELD":
            lines.append("it is HELD")
        elif run.status not in _ENDS:
            lines.append(f"it goes no further: {ending(run)}")
        if self._probed:
            lines.append(f"state: {shown(_seen(run).state)}")
        return lines

    # -- comparing ---------------------------------------------------------------------------------------

    def _run_again(self, run: Account) -> list[ActivityRun]:
        """The last run of each call that was run more often than undisturbed."""
        usual = Counter(one.item for one in self.base.runs)
        often = Counter(one.item for one in run.runs)
        last = {one.item: one for one in run.runs}
        return [one for item, one in last.items() if often[item] > max(1, usual[item])]

    def _outcome(self, run: Account) -> list[str]:
        mine, other = self._seen, _seen(run)
        found = []
        if mine.end != other.end:
            found.append(f"end: {ending(self.base)} undisturbed, {ending(run)} here")
        else:
            parts = [(part, getattr(mine, part), getattr(other, part)) for part in ("failure", "output")]
            found += [said for part in parts if (said := self._difference(*part)) is not None]
        calls, others = _calls(mine, self._calls_vary), _calls(other, self._calls_vary)
        if calls != others:
            less, more = calls - others, others - calls
            told = [f"{_call(one)} is not called" for one in less] + [f"{_call(one)} is called besides" for one in more]
            found.append("; ".join(told))
        return found

    def _difference(self, part: str, mine: Any, other: Any) -> str | None:
        if same(mine, other, self.masks[part]):
            return None
        return f"{part}: {shown(mine)} undisturbed, {shown(other)} here"


def ending(run: Account) -> str:
    """How a run ended, in words."""
    if run.status in _ENDS:
        return run.status + (f" ({run.failure})" if run.failure else "")
    if run.waits:
        return f"{run.status}, waits for {', '.join(run.waits)}"
    return run.status + (f" ({run.reason})" if run.reason else "")


def _failed(one: ActivityRun) -> bool:
    return one.result is not None and one.result.startswith("raises ")


def _first(item: str, run: Account) -> ActivityRun:
    return next(one for one in run.runs if one.item == item)


def _gives_another(one: ActivityRun, run: Account) -> bool:
    first = _first(one.item, run).result
    return first is not None and one.result is not None and first != one.result


def _calls(seen: Seen, only_names: bool) -> "Counter[tuple[str, str]]":
    return Counter((name, "" if only_names else given) for name, given in seen.calls)


def _call(one: tuple[str, str]) -> str:
    return f"{one[0]}({shortened(one[1])})"


def _seen(run: Account) -> Seen:
    calls = {one.item: (one.name, _clean(one.input, run) or "") for one in run.runs}
    output = None if run.output is None else json.loads(run.output)
    return Seen(
        end=run.status,
        output=_cleaned(output, run),
        failure=_clean(run.failure, run) or "",
        state=in_order(_cleaned(plain(run.state), run)),
        calls=sorted(calls.values()),
    )


def _clean(text: str | None, run: Account) -> str | None:
    """A text with ids of executions told by their place, so that they are the same in each run."""
    for execution, label in run.executions.items():
        if text and execution in text:
            text = text.replace(execution, f"<execution {label}>")
    return text


def _cleaned(value: Any, run: Account) -> Any:
    text = json.dumps(value)
    clean = _clean(text, run)
    return value if clean is text or clean is None else json.loads(clean)
