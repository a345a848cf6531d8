"""All benchmarks in one run: ours and, beside each, the peers and the limit; then the table of goals.

Every result is a line of JSON on standard output (and in `.cache/bench/results.jsonl`); what goes on and what had to
be left out is said on standard error.  Exit code 1: one of our own scenarios failed (not: a goal was missed).
`python -m bench azure` measures hubs in Azure Storage (`bench.azure`).
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.goals import GOALS, US, comparison_table, judge, number_text, verdict_table
from bench.measure import CACHE, ROOT
from bench.peers import PEERS, Peer
from bench.peers.environments import Unavailable, command
from bench.peers.postgresql import cluster
from bench.plan import JOBS, PEER_TIMEOUT, SCENARIOS, Job

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


class Failed(Exception):
    """A program printed no result; the message is its last word."""


def say(text: str) -> None:
    """To who waits."""
    print(text, file=sys.stderr, flush=True)


def lines_of(words: Sequence[str], timeout: float) -> list[dict[str, Any]]:
    """Run a program in a session of its own and take its JSON lines; raises Failed."""
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Failed(f"no result in {timeout:.0f} s") from None
    if process.returncode:
        last = [line for line in errors.splitlines() if line.strip()]
        raise Failed((last or [f"exit code {process.returncode}"])[-1][:300])
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


class Bench:
    """One run of the benchmarks: its options, the peers that can be had, and the lines so far, by run."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.options = options
        self.runs: list[list[dict[str, Any]]] = [[] for _ in range(options.runs)]
        self.failed = False
        self.left_out: dict[str, str] = {}
        self._commands: dict[str, list[str]] = {}
        self._log = stack.enter_context((CACHE / "results.jsonl").open("w"))
        self._server: str | None = None
        for peer in PEERS:
            if peer.limit or (options.peers_wanted and (not options.peers or peer.name in options.peers)):
                self._prepare(peer, stack)

    def _prepare(self, peer: Peer, stack: ExitStack) -> None:
        say(f"preparing {peer.title}")
        try:
            words = command(peer)
            if peer.postgresql:
                if self._server is None:
                    self._server = stack.enter_context(cluster())
                words += ["--postgresql", self._server]
            self._commands[peer.name] = words
        except Unavailable as reason:
            self.left_out[peer.name] = str(reason)
            say(f"LEFT OUT: {peer.title}: {reason}")

    def _take(self, run: int, system: str, words: Sequence[str], timeout: float) -> None:
        try:
            lines = lines_of(words, timeout)
        except Failed as reason:
            self.failed = self.failed or system == US
            say(f"FAILED: {' '.join(words[1:])}: {reason}")
            lines = [{"system": system, "scenario": words[2].rsplit(".", 1)[1], "error": str(reason)}]
        for line in lines:
            line["run"] = run
            self.runs[run].append(line)
            text = json.dumps(line, ensure_ascii=False)
            print(text, flush=True)
            print(text, file=self._log, flush=True)

    def run(self, job: Job, run: int) -> None:
        """One job of ours, and the peers beside it."""
        if run and not job.every_run:
            return
        chosen = job.quick if self.options.quick else job.options
        say(f"run {run + 1} of {self.options.runs}: {job.scenario} {' '.join(chosen)}")
        self._take(run, US, [sys.executable, "-m", f"bench.{job.scenario}", *chosen], job.timeout)
        for peer in PEERS:
            work = peer.work.get(job.beside or "")
            if work is not None and peer.name in self._commands:
                scenario = str(job.beside).split()[0]
                self._take(run, peer.name, [*self._commands[peer.name], "--scenario", scenario, *work], PEER_TIMEOUT)

    def tables(self) -> str:
        """What came out, in Markdown."""
        measured = [[line for line in lines if "error" not in line] for lines in self.runs]
        durable = [peer.name for peer in PEERS if peer.durable and not peer.limit]
        titles = {US: "Holdtrue, SQLite"} | {peer.name: peer.title for peer in PEERS}
        wanted = self.options.only or SCENARIOS
        machine = (
            f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}, {self.options.runs} runs"
            f"{', quick' if self.options.quick else ''}; a ratio is the median of the ratios within each run."
        )
        parts = [
            machine,
            verdict_table([judge(goal, measured, durable) for goal in GOALS if goal.ours.scenario in wanted]),
            comparison_table(measured, titles, {peer.name: peer.note for peer in PEERS}),
        ]
        alone = own_table(measured)
        if alone:
            parts.append(alone)
        if self.left_out:
            parts.append("\n".join(f"Left out: {name}: {reason}." for name, reason in self.left_out.items()))
        return "\n\n".join(parts)


def own_table(runs: Sequence[Sequence[dict[str, Any]]]) -> str:
    """The figures of ours that nobody else has, in Markdown; empty without any."""
    compared = {"chain", "fanout", "latency"}
    rows: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for lines in runs:
        for line in lines:
            if line["system"] == US and line["scenario"] not in compared:
                rows[line["scenario"], line["case"], line["unit"]].append(float(line.get("rate", line.get("value"))))
    if not rows:
        return ""
    body = [
        f"| {scenario} | {case} | {number_text(statistics.median(values))} {unit} |"
        for (scenario, case, unit), values in rows.items()
    ]
    return "\n".join(["| scenario | case | figure |", "|---|---|---|", *body])


def write_into(document: Path, tables: str) -> None:
    """Replace what stands between the marks of the document."""
    text = document.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{document} has no marks {BEGIN} and {END} to put the figures between.")
    before, after = text.split(BEGIN, 1)[0], text.split(END, 1)[1]
    document.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}")


def names(known: Sequence[str], given: str | None) -> list[str]:
    """The names of a list with commas; all of them must be known."""
    chosen = [name.strip() for name in (given or "").split(",") if name.strip()]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise SystemExit(f"Unknown: {', '.join(unknown)}. There are {', '.join(known)}.")
    return chosen


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="less of everything, one run: whether it works, no figures"
    )
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(SCENARIOS)}, with commas")
    parser.add_argument(
        "--peers", metavar="NAMES", help=f"of {', '.join(p.name for p in PEERS if not p.limit)}, with commas"
    )
    parser.add_argument("--no-peers", action="store_false", dest="peers_wanted", help="ours and the bare loop alone")
    parser.add_argument("--runs", type=int, help="how often, interleaved (3; 1 with --quick)")
    parser.add_argument(
        "--write", type=Path, metavar="DOCUMENT", help=f"put the tables between {BEGIN} and {END} in it"
    )
    options = parser.parse_args()
    if options.quick and options.write is not None:
        parser.error("--quick gives no figures to quote: leave it away to --write them")
    options.runs = options.runs or (1 if options.quick else 3)
    options.only = names(SCENARIOS, options.only)
    options.peers = names([peer.name for peer in PEERS], options.peers)
    return options


def main() -> int:
    """Run, print, judge."""
    if sys.argv[1:2] == ["azure"]:
        from bench import azure

        return azure.main(sys.argv[2:])
    options = parsed()
    CACHE.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        bench = Bench(options, stack)
        for run in range(options.runs):
            for job in JOBS:
                if not options.only or job.scenario in options.only:
                    bench.run(job, run)
        tables = bench.tables()
    print(f"\n{tables}")
    if options.write is not None:
        write_into(options.write, tables)
    return 1 if bench.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
