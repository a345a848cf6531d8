"""The options that the script of every peer takes."""

import argparse


def options(description: str | None) -> argparse.Namespace:
    """`--scenario`, how much of it, and where the server is that the scripts do not start themselves."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scenario", required=True, choices=["chain", "fanout", "latency", "start"])
    parser.add_argument("--count", type=int, required=True, help="instances; fan-outs for fanout")
    parser.add_argument("--width", type=int, default=1000, help="activities of one fan-out")
    parser.add_argument("--case", default="", help="what the line calls the case")
    parser.add_argument("--postgresql", default="", help="URL of a PostgreSQL server, without a database")
    parser.add_argument("--server", default="", help="the server's program")
    return parser.parse_args()
