"""Flags for the tests of applications: in memory, set by plain values, with a record of exposures.

from flagd_sdk.testing import override

with override(flags, {"new-checkout": True}) as overridden:
    ...

`docs/testing.md` has the rest, the pytest plugin with it.
"""

from flagd_sdk.testing.definitions import Definition
from flagd_sdk.testing.memory import Exposure, InMemoryClient, offline
from flagd_sdk.testing.overriding import Overridden, override

__all__ = ["Definition", "Exposure", "InMemoryClient", "Overridden", "offline", "override"]
