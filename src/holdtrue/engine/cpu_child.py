"""The program of an activity process: loads the app, runs one activity after another, says how they ended.

The user's code runs in the main thread.  Another thread reads the socket: it hands on work, sets the
cancellation, sends what signs of life were kept back, and ends the process when the host is gone.
"""

import asyncio
import ctypes
import importlib
import inspect
import os
import runpy
import select
import signal
import socket
import sys
import traceback
import types
from queue import SimpleQueue
from typing import Any

from holdtrue.authoring.activity_context import ActivityContext
from holdtrue.core.events import FailureDetails
from holdtrue.core.messages import ActivityTask
from holdtrue.environment import REAL, Environment

from .activity_runs import bare_failure
from .cpu_messages import (
    Began,
    Cancel,
    Done,
    Failed,
    FromProcess,
    MainScript,
    Place,
    Sign,
    Work,
    frame,
    take_frames,
    to_process,
)

PR_SET_PDEATHSIG = 1
SIGN_SECONDS = 0.1
"""At most one sign of life goes to the host in so long; the host stores even fewer."""
MAIN_NAME = "__holdtrue_main__"
"""What `__name__` is in the host's script when it is loaded here: its `if __name__ == "__main__"` is not taken."""


def main(descriptor: int, parent: int) -> None:
    """Serve the host at the other end of this socket, until it is gone."""
    die_with(parent)
    # The host decides when this process ends, also when a terminal or a service manager asks all of them.
    # (Functions, unlike SIG_IGN, are not inherited by programs that an activity starts.)
    signal.signal(signal.SIGINT, _leave_it_to_the_host)
    signal.signal(signal.SIGTERM, _leave_it_to_the_host)
    with socket.socket(fileno=descriptor) as link:
        link.set_inheritable(False)
        Child(link, REAL).serve()


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its host ends, where it can; ends it if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _leave_it_to_the_host(number: int, frame: types.FrameType | None) -> None:
    pass


class Child:
    """The process's side of the socket."""

    def __init__(self, link: socket.socket, environment: Environment) -> None:
        self.environment = environment
        self._link = link
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._current: ChildRun | None = None
        self._outgoing = environment.mutex()

    def serve(self) -> None:
        """Until the host closes the socket."""
        self.environment.thread(self._listen, "holdtrue-socket")
        while (work := self._work.get()) is not None:
            message = self._perform(work)
            self._current = None
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError, AttributeError):
                    pass  # the user's code closed it, or nobody reads it
            self.send(message)

    def send(self, message: FromProcess) -> None:
        """Say it to the host; from any thread."""
        data = frame(message)
        with self._outgoing:
            try:
                self._link.sendall(data)
            except OSError:
                os._exit(1)  # the host is gone

    def _listen(self) -> None:
        buffer = bytearray()
        while True:
            run = self._current
            ready, _, _ = select.select([self._link], [], [], None if run is None else SIGN_SECONDS)
            if run is not None:
                run.send_sign()
            if not ready:
                continue
            try:
                data = self._link.recv(1 << 18)
            except OSError:
                data = b""
            if not data:
                if self._current is not None:
                    os._exit(1)
                self._work.put(None)
                return
            buffer += data
            for body in take_frames(buffer):
                message = to_process.decode(body)
                if type(message) is Work:
                    self._current = ChildRun(self, message)
                    self._work.put(message)
                elif type(message) is Cancel and self._current is not None:
                    self._current.cancelled = message.reason

    def _perform(self, work: Work) -> FromProcess:
        app: Any = None
        run = self._current
        assert run is not None
        try:
            app, definition = load(work)
            run.converter = app.converter
            self.send(Began())
            context = ActivityContext(run)
            payload = work.item.task.input
            if definition.takes_input and not (payload is None and definition.has_default):
                what = f"the input of activity {definition.name!r}"
                value = app.converter.decode(payload, definition.input_type, what)
                result = definition.function(context, value)
            else:
                result = definition.function(context)
            if inspect.isawaitable(result):
                result = asyncio.run(_awaited(result))
            run.send_sign()
            return Done(app.converter.encode(result))
        except BaseException as error:  # noqa: BLE001  every way out of user code is an outcome
            run.send_sign()
            return Failed(_failure(app, error))


class ChildRun:
    """One run, as its context sees it (`authoring.activity_context.ActivityRun`)."""

    def __init__(self, child: Child, work: Work) -> None:
        self._child = child
        self._item = work.item
        self.converter: Any = None
        self.cancelled: str | None = None
        self._pending: tuple[str | None, str | None] | None = None
        self._sent_at = float("-inf")
        self._signing = child.environment.mutex()

    @property
    def task(self) -> ActivityTask:
        """What was asked for."""
        return self._item.task

    @property
    def number(self) -> int:
        """Which run of the work item it is, from 1."""
        return self._item.run

    @property
    def details(self) -> str | None:
        """What the last run reported."""
        return self._item.details

    def alive(self, *, progress: str | None = None, details: str | None = None) -> None:
        """A sign of life: sent now, or by the reading thread if another has just been sent."""
        with self._signing:
            before = self._pending or (None, None)
            self._pending = (before[0] if progress is None else progress, before[1] if details is None else details)
        if self._child.environment.monotonic() - self._sent_at >= SIGN_SECONDS:
            self.send_sign()

    def send_sign(self) -> None:
        """Send what was kept back."""
        with self._signing:
            pending, self._pending = self._pending, None
            if pending is not None:
                self._sent_at = self._child.environment.monotonic()
                self._child.send(Sign(*pending))

    def encode(self, value: Any) -> str | None:
        """A value as payload."""
        result: str | None = self.converter.encode(value)
        return result

    def decode(self, payload: str | None, expected_type: Any) -> Any:
        """A payload as value."""
        return self.converter.decode(payload, expected_type)

    def client(self) -> Any:
        """There is none."""
        raise RuntimeError(
            "ctx.client is not there in a cpu=True activity, whose process has no hub: "
            "do what needs the hub in another activity, or open a holdtrue.SyncClient(hub) here"
        )

    async def wait_cancelled(self) -> None:
        """Until the run should end."""
        while self.cancelled is None:
            await self._child.environment.sleep(SIGN_SECONDS)


# -- finding the code ----------------------------------------------------------------------------------------


def load(work: Work) -> tuple[Any, Any]:
    """The app and the activity's definition, by importing their modules.  Raises what an import may raise."""
    if work.main is not None:
        load_main(work.main)
    name = work.item.task.name
    module = import_place(work.function)
    app = None if work.app is None else find(import_place(work.app), work.app.name)
    if app is None:
        app = _apps.get(work.function.module)
        if app is None:
            app = _apps[work.function.module] = _new_app(work.max_payload)
        if name not in app.activities:
            app.activity(find(module, work.function.name), name=name, cpu=True)
    definition = app.activities.get(name)
    if definition is None:
        raise LookupError(
            f"importing {work.function.module} does not register activity {name!r}: "
            "a cpu=True activity must be defined at the top level of a module, not in a function or under a condition"
        )
    return app, definition


_apps: dict[str, Any] = {}
"""Apps made here, for functions whose own app has no global name."""


def _new_app(max_payload: int | None) -> Any:
    from holdtrue.authoring.app import App  # most processes have the user's own

    return App() if max_payload is None else App(max_payload=max_payload)


def import_place(place: Place) -> types.ModuleType:
    """The module of a place."""
    module = sys.modules.get(place.module)
    return importlib.import_module(place.module) if module is None else module


def find(module: types.ModuleType, name: str) -> Any:
    """The object of that dotted name in the module."""
    found: Any = module
    for part in name.split("."):
        if part == "<locals>":
            raise LookupError(
                f"{module.__name__}:{name} is defined within a function; "
                "a cpu=True activity must be defined at the top level of a module"
            )
        found = getattr(found, part)
    return found


def load_main(script: MainScript) -> None:
    """Load the host's script as `__main__`, under another name, so that what it does when run is not done."""
    if MAIN_NAME in sys.modules:
        return
    if script.module is not None:
        content = runpy.run_module(script.module, run_name=MAIN_NAME, alter_sys=True)
    elif script.path is not None:
        content = _run_script(script.path)
    else:
        content = {}
    module = types.ModuleType(MAIN_NAME)
    module.__dict__.update(content)
    sys.modules[MAIN_NAME] = sys.modules["__main__"] = module


def _run_script(path: str) -> dict[str, Any]:
    # Type hints are looked up by module name, while the script runs too.
    module = types.ModuleType(MAIN_NAME)
    module.__file__ = path
    before = sys.modules["__main__"]
    sys.modules["__main__"] = module
    sys.modules[MAIN_NAME] = module
    try:
        return runpy.run_path(path, run_name=MAIN_NAME)
    finally:
        sys.modules["__main__"] = before
        del sys.modules[MAIN_NAME]


async def _awaited(result: Any) -> Any:
    return await result


def _failure(app: Any, error: BaseException) -> FailureDetails:
    try:
        if app is not None:
            failure: FailureDetails = app.failure(error)
            return failure
    except BaseException:  # noqa: BLE001  an error that cannot be described is an outcome all the same
        pass
    bare = bare_failure(error)
    return FailureDetails(
        message=bare.message,
        error_type=bare.error_type,
        stack_trace="".join(traceback.format_exception(error))[-20_000:],
    )
