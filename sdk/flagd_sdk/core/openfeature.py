"""Where OpenFeature's edges (the provider, OFREP) answer otherwise than the SDK itself."""

from typing import TypeVar

from flagd_sdk.core.evaluator import details_of
from flagd_sdk.core.model import Resolution
from flagd_sdk.core.types import Reason, ResolutionDetails
from flagd_sdk.errors import ErrorCode

Default = TypeVar("Default")


def openfeature_details(
    key: str, resolution: Resolution, default: Default
) -> ResolutionDetails[Default]:
    """Return everything about an evaluation as `details_of`, but for whom a split can't place.

    To them the SDK serves the off variant with reason DEFAULT; OpenFeature has an error code for
    it (specification, types, "Error Code": TARGETING_KEY_MISSING), and with an error goes the
    caller's default.
    """
    details = details_of(key, resolution, default)
    if (
        details.reason is Reason.ERROR
        or resolution.error_code is not ErrorCode.TARGETING_KEY_MISSING
    ):
        return details
    return details._replace(
        value=default,
        variant=None,
        reason=Reason.ERROR,
        error_code=resolution.error_code,
        error_message=resolution.error_message,
    )
