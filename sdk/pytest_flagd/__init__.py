"""pytest plugin: flags for tests, by marker and fixture; see `docs/testing.md`.

    @pytest.mark.flagd({"new-checkout": True})
    def test_checkout(flagd_flags): ...

pytest imports this in every project that has the SDK installed, and before coverage is measured. So
it is a package of its own, which imports nothing of the SDK until a test wants flags.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flagd_sdk import FlagClient
    from flagd_sdk.testing import Overridden


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings."""
    parser.addini(
        "flagd_client",
        "the application's flag client, such as shop.flags:flags; the clients that the application"
        " makes then stay in memory",
        default="",
    )
    parser.addini(
        "flagd_strict",
        "whether a flag raises that does not exist or is of another type than asked for",
        type="bool",
        default=False,
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Keep the application's clients in memory, before a conftest.py can import it."""
    if early_config.getini("flagd_client"):
        from flagd_sdk.testing import offline

        until_the_end = ExitStack()
        early_config.add_cleanup(until_the_end.close)
        until_the_end.enter_context(offline())


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line(
        "markers",
        "flagd(values): serve these flags, key → value, from flagd_client while the test runs",
    )


@pytest.fixture
def flagd_client(pytestconfig: pytest.Config) -> "FlagClient":
    """The client whose flags tests set: that of the setting flagd_client, else one in memory.

    Override it in conftest.py where the application makes its client otherwise.
    """
    path = pytestconfig.getini("flagd_client")
    if path:
        try:
            return resolve_name(path)  # type: ignore[no-any-return]
        except (AttributeError, ImportError, ValueError) as error:
            raise pytest.UsageError(f"flagd_client = {path}: {error}") from error
    from flagd_sdk.testing import InMemoryClient

    return InMemoryClient()


@pytest.fixture
def flagd_flags(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, flagd_client: "FlagClient"
) -> Iterator["Overridden"]:
    """The flags of flagd_client, as the test's markers say: to be set, with what was served."""
    from flagd_sdk.testing import override

    values: dict[Any, Any] = {}
    for marker in reversed(list(request.node.iter_markers("flagd"))):  # the closest one is the last
        for given in marker.args:
            values.update(given)
    strict: bool = pytestconfig.getini("flagd_strict")
    with override(flagd_client, values, strict=strict) as flags:
        yield flags


@pytest.fixture(autouse=True)
def _flagd_marked(request: pytest.FixtureRequest) -> None:
    """Let the marker do without naming the fixture, in unittest's classes too."""
    if request.node.get_closest_marker("flagd") is not None:
        request.getfixturevalue("flagd_flags")
