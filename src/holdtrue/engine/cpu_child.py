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
import selectors
import signal
import socket
import sys
import traceback
import types
from queue import SimpleQueue
from typing import Any

import msgspec

from holdtrue.authoring.activity_context import ActivityContext
from holdtrue.core.events import FailureDetails
from holdtrue.core.messages import ActivityTask
from holdtrue.environment import REAL, Environment
from holdtrue.frames import take_frames

from .activity_runs import bare_failure, result_text
from .cpu_messages import (
    MAIN_NAME,
    BareApp,
    Began,
    Cancel,
    Done,
    Failed,
    FromProcess,
    MainScript,
    Place,
    Program,
    Sign,
    Work,
    framed,
    to_process,
)

PR_SET_PDEATHSIG = 1
SIGN_SECONDS = 0.1
"""At most one sign of life goes to the host in so long; the host stores even fewer."""


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
        self._client: Any = None
        self._opening = environment.mutex()
        self._forked = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_the_link)

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
        if self._client is not None:
            self._client.close()

    def send(self, message: FromProcess) -> None:
        """Say it to the host; from any thread."""
        if self._forked:
            raise RuntimeError("this process was forked by an activity: report from the activity's own process")
        data = framed(message)
        with self._outgoing:
            try:
                self._link.sendall(data)
            except OSError:
                os._exit(1)  # the host is gone

    def _leave_the_link(self) -> None:
        """In a process that the user's code has forked: the host must see the end of the socket when this one ends."""
        self._forked = True
        self._link.close()

    def client(self, hub: str, app: Any) -> Any:
        """A blocking client of the hub at that location, opened when it is first asked for; from any thread.

        It is this process's own: it has no part in the host's locks, and ends with the process.
        """
        from holdtrue.client.sync import SyncClient  # most processes need none

        with self._opening:
            if self._client is None:
                client = SyncClient(hub, app=app, environment=self.environment)
                client.open()
                self._client = client
            return self._client

    def _listen(self) -> None:
        buffer, selector = bytearray(), selectors.DefaultSelector()  # `select` takes no descriptor above 1,023
        selector.register(self._link, selectors.EVENT_READ)
        while True:
            run = self._current
            ready = selector.select(None if run is None else SIGN_SECONDS)
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
            app, definition = load(work.program, work.item.task.name)
            run.app = app
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
            return Done(result_text(app.converter.encode, result, definition.name))
        except BaseException as error:  # noqa: BLE001  every way out of user code is an outcome
            run.send_sign()
            return Failed(_failure(app, error))


class ChildRun:
    """One run, as its context sees it (`authoring.activity_context.ActivityRun`)."""

    def __init__(self, child: Child, work: Work) -> None:
        self._child = child
        self._item = work.item
        self._hub = work.program.hub
        self.app: Any = None
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
        """What the last run reported, or the attempt before."""
        return self._item.resume

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
        result: str | None = self.app.converter.encode(value)
        return result

    def decode(self, payload: str | None, expected_type: Any) -> Any:
        """A payload as value."""
        return self.app.converter.decode(payload, expected_type)

    def client(self) -> Any:
        """A blocking client of the host's hub, opened by this process for itself."""
        if self._hub is None:
            raise RuntimeError(
                f"activity {self.task.name!r} of instance {self.task.instance_id!r} is cpu=True and runs in a process "
                "of its own, which cannot open this hub: it has no location that another process could open. "
                "Do what needs ctx.client in an activity without cpu=True"
            )
        return self._child.client(self._hub, self.app)

    async def wait_cancelled(self) -> None:
        """Until the run should end."""
        while self.cancelled is None:
            await self._child.environment.sleep(SIGN_SECONDS)


# -- finding the code ----------------------------------------------------------------------------------------


def load(program: Program, name: str) -> tuple[Any, Any]:
    """The app and the activity's definition, by importing their modules.  Raises what an import may raise."""
    if program.main is not None:
        load_main(program.main)
    module = import_place(program.function)
    app = None if program.app is None else getattr(import_place(program.app), program.app.name, None)
    if app is None:
        # It has no global name, or gets it only where the script is run.
        app = _apps.get(program.bare)
        if app is None:
            app = _apps[program.bare] = _new_app(program.bare)
    if name not in app.activities:
        # Its registration stands in a function, or under a condition.
        app.activity(find(module, program.function.name), name=name, cpu=True)
    return app, app.activities[name]


_apps: dict[BareApp, Any] = {}
"""Apps made here, for functions whose own app has no global name."""


def _new_app(bare: BareApp) -> Any:
    from holdtrue.authoring.app import App  # most processes have the user's own

    place, provider = bare.failure_properties, None
    if place is not None:
        try:
            provider = find(import_place(place), place.name)
        except LookupError as missing:
            raise LookupError(
                f"failure_properties of the app cannot be found here: {missing}. Make it a function at the top level "
                "of a module, or assign the app to a name there (not under `if __name__ == '__main__'`)"
            ) from None
    app = App(max_payload=bare.max_payload, failure_properties=provider)
    for error in bare.errors:
        try:
            cls = find(import_place(error.place), error.place.name)
        except (ImportError, LookupError):
            continue  # what is defined within a function of the host's is not what code here could raise
        app.error(cls, properties=error.properties, non_retriable=error.non_retriable)
    return app


def import_place(place: Place) -> types.ModuleType:
    """The module of a place."""
    module = sys.modules.get(place.module)
    return importlib.import_module(place.module) if module is None else module


def find(module: types.ModuleType, name: str) -> Any:
    """The object of that dotted name in the module.  Raises LookupError where there is none."""
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LookupError(
                f"{module.__name__}:{name} is not there when the module is imported: what a cpu=True activity needs "
                "must be defined at the top level of a module, not in a function or under a condition"
            ) from None
    return found


def load_main(script: MainScript) -> None:
    """Load the host's script as `__main__`, under another name, so that what it does when run is not done."""
    if MAIN_NAME in sys.modules:
        return
    try:
        if script.module is not None:
            content = runpy.run_module(script.module, run_name=MAIN_NAME, alter_sys=True)
        elif script.path is not None:
            content = _run_script(script.path)
        else:
            content = {}
    except BaseException as error:  # SystemExit too: the script was run, and it was to be loaded
        raise ImportError(
            f"the process of a cpu=True activity cannot load {script.module or script.path}: "
            f"{type(error).__name__}: {error}. What only the program itself shall do belongs under "
            "`if __name__ == '__main__':`"
        ) from error
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
            return _as_in_host(failure)
    except BaseException:  # noqa: BLE001  an error that cannot be described is an outcome all the same
        pass
    trace = "".join(traceback.format_exception(error))[-20_000:]
    return _as_in_host(msgspec.structs.replace(bare_failure(error), stack_trace=trace))


def _as_in_host(failure: FailureDetails) -> FailureDetails:
    """With the names that error classes of the host's script have there."""
    inner = None if failure.inner_failure is None else _as_in_host(failure.inner_failure)
    name = failure.error_type
    if name.startswith(f"{MAIN_NAME}."):
        name = f"__main__{name.removeprefix(MAIN_NAME)}"
    return msgspec.structs.replace(failure, error_type=name, inner_failure=inner)
