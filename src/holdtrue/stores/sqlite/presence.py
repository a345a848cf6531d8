"""Who else is at work on a hub: kernel locks and sockets on side files in the directory `<hub>-hosts`.

Every open store owns two files there: a lock file, on which it holds a POSIX lock as long as its process
lives, and a datagram socket, at which others wake it.  Two more, `turn-next` and `turn-now`, give writers
of several processes a fair turn.  Knows nothing of the hub's tables.

Closing any descriptor of a file drops all POSIX locks that the process holds on it.  So a file of this
process is never opened twice in it: `_OWN` knows them all, over all stores of the process and by whatever
path they were opened.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from holdtrue.environment import Environment
from holdtrue.stores import errors
from holdtrue.stores.protocol import Notice

_OWN: dict[str, "Presence"] = {}
"""The stores of this process by the name of their file, which no other has."""
_TURNS: dict[tuple[int, int], "_Turn"] = {}
"""The turnstiles of this process by their directory (device and inode: it may have several paths)."""
_TURN_FILES = ("turn-next", "turn-now")

_MOST_BYTES = 16_384
_LOOK_SECONDS = 0.5
_HELLO = b"\x00"
"""Begins the datagram of a store that has come; its file name follows.  It gets a notice for an answer: what was
done before it was seen, it could not be told."""
_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Notice] = msgspec.msgpack.Decoder(Notice)


class _Turn:
    """The two locks of a writer's turn, shared by the stores of one process."""

    def __init__(self, directory: str, environment: Environment) -> None:
        self._users = 0
        self._closed = False
        self._counting: Any = environment.mutex()
        self.mutex: Any = environment.mutex()
        self.pid = environment.pid()
        self.following, self.current = (
            os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666) for name in _TURN_FILES
        )

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        # Next in line, then at work: whoever has just worked comes behind the one who waits.
        # A thread may still wait here when its store is closed: the descriptors must stay its own until it is out.
        self.join()
        try:
            with self.mutex:
                fcntl.lockf(self.following, fcntl.LOCK_EX)
                try:
                    fcntl.lockf(self.current, fcntl.LOCK_EX)
                finally:
                    fcntl.lockf(self.following, fcntl.LOCK_UN)
                try:
                    yield
                finally:
                    fcntl.lockf(self.current, fcntl.LOCK_UN)
        finally:
            self.leave()

    def try_take(self) -> AbstractContextManager[Any] | None:
        """The turn (to be entered at once) if it is free."""
        if not self.mutex.acquire(blocking=False):
            return None
        try:
            fcntl.lockf(self.current, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.mutex.release()
            return None
        stack = contextlib.ExitStack()
        stack.callback(self.mutex.release)
        stack.callback(fcntl.lockf, self.current, fcntl.LOCK_UN)
        return stack

    def join(self) -> bool:
        """One more user; false where it is closed."""
        with self._counting:
            if not self._closed:
                self._users += 1
            return not self._closed

    def leave(self) -> None:
        """One user less; the last one closes it."""
        with self._counting:
            self._users -= 1
            if not self._users:
                self._closed = True
                os.close(self.following)
                os.close(self.current)


def appear(path: str, environment: Environment) -> "Presence":
    """The presence of a new store on the hub at `path`; raises StoreUnavailable where it can have none."""
    try:
        return Presence(path, environment)
    except OSError as error:
        raise errors.StoreUnavailable(
            f"hub {path!r}: the directory {path + '-hosts'!r} for its hosts cannot be made or used "
            f"({error.strerror}). See that the hub's directory exists and that this user may write there"
        ) from error


def _turn(directory: str, descriptor: int, environment: Environment) -> _Turn:
    """This process's turnstile of a directory, with one more user."""
    stat = os.fstat(descriptor)
    place = (stat.st_dev, stat.st_ino)
    turn = _TURNS.get(place)
    if turn is None or turn.pid != environment.pid() or not turn.join():
        turn = _TURNS[place] = _Turn(directory, environment)
        turn.join()
    return turn


class Presence:
    """This store among the others of its hub.  `close` takes its files away."""

    def __init__(self, path: str, environment: Environment) -> None:
        self.directory = f"{path}-hosts"
        self._environment = environment
        self._pid = environment.pid()
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.directory)
        self.file = f"{environment.pid()}-{environment.random().getrandbits(64):016x}"
        with contextlib.ExitStack() as failing:
            self._directory = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
            failing.callback(os.close, self._directory)
            self._turn = _turn(self.directory, self._directory, environment)
            failing.callback(self._turn.leave)
            # It gets its name when it is locked: nobody ever sees it free.
            unlocked = self._file(f"{self.file}.new")
            self._lock = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            failing.callback(os.close, self._lock)
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(unlocked, self._path(self.file))
            failing.pop_all()
        _OWN[self.file] = self
        self._probes: dict[str, int] = {}
        self._look_at = 0.0
        self._others: list[str] = []
        self._listening: list[str] = []
        self._quiet: list[str] = []
        self._sending = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sending.setblocking(False)
        self._receiving: socket.socket | None = None
        self._notify: Callable[[Notice], None] | None = None
        self._closed = False

    # -- others ----------------------------------------------------------------------------------------

    def others(self) -> list[str]:
        """The other stores' file names: as of the last look, where that is not long ago and nobody has come since."""
        moment = self._environment.monotonic()
        if moment >= self._look_at:
            # Whoever comes says so; without a socket that is not heard.
            self._look_at = moment + (_LOOK_SECONDS if self._receiving is not None else 0.0)
            names = os.listdir(self._directory)
            self._others = [name[:-5] for name in names if name.endswith(".lock") and name[:-5] != self.file]
            self._listening = [name for name in names if name.endswith(".sock") and name[:-5] != self.file]
            self._quiet = [name for name in names if name.endswith(".quiet") and name[:-6] != self.file]
        return self._others

    def is_alive(self, file: str) -> bool:
        """Whether the process that owns this file lives; a dead one's files are taken away."""
        own = _OWN.get(file)
        if own is not None and own._pid == self._environment.pid():
            return not own._closed
        descriptor = self._probes.get(file)
        if descriptor is None:
            try:
                descriptor = self._probes[file] = os.open(self._path(file), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            except PermissionError:
                # Another user's: its lease tells.
                return True
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return True
            raise
        os.close(self._probes.pop(file))
        self._remove(file)
        return False

    def sweep(self) -> None:
        """Take away the files of stores that died."""
        present = set(self.others())
        for file in list(present):
            self.is_alive(file)
        for file in list(self._probes):
            if file not in present:
                os.close(self._probes.pop(file))

    def stands(self) -> bool:
        """Whether others can see this store: its file and its directory are where they are looked for."""
        try:
            return os.path.samestat(os.fstat(self._lock), os.stat(self._path(self.file)))
        except OSError:
            return False

    # -- a writer's turn -------------------------------------------------------------------------------

    def turn_files(self) -> list[str]:
        """The files that are locked by whoever has the turn, or comes next."""
        return [self._file(name) for name in reversed(_TURN_FILES)]

    def turn(self) -> AbstractContextManager[None]:
        """A writer's fair turn among several processes; nothing where this store is alone."""
        return self._turn.take() if self.others() else contextlib.nullcontext()

    def try_exclusive(self) -> AbstractContextManager[Any] | None:
        """The turn, if nobody has it now."""
        return self._turn.try_take()

    def exclusive(self) -> AbstractContextManager[None]:
        """The turn, whoever is there."""
        return self._turn.take()

    # -- waking ----------------------------------------------------------------------------------------

    def bind(self) -> socket.socket | None:
        """The socket at which others are heard, to be watched (None: this system cannot)."""
        receiving = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            receiving.setblocking(False)
            receiving.bind(self._address(f"{self.file}.quiet"))
        except OSError:
            receiving.close()
            return None
        self._receiving = receiving
        self._look_at = 0.0
        self._greet()
        return receiving

    def listen(self, notify: Callable[[Notice], None]) -> bool:
        """Be told what others do; false where they cannot be heard."""
        if self._receiving is None:
            return False
        if self._notify is None:
            # Notices go only to sockets of this name.
            os.rename(self._file(f"{self.file}.quiet"), self._file(f"{self.file}.sock"))
            self._notify = notify
            self._look_at = 0.0
            self._greet()
        self._notify = notify
        return True

    def _greet(self) -> None:
        self.others()
        for name in (*self._listening, *self._quiet):
            with contextlib.suppress(OSError):
                self._sending.sendto(_HELLO + self.file.encode(), self._address(name))

    def received(self) -> None:
        """Take what lies in the socket, and tell it as one notice."""
        receiving, notify = self._receiving, self._notify
        if receiving is None:
            return
        work = schedules = False
        changed: dict[str, None] = {}
        vague = told = False
        for _ in range(256):
            try:
                data = receiving.recv(_MOST_BYTES + 64)
                if data.startswith(_HELLO):
                    self._look_at = 0.0
                    self._send(Notice(work=True, schedules=True), [f"{data[1:].decode()}.sock"])
                    continue
                notice = _decoder.decode(data)
            except (BlockingIOError, InterruptedError):
                break
            except (OSError, msgspec.DecodeError):
                vague = told = True
                continue
            work, schedules = work or notice.work, schedules or notice.schedules
            changed.update(dict.fromkeys(notice.changed))
            told = True
            vague = vague or not notice.changed
        if told and notify is not None:
            notify(Notice(work=work, changed=() if vague else tuple(changed), schedules=schedules))

    def wake(self, notice: Notice) -> None:
        """Tell all others."""
        if self.others() and self._listening:
            self._send(notice, self._listening)

    def _send(self, notice: Notice, names: list[str]) -> None:
        data = _encode(notice)
        if len(data) > _MOST_BYTES:
            data = _encode(Notice(work=notice.work, changed=(), schedules=notice.schedules))
        for name in names:
            # Nobody listens there, it died, or it has plenty of notices to read: all well.
            with contextlib.suppress(OSError):
                self._sending.sendto(data, self._address(name))

    # -- the end ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave: others see at once that this store is gone."""
        if self._closed:
            return
        self._closed = True
        if self._receiving is not None:
            self._receiving.close()
        self._sending.close()
        self._remove(self.file)
        for descriptor in self._probes.values():
            os.close(descriptor)
        os.close(self._lock)
        os.close(self._directory)
        _OWN.pop(self.file, None)
        self._turn.leave()

    def _file(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _path(self, file: str) -> str:
        return self._file(f"{file}.lock")

    def _address(self, name: str) -> str:
        # A socket's path has at most 108 bytes; the way over our descriptor of the directory is short.
        path = self._file(name)
        return path if len(os.fsencode(path)) < 100 else f"/proc/self/fd/{self._directory}/{name}"

    def _remove(self, file: str) -> None:
        for ending in ("sock", "quiet", "lock"):
            with contextlib.suppress(OSError):
                os.unlink(self._file(f"{file}.{ending}"))
