"""Runs pytest with the plugin in processes of its own, on projects as users have them."""

import pytest

pytest_plugins = ["pytester"]
# A process of pytest loads every plugin that is installed.
pytestmark = pytest.mark.timeout(300)

SHOP = """
from flagd_sdk import FlagClient

flags = FlagClient("https://flags.example.com", token="t")
CHECKOUT = flags.boolean("new-checkout", default=False)

def checkout():
    return "new" if CHECKOUT.is_enabled() else "old"
"""
STRICTLY = ["--strict-markers", "--strict-config", "-W", "error", "-p", "no:cacheprovider"]


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess(*STRICTLY, *arguments, timeout=120)


def test_the_marker_and_the_fixture_set_the_flags_of_the_application(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\nflagd_client = shop:flags\npythonpath = .")
    pytester.makepyfile(shop=SHOP)
    pytester.makeconftest("import shop")  # as early as an application can be imported
    pytester.makepyfile(
        """
        import threading
        import unittest
        import pytest
        from flagd_sdk.testing import override
        from shop import CHECKOUT, checkout, flags

        ON = {"new-checkout": True}

        def test_unmarked():
            assert checkout() == "old"

        @pytest.mark.flagd(ON)
        def test_marked():
            assert checkout() == "new"

        @pytest.mark.flagd({CHECKOUT: True})
        def test_marked_by_handle():
            assert checkout() == "new"

        @pytest.mark.flagd(ON)
        @pytest.mark.parametrize("times", [1, 2])
        def test_fixture(flagd_flags, times):
            assert flagd_flags.client is flags
            for _ in range(times):
                with flags.scope({"targetingKey": "u1"}):
                    assert checkout() == "new"
            assert [e.variant for e in flagd_flags.exposures] == ["on"] * times
            flagd_flags.set_flags({"new-checkout": False})
            assert checkout() == "old"

        @pytest.fixture
        def basket():
            return checkout()

        @pytest.mark.flagd(ON)
        def test_other_fixtures_see_it(basket):
            assert basket == "new"

        @pytest.fixture
        @override(flags, ON)
        def new_shop():
            yield checkout()

        def test_decorated_fixture(new_shop):
            assert (new_shop, checkout()) == ("new", "new")

        @pytest.mark.flagd(ON)
        class TestClass:
            def test_it(self):
                assert checkout() == "new"

            @pytest.mark.flagd({"new-checkout": False, "more": 1})
            def test_the_closest_wins(self):
                assert (checkout(), flags.value("more", 0)) == ("old", 1)

        @pytest.mark.flagd(ON)
        class TestUnittest(unittest.TestCase):
            def setUp(self):
                assert checkout() == "new"

            def test_it(self):
                self.assertEqual(checkout(), "new")

        @pytest.mark.flagd(ON)
        class TestAsyncUnittest(unittest.IsolatedAsyncioTestCase):
            async def test_it(self):
                self.assertEqual(checkout(), "new")

        @pytest.mark.anyio
        @pytest.mark.flagd(ON)
        async def test_async(flagd_flags):
            with flags.scope({"targetingKey": "u1"}):
                assert checkout() == "new"
            assert len(flagd_flags.exposures) == 1

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        def test_nothing_is_left_and_nothing_was_started():
            assert checkout() == "old"
            assert not [t.name for t in threading.enumerate() if t.name.startswith("flagd")]
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=13)


def test_a_failing_test_leaves_nothing_to_the_next_one(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nflagd_client = shop:flags\npythonpath = .")
    pytester.makepyfile(shop=SHOP)
    pytester.makepyfile(
        """
        import pytest
        from shop import checkout

        @pytest.mark.flagd({"new-checkout": True})
        def test_failing():
            assert checkout() == "old"

        def test_next():
            assert checkout() == "old"
        """
    )
    run(pytester).assert_outcomes(passed=1, failed=1)


def test_without_a_setting_the_client_is_one_in_memory_or_the_projects_fixture(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_memory="""
        import pytest
        from flagd_sdk.testing import InMemoryClient

        @pytest.mark.flagd({"colour": "red"})
        def test_it(flagd_client, flagd_flags):
            assert isinstance(flagd_client, InMemoryClient)
            assert flagd_client.value("colour", "") == "red"
            assert flagd_flags.unscoped == ["colour"]
        """,
        test_fixture="""
        import pytest
        from flagd_sdk.testing import InMemoryClient

        flags = InMemoryClient({"colour": "green"})

        @pytest.fixture
        def flagd_client():
            return flags

        @pytest.mark.flagd({"new": True})
        def test_it():
            assert (flags.value("colour", ""), flags.is_enabled("new")) == ("green", True)
        """,
    )
    run(pytester).assert_outcomes(passed=2)


def test_strictness_is_a_setting(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nflagd_strict = true")
    pytester.makepyfile(
        """
        import pytest
        from flagd_sdk.errors import FlagNotFoundError

        @pytest.mark.flagd({"on": True})
        def test_it(flagd_client):
            assert flagd_client.is_enabled("on")
            with pytest.raises(FlagNotFoundError):
                flagd_client.is_enabled("no")
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_a_client_that_is_not_found_is_told(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nflagd_client = nowhere:flags")
    pytester.makepyfile("def test_it(flagd_flags): pass")
    result = run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*flagd_client = nowhere:flags: No module named 'nowhere'*")


def test_it_is_described_and_loads_nothing_of_the_sdk_where_it_is_not_used(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "pytest_flagd" in sys.modules
            assert "flagd_sdk" not in sys.modules
        """
    )
    run(pytester).assert_outcomes(passed=1)
    run(pytester, "--markers").stdout.fnmatch_lines("@pytest.mark.flagd(values): *")
