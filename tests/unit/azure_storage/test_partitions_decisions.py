"""What a host decides about the rows of the partitions table, row by row, and what its writes may never do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.stores.azure_storage.partitions import (
    Hold,
    Lease,
    Move,
    Plan,
    Situation,
    Terms,
    dotnet_owners,
    lease_values,
    plan,
    read_lease,
    runs_out,
    sight,
)
from holdtrue.stores.azure_storage.service import Instant, Row, Typed

TERMS = Terms()
ME, OTHER, THIRD, PEER = "holdtrue-me", "holdtrue-other", "holdtrue-third", "machine7"
NOW: Ticks = 1_770_000_000 * TICKS_PER_SECOND


def seconds(number: float) -> Ticks:
    return int(number * TICKS_PER_SECOND)


def lease(
    number: int = 0,
    owner: str | None = None,
    wanted: str | None = None,
    *,
    draining: bool = False,
    age: float = 5.0,
    wrong_by: float = 0.0,
) -> Lease:
    """A row renewed `age` seconds ago by an owner whose wall clock is wrong by so much."""
    renewal = NOW - seconds(age)
    return Lease(
        partition=f"hub-control-{number:02d}",
        etag=f"W/{number}",
        timestamp=renewal,
        current_owner=owner,
        next_owner=wanted,
        owned_since=renewal + seconds(wrong_by),
        last_renewal=renewal + seconds(wrong_by),
        expires_at=renewal + seconds(wrong_by + 30),
        is_draining=draining,
    )


def decide(
    *leases: Lease,
    held: dict[int, Hold] | None = None,
    closing: bool = False,
    at_least: Ticks | None = NOW,
    measured: bool = True,
    now: Ticks = NOW,
) -> Plan:
    known = Situation(
        me=ME,
        terms=TERMS,
        held={f"hub-control-{number:02d}": hold for number, hold in (held or {}).items()},
        sightings=sight({}, leases),
        now=now,
        at_least=at_least,
        measured=measured,
        closing=closing,
    )
    return plan(leases, known)


def moves(decided: Plan) -> list[tuple[Move, int]]:
    return [(step.move, int(step.lease.partition[-2:])) for step in decided.steps]


SERVING, DRAINING, DRAINED = Hold.SERVING, Hold.DRAINING, Hold.DRAINED


@pytest.mark.parametrize(
    ("row", "hold", "closing", "expected"),
    [
        (lease(), None, False, Move.CLAIM),
        (lease(wanted=ME), None, False, Move.CLAIM),
        (lease(wanted=OTHER), None, False, None),
        (lease(wanted=OTHER, age=31), None, False, Move.CLAIM),
        (lease(owner=OTHER), None, False, None),
        (lease(owner=OTHER, age=31), None, False, Move.CLAIM),
        (lease(owner=OTHER, wanted=THIRD, age=31), None, False, Move.CLAIM),
        (lease(owner=PEER, age=31), None, False, Move.CLAIM),
        (lease(owner=OTHER, age=31, wrong_by=400), None, False, Move.CLAIM),
        (lease(owner=OTHER, age=29, wrong_by=-400), None, False, None),
        (lease(owner=OTHER, draining=True), None, False, Move.STEAL),
        (lease(owner=OTHER, wanted=ME, draining=True), None, False, None),
        (lease(owner=OTHER, wanted=THIRD, draining=True), None, False, None),
        (lease(owner=ME), SERVING, False, None),
        (lease(owner=ME, draining=True), SERVING, False, Move.RENEW),
        (lease(owner=ME, wanted=ME), SERVING, False, Move.RENEW),
        (lease(owner=ME, wanted=PEER), SERVING, False, Move.DRAIN),
        (lease(owner=ME, wanted=PEER, draining=True), SERVING, False, Move.DRAIN),
        (lease(owner=ME, wanted=PEER), DRAINING, False, Move.DRAIN),
        (lease(owner=ME, wanted=PEER, draining=True), DRAINING, False, None),
        (lease(owner=ME, draining=True), DRAINING, False, None),
        (lease(owner=ME, wanted=PEER, draining=True), DRAINED, False, Move.RELEASE),
        (lease(owner=ME), None, False, Move.CLAIM),
        (lease(owner=ME, wanted=OTHER), None, False, Move.RELEASE),
        (lease(owner=ME), SERVING, True, Move.DRAIN),
        (lease(owner=ME, draining=True), DRAINED, True, Move.RELEASE),
        (lease(owner=ME), None, True, Move.RELEASE),
        (lease(), None, True, None),
        (lease(owner=OTHER, age=31), None, True, None),
        (lease(owner=OTHER, draining=True), None, True, None),
        (lease(owner=OTHER, wanted=ME), None, True, Move.WITHDRAW),
        (lease(owner=OTHER, wanted=ME, draining=True), None, True, None),
    ],
)
def test_one_row(row: Lease, hold: Hold | None, closing: bool, expected: Move | None) -> None:
    decided = decide(row, held={} if hold is None else {0: hold}, closing=closing)
    assert moves(decided) == ([] if expected is None else [(expected, 0)])


def test_what_a_claim_writes() -> None:
    (step,) = decide(lease(owner=PEER, wanted=OTHER, draining=True, age=99)).steps
    assert lease_values(step.lease) == {
        "CurrentOwner": ME,
        "NextOwner": None,
        "OwnedSince": Instant(NOW),
        "LastRenewal": Instant(NOW),
        "ExpiresAt": Instant(NOW + seconds(30)),
        "IsDraining": False,
    }
    assert step.lease.etag == "W/0"


def test_a_drain_is_renewed_and_a_release_keeps_who_wants_it() -> None:
    row = lease(owner=ME, wanted=PEER)
    (step,) = decide(row, held={0: SERVING}).steps
    assert step.lease.is_draining and step.lease.expires_at == NOW + seconds(30)
    assert (step.lease.current_owner, step.lease.next_owner) == (ME, PEER)
    (step,) = decide(row, held={0: DRAINED}).steps
    assert (step.lease.current_owner, step.lease.next_owner, step.lease.is_draining) == (None, PEER, False)
    assert (step.lease.expires_at, step.lease.owned_since) == (row.expires_at, row.owned_since)


def test_a_steal_changes_who_wants_it_and_nothing_else() -> None:
    rows = [lease(number, owner=OTHER) for number in range(4)]
    decided = decide(*rows)
    assert [step.move for step in decided.steps] == [Move.STEAL] * 2 and decided.soon
    for step in decided.steps:
        row = next(row for row in rows if row.partition == step.lease.partition)
        assert lease_values(step.lease) == {**lease_values(row), "NextOwner": ME}


@pytest.mark.parametrize(
    ("owners", "steals"),
    [
        ([OTHER] * 4, 2),
        ([OTHER], 0),
        ([OTHER] * 2, 1),
        ([OTHER, THIRD], 0),
        ([OTHER, OTHER, THIRD, THIRD], 1),
        ([OTHER, OTHER, ME, ME, ME], 0),
        ([OTHER, OTHER, OTHER, ME, ME], 0),
        ([OTHER] * 4 + [ME], 1),
        ([OTHER] * 6 + [THIRD] * 1 + [ME] * 2, 1),
        ([PEER] * 4, 2),
        ([OTHER, THIRD, "holdtrue-x", "holdtrue-y", "holdtrue-y"], 1),
    ],
)
def test_a_fair_share(owners: list[str], steals: int) -> None:
    rows = [lease(number, owner=owner) for number, owner in enumerate(owners)]
    decided = decide(*rows, held={n: SERVING for n, owner in enumerate(owners) if owner == ME})
    assert sum(step.move is Move.STEAL for step in decided.steps) == steals


def test_what_is_on_its_way_counts_for_whom_it_goes_to() -> None:
    rows = [lease(0, OTHER, ME), lease(1, OTHER, ME), lease(2, OTHER), lease(3, OTHER)]
    assert not decide(*rows).steps
    rows = [lease(0, OTHER, THIRD), lease(1, OTHER), lease(2, OTHER), lease(3, OTHER)]
    assert len(decide(*rows).steps) == 1


def test_nothing_is_over_before_the_time_is_known() -> None:
    row = lease(owner=OTHER, age=900)
    decided = decide(row, at_least=None, measured=False)
    assert moves(decided) == [(Move.TOUCH, 0)], "a write as it is tells the time"
    assert decided.steps[0].lease == row
    assert not decide(lease(owner=OTHER), at_least=None, measured=False).steps
    assert not decide(row, at_least=NOW - seconds(890)).steps


def test_a_foreign_write_does_not_hide_how_old_a_renewal_is() -> None:
    row = lease(owner=OTHER, age=25)
    seen = sight({}, [row])
    touched = Lease(**{**{name: getattr(row, name) for name in row.__struct_fields__}, "timestamp": NOW})
    assert runs_out(touched, sight(seen, [touched])[row.partition], TERMS) == NOW + seconds(5)


def test_an_owner_of_another_lease_interval_is_taken_at_its_word() -> None:
    row = Lease(
        partition="p", etag="", timestamp=NOW, current_owner=PEER, last_renewal=NOW, expires_at=NOW + seconds(90)
    )
    assert runs_out(row, sight({}, [row])["p"], TERMS) == NOW + seconds(90)
    absurd = Lease(partition="p", etag="", timestamp=NOW, current_owner=PEER, last_renewal=0, expires_at=NOW)
    assert runs_out(absurd, sight({}, [absurd])["p"], TERMS) == NOW + seconds(3600)
    backwards = Lease(partition="p", etag="", timestamp=NOW, current_owner=PEER, last_renewal=NOW, expires_at=0)
    assert runs_out(backwards, sight({}, [backwards])["p"], TERMS) == NOW
    silent = Lease(partition="p", etag="", timestamp=NOW, current_owner=PEER)
    assert runs_out(silent, sight({}, [silent])["p"], TERMS) == NOW + seconds(30)


def test_dotnet_owners_are_those_without_our_name_whose_lease_has_not_ended() -> None:
    rows = [lease(0, OTHER), lease(1, PEER), lease(2, "old", age=40), lease(3, OTHER, "coming"), lease(4)]
    assert dotnet_owners(rows, sight({}, rows), NOW, TERMS) == {PEER, "coming"}
    assert dotnet_owners(rows, sight({}, rows), None, TERMS) == {PEER, "coming", "old"}


def test_rows_of_a_new_hub_and_odd_ones_can_be_read() -> None:
    fresh = read_lease(Row(partition="", key="hub-control-00", values={"IsDraining": False}, etag="e", timestamp=7))
    assert fresh == Lease(partition="hub-control-00", etag="e", timestamp=7)
    odd = read_lease(
        Row(
            partition="",
            key="k",
            values={"CurrentOwner": "", "NextOwner": 5, "ExpiresAt": "soon", "LastRenewal": Typed("Edm.Int64", "9")},
            etag="e",
        )
    )
    assert odd == Lease(partition="k", etag="e")


@pytest.mark.parametrize(("acquire", "ok"), [(10.0, True), (26.9, True), (27.0, False), (30.0, False), (0.0, False)])
def test_an_owner_must_be_able_to_renew_in_time(acquire: float, ok: bool) -> None:
    if ok:
        Terms(acquire=acquire)
    else:
        with pytest.raises(InvalidInput, match="lease"):
            Terms(acquire=acquire)


names = st.sampled_from([None, ME, OTHER, THIRD, PEER])
rows = st.builds(
    lease,
    number=st.integers(0, 15),
    owner=names,
    wanted=names,
    draining=st.booleans(),
    age=st.floats(0, 100),
    wrong_by=st.floats(-600, 600),
)


@given(
    st.lists(rows, max_size=8, unique_by=lambda row: row.partition),
    st.dictionaries(st.integers(0, 15), st.sampled_from(list(Hold))),
    st.booleans(),
    st.booleans(),
)
def test_what_no_step_ever_does(leases: list[Lease], held: dict[int, Hold], closing: bool, measured: bool) -> None:
    decided = decide(*leases, held=held, closing=closing, measured=measured)
    before = {row.partition: row for row in leases}
    assert len({step.lease.partition for step in decided.steps}) == len(decided.steps), "one write a row"
    for step in decided.steps:
        row, after = before[step.lease.partition], step.lease
        assert after.etag == row.etag
        over = row.timestamp + seconds(30) <= NOW
        if after.current_owner != row.current_owner:
            assert row.current_owner == ME or (row.current_owner is None and row.next_owner in (None, ME)) or over, (
                "nobody's partition is taken while it may be served"
            )
            assert after.current_owner in (None, ME)
        if after.next_owner != row.next_owner:
            assert over or after.next_owner == ME or row.next_owner in (None, ME)
        if closing:
            assert step.move in (Move.DRAIN, Move.RELEASE, Move.WITHDRAW)
        if step.move in (Move.RENEW, Move.DRAIN, Move.CLAIM):
            assert after.expires_at == NOW + seconds(30)
    assert decided.mine == sum(
        {**before, **{step.lease.partition: step.lease for step in decided.steps}}[key].current_owner == ME
        for key in before
    )
