"""Feature flags in process: evaluation, exposures with their outcome, and nothing that can hurt.

from flagd_sdk import FlagClient

flags = FlagClient("https://flags.example.com", token="…", service="shop")
with flags.scope({"targetingKey": user_id}):
    if flags.is_enabled("new-checkout"):
        ...
"""

from flagd_sdk.backoff import Backoff
from flagd_sdk.client import FlagClient
from flagd_sdk.core.local_kill import LocalKill
from flagd_sdk.core.types import ContextMapping, Evaluation, Reason, ResolutionDetails
from flagd_sdk.errors import ConfigurationError, ErrorCode, FlagdError
from flagd_sdk.flag_state import ClientStatus, FlagsChanged
from flagd_sdk.handles import (
    BooleanFlag,
    FlagHandle,
    FloatFlag,
    IntegerFlag,
    ObjectFlag,
    StringFlag,
)
from flagd_sdk.scope import Scope
from flagd_sdk.transport import FetchedFlags, Stream, Transport

__all__ = [
    "Backoff",
    "BooleanFlag",
    "ClientStatus",
    "ConfigurationError",
    "ContextMapping",
    "ErrorCode",
    "Evaluation",
    "FetchedFlags",
    "FlagClient",
    "FlagHandle",
    "FlagdError",
    "FlagsChanged",
    "FloatFlag",
    "IntegerFlag",
    "LocalKill",
    "ObjectFlag",
    "Reason",
    "ResolutionDetails",
    "Scope",
    "Stream",
    "StringFlag",
    "Transport",
]
