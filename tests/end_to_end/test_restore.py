"""A server that was restored from a backup, and the applications that had heard of more."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from flagd_sdk import FlagClient
from flagd_server.cli import main
from tests.end_to_end.flag_server import FlagServer
from tests.waiting import eventually


def test_applications_follow_a_server_that_was_restored_although_they_had_heard_of_more(
    start_server: Callable[..., FlagServer], tmp_path: Path
) -> None:
    server = start_server()
    server.create_flag("checkout", default_serve={"variant": "on"})
    with closing(FlagClient(server.url, server.sdk_tokens["production"], cache_dir=None)) as flags:
        eventually(lambda: flags.is_enabled("checkout"))
        backup = str(tmp_path / "backup")
        assert main(["backup", backup, "--database", str(server.database)]) == 0
        server.kill_flag("checkout")
        eventually(lambda: not flags.is_enabled("checkout"))

        server.stop()
        for file in server.database.parent.glob("flags.db*"):
            file.unlink()
        assert main(["restore", backup, "--database", str(server.database)]) == 0
        server.restart()

        eventually(lambda: flags.is_enabled("checkout"))
