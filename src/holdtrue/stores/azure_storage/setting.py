"""What is known of one setting: its names, its range, what it means, and what a change of it does."""

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What a value looks like."""

    NUMBER = "whole number"
    FLAG = "true or false"
    SPAN = "time span"
    TEXT = "text"
    CHOICE = "one of a few words"
    LIST = "list"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting.

    `path` is its place below `extensions.durableTask`, None for one that host.json does not have; `dotnet` its
    name in the .NET provider's own settings; `field` that in `AzureStorageSettings`, None where the store does
    nothing with it.  `least` and `most` are in whole numbers or seconds; `above` excludes the number itself.
    `needless` says why Holdtrue does not need it.  `change` says what a change does to a hub that has instances,
    where it is more than that hosts take it up when they are started; `breaks`: it must not be made then.
    """

    path: str | None = None
    dotnet: str | None = None
    field: str | None = None
    kind: Kind
    default: int | float | bool | str | None = None
    computed: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    meaning: str
    needless: str = ""
    change: str = ""
    breaks: bool = False
    former: tuple[str, ...] = ()
    """Names that it has, or had in earlier versions, below `extensions.durableTask`."""

    def refuses(self, value: object) -> str:
        """Empty, or what a value of the right type must be."""
        if value is None:
            return ""
        if self.kind is Kind.CHOICE:
            return "" if value in self.choices else f"one of {', '.join(self.choices)}"
        if self.kind in (Kind.NUMBER, Kind.SPAN) and isinstance(value, int | float):
            ok = (
                (self.least is None or value >= self.least)
                and (self.above is None or value > self.above)
                and (self.most is None or value <= self.most)
            )
            return "" if ok else self.range
        return ""

    def show(self, value: object) -> str:
        """A value in words: as host.json has it, or as Python does where host.json has not the setting."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if self.kind is Kind.SPAN and isinstance(value, int | float):
            return span_text(value) if self.path is not None else f"{value:g} s"
        return f"{value:.0f}" if isinstance(value, float) else str(value)

    @property
    def range(self) -> str:
        """Its range in words; empty where there is none."""
        if self.kind is Kind.CHOICE:
            return ", ".join(self.choices)
        low = "" if self.least is None else f"at least {self.show(self.least)}"
        low = low if self.above is None else f"more than {self.show(self.above)}"
        if self.most is None:
            return low
        if self.least is not None:
            return f"{self.show(self.least)} to {self.show(self.most)}"
        return f"{low}, at most {self.show(self.most)}"


def span_text(seconds: float) -> str:
    """Seconds as a time span: `00:05:00`, `1.00:00:00`."""
    whole, ticks = divmod(round(seconds * 10_000_000), 10_000_000)
    days, whole = divmod(whole, 86_400)
    text = f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return (f"{days}." if days else "") + text + (f".{ticks:07d}" if ticks else "")
