"""What a rollout makes of a configuration: how much of a split the new variant has. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flagd_sdk.core.bucketing import BUCKETS
from flagd_server.domain.changes import with_allocation
from flagd_server.domain.configuration import DEFAULT_SPLIT, Configuration, JsonObject
from flagd_server.domain.faults import Fault
from flagd_server.domain.stages import TEMPLATES, Stage, check_stages


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rollout is asked to do.

    Attributes:
        split: "default", or the id of a rule.
        from_variant: None stands for the off variant.
        to_variant: None stands for the other one, where there are two.
        stages: None stands for those of the template.
        starts_at: None is at once.
    """

    split: str = DEFAULT_SPLIT
    from_variant: str | None = None
    to_variant: str | None = None
    template: str | None = None
    stages: Sequence[Stage] | None = None
    starts_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A plan with everything named."""

    split: str
    from_variant: str
    to_variant: str
    stages: tuple[Stage, ...]


def release_of(
    plan: Plan, configuration: Configuration, variants: Mapping[str, Any], flag: str
) -> tuple[Release, list[Fault]]:
    """Return what a plan comes to for a flag, and all that keeps it from being possible."""
    stages, faults = stages_of(plan)
    from_variant = plan.from_variant or configuration.off_variant
    others = [name for name in variants if name != from_variant]
    to_variant = plan.to_variant or (others[0] if len(others) == 1 else "")
    release = Release(plan.split, from_variant, to_variant, stages)
    if not to_variant:
        expected = f"expected one of {', '.join(others)}, as there are several"
        return release, [*faults, Fault("to_variant", expected)]
    faults += _check_variants(configuration, variants, release)
    if not faults:
        faults += _check_shares(configuration, flag, release)
    return release, faults


def stages_of(plan: Plan) -> tuple[tuple[Stage, ...], list[Fault]]:
    """Return the stages a plan comes to, and what is wrong with them."""
    if (plan.stages is None) == (plan.template is None):
        return (), [Fault("stages", "expected either stages or a template")]
    if plan.stages is not None:
        return tuple(plan.stages), check_stages(plan.stages)
    stages = TEMPLATES.get(plan.template or "")
    if stages is None:
        expected = f"expected one of {', '.join(TEMPLATES)}"
        return (), [Fault("template", f"{plan.template!r}; {expected}")]
    return stages, []


def serve_of(configuration: Configuration, split: str) -> JsonObject | None:
    """Return what is served by default or by a rule; None where there is no such rule."""
    if split == DEFAULT_SPLIT:
        return configuration.default_serve
    return next((rule["serve"] for rule in configuration.rules if rule["id"] == split), None)


def weights_of(serve: JsonObject) -> dict[str, int]:
    """Return the weights by variant, of a plain variant too."""
    if "split" in serve:
        return dict(serve["split"]["weights"])
    return {serve["variant"]: BUCKETS}


def weight_of(configuration: Configuration, split: str, variant: str) -> int:
    """Return the weight a variant has now; 0 where nothing of the kind is served."""
    serve = serve_of(configuration, split)
    if serve is None or not configuration.enabled:
        return 0
    return weights_of(serve).get(variant, 0)


def _check_variants(
    configuration: Configuration, variants: Mapping[str, Any], release: Release
) -> list[Fault]:
    named = {"from_variant": release.from_variant, "to_variant": release.to_variant}
    faults = [
        Fault(field, f"{name!r} is none of the flag's variants")
        for field, name in named.items()
        if name not in variants
    ]
    if release.from_variant == release.to_variant:
        faults.append(Fault("to_variant", "expected another variant than from_variant"))
    serve = serve_of(configuration, release.split)
    if serve is None:
        message = f"there is no rule {release.split!r}; expected 'default' or the id of a rule"
        return [*faults, Fault("split", message)]
    served = [name for name, weight in weights_of(serve).items() if weight]
    if not faults and not {release.from_variant, release.to_variant} & set(served):
        message = f"{release.from_variant!r} is served to nobody; {', '.join(served)} is"
        faults.append(Fault("from_variant", message))
    return faults


def _check_shares(configuration: Configuration, flag: str, release: Release) -> list[Fault]:
    """Return what is wrong with the stages beside what is served already."""
    faults = []
    served = weight_of(configuration, release.split, release.to_variant)
    first, last = release.stages[0], release.stages[-1]
    if first.weight < served:
        message = (
            f"{first.percent:g}; {served * 100 / BUCKETS:g} % have {release.to_variant!r} already,"
            " and a rollout takes it from nobody"
        )
        faults.append(Fault("stages[0].percent", message))
    try:
        with_share(configuration, flag, release, last.weight)
    except ValueError as error:
        faults.append(Fault(f"stages[{len(release.stages) - 1}].percent", str(error)))
    return faults


def with_share(
    configuration: Configuration, flag: str, release: Release, weight: int
) -> Configuration:
    """Return the configuration in which the new variant has a weight, taken from the old one.

    The other variants of the split keep theirs, and the flag is switched on.

    Raises:
        ValueError: what the others leave is not enough, or there is no such split any more.
    """
    serve = serve_of(configuration, release.split)
    if serve is None:
        raise ValueError(f"there is no rule {release.split!r} any more")
    old, new = release.from_variant, release.to_variant
    weights = {old: 0, **weights_of(serve)}
    others = sum(weights.values()) - weights[old] - weights.get(new, 0)
    if others + weight > BUCKETS:
        raise ValueError(f"{others * 100 / BUCKETS:g} % of the split belong to other variants")
    weights[new] = weight
    weights[old] = BUCKETS - others - weight
    asked = {"split": {**serve.get("split", {}), "weights": weights}}
    kept = with_allocation(asked, serve, flag, configuration.off_variant)
    if release.split == DEFAULT_SPLIT:
        return replace(configuration, enabled=True, default_serve=kept)
    rules = tuple(
        {**rule, "serve": kept} if rule["id"] == release.split else rule
        for rule in configuration.rules
    )
    return replace(configuration, enabled=True, rules=rules)
