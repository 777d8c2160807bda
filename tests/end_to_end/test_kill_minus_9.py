"""A server killed at any moment has every acknowledged write afterwards: whole, and once."""

from tests.end_to_end import kill_run
from tests.end_to_end.flag_server import FlagServer


def test_every_acknowledged_write_survives_kill_minus_9(server: FlagServer) -> None:
    """Four times; `python -m tests.end_to_end.kill_run` does it two hundred times."""
    figures = kill_run.run(server, times=4, writes=200)
    assert figures.kills == 4
    assert figures.writes >= 200
