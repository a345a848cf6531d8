"""One peer alone: `python -m bench.peers restate --scenario chain --count 500`; its environment is made if need be."""

import subprocess
import sys
from contextlib import nullcontext

from bench.measure import ROOT
from bench.peers import PEERS
from bench.peers.environments import command
from bench.peers.postgresql import cluster


def main(name: str, options: list[str]) -> int:
    """Run its script with these options."""
    peer = next((peer for peer in PEERS if peer.name == name), None)
    if peer is None:
        print(f"No peer {name}; there are {', '.join(peer.name for peer in PEERS)}.", file=sys.stderr)
        return 2
    with cluster() if peer.postgresql else nullcontext("") as url:
        return subprocess.run([*command(peer), "--postgresql", url, *options], cwd=ROOT).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
