"""Lines of the user's code, for messages: where it waits, from where it calls, where it raised or
runs.

Lines of libraries are named only where there is no other.
"""

import sys
import types
from typing import Any


def standing_at(code: Any) -> str | None:
    """`file:line` of the innermost await or yield of a coroutine or generator; None for one that does not run."""
    place, own = None, None
    while code is not None:
        frame = getattr(code, "cr_frame", None) or getattr(code, "gi_frame", None)
        if frame is None:
            break
        if not _is_ours(frame):
            place = _line(frame)
            own = place if _is_own(frame) else own
        code = getattr(code, "cr_await", None) or getattr(code, "gi_yieldfrom", None)
    return own or place


def calling_from(outer: types.CodeType) -> str | None:
    """`file:line` of the call that is being served, looked for up to the frame of `outer`; None where there is none."""
    return _own_line(sys._getframe(1), outer)


def running_at(frame: types.FrameType) -> str | None:
    """`file:line` of the innermost line of the user's code on a stack; None where there is none."""
    return _own_line(frame, None)


def _own_line(frame: types.FrameType | None, outer: types.CodeType | None) -> str | None:
    place = None
    while frame is not None and frame.f_code is not outer:
        if not _is_ours(frame):
            if _is_own(frame):
                return _line(frame)
            place = place or _line(frame)
        frame = frame.f_back
    return place


def raised_at(error: BaseException) -> str | None:
    """`file:line` of the innermost line of the user's code that an error came through; None where there is none."""
    place, own = None, None
    trace = error.__traceback__
    while trace is not None:
        if not _is_ours(trace.tb_frame):
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
            own = place if _is_own(trace.tb_frame) else own
        trace = trace.tb_next
    return own or place


def _line(frame: types.FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _is_ours(frame: types.FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("holdtrue.")


def _is_own(frame: types.FrameType) -> bool:
    """True for the user's code, false for a library's."""
    name = str(frame.f_globals.get("__name__")).partition(".")[0]
    return name not in sys.stdlib_module_names and "site-packages" not in frame.f_code.co_filename
