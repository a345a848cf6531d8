"""Benchmarks of Holdtrue, its peers beside it in the same run.

One module per scenario (`python -m bench.chain`), one per peer (`python -m bench.peers restate --scenario chain`),
and `python -m bench`, which runs them interleaved and holds the ratios against the goals.
"""
