"""Reads from a server what files are compared with, and what they are made of."""

from flagd_sdk.ctl.api import Api, Json, at
from flagd_sdk.ctl.gitops.present import Present
from flagd_sdk.ctl.wording import OPEN_ROLLOUT_STATES


def fetch_present(api: Api) -> Present:
    """Return all that is on the server."""
    environments = [each["key"] for each in api.get(at("environments"))["items"]]
    listed = [flag["key"] for flag in api.get(at("flags"))["items"]]
    flags = {flag["key"]: flag for flag in api.get_all(at("flags", key) for key in listed)}
    segments = api.get_all(at("environments", each, "segments") for each in environments)
    return Present(
        environments,
        flags,
        {
            environment: {segment["key"]: segment for segment in found["items"]}
            for environment, found in zip(environments, segments, strict=True)
        },
        _open_rollouts(api, flags),
    )


def _open_rollouts(api: Api, flags: dict[str, Json]) -> dict[tuple[str, str], Json]:
    # What never was on has no rollout; of the others one is asked for each flag and environment.
    asked = [
        (key, environment)
        for key, flag in flags.items()
        if not flag["archived"]
        for environment, configuration in flag["configurations"].items()
        if configuration["version"] > 1
    ]
    paths = (at("flags", key, "environments", where, "rollouts") for key, where in asked)
    return {
        place: rollout
        for place, found in zip(asked, api.get_all(paths), strict=True)
        for rollout in found["items"]
        if rollout["state"] in OPEN_ROLLOUT_STATES
    }
