"""Measurements of speed and memory, run on demand: `make bench`, or `python -m tests.benchmarks NAME...`."""
