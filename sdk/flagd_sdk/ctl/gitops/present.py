"""What is on a server, as far as files are compared with it. Pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from flagd_sdk.ctl.gitops.manifests import Json


class Present(NamedTuple):
    """What is on the server.

    Attributes:
        environments: their keys.
        flags: key → the flag with its configurations; archived ones too.
        segments: environment → key → segment.
        rollouts: (flag, environment) → the rollout that has not ended.
    """

    environments: Collection[str]
    flags: Mapping[str, Json]
    segments: Mapping[str, Mapping[str, Json]]
    rollouts: Mapping[tuple[str, str], Json]


def initial_configuration(type_: str, variants: Json, off_variant: str | None = None) -> Json:
    """Return the configuration of a flag that is created: off (as the API says it)."""
    if off_variant is None:
        false = [name for name, value in variants.items() if value is False]
        off_variant = false[0] if type_ == "boolean" and false else list(variants)[-1]
    return {
        "enabled": False,
        "off_variant": off_variant,
        "rules": [],
        "default_serve": {"variant": off_variant},
        "guard": {},
        "kill": None,
        "version": None,
    }
