"""Flags as files: what they may hold, what they would change, and how it is carried out.

    files → manifests (shape) → checks (with what is on the server) → plan → applying

All but `applying` and `fetching` is pure. Nothing is written before everything is checked.
"""
