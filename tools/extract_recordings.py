"""Takes out of recordings of the .NET provider what the codec tests need: `extract_recordings.py FOLDER`.

FOLDER holds NAME.jsonl (requests and answers) and NAME.hub.json (the hub at the end).  What was written, in its order,
goes to tests/data/azure_storage/recorded.json.gz: queue messages, rows, names of blobs, how many control queues there
were, and the hubs' rows as stored.  Of the recordings of the known failure (of June 2025) all that was sent for an
instance goes, as it was sent, to stuck.json.gz beside it, with the hubs whole.
"""

import gzip
import html
import json
import re
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "tests" / "data" / "azure_storage" / "recorded.json.gz"
STUCK = TARGET.with_name("stuck.json.gz")
OF_JUNE_2025 = (
    "StuckRunning",
    "StuckHelpless",
    "StuckAgain",
    "StuckFailed",
    "StuckTerminated",
    "StuckChild",
    "SplitMiddle",
)
PART = re.compile(r"(POST|PUT|PATCH) (\S+) HTTP")


def row_writes(request: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Method, path and body of each row that a request writes."""
    body = request.get("body") or ""
    if "$batch" not in request["path"]:
        return [(request["method"], request["path"], body)] if request["method"] in ("POST", "PUT", "PATCH") else []
    found = []
    for part in re.split(r"--changeset_[^\r\n]*", body):
        head = PART.search(part)
        if head is not None:
            found.append((head[1], head[2], part[part.index("{") :].strip()))
    return found


def typed(row: dict[str, Any]) -> dict[str, Any]:
    """Columns in their order; a time as a list of one."""
    return {
        name: [value] if row.get(f"{name}@odata.type") == "Edm.DateTime" and value is not None else value
        for name, value in row.items()
        if not name.endswith("@odata.type")
    }


def stored(row: dict[str, Any]) -> dict[str, Any]:
    """The same of a row as a dump of the hub shows it."""
    return {
        name: [column["value"]] if column["type"] == "Edm.DateTime" else column["value"] for name, column in row.items()
    }


def extract(folder: Path) -> dict[str, Any]:
    """What the tests need."""
    data: dict[str, Any] = {"messages": [], "history": [], "instances": [], "blobs": [], "partitions": {}, "hubs": {}}
    for path in sorted(folder.glob("*.jsonl")):
        name, queues = path.stem, set()
        for line in path.read_text().splitlines():
            request = json.loads(line)
            queues.update(re.findall(r"^/\w+/([a-z0-9]+-control-\d\d)$", request["path"]))
            if request["service"] == "queue" and request["method"] == "POST":
                found = re.search(r"<MessageText>(.*)</MessageText>", request.get("body") or "", re.DOTALL)
                if found is not None:
                    queue = request["path"].split("/")[2]
                    data["messages"].append([name, queue, html.unescape(found[1])])
            elif request["service"] == "table":
                for method, target, body in row_writes(request):
                    table = next(
                        (
                            one
                            for one in ("History", "Instances")
                            if f"{one}(" in target or target.split("?")[0].endswith(one)
                        ),
                        None,
                    )
                    try:
                        row = typed(json.loads(body)) if table else None
                    except json.JSONDecodeError:
                        continue  # cut in the recording for its length
                    if table and row is not None:
                        data[table.lower()].append([name, method, row])
            elif request["service"] == "blob" and "largemessages/" in request["path"] and request["method"] == "PUT":
                blob = request["path"].split("?")[0].split("largemessages/", 1)[1]
                if [name, blob] not in data["blobs"]:
                    data["blobs"].append([name, blob])
        data["partitions"][name] = len(queues)
    for path in sorted(folder.glob("*.hub.json")):
        hub = json.loads(path.read_text())
        data["hubs"][path.name.removesuffix(".hub.json")] = {
            table: [stored(row) for row in rows]
            for table, rows in hub["tables"].items()
            if table.endswith(("History", "Instances"))
        }
    return data


def stuck(folder: Path) -> dict[str, Any]:
    """What was sent for the instances of each recording of June 2025, and its hub at the end."""
    data: dict[str, Any] = {}
    for name in OF_JUNE_2025:
        hub = json.loads((folder / f"{name}.hub.json").read_text())
        if any(hub["queues"].values()) or any("largemessages" in container for container in hub["containers"]):
            raise ValueError(f"{name}: the hub has messages or blobs, which are not taken along")
        requests = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        data[name] = {
            "requests": [
                [
                    one["by"],
                    one["service"],
                    one["method"],
                    one["path"],
                    one["headers"].get("If-Match"),
                    one["body"],
                    one.get("answer") or "",
                    one.get("status"),
                    one.get("fault"),
                ]
                for one in requests
                if re.search(r"/messages|\$batch|History\(|Instances", one["path"])
            ],
            "hub": {table: [stored(row) for row in rows] for table, rows in hub["tables"].items()},
        }
    return data


def write(target: Path, data: dict[str, Any]) -> None:
    """As packed JSON, the same bytes each time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print({name: len(found) for name, found in data.items()}, target.stat().st_size)


def main() -> None:
    """Extract and write."""
    folder = Path(sys.argv[1])
    write(TARGET, extract(folder))
    write(STUCK, stuck(folder))


if __name__ == "__main__":
    main()
