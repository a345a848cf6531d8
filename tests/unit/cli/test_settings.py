"""`holdtrue settings check`."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.support import documents, run

GOOD = {"version": "2.0", "extensions": {"durableTask": {"hubName": "MyHub", "storageProvider": {"partitionCount": 4}}}}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document, indent=2))
    return path


def test_a_good_file(files: Path) -> None:
    write(files / "host.json", GOOD)
    ran = run("settings", "check")
    assert ran.exit_code == 0, ran.output
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE", "FROM", "MEANING"]
    assert any(line.split()[:5] == ["storageProvider.partitionCount", "4", "file", "line", "7"] for line in lines)
    assert not any(line.startswith("useAppLease") for line in lines)
    assert lines[-1] == "0 errors, 0 warnings."
    assert any(line.startswith("useAppLease") for line in run("settings", "check", "--all").stdout.splitlines())


def test_an_error_ends_with_a_code_for_ci(files: Path) -> None:
    write(files / "other.json", {"extensions": {"durableTask": {"hubName": "MyHub", "partitionCount": 99}}})
    ran = run("settings", "check", "other.json")
    assert ran.exit_code == 1
    assert "1 error, 0 warnings." in ran.stdout
    assert "extensions.durableTask.storageProvider.partitionCount" in ran.stdout


def test_the_environment_counts(files: Path) -> None:
    write(files / "host.json", GOOD)
    name = "AzureFunctionsJobHost__extensions__durableTask__storageProvider__partitionCount"
    ran = run("settings", "check", env={name: "8"})
    assert ran.exit_code == 0
    assert f"environment {name}" in ran.stdout
    assert run("settings", "check", env={name: "80"}).exit_code == 1


def test_a_change_of_the_partition_count_is_an_error_beside_the_running_file(files: Path) -> None:
    write(files / "host.json", GOOD)
    new = json.loads(json.dumps(GOOD))
    new["extensions"]["durableTask"]["storageProvider"]["partitionCount"] = 8
    write(files / "new.json", new)
    ran = run("settings", "check", "new.json", "--running", "host.json")
    assert ran.exit_code == 1 and "A hub keeps the number it was made with" in ran.stdout
    same = run("settings", "check", "host.json", "--running", "host.json")
    assert same.exit_code == 0 and "No setting differs" in same.stderr


def test_as_json(files: Path) -> None:
    write(files / "host.json", GOOD)
    new = json.loads(json.dumps(GOOD))
    new["extensions"]["durableTask"] |= {"extendedSessionsEnabled": True, "hubNam": "x"}
    write(files / "new.json", new)
    ran = run("--json", "settings", "check", "new.json", "--running", "host.json")
    assert ran.exit_code == 1
    (document,) = documents(ran.stdout)
    assert (document["ok"], document["hub"], document["file"]) == (False, "MyHub", "new.json")
    values = {value["name"]: value for value in document["values"]}
    assert values["extensions.durableTask.storageProvider.partitionCount"]["origin"] == "file"
    assert values["extensions.durableTask.extendedSessionsEnabled"] | {"meaning": ""} == {
        "name": "extensions.durableTask.extendedSessionsEnabled",
        "value": "true",
        "origin": "file",
        "where": "line 9",
        "used": False,
        "meaning": "",
    }
    assert [(one["weight"], one["name"]) for one in document["findings"]] == [
        ("error", "extensions.durableTask.hubNam"),
        ("note", "extensions.durableTask.extendedSessionsEnabled"),
    ]
    (change,) = document["changes"]
    assert (change["before"], change["after"], change["weight"]) == ("false", "true", "note")


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, 2, "cannot be read: No such file"),
        (b"\xff\xfe{", 2, "it is not UTF-8 text"),
        (b'{"a": 1 "b": 2}', 1, "not valid JSON: line 1, column 9"),
    ],
)
def test_a_file_that_cannot_be_read(files: Path, content: bytes | None, code: int, says: str) -> None:
    if content is not None:
        (files / "host.json").write_bytes(content)
    ran = run("settings", "check")
    assert ran.exit_code == code
    assert says in ran.stderr
