"""Commands for dead letters: messages that could not be handled, kept with their reason."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.app import Session, command, group
from holdtrue.cli.exits import CommandError, ExitCode, UsageProblem
from holdtrue.cli.output import exact, instant

if TYPE_CHECKING:
    from holdtrue.client.sync import SyncClient
    from holdtrue.stores.protocol import StoredDeadLetter

commands = group("dead-letters", "Messages that could not be handled: list, show, send again, dismiss.")

NumbersArgument = Annotated[
    list[int] | None, typer.Argument(metavar="NUMBER", help="Numbers as `dead-letters list` shows them.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them.")]


BATCH = 200
"""Dead letters sent again or deleted in one call."""


def _letters(client: "SyncClient") -> "list[StoredDeadLetter]":
    return list(client.dead_letters())


def _document(stored: "StoredDeadLetter") -> dict[str, Any]:
    from holdtrue.cli.views import event_document
    from holdtrue.core.dialect import to_datetime

    letter = stored.letter
    return {
        "number": stored.number,
        "at": exact(to_datetime(stored.at)),
        "instance_id": letter.instance_id,
        "reason": letter.reason,
        "sender": letter.message.sender,
        "event": event_document(letter.message.event),
    }


@command("list", to=commands)
def list_letters(session: Session) -> ExitCode | None:
    """List the dead letters."""
    from holdtrue.core.dialect import to_datetime

    with session.client() as client:
        letters = _letters(client)
    if session.out.json:
        for stored in letters:
            session.out.document(_document(stored))
        return None
    rows = [
        (
            str(stored.number),
            instant(to_datetime(stored.at)),
            stored.letter.instance_id,
            type(stored.letter.message.event).__name__,
            stored.letter.reason,
        )
        for stored in letters
    ]
    session.out.table(("NUMBER", "AT", "INSTANCE", "MESSAGE", "REASON"), rows, empty="No dead letters.")
    return None


@command("show", to=commands)
def show_letter(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="Its number.", show_default=False)],
) -> ExitCode | None:
    """Show one dead letter whole."""
    with session.client() as client:
        stored = next((letter for letter in _letters(client) if letter.number == number), None)
    if stored is None:
        raise _missing([number])
    document = _document(stored)
    if session.out.json:
        session.out.document(document)
        return None
    event = document.pop("event")
    session.out.fields([(name.capitalize().replace("_", " "), _text(value)) for name, value in document.items()])
    session.out.fields([(f"Event {name}", _text(value)) for name, value in event.items()])
    return None


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    import msgspec

    return msgspec.json.encode(value).decode()


def _missing(numbers: list[int]) -> CommandError:
    listed = ", ".join(map(str, numbers))
    return CommandError(
        f"There is no dead letter {listed} in this hub. `holdtrue dead-letters list` shows them.", ExitCode.NOT_FOUND
    )


def _chosen(client: "SyncClient", numbers: list[int] | None, every: bool) -> list[int]:
    if bool(numbers) == every:
        raise UsageProblem("Give the numbers of dead letters, or --all.")
    there = [letter.number for letter in _letters(client)]
    if every:
        return there
    missing = sorted(set(numbers or ()) - set(there))
    if missing:
        raise _missing(missing)
    return list(dict.fromkeys(numbers or ()))


def _in_batches(session: Session, what: str, numbers: list[int], act: Callable[[list[int]], int]) -> int:
    """Do it to all; the sum of what `act` answers for each batch."""
    total = 0
    with session.out.progress(what, len(numbers)) as advance:
        for begin in range(0, len(numbers), BATCH):
            batch = numbers[begin : begin + BATCH]
            total += act(batch)
            advance(begin + len(batch))
    return total


@command("resend", to=commands)
def resend(session: Session, numbers: NumbersArgument = None, every: AllOption = False) -> ExitCode | None:
    """Send dead letters again; exit code 4 if not every one could be."""
    with session.client() as client:
        chosen = _chosen(client, numbers, every)
        sent = _in_batches(session, "Resend", chosen, client.resend_dead_letters)
    session.out.say(f"Sent {sent} of {len(chosen)} again.", {"operation": "resend", "resent": sent, "of": len(chosen)})
    return None if sent == len(chosen) else ExitCode.REFUSED


@command("dismiss", to=commands)
def dismiss(session: Session, numbers: NumbersArgument = None, every: AllOption = False) -> ExitCode | None:
    """Delete dead letters."""
    with session.client() as client:
        chosen = _chosen(client, numbers, every)
        gone = _in_batches(session, "Dismiss", chosen, client.dismiss_dead_letters)
    session.out.say(f"Dismissed {gone}.", {"operation": "dismiss", "dismissed": gone})
    return None
