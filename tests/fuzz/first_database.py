"""A database after its first start, and an application on it that limits nobody."""

from contextlib import closing
from pathlib import Path

from flask import Flask

from flagd_server.app import create_app
from flagd_server.clock import SystemClock
from flagd_server.config import Settings
from flagd_server.services.environments import Environments
from flagd_server.services.first_start import InitialTokens, first_start
from flagd_server.services.publishing import Publisher
from flagd_server.services.tokens import Tokens
from flagd_server.storage import open_storage

# What a caller may ask in a minute would hide what comes of it.
UNLIMITED = {"api_per_minute": 0, "open_per_minute": 0, "refused_per_minute": 0}


def make_first(file: Path) -> InitialTokens:
    """Set a new database up, and return its tokens."""
    with closing(open_storage(str(file))) as storage:
        tokens = first_start(
            storage,
            Environments(storage, Publisher(SystemClock())),
            Tokens(storage, SystemClock()),
            deliver=lambda tokens: None,
        )
    assert tokens is not None
    return tokens


def open_app(file: Path) -> Flask:
    """Return the application; whoever calls closes it."""
    return create_app(Settings(database=str(file), **UNLIMITED))
