"""Settings from a host.json and the environment: what each is, where it comes from, and what is wrong with it.

A setting's place is below `extensions.durableTask`.  An environment variable `AzureFunctionsJobHost__` and the
path, joined by `__` (or by `:`), overrides it.  Names are compared without regard to case, as .NET does.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from .jsonc import Node, parse_jsonc, plain
from .names import HubNames
from .setting import Kind, Setting
from .settings import SETTINGS, AzureStorageSettings

ROOT = ("extensions", "durableTask")
DEFAULT_HUB = "TestHubName"
SITE_NAME = "WEBSITE_SITE_NAME"
"""The variable in which Functions tells an app its name."""
_PREFIX = "azurefunctionsjobhost"
_SECRET = re.compile(r"(AccountKey|SharedAccessSignature|sig|key)=", re.IGNORECASE)
_SPAN = re.compile(r"(-)?(?:(\d{1,8})\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,7}))?)?")

IN_HOST_JSON = {setting.path: setting for setting in SETTINGS if setting.path is not None}
_BY_NAME = {path.casefold(): path for path in IN_HOST_JSON}
_FORMER = {name.casefold(): path for path, setting in IN_HOST_JSON.items() for name in setting.former}
_SECTIONS = {
    ".".join(path.split(".")[:depth]).casefold() for path in IN_HOST_JSON for depth in range(1, path.count(".") + 1)
}
_LEAVES: dict[str, list[str]] = {}
for _path in IN_HOST_JSON:
    _LEAVES.setdefault(_path.rpartition(".")[2].casefold(), []).append(_path)
_ANYONES = {"version", "type"}
"""Names that others have in a host.json too."""
_DOTNET = {setting.dotnet.casefold(): setting for setting in SETTINGS if setting.dotnet is not None}


class Weight(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"
    """It does not do what it says, or .NET would not start."""
    WARNING = "warning"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: at which name, where (`line 7`, `environment`), and what to do."""

    weight: Weight
    name: str
    where: str
    text: str


class Origin(StrEnum):
    """Where a value comes from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A setting with its value: of its kind, seconds for a time span, None where it is computed."""

    setting: Setting
    value: Any
    origin: Origin
    where: str
    """`line 7`, or the environment variable's name; empty for a default."""

    @property
    def text(self) -> str:
        """The value as host.json has it; what could be a secret is not shown."""
        return value_text(self.setting, self.value)


class HostJson(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of host.json, by path, in their order; the app's name; and what was found while reading."""

    values: dict[str, Resolved]
    app_name: str
    findings: list[Finding]

    def value(self, path: str) -> Any:
        """A setting's value."""
        return self.values[path].value

    @property
    def hub(self) -> str:
        """The task hub's name."""
        return str(self.value("hubName"))

    def settings(self) -> AzureStorageSettings:
        """As the store takes them.  Raises InvalidInput for values that it does not take."""
        given = {
            one.setting.field: one.value
            for one in self.values.values()
            if one.setting.field is not None and one.value is not None
        }
        return AzureStorageSettings(app_name=self.app_name, **given)


def value_text(setting: Setting, value: Any) -> str:
    """A value as host.json has it."""
    if value is None:
        return setting.computed or "none"
    text = ", ".join(map(str, value)) if isinstance(value, list) else setting.show(value)
    return "(a secret)" if _SECRET.search(text) else text


def read_host_json(text: str, environment: Mapping[str, str] | None = None) -> HostJson:
    """The settings of a host.json.  Raises InvalidInput where the text is no JSON object; all else are findings."""
    return _Reading(parse_jsonc(text), environment or {}).result()


class _Reading:
    """One reading: what is given for each setting, file first, environment over it."""

    def __init__(self, root: Node, environment: Mapping[str, str]) -> None:
        self.findings: list[Finding] = []
        self._environment = environment
        self._given: dict[str, Resolved] = {}
        if not isinstance(root.value, dict):
            self._found(Weight.ERROR, "host.json", "line 1", "it must be an object: { ... }")
        else:
            self._file(root)
        self._variables()

    def result(self) -> HostJson:
        values = {}
        for path, setting in IN_HOST_JSON.items():
            values[path] = self._given.get(path) or Resolved(
                setting=setting, value=setting.default, origin=Origin.DEFAULT, where=""
            )
        values["hubName"] = self._hub(values["hubName"])
        return HostJson(values=values, app_name=self._environment.get(SITE_NAME, ""), findings=self.findings)

    def _found(self, weight: Weight, name: str, where: str, text: str) -> None:
        self.findings.append(Finding(weight=weight, name=name, where=where, text=text))

    def _file(self, root: Node) -> None:
        for key, child in root.value.items():
            if key.casefold() != ROOT[0]:
                self._stray(key, child)
                continue
            if not isinstance(child.value, dict):
                self._found(Weight.ERROR, key, f"line {child.line}", "it must be an object: { ... }")
                continue
            for inner, node in child.value.items():
                if inner.casefold() == ROOT[1].casefold():
                    self._section((), node)
                else:
                    self._stray(inner, node, "extensions.")

    def _stray(self, key: str, node: Node, above: str = "") -> None:
        """What stands beside our section: only what was meant to be ours is told of."""
        name, where = above + key, f"line {node.line}"
        folded = key.casefold()
        if folded == ROOT[1].casefold():
            self._found(Weight.ERROR, name, where, f"it is not read here: move it into {'.'.join(ROOT[:1])!r}")
        elif folded not in _ANYONES and (folded in _LEAVES or folded in _SECTIONS or folded in _FORMER):
            target = _FORMER.get(folded) or (_LEAVES[folded][0] if folded in _LEAVES else key)
            self._found(Weight.ERROR, name, where, f"it is not read here: its place is {full(target)!r}")
        elif above and difflib.get_close_matches(folded, [ROOT[1].casefold()], 1, 0.75):
            self._found(Weight.ERROR, name, where, f"unknown; did you mean {'.'.join(ROOT)!r}?")

    def _section(self, path: tuple[str, ...], node: Node) -> None:
        where = f"line {node.line}"
        if node.value is None:
            return
        if not isinstance(node.value, dict):
            self._found(Weight.ERROR, full(".".join(path)), where, "it must be an object: { ... }")
            return
        for key, child in node.value.items():
            inner = (*path, key)
            if ".".join(inner).casefold() in _SECTIONS:
                self._section(inner, child)
            else:
                self._take(inner, plain(child), Origin.FILE, f"line {child.line}")

    def _variables(self) -> None:
        for variable, value in sorted(self._environment.items()):
            parts = re.split("__|:", variable)
            head = [part.casefold() for part in parts[:3]]
            if head != [_PREFIX, ROOT[0], ROOT[1].casefold()]:
                continue
            path = tuple(parts[3:])
            joined = ".".join(path).casefold()
            listed = joined.rpartition(".")
            if listed[2].isdecimal() and (name := _BY_NAME.get(listed[0])) and IN_HOST_JSON[name].kind is Kind.LIST:
                self._list_item(name, value, variable)
            elif not path or joined in _SECTIONS:
                if value:
                    text = "it names a section, not a setting, and changes nothing"
                    self._found(Weight.WARNING, variable, Origin.ENVIRONMENT, text)
            else:
                self._take(path, value, Origin.ENVIRONMENT, variable)

    def _list_item(self, path: str, value: str, variable: str) -> None:
        before = self._given.get(path)
        items = list(before.value) if before is not None and before.origin is Origin.ENVIRONMENT else []
        self._given[path] = Resolved(
            setting=IN_HOST_JSON[path], value=[*items, value], origin=Origin.ENVIRONMENT, where=variable
        )

    def _take(self, path: tuple[str, ...], raw: Any, origin: Origin, where: str) -> None:
        given = ".".join(path)
        known = _BY_NAME.get(given.casefold())
        shown = where if origin is Origin.FILE else Origin.ENVIRONMENT
        name = full(given) if origin is Origin.FILE else where
        if known is None:
            former = _FORMER.get(given.casefold())
            weight, text = _unknown(given)
            self._found(weight, name, shown, text)
            if weight is not Weight.WARNING or former is None:
                return
            known = former
        setting = IN_HOST_JSON[known]
        value, problem, remark = convert(setting, raw)
        if problem:
            self._found(Weight.ERROR, name, shown, problem)
            return
        if remark:
            self._found(Weight.NOTE, name, shown, remark)
        before = self._given.get(known)
        if value is None:
            return
        if before is not None and before.value != value:
            self._double(known, before, name, shown, origin, value)
        self._given[known] = Resolved(setting=setting, value=value, origin=origin, where=where)

    def _double(self, path: str, before: Resolved, name: str, shown: str, origin: Origin, value: Any) -> None:
        if before.origin is origin:
            text = f"{full(path)} is given twice, {before.where} and {shown}, with different values: leave one"
            self._found(Weight.ERROR, name, shown, text)
        else:
            after = value_text(before.setting, value)
            text = f"it overrides {before.text!r} of {before.where} by {after!r}"
            self._found(Weight.NOTE, name, shown, text)

    def _hub(self, given: Resolved) -> Resolved:
        value, where = given.value, given.where
        if value is None:
            site = self._environment.get(SITE_NAME)
            if site is None:
                return msgspec.structs.replace(given, value=DEFAULT_HUB)
            return Resolved(
                setting=given.setting,
                value=_sanitized(site),
                origin=Origin.ENVIRONMENT,
                where=SITE_NAME,
            )
        name = full("hubName")
        shown = where if given.origin is Origin.FILE else Origin.ENVIRONMENT
        if reference := re.fullmatch(r"%(.+)%", value):
            folded = {key.casefold(): text for key, text in self._environment.items()}
            setting = folded.get(reference[1].casefold())
            if setting is None:
                text = f"the app setting {reference[1]!r} is not in this environment: the hub's name is not checked"
                self._found(Weight.WARNING, name, shown, text)
                return given
            given = msgspec.structs.replace(given, value=setting)
        try:
            HubNames(given.value)
        except ValueError as error:
            self._found(Weight.ERROR, name, shown, str(error))
        return given


def full(path: str) -> str:
    """A path with what stands above it."""
    return ".".join((*ROOT, path)) if path else ".".join(ROOT)


def _sanitized(site: str) -> str:
    """The hub's name that .NET makes of a site's."""
    letters = "".join(char for char in site if char.isalnum())
    if not letters:
        return "DefaultTaskHub"
    letters = ("t" + letters if letters[0].isnumeric() else letters)[:45]
    return letters if len(letters) >= 3 else letters + "Hub"


def _unknown(given: str) -> tuple[Weight, str]:
    """What to say of a name that is no setting's."""
    leaf = given.rpartition(".")[2].casefold()
    if former := _FORMER.get(given.casefold()):
        if former.rpartition(".")[0].casefold() == given.rpartition(".")[0].casefold():
            return Weight.WARNING, f"its name is {full(former)!r} now; both are read"
        return Weight.ERROR, f"a name of version 1, which is not read: it is {full(former)!r} now"
    if leaf in _LEAVES:
        return Weight.ERROR, f"it is not read here: its place is {full(_LEAVES[leaf][0])!r}"
    if leaf in _DOTNET and (path := _DOTNET[leaf].path) is not None:
        return Weight.ERROR, f"that is its name in the .NET provider: here it is {full(path)!r}"
    if leaf in _DOTNET:
        return Weight.ERROR, "the .NET provider has such a setting, host.json has not"
    if nearest := _nearest(leaf):
        return Weight.ERROR, f"unknown; did you mean {full(nearest)!r}?"
    return Weight.ERROR, "unknown: nothing reads it"


def _nearest(leaf: str) -> str | None:
    former = {name.rpartition(".")[2]: path for name, path in _FORMER.items()}
    found = difflib.get_close_matches(leaf, [*_LEAVES, *former], 1, 0.7)
    if not found:
        return None
    return _LEAVES[found[0]][0] if found[0] in _LEAVES else former[found[0]]


def convert(setting: Setting, raw: Any) -> tuple[Any, str, str]:
    """A value as given, in its own kind; what is wrong with it; and what is to be said of it."""
    if raw is None:
        return None, "", ""
    value: Any
    remark = ""
    if isinstance(raw, str) and setting.kind in (Kind.NUMBER, Kind.FLAG):
        value, remark = _from_text(setting.kind, raw)
    elif setting.kind is Kind.SPAN:
        value, problem = _span(raw)
        if problem:
            return None, problem, ""
    elif setting.kind is Kind.CHOICE and isinstance(raw, str):
        value = next((choice for choice in setting.choices if choice.casefold() == raw.strip().casefold()), raw)
    else:
        value = raw
    if not _fits(setting.kind, value):
        shown = value_text(setting, raw) if isinstance(raw, str) else _json(raw)
        return None, f"{shown!r} is no {_WHAT[setting.kind]}", ""
    if problem := setting.refuses(value):
        return None, f"{value_text(setting, value)!r} is out of its range: it must be {problem}", ""
    return value, "", remark


_WHAT = {
    Kind.NUMBER: "whole number",
    Kind.FLAG: "true or false",
    Kind.SPAN: "time span",
    Kind.TEXT: "text",
    Kind.CHOICE: "text",
    Kind.LIST: "list",
}


def _fits(kind: Kind, value: Any) -> bool:
    match kind:
        case Kind.NUMBER:
            return isinstance(value, int) and not isinstance(value, bool)
        case Kind.FLAG:
            return isinstance(value, bool)
        case Kind.SPAN:
            return isinstance(value, float)
        case Kind.LIST:
            return isinstance(value, list)
        case _:
            return isinstance(value, str)


def _from_text(kind: Kind, raw: str) -> tuple[Any, str]:
    text = raw.strip()
    if kind is Kind.FLAG and text.casefold() in ("true", "false"):
        return text.casefold() == "true", ""
    if kind is Kind.NUMBER and re.fullmatch(r"[+-]?[0-9]{1,10}", text):
        return int(text), ""
    return raw, ""


def _span(raw: Any) -> tuple[float | None, str]:
    """Seconds of a time span, or what is wrong with it."""
    form = "write it as hh:mm:ss, '00:05:00' for five minutes"
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return None, f"{raw} is no time span (.NET reads a bare number as days): {form}"
    if not isinstance(raw, str):
        return None, f"{_json(raw)!r} is no time span: {form}"
    text = raw.strip()
    if re.fullmatch(r"-?[0-9]+", text):
        return None, f"{text!r} has no unit, and .NET reads it as days: {form}"
    found = _SPAN.fullmatch(text)
    if found is None:
        return None, f"{text!r} is no time span: {form}"
    sign, days, hours, minutes, seconds, fraction = found.groups()
    if int(hours) > 23 or int(minutes) > 59 or int(seconds or 0) > 59:
        return None, f"{text!r} has more than 23 hours, 59 minutes or 59 seconds: days come first, '1.00:00:00'"
    total = int(days or 0) * 86_400 + int(hours) * 3_600 + int(minutes) * 60 + int(seconds or 0)
    exact = total + int((fraction or "0").ljust(7, "0")) / 10_000_000
    return -exact if sign else float(exact), ""


def _json(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:59] + "…"


def given(host: HostJson) -> Iterator[Resolved]:
    """The settings that file or environment name."""
    return (one for one in host.values.values() if one.origin is not Origin.DEFAULT)
