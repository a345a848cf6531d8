"""Names of a hub's resources, keys, and where the blobs of an instance lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import InvalidInput
from holdtrue.stores.azure_storage.names import (
    HubNames,
    blob_prefixes,
    escape_key,
    fnv1a,
    is_blob_of,
    message_blob,
    own_folder,
    unescape_key,
)

ids = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text("a./\\^0#?4", min_size=1))


def test_names_of_a_hub() -> None:
    names = HubNames("MyHub")
    assert (names.history, names.instances, names.partitions) == ("MyHubHistory", "MyHubInstances", "MyHubPartitions")
    assert (names.own, names.work_items, names.control(3)) == ("MyHubHoldtrue", "myhub-workitems", "myhub-control-03")
    assert names.partition_number("myhub-control-15") == 15
    assert names.partition_number("other-control-15") is None
    assert HubNames("MyHub", "Track").history == "TrackHistory"
    assert HubNames("MyHub", "Track").partitions == "MyHubPartitions"


@pytest.mark.parametrize("name", ["", "ab", "1hub", "my-hub", "hüb", "h" * 46, "hub\n"])
def test_hub_names_that_azure_refuses(name: str) -> None:
    with pytest.raises(InvalidInput, match="3 to 45"):
        HubNames(name)


def test_known_hashes() -> None:
    assert [fnv1a(data) for data in (b"", b"a", b"foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [("a/b", "a^0b"), ("a\\b", "a^1b"), ("a#b?", "a^2b^3"), ("^", "^^"), ("\x00\x7f\x9f", "^\xc0^\u013f^\u015f")],
)
def test_escapes(plain: str, escaped: str) -> None:
    assert escape_key(plain) == escaped
    assert unescape_key(escaped) == plain


@given(instance_id=ids)
def test_keys_come_back(instance_id: str) -> None:
    key = escape_key(instance_id)
    assert unescape_key(key) == instance_id
    assert not set(key) & set("/\\#?")


GUID = "3b21b6ef-2d92-42fa-a3f7-9078874d548f"


@pytest.mark.parametrize(
    ("instance_id", "folder"),
    [
        ("job", "job"),
        ("a/b", "a/b"),
        ("a b:c", "a b:c"),
        ("a\\b", "a^1b"),
        (".", "^4"),
        ("..", "^4^4"),
        ("a/..", "a^0^4^4"),
        ("a./b", "a.^0b"),
        ("a//b", "a^0^0b"),
        ("/a", "^0a"),
        ("a\x01", "a^\xc1"),
    ],
)
def test_folders_of_messages(instance_id: str, folder: str) -> None:
    name = message_blob(instance_id, GUID, "TaskCompleted")
    own = "" if folder == instance_id else "holdtrue-"
    assert name == f"{folder}/{own}message-3b21b6ef2d9242faa3f79078874d548f-TaskCompleted.json.gz"
    assert is_blob_of(instance_id, name)


@given(instance_id=ids)
def test_no_folder_is_one_that_the_service_folds(instance_id: str) -> None:
    for name in (message_blob(instance_id, GUID, "X"), f"{own_folder(instance_id)}/history-0-X.json.gz"):
        assert "\\" not in name
        assert all(part and not part.endswith(".") for part in name.split("/"))
        assert any(name.startswith(prefix) for prefix in blob_prefixes(instance_id))


@given(one=ids, other=ids)
def test_blobs_of_one_are_not_those_of_another(one: str, other: str) -> None:
    if one != other:
        for name in (message_blob(one, GUID, "X"), f"{own_folder(one)}/history-0-X.json.gz"):
            assert not is_blob_of(other, name)


def test_ids_that_begin_alike_do_not_share_blobs() -> None:
    assert not is_blob_of("job-1", message_blob("job-10", GUID, "X"))
    assert not is_blob_of("a/b", message_blob("a^0b", GUID, "X"))
    assert not is_blob_of("a/b", message_blob("a/b/message-c", GUID, "X"))
