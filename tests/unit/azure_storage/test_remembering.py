"""Rule 3: how long the ids of messages that were used up are remembered."""

from holdtrue.core.events import TICKS_PER_SECOND
from holdtrue.stores.azure_storage.remembering import (
    CONSUMED_TICKS,
    MANY,
    MOST_OF_CLIENTS,
    SEEN_TICKS,
    senders_to_ask,
    still_consumed,
    still_seen,
)
from holdtrue.stores.azure_storage.sentinel import Owed, Seen, Sentinel, State, Used

NOW = 10_000_000 * TICKS_PER_SECOND
OLD = NOW - SEEN_TICKS


def test_what_was_used_up_is_known_until_its_deletion_is_confirmed() -> None:
    consumed = [Used("a", NOW - 5), Used("b", OLD), Used("c", NOW - CONSUMED_TICKS)]
    assert [one.id for one in still_consumed(consumed, {"b"}, NOW)] == ["a"]


def test_a_clients_id_goes_after_twenty_minutes_and_the_oldest_beyond_two_thousand() -> None:
    seen = [Seen("old", OLD), Seen("young", OLD + 1)]
    assert [one.id for one in still_seen(seen, NOW, {})] == ["young"]
    many = [Seen(str(n), NOW) for n in range(MOST_OF_CLIENTS + 3)]
    assert [one.id for one in still_seen(many, NOW, {})] == [str(n) for n in range(3, MOST_OF_CLIENTS + 3)]


def sender(execution: str = "x", number: int = 5, *, owes: bool = True, purging: bool = False) -> Sentinel:
    state = State(episode=f"{number}-r", owed=[Owed(execution, f"{number}-r", 0, 1)] if owes else [], purging=purging)
    return Sentinel(execution_id=execution, complete=True, completed_at=1, etag="e", timestamp=1, state=state)


def test_another_instances_id_goes_when_its_sender_cannot_send_it_again() -> None:
    one = Seen("a", OLD, "p", "x", 5)
    assert still_seen([one], NOW, {}) == [one], "nobody was asked"
    assert still_seen([one], NOW, {"p": sender()}) == [one]
    for gone in (None, sender("y"), sender(number=6), sender(owes=False), sender(purging=True)):
        assert still_seen([one], NOW, {"p": gone}) == []
    young = Seen("a", OLD + 1, "p", "x", 5)
    assert still_seen([young], NOW, {"p": None}) == [young], "none goes within twenty minutes"


def test_senders_are_asked_only_where_there_are_many_ids() -> None:
    few = [Seen(str(n), OLD, f"p{n % 3}") for n in range(MANY)]
    assert senders_to_ask(few, NOW) == []
    assert senders_to_ask([*few, Seen("x", OLD, "q")], NOW) == ["p0", "p1", "p2", "q"]
    assert senders_to_ask([*few, Seen("x", NOW, "q")], NOW) == []
