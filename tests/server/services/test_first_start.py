"""What a server makes of an empty database."""

from pathlib import Path

import pytest

from flagd_server.services.first_start import InitialTokens, first_start
from flagd_server.storage import open_storage
from tests.server.services.admin_world import AdminWorld


def test_an_empty_database_gets_three_environments_and_their_tokens(world: AdminWorld) -> None:
    assert world.initial is not None
    environments = [environment.key for environment in world.environments.list()]
    assert environments == ["development", "production", "staging"]
    admin = world.tokens.authenticate(world.initial.admin)
    assert admin is not None
    assert (admin.scope, admin.environment) == ("admin", None)
    assert sorted(world.initial.sdk) == environments
    for environment, text in world.initial.sdk.items():
        token = world.tokens.authenticate(text)
        assert token is not None
        assert (token.scope, token.environment, token.kind) == ("sdk", environment, "server")
    assert len(world.tokens.list()) == 4


def test_a_second_start_changes_nothing(world: AdminWorld) -> None:
    before = world.state()
    assert world.start() is None
    assert world.state() == before


def test_the_admin_token_may_be_given(tmp_path: Path) -> None:
    given = "fr_admin_" + "s3cret" * 8
    world = AdminWorld(tmp_path / "other.db", admin_token=given)
    assert world.initial is not None
    assert world.initial.admin == given
    assert world.tokens.authenticate(given) is not None
    world.storage.close()


def test_tokens_that_could_not_be_handed_over_were_never_made(
    world: AdminWorld, tmp_path: Path
) -> None:
    storage = open_storage(str(tmp_path / "empty.db"))

    def fail(tokens: InitialTokens) -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        first_start(storage, world.environments, world.tokens, fail)
    with storage.read() as reader:
        assert (reader.environments(), reader.tokens()) == ([], [])
    storage.close()
