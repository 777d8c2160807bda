from collections.abc import Iterator

import pytest

from tests.sdk.integrations.pages import Counted


@pytest.fixture
def counted() -> Iterator[Counted]:
    counted = Counted()
    yield counted
    counted.flags.close(60)
