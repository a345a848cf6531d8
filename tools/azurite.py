"""Azurite as a process of ours: in memory, on free ports of loopback, ended with the process that started it.

It has the emulator's usual account, and many more with a key of their own: one for each test that wants an empty one.
It never sweeps up, which would stop it for seconds.
"""

import os
import re
import subprocess
import threading
from collections import deque
from pathlib import Path

from holdtrue.stores.azure_storage.http.connection import EMULATOR_ACCOUNT, EMULATOR_KEY
from tools.install_azurite import install, node

_LISTENS = re.compile(r"Azurite (Blob|Queue|Table) service is successfully listening at https?://127\.0\.0\.1:(\d+)")
_ENDS_WITH_ITS_PARENT = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit())"
"""Its standard input is a pipe that the parent holds: it ends when the parent does, however that ends."""
_NEVER_SWEEPS = Path(__file__).with_name("no_sweep.mjs")

ACCOUNTS = 1_000
KEY = "a2V5"
"""Of these accounts; all of them stand in one environment variable, which must not be too long."""


class Azurite:
    """A running emulator; in a `with` statement it is stopped at the end."""

    def __init__(self, process: "subprocess.Popen[str]", ports: dict[str, int]) -> None:
        self._process = process
        self._used = 0
        self.ports = ports

    def new_account(self) -> str:
        """The name of an account that holds nothing and that nobody else was given."""
        if self._used == ACCOUNTS:
            raise RuntimeError(f"all {ACCOUNTS} accounts of this Azurite are used")
        self._used += 1
        return f"account{self._used}"

    def connection_string(self, account: str = EMULATOR_ACCOUNT, ports: dict[str, int] | None = None) -> str:
        """Of an account; `ports` are others that lead to the emulator's, by service."""
        endpoints = "".join(
            f"{service.capitalize()}Endpoint=http://127.0.0.1:{port}/{account};"
            for service, port in (ports or self.ports).items()
        )
        key = EMULATOR_KEY if account == EMULATOR_ACCOUNT else KEY
        return f"AccountName={account};AccountKey={key};{endpoints}"

    def __enter__(self) -> "Azurite":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def start(*, preload: Path | None = None, certificate: tuple[Path, Path] | None = None) -> Azurite:
    """Start one; it listens when this returns.  Raises RuntimeError, with its output, where it does not come up.

    `preload` is a further module that is run in it first.  With a `certificate` and its key it speaks HTTPS, and takes
    tokens.
    """
    program = install()
    any_port = [part for service in ("blob", "queue", "table") for part in (f"--{service}Port", "0")]
    accounts = [f"{EMULATOR_ACCOUNT}:{EMULATOR_KEY}", *(f"account{number + 1}:{KEY}" for number in range(ACCOUNTS))]
    tokens: list[str] = []
    if certificate is not None:
        tokens = ["--oauth", "basic", "--cert", str(certificate[0]), "--key", str(certificate[1])]
    first = [f"--import={module.as_uri()}" for module in (_NEVER_SWEEPS, preload) if module is not None]
    process = subprocess.Popen(
        [node()[0], f"--import={_ENDS_WITH_ITS_PARENT}", *first, str(program), "--inMemoryPersistence"]
        + ["--disableTelemetry", "--skipApiVersionCheck", "--silent", *any_port, *tokens],
        env={**os.environ, "AZURITE_ACCOUNTS": ";".join(accounts)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    ports: dict[str, int] = {}
    said: deque[str] = deque(maxlen=50)
    for line in process.stdout:
        said.append(line)
        if (found := _LISTENS.search(line)) is not None:
            ports[found[1].lower()] = int(found[2])
        if len(ports) == 3:
            break
    if len(ports) < 3:
        process.kill()
        raise RuntimeError("Azurite did not come up:\n" + "".join(said))
    threading.Thread(target=_read_on, args=(process.stdout,), daemon=True).start()
    return Azurite(process, ports)


def _read_on(output: "object") -> None:
    """A full pipe would stop it."""
    try:
        for _ in output:  # type: ignore[attr-defined]
            pass
    except ValueError:
        return
