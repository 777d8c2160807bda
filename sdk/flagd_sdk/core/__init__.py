"""Evaluation of flags: pure functions and immutable values, no I/O, no clock, no thread."""
