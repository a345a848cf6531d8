"""What activities of an app without a global name raise: importable, and registered elsewhere."""

from typing import Any


class Declined(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"declined with {code}")
        self.code = code


class Closed(Exception):
    pass


def pay(ctx: Any, code: int) -> None:
    raise Declined(code) if code else Closed("for good")


def further_properties(error: BaseException) -> dict[str, str]:
    return {"kind": type(error).__name__}
