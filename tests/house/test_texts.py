"""What stands in the repository's files: no addresses of registries, no paths of a machine, no dead links."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIP = {
    ".git",
    ".venv",
    ".cache",
    "build",
    "dist",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
}
TEXTS = sorted(
    path
    for path in ROOT.rglob("*")
    if path.is_file()
    and not SKIP & set(path.relative_to(ROOT).parts)
    and path.suffix
    in {".py", ".md", ".toml", ".txt", ".in", ".sql", ".svg", ".json", ".yml", ".yaml", ".sh", ".cfg", ""}
)
PAGES = [path for path in TEXTS if path.suffix == ".md"]

MACHINE = re.compile(r"(?<![\w.])/(?:" + "|".join(("root", "home", "Users", "work", "tmp/x")) + r")/\S+")
REGISTRY = re.compile(
    "|".join(("index" + "-url", r"https?://[^\s\"']+/sim" + "ple", "pypi" + r"\.org", "pythonhosted" + r"\.org"))
)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_registry_addresses_and_no_machine_paths() -> None:
    found = []
    for path in TEXTS:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if REGISTRY.search(line) or MACHINE.search(line):
                found.append(f"{_name(path)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_every_requirement_is_pinned() -> None:
    for line in (ROOT / "requirements" / "test.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+-]+(; .+)?", line), line


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_resolve(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in _anchors(found)):
            dead.append(target)
    assert not dead, f"{_name(page)} links to what is not there: {', '.join(dead)}"


def test_every_page_of_the_docs_can_be_reached_from_the_index() -> None:
    docs = ROOT / "docs"
    seen: set[Path] = set()
    ahead = [docs / "index.md"]
    while ahead:
        page = ahead.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+\.md)", _prose(page.read_text())):
            if not re.match(r"[a-z]+:", target) and (found := (page.parent / target).resolve()).exists():
                ahead.append(found)
    lost = [_name(page) for page in docs.rglob("*.md") if page.resolve() not in seen]
    assert not lost, f"no way leads from docs/index.md to {', '.join(lost)}"


def test_make_help_lists_every_target() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for target in phony.group(1).split():
        assert re.search(rf"^\s+make {target}\s+\S", told, re.MULTILINE), f"make help does not tell of {target}"


def test_ci_calls_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, ".ci/run must be executable"
    assert "make test" in script.read_text()


def _prose(text: str) -> str:
    """A page without its code: brackets there are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
