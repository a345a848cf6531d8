"""Which instance ids, names and tags a task hub takes.

The bound is that of an Azure Storage hub, where ids are escaped into keys, so that any hub can be moved to
any store.  Pure checks; who calls them (client, orchestration context) is not known here.
"""

from collections.abc import Mapping

from .errors import InvalidInput
from .messages import RESERVED_PREFIX

MAX_ESCAPED_UNITS = 500
"""UTF-16 units that an escaped id may have."""

_ESCAPED = frozenset("^/\\#?")


def escaped_units(instance_id: str) -> int:
    """UTF-16 units of the id's escaped form: two for an escaped character, and for one outside the BMP."""
    units = 0
    for character in instance_id:
        code = ord(character)
        wide = code > 0xFFFF or code < 0x20 or 0x7F <= code <= 0x9F or character in _ESCAPED
        units += 2 if wide else 1
    return units


def check_instance_id(instance_id: str) -> str:
    """The id itself, if a hub can hold it; raises InvalidInput that names what is wrong and the cure."""
    if not isinstance(instance_id, str):
        raise InvalidInput(f"an instance id is a text, not {type(instance_id).__name__}: give a str")
    if not instance_id:
        raise InvalidInput("the instance id is empty: give one, or none at all to have one made")
    if instance_id[0] == "@":
        raise InvalidInput(
            f"the instance id {short(instance_id)} begins with '@', which is kept for entities: choose another"
        )
    # No character takes more than two units, so that a short id needs no count.
    if len(instance_id) * 2 > MAX_ESCAPED_UNITS:
        units = escaped_units(instance_id)
        if units > MAX_ESCAPED_UNITS:
            raise InvalidInput(
                f"the instance id {short(instance_id)} is too long: its escaped form has {units} UTF-16 units, "
                f"{MAX_ESCAPED_UNITS} are the most. Shorten it (a hash of the long part, say)"
            )
    check_text(instance_id, "the instance id")
    return instance_id


def check_event_name(name: str) -> str:
    """The name itself, if anybody may raise it; raises InvalidInput that names what is wrong and the cure."""
    if not isinstance(name, str):
        raise InvalidInput(f"an event name is a text, not {type(name).__name__}: give a str")
    if not name:
        raise InvalidInput("the event name is empty: give the name that the orchestration waits for")
    if name[: len(RESERVED_PREFIX)].casefold() == RESERVED_PREFIX:
        raise InvalidInput(
            f"the event name {short(name)} begins with {RESERVED_PREFIX!r}, which is Holdtrue's own: choose another"
        )
    check_text(name, "the event name")
    return name


def check_name(name: str) -> str:
    """The name of an orchestration, if it can be one; raises InvalidInput that names what is wrong."""
    if not isinstance(name, str):
        raise InvalidInput(f"an orchestration's name is a text, not {type(name).__name__}: give a str or the function")
    if not name:
        raise InvalidInput("the orchestration's name is empty: give the name under which it is registered")
    check_text(name, "the orchestration's name")
    return name


def check_text(value: str, what: str) -> str:
    """The value itself, if it is a text that a history can hold; raises InvalidInput that begins with `what` it is."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is a text, not {type(value).__name__}: give a str")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                f"{what} {short(value)} holds half a surrogate pair, which is no character: remove it"
            ) from None
    return value


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as a plain dict; raises InvalidInput where they are not texts by text."""
    if not isinstance(tags, Mapping):
        raise InvalidInput(f"tags are a mapping of texts by text, not {type(tags).__name__}: give a dict")
    checked = dict(tags)
    for key, value in checked.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidInput(f"tags are texts by text: the tag {key!r} is {value!r}; give str for both")
        check_text(key, "the tag")
        check_text(value, f"the tag {key!r}, whose value")
    return checked


def short(text: str, most: int = 80) -> str:
    """A text for a message: quoted, its middle left out where it is long."""
    if len(text) <= most:
        return repr(text)
    return f"{text[: most // 2]!r}…{text[-(most // 4) :]!r}"
