"""Provider hooks and tracking: sections 2.3, 2.7 and 6 of OpenFeature's specification."""

from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.track import TrackingEventDetails

from flagd_sdk.integrations.openfeature import FlagReleaseProvider, TrackedEvent
from tests.sdk.fakes import flag
from tests.sdk.integrations.openfeature_world import World, world_of

ANN = {"targetingKey": "ann", "country": "NL"}


@pytest.fixture
def world() -> Iterator[World]:
    with world_of(flag("a", on=100_000), flag("split", on=50_000)) as world:
        yield world


class Diary(Hook):
    """Notes each stage, with what it saw there."""

    def __init__(self, adds: EvaluationContext | None = None) -> None:
        self.stages: list[tuple[str, Any]] = []
        self.adds = adds

    def before(self, hook_context: HookContext, hints: HookHints) -> EvaluationContext | None:
        assert hook_context.provider_metadata is not None
        self.stages.append(("before", hook_context.provider_metadata.name))
        return self.adds

    def after(
        self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: HookHints
    ) -> None:
        self.stages.append(("after", (details.variant, details.reason)))

    def error(self, hook_context: HookContext, exception: Exception, hints: HookHints) -> None:
        self.stages.append(("error", str(exception)))

    def finally_after(
        self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: HookHints
    ) -> None:
        self.stages.append(("finally", details.error_code))


# --- 2.3 provider hooks -------------------------------------------------------------------------


def test_2_3_1_the_providers_hooks_run_in_each_stage(world: World) -> None:
    diary = Diary()
    client = world.use(FlagReleaseProvider(world.flags, hooks=[diary]))
    assert client.get_boolean_value("a", False) is True
    assert diary.stages == [
        ("before", "flagd-release"),
        ("after", ("on", "STATIC")),
        ("finally", None),
    ]


def test_2_3_1_and_of_an_evaluation_that_fails(world: World) -> None:
    diary = Diary()
    client = world.use(FlagReleaseProvider(world.flags, hooks=[diary]))
    assert client.get_boolean_value("missing", True) is True
    assert diary.stages == [
        ("before", "flagd-release"),
        ("error", "there is no flag 'missing'"),
        ("finally", "FLAG_NOT_FOUND"),
    ]


def test_2_3_1_what_a_hook_adds_to_the_context_is_evaluated_with(world: World) -> None:
    hook = Diary(adds=EvaluationContext("ann", {}))
    client = world.use(FlagReleaseProvider(world.flags, hooks=[hook]))
    details = client.get_boolean_details("split", False)
    assert details.reason == "SPLIT"
    assert details.variant == world.flags.flag_set.resolve("split", ANN).variant


def test_hooks_of_the_application_see_the_same_details(world: World) -> None:
    diary = Diary()
    api.add_hooks([diary])
    client = world.use(FlagReleaseProvider(world.flags))
    client.get_boolean_value("a", False)
    assert ("after", ("on", "STATIC")) in diary.stages
    assert client.provider.get_provider_hooks() == []


# --- 2.7 and 6 tracking -------------------------------------------------------------------------


def tracked(world: World, **context: Any) -> TrackedEvent:
    events: list[TrackedEvent] = []
    client = world.use(FlagReleaseProvider(world.flags, on_track=events.append))
    with world.flags.scope(ANN):
        client.get_boolean_value("split", False)
        client.track(
            "bought",
            EvaluationContext(context.pop("targeting_key", None), context),
            TrackingEventDetails(99.5, {"currency": "EUR"}),
        )
    [event] = events
    return event


def test_2_7_1_an_event_is_handed_on_with_the_variants_of_its_unit(world: World) -> None:
    event = tracked(world, cart=3)
    variant = world.flags.flag_set.resolve("split", ANN).variant
    assert event == TrackedEvent(
        "bought", {**ANN, "cart": 3}, 99.5, {"currency": "EUR"}, {"split": variant}
    )


def test_2_7_1_another_users_event_has_none_of_them(world: World) -> None:
    event = tracked(world, targeting_key="ben")
    assert event.context == {"targetingKey": "ben"}
    assert event.variants == {}


def test_6_1_3_the_context_is_merged_from_all_levels(world: World) -> None:
    api.set_evaluation_context(EvaluationContext(None, {"region": "eu", "cart": 1}))
    event = tracked(world, cart=3)
    assert event.context == {**ANN, "region": "eu", "cart": 3}


def test_6_2_1_details_are_optional(world: World) -> None:
    events: list[TrackedEvent] = []
    client = world.use(FlagReleaseProvider(world.flags, on_track=events.append))
    client.track("seen")
    assert events == [TrackedEvent("seen", {}, None, {}, {})]


def test_6_1_4_without_a_receiver_tracking_does_nothing(world: World) -> None:
    client = world.use(FlagReleaseProvider(world.flags))
    client.track("seen")
    counted = world.counted()
    assert (counted["cells"], counted["unscoped"]) == ([], {})


def test_a_receiver_that_raises_is_logged_once_and_harms_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_event: TrackedEvent) -> None:
        raise RuntimeError("the analytics are down")

    client = world.use(FlagReleaseProvider(world.flags, on_track=broken))
    for _ in range(3):
        client.track("seen")
    assert len(caplog.records) == 1
    assert "the analytics are down" in caplog.text
