"""Virtual environments of the peers under `.cache/bench`, made when first asked for, and the commands to run in them.

Packages are named, never where they come from: pip and npm are used as the machine has them set up.
"""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from bench.measure import CACHE
from bench.peers import Peer


class Unavailable(Exception):
    """The peer cannot be had on this machine; the message says why."""


def _install(command: list[str], what: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.startswith("ERROR") or "npm ERR" in line]
        raise Unavailable(f"{what} cannot be installed: {(lines or ['no reason given'])[-1][:200]}")


def python_of(name: str, packages: tuple[str, ...], *extra: str) -> Path:
    """The interpreter of the environment `name`, which has these packages; made anew when the list has changed."""
    folder = CACHE / name
    python, made_for = folder / "bin" / "python", folder / "packages.txt"
    wanted = "\n".join((sys.version.split()[0], *packages))
    if not (made_for.exists() and made_for.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True, symlinks=True)
        _install([str(python), "-m", "pip", "install", "--quiet", *extra, *packages], ", ".join(packages))
        made_for.write_text(wanted)
    return python


def npm_folder(name: str, packages: tuple[str, ...]) -> Path:
    """The `node_modules` that has these packages."""
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable(f"{', '.join(packages)} need npm, which is not there")
    folder = CACHE / name / "npm"
    if not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _install(
            [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *packages],
            ", ".join(packages),
        )
    return folder / "node_modules"


def command(peer: Peer) -> list[str]:
    """The command that runs the script of a peer, without its options; installs what is missing, or Unavailable."""
    if peer.limit:
        return [sys.executable, "-m", f"bench.peers.{peer.name}"]
    python = python_of(peer.name, peer.packages)
    start = [str(python), "-m", f"bench.peers.{peer.name}"]
    if peer.name == "restate":
        programs = sorted(npm_folder(peer.name, peer.npm).glob("@restatedev/restate-server-*/bin/restate-server"))
        if not programs:
            raise Unavailable("the package of Restate's server has no program for this machine")
        start += ["--server", str(programs[0])]
    if peer.name == "temporal":
        start += ["--server", str(python.parent / "temporal")]
    return start
