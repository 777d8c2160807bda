"""Simulated lives of guarded flags: pure, each a function of its scenario and seed."""
