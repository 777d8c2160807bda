"""Benchmarks against floors measured in the same run; see `python -m benchmarks --help`."""
