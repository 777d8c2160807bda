"""Carries a plan out, each write against the version that the plan was made by."""

from collections.abc import Callable

from flagd_sdk.ctl.api import Api, Json, at
from flagd_sdk.ctl.exits import CommandError, Exit, Problem
from flagd_sdk.ctl.gitops.plan import Plan, Step
from flagd_sdk.ctl.gitops.present import Present

_COMMENT = "flagctl apply"


def apply_plan(api: Api, plan: Plan, present: Present, done: Callable[[Step], None]) -> None:
    """Make each step, in order, and call `done` after it.

    Applying again continues where a fault ended it: what was written is as its file says.

    Raises:
        CommandError: a step was refused or met another version; those before it are written.
    """
    flags = _Versions(present)
    for step in plan.steps:
        try:
            _make(api, step, flags)
        except CommandError as error:
            where = f"{step.key} in {step.environment}" if step.environment else step.key
            raise CommandError(
                f"{step.place or where}: {where} is refused: {error}",
                error.exit,
                [Problem(f"{step.place}: {p.where}", p.message) for p in error.problems],
                error.status,
            ) from error
        done(step)


class _Versions:
    """The versions that were seen, grown by nothing but this program's own writes."""

    def __init__(self, present: Present) -> None:
        self._flags = {key: flag["version"] for key, flag in present.flags.items()}
        self._configurations = {
            (key, environment): configuration["version"]
            for key, flag in present.flags.items()
            for environment, configuration in flag["configurations"].items()
        }

    def flag(self, key: str) -> int:
        return int(self._flags[key])

    def configuration(self, key: str, environment: str) -> int:
        return int(self._configurations[key, environment])

    def take_in(self, flag: Json, *, new_variants: bool) -> None:
        """Note what our own write of a flag has made of its configurations.

        Raises:
            CommandError: one has more new versions than the write explains.
        """
        key = flag["key"]
        self._flags[key] = flag["version"]
        for environment, configuration in flag["configurations"].items():
            seen = self._configurations.get((key, environment))
            version = configuration["version"]
            if seen is not None and version > seen + new_variants:
                message = f"someone else was first: {key} in {environment} has version {version}"
                raise CommandError(message, Exit.CONFLICT)
            self._configurations[key, environment] = version

    def take_in_configuration(self, configuration: Json) -> None:
        key = configuration["flag"], configuration["environment"]
        self._configurations[key] = configuration["version"]


def _make(api: Api, step: Step, versions: _Versions) -> None:
    comment = {"comment": _COMMENT}
    if step.action == "create":
        versions.take_in(api.post(at("flags"), step.body), new_variants=False)
    elif step.action == "put_segment":
        api.put(at("environments", step.environment, "segments", step.key), step.body)
    elif step.action == "configure":
        path = at("flags", step.key, "environments", step.environment)
        version = versions.configuration(step.key, step.environment)
        versions.take_in_configuration(api.patch(path, step.body | comment, version))
    else:
        path = at("flags", step.key)
        changed = api.patch(path, step.body | comment, versions.flag(step.key))
        versions.take_in(changed, new_variants="variants" in step.body)
