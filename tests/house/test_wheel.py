"""What a user gets: the wheel, installed alone into a clean environment, runs the README's program."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.test_programs import ROOT, programs

SUPPORTED = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())


def _call(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree as it stands."""
    target = tmp_path_factory.mktemp("dist")
    _call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target, cwd=ROOT)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_what_it_needs_and_no_more(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "holdtrue"
    wanted = {
        f"holdtrue/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and path.suffix in {".py", ".sql", ".typed"} and "__pycache__" not in path.parts
    }
    assert "holdtrue/py.typed" in wanted
    assert wanted <= inside, f"left out: {sorted(wanted - inside)}"
    others = {name for name in inside if not name.startswith("holdtrue/") and ".dist-info/" not in name}
    assert not others, f"does not belong into the wheel: {sorted(others)}"


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode == 0


def _number(version: str) -> int:
    return int(version.partition(".")[2])


def _interpreters() -> dict[str, str]:
    """The supported Pythons at hand, this one first: on the path, or installed beside this one."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for version in SUPPORTED:
        beside = sorted(Path(sys.base_prefix).resolve().parent.glob(f"{version}*/bin/python{version}"))
        for candidate in (shutil.which(f"python{version}"), *map(str, beside)):
            if version not in found and candidate is not None and _works(candidate):
                found[version] = candidate
    return found


INTERPRETERS = _interpreters()
ENDS = sorted({min(INTERPRETERS, key=_number), max(INTERPRETERS, key=_number)})
"""The oldest and the newest."""


@pytest.mark.parametrize("version", ENDS)
def test_the_readme_program_runs_from_the_installed_wheel(version: str, wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "clean"
    _call(INTERPRETERS[version], "-m", "venv", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # Its own declared dependencies, at the pinned versions: what is missing from the declaration shows here.
    _call(*pip, "--constraint", ROOT / "requirements" / "test.txt", wheel, cwd=tmp_path)
    where = _call(python, "-c", "import holdtrue; print(holdtrue.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)

    code, printed = programs(ROOT / "README.md")[0]
    program = tmp_path / "program.py"
    program.write_text(code)
    assert _call(python, program, cwd=tmp_path).strip() == printed.strip()
    told = _call(environment / "bin" / "holdtrue", "--help", cwd=tmp_path)
    assert "start" in told
