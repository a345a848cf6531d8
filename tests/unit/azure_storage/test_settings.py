"""The store's settings: their table, their limits, and the page that shows them."""

import msgspec
import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.stores.azure_storage.setting import Kind, span_text
from holdtrue.stores.azure_storage.settings import SETTINGS, AzureStorageSettings
from tools import draw_settings

FIELDS = {field.name: field for field in msgspec.structs.fields(AzureStorageSettings)}


def test_the_page_shows_the_table_of_the_code() -> None:
    assert draw_settings.PAGE.read_text() == draw_settings.page(), "docs and code differ: run `make docs`"


def test_every_member_has_its_row_with_the_same_default() -> None:
    rows = {setting.field: setting for setting in SETTINGS if setting.field is not None}
    assert rows.keys() == FIELDS.keys()
    for name, field in FIELDS.items():
        assert rows[name].default == field.default, name


def test_names_are_unique() -> None:
    for names in (
        [one.path for one in SETTINGS if one.path],
        [one.dotnet for one in SETTINGS if one.dotnet],
        [one.field for one in SETTINGS if one.field],
        [name for one in SETTINGS for name in (*one.former, one.path) if name],
    ):
        folded = [name.casefold() for name in names]
        assert len(set(folded)) == len(folded)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.path or one.dotnet or one.field)
def test_a_row_is_whole(setting) -> None:  # type: ignore[no-untyped-def]
    assert setting.path or setting.dotnet or setting.field
    assert setting.meaning.endswith(".")
    assert setting.default is not None or setting.computed, "it says what it is when nobody sets it"
    assert not setting.refuses(setting.default), "the default is in its range"
    assert bool(setting.choices) == (setting.kind is Kind.CHOICE)
    assert not (setting.field and setting.needless), "what the store uses it needs"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"partition_count": 0}, "1 to 16"),
        ({"partition_count": 17}, "1 to 16"),
        ({"control_queue_batch_size": 33}, "1 to 32"),
        ({"control_queue_buffer_threshold": 1001}, "1 to 1000"),
        ({"max_queue_polling_interval": 0.0}, "more than 00:00:00"),
        ({"max_concurrent_activities": 0}, "at least 1"),
        ({"queue_message_encoding": "utf-7"}, "UTF8, Base64"),
        ({"app_lease_interval": 61.0}, "00:00:15 to 00:01:00"),
        ({"app_lease_renew_interval": 60.0}, "less than app_lease_interval"),
        ({"lease_interval": 0.0}, "more than 0 s"),
        ({"lease_acquire_interval": 28.0}, "lease interval"),
        ({"use_table_partition_management": False, "lease_interval": 14.0}, "15 to 60 whole seconds"),
        ({"use_table_partition_management": False, "lease_interval": 20.5}, "15 to 60 whole seconds"),
        ({"use_table_partition_management": False, "lease_interval": 61.0}, "15 to 60 whole seconds"),
        ({"renew_messages_after": 5.0}, "less than take_visibility"),
    ],
)
def test_what_it_does_not_take(given: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        AzureStorageSettings(**given)  # type: ignore[arg-type]


def test_its_terms() -> None:
    settings = AzureStorageSettings(lease_interval=6.0, lease_acquire_interval=2.0, drain_limit=9.0)
    terms = settings.partition_terms()
    assert (terms.lease, terms.acquire, terms.drain, terms.operation) == (6.0, 2.0, 9.0, 2.0)
    lease = settings.app_lease_terms()
    assert (lease.lease, lease.acquire) == (60, 300.0)
    renewals = settings.renewal_terms("holdtrue-me", "Partitions")
    assert (renewals.me, renewals.table, renewals.rows, renewals.renew) == ("holdtrue-me", "Partitions", terms, 2.0)
    assert (renewals.app_lease, renewals.renew_app_lease, renewals.app_lease_until(100.0)) == (60, 25.0, 154.0)
    assert (renewals.take, renewals.renew_messages_after, renewals.renewed, renewals.silence) == (5, 3.0, 30, 300.0)


def test_an_app_lease_is_renewed_while_some_of_it_is_left() -> None:
    """Whatever the setting says that is less than the lease."""
    settings = AzureStorageSettings(app_lease_interval=15.0, app_lease_renew_interval=14.9)
    terms = settings.renewal_terms("holdtrue-me", "Partitions")
    assert terms.renew_app_lease < terms.app_lease_until(0.0) - 2.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00"), (300, "00:05:00"), (0.25, "00:00:00.2500000"), (90_061, "1.01:01:01"), (604_800, "7.00:00:00")],
)
def test_time_spans(seconds: float, text: str) -> None:
    assert span_text(seconds) == text
