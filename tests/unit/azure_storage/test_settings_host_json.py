"""Reading a host.json and the environment: values, their origin, and all that can be wrong with them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import InvalidInput
from holdtrue.stores.azure_storage.host_json import IN_HOST_JSON, HostJson, Origin, Weight, read_host_json
from holdtrue.stores.azure_storage.jsonc import parse_jsonc, plain
from holdtrue.stores.azure_storage.settings_check import check, compare

PREFIX = "AzureFunctionsJobHost__extensions__durableTask__"


def host(durable: Any = None, environment: Mapping[str, str] | None = None, **root: Any) -> HostJson:
    document = {"version": "2.0", "extensions": {"durableTask": {"hubName": "MyHub", **(durable or {})}}, **root}
    return read_host_json(json.dumps(document), environment)


def provider(environment: Mapping[str, str] | None = None, **settings: Any) -> HostJson:
    return host({"storageProvider": settings}, environment)


def found(one: HostJson, weight: Weight = Weight.ERROR) -> list[str]:
    return [f"{finding.name}: {finding.text}" for finding in check(one) if finding.weight is weight]


def test_comments_trailing_commas_and_lines() -> None:
    text = """\ufeff// first
{
  "version": "2.0", /* a
  comment "of" two lines */
  "extensions": {
    "durableTask": {
      "hubName": "MyHub", // not "this"
      "storageProvider": {
        "partitionCount": 8,
      },
      "notifications": {"eventGrid": {"publishEventTypes": ["Started", "Completed",],},},
    },
  },
}
// last"""
    read = read_host_json(text)
    count = read.values["storageProvider.partitionCount"]
    assert (count.value, count.origin, count.where, count.text) == (8, Origin.FILE, "line 9", "8")
    assert read.value("notifications.eventGrid.publishEventTypes") == ["Started", "Completed"]
    assert read.hub == "MyHub" and not read.findings
    assert read.settings().partition_count == 8


def test_a_comment_in_a_text_is_text() -> None:
    assert plain(parse_jsonc('{"a": "http://x/*y*/", "b": "\\"//"}')) == {"a": "http://x/*y*/", "b": '"//'}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1, column 1: it ends"),
        ("{", "column 2: a text in double quotes"),
        ('{"a": 1 "b": 2}', "column 9: a comma"),
        ('{"a"\n  1}', "line 2, column 3: a colon"),
        ('{"a": }', "a value is missing"),
        ('{"a": 01}', "a comma"),
        ("{'a': 1}", "double quotes"),
        ('{"a": [1, 2}', "a comma or ]"),
        ('{"a": 1} x', "behind the end"),
        ('{"a": 1, /* no end', "a comment without an end"),
        ('{"a": 1, "A": 2}', "stands there twice"),
        ('{"a": 1,\n"a": 2}', "line 2, column 1: 'a' stands there twice"),
        ('{"a": "\\x"}', "Invalid"),
        ("{,}", "double quotes"),
        ("[" * 100, "nested too deeply"),
    ],
)
def test_what_is_no_json(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says.replace("[", r"\[").replace("]", r"\]")):
        parse_jsonc(text)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdefgh", max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(values, st.sampled_from([None, 2]))
def test_json_is_read_as_everyone_reads_it(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert plain(parse_jsonc(text)) == json.loads(text)


def test_the_environment_overrides_the_file_whatever_the_letters_case() -> None:
    read = host(
        {"storageProvider": {"PartitionCount": 4}},
        {
            "AZUREFUNCTIONSJOBHOST__EXTENSIONS__durabletask__storageprovider__partitioncount": "8",
            "AzureFunctionsJobHost:extensions:durableTask:useAppLease": "FALSE",
            PREFIX + "storageProvider__maxQueuePollingInterval": "00:00:02.5",
            PREFIX + "notifications__eventGrid__publishEventTypes__0": "Started",
            PREFIX + "notifications__eventGrid__publishEventTypes__1": "Failed",
            "AzureFunctionsJobHost__logging__x": "1",
            "PATH": "/bin",
        },
    )
    count = read.values["storageProvider.partitionCount"]
    assert (count.value, count.origin) == (8, Origin.ENVIRONMENT) and count.where.endswith("partitioncount")
    assert read.value("useAppLease") is False
    assert read.value("storageProvider.maxQueuePollingInterval") == 2.5
    assert read.value("notifications.eventGrid.publishEventTypes") == ["Started", "Failed"]
    assert any("overrides '4' of line 1 by '8'" in text for text in found(read, Weight.NOTE))
    assert not found(read)


def test_a_null_is_the_default() -> None:
    read = provider(partitionCount=None)
    assert (read.value("storageProvider.partitionCount"), read.settings().partition_count) == (4, 4)


@pytest.mark.parametrize("path", sorted(IN_HOST_JSON))
def test_every_setting_is_read_at_its_place(path: str) -> None:
    setting = IN_HOST_JSON[path]
    value: Any = {
        "whole number": setting.most or setting.least or 7,
        "true or false": True,
        "time span": "00:00:50" if setting.most is None or setting.most < 3600 else "00:30:00",
        "text": "MyName",
        "one of a few words": setting.choices[-1] if setting.choices else "",
        "list": ["a"],
    }[setting.kind]
    document: Any = value
    for part in reversed(path.split(".")):
        document = {part.upper(): document}
    read = read_host_json(json.dumps({"extensions": {"durableTask": document}}))
    assert read.values[path].origin is Origin.FILE
    assert not [one for one in read.findings if one.weight is not Weight.NOTE]


@pytest.mark.parametrize(
    ("durable", "says"),
    [
        ({"partitionCount": 8}, "it is 'extensions.durableTask.storageProvider.partitionCount' now"),
        ({"maxConcurrentActivityFunction": 8}, "did you mean 'extensions.durableTask.maxConcurrentActivityFunctions'?"),
        ({"storageProvider": {"partionCount": 8}}, "did you mean 'extensions.durableTask.storageProvider."),
        ({"storageProvider": {"useAppLease": True}}, "its place is 'extensions.durableTask.useAppLease'"),
        ({"traceInputsAndOutputs": True}, "it is 'extensions.durableTask.tracing.traceInputsAndOutputs' now"),
        ({"storageProvider": {"TaskHubName": "x"}}, "here it is 'extensions.durableTask.hubName'"),
        ({"leaseInterval": "00:00:20"}, "its place is 'extensions.durableTask.appLeaseOptions.leaseInterval'"),
        ({"LeaseAcquireInterval": "00:00:20"}, "host.json has not"),
        ({"xyzzy": 1}, "nothing reads it"),
        ({"storageProvider": 5}, "it must be an object"),
        ({"storageProvider": {"type": "mssql"}}, "'mssql' is out of its range: it must be one of AzureStorage"),
        ({"storageProvider": {"partitionCount": 17}}, "'17' is out of its range: it must be 1 to 16"),
        ({"storageProvider": {"partitionCount": 4.5}}, "'4.5' is no whole number"),
        ({"storageProvider": {"partitionCount": True}}, "'true' is no whole number"),
        ({"storageProvider": {"partitionCount": "four"}}, "'four' is no whole number"),
        ({"useAppLease": "yes"}, "'yes' is no true or false"),
        ({"useAppLease": 1}, "'1' is no true or false"),
        ({"hubName": 7}, "'7' is no text"),
        ({"hubName": "my-hub"}, "3 to 45 letters"),
        ({"storageProvider": {"maxQueuePollingInterval": 30}}, "reads a bare number as days"),
        ({"storageProvider": {"maxQueuePollingInterval": "30"}}, "has no unit"),
        ({"storageProvider": {"maxQueuePollingInterval": "30s"}}, "'30s' is no time span"),
        ({"storageProvider": {"maxQueuePollingInterval": "00:00:60"}}, "days come first"),
        ({"storageProvider": {"controlQueueVisibilityTimeout": "24:00:00"}}, "days come first"),
        ({"storageProvider": {"maxQueuePollingInterval": "00:00:00"}}, "more than 00:00:00"),
        ({"storageProvider": {"maxQueuePollingInterval": "-00:00:10"}}, "more than 00:00:00"),
        ({"storageProvider": {"controlQueueVisibilityTimeout": "00:00:30"}}, "00:01:00 to 01:00:00"),
        ({"notifications": {"eventGrid": {"publishEventTypes": "Started"}}}, "is no list"),
        ({"storageProvider": {"useLegacyPartitionManagement": True}}, "it contradicts useTablePartitionManagement"),
        (
            {"storageProvider": {"useTablePartitionManagement": False, "useLegacyPartitionManagement": True}},
            "its hosts do not see workers that do",
        ),
        ({"appLeaseOptions": {"renewInterval": "00:01:10"}}, "would run out before it is renewed"),
        ({"storageProvider": {"connectionName": "DefaultEndpointsProtocol=https;AccountKey=c2VjcmV0"}}, "app setting"),
    ],
)  # fmt: skip
def test_what_is_wrong(durable: dict[str, Any], says: str) -> None:
    errors = found(host(durable))
    assert len(errors) == 1 and says in errors[0], errors


@pytest.mark.parametrize(
    ("durable", "says"),
    [
        ({"storageProvider": {"connectionStringName": "X"}}, "its name is 'extensions.durableTask.storageProvider"),
        ({"storageProvider": {"controlQueueBufferThreshold": 8}}, "a request takes 32 messages, and 8 may be held"),
        ({"storageProvider": {"trackingStoreNamePrefix": "Abc"}}, "it has no effect"),
        ({"useAppLease": False}, "nothing keeps two apps"),
        ({"useAppLease": False, "appLeaseOptions": {"leaseInterval": "00:00:20"}}, "only where useAppLease is true"),
        ({"hubName": "%MyHubSetting%"}, "'MyHubSetting' is not in this environment"),
        ({"hubName": None}, "the hub is 'TestHubName'"),
    ],
)
def test_what_is_doubtful(durable: dict[str, Any], says: str) -> None:
    read = host(durable)
    assert any(says in text for text in found(read, Weight.WARNING)), check(read)
    assert not found(read)


@pytest.mark.parametrize(
    "durable",
    [
        {"storageProvider": {"allowReplayingTerminalInstances": True}},
        {"storageProvider": {"useInstanceTableEtag": True}},
        {"storageProvider": {"controlQueueVisibilityTimeout": "00:10:00"}},
        {"extendedSessionsEnabled": True},
        {"storeInputsInOrchestrationHistory": True},
    ],
)
def test_what_is_needless_is_accepted_and_said_to_be_so(durable: dict[str, Any]) -> None:
    (note,) = found(host(durable), Weight.NOTE)
    assert "accepted, and not needed. Holdtrue" in note or "accepted, and not needed. A status" in note
    assert not found(host(durable))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"durableTask": {"hubName": "x"}}, "durableTask: it is not read here: move it into 'extensions'"),
        ({"hubName": "MyHub"}, "its place is 'extensions.durableTask.hubName'"),
        ({"extensions": {"storageProvider": {}}}, "its place is 'extensions.durableTask.storageProvider'"),
        ({"extensions": {"durableTasks": {}}}, "did you mean 'extensions.durableTask'?"),
        ({"extensions": 5}, "extensions: it must be an object"),
        ({"extensions": {"durableTask": []}}, "extensions.durableTask: it must be an object"),
        ([], "host.json: it must be an object"),
    ],
)
def test_what_stands_in_the_wrong_place(document: Any, says: str) -> None:
    errors = found(read_host_json(json.dumps(document)))
    assert len(errors) == 1 and says in errors[0], errors


def test_what_is_others_is_left_alone() -> None:
    document = {
        "version": "2.0",
        "logging": {"logLevel": {"default": "Warning"}},
        "extensionBundle": {"id": "x", "version": "[4.*, 5.0.0)"},
        "functionTimeout": "00:05:00",
        "extensions": {"queues": {"batchSize": 16}, "http": {"routePrefix": "api"}, "durableTask": {"hubName": "Hub"}},
    }
    assert check(read_host_json(json.dumps(document))) == []


def test_wrong_names_in_the_environment_are_told() -> None:
    read = host({}, {PREFIX + "storageProvider__partionCount": "8", PREFIX + "storageProvider": "x"})
    (error,) = found(read)
    assert error.startswith(PREFIX + "storageProvider__partionCount: unknown; did you mean")
    assert any("names a section" in text for text in found(read, Weight.WARNING))


def test_one_setting_under_two_names() -> None:
    twice = provider(connectionName="A", connectionStringName="B")
    assert any("is given twice" in text for text in found(twice))
    assert not found(provider(connectionName="A", connectionStringName="A"))


def test_the_hubs_name_from_elsewhere() -> None:
    read = host({"hubName": "%TheHub%"}, {"THEHUB": "FromSettings"})
    assert read.hub == "FromSettings" and not found(read)
    assert "3 to 45" in found(host({"hubName": "%TheHub%"}, {"TheHub": "no-good"}))[0]
    for site, hub in {
        "my-site": "mysite",
        "1x": "t1x",
        "a": "aHub",
        "--": "DefaultTaskHub",
        "y" * 60: "y" * 45,
    }.items():
        read = host({"hubName": None}, {"WEBSITE_SITE_NAME": site})
        assert (read.hub, read.settings().app_name) == (hub, site)


def test_a_secret_is_never_shown() -> None:
    secret = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net"
    read = provider({PREFIX + "storageProvider__connectionName": secret + "2"}, connectionName=secret)
    shown = [one.text for one in check(read)] + [one.text for one in read.values.values()]
    shown += [f"{change.before} {change.after}" for change in compare(read, provider())]
    assert "(a secret)" in " ".join(shown) and "c2VjcmV0" not in " ".join(shown)
    assert found(read)


def test_what_a_change_does_to_a_running_hub() -> None:
    running = host({"storageProvider": {"partitionCount": 4, "queueClientMessageEncoding": "base64"}})
    new = host(
        {
            "maxConcurrentActivityFunctions": 5,
            "extendedSessionsEnabled": True,
            "storageProvider": {"partitionCount": 8, "queueClientMessageEncoding": "UTF8"},
        }
    )
    changes = {change.setting.path: change for change in compare(running, new)}
    assert len(changes) == 4
    count = changes["storageProvider.partitionCount"]
    assert (count.before, count.after, count.weight) == ("4", "8", Weight.ERROR) and "keeps the number" in count.text
    assert changes["storageProvider.queueClientMessageEncoding"].weight is Weight.WARNING
    assert changes["maxConcurrentActivityFunctions"].weight is Weight.NOTE
    assert changes["extendedSessionsEnabled"].text.startswith("Nothing. ")
    same = read_host_json('{"extensions":\n\n{"durableTask": {"hubName": "MyHub"}}}')
    assert compare(host(), same) == [], "where it stands does not matter"


def test_the_stores_settings_come_of_it() -> None:
    read = host(
        {
            "maxConcurrentActivityFunctions": 5,
            "appLeaseOptions": {"renewInterval": "00:00:10"},
            "storageProvider": {
                "maxQueuePollingInterval": "00:00:07.5",
                "queueClientMessageEncoding": "BASE64",
                "trackingStoreConnectionName": "Other",
            },
        }
    )
    settings = read.settings()
    assert settings.max_concurrent_activities == 5 and settings.max_concurrent_orchestrations is None
    assert settings.app_lease_renew_interval == 10.0 and settings.max_queue_polling_interval == 7.5
    assert settings.queue_message_encoding == "Base64" and settings.tracking_store_connection_name == "Other"
