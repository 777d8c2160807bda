"""Which evaluations through OpenFeature are exposures of the open scope's unit."""

import asyncio
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.transaction_context import ContextVarsTransactionContextPropagator

from flagd_sdk.core.bucketing import bucket
from flagd_sdk.integrations.openfeature import FlagReleaseProvider
from tests.sdk.fakes import flag
from tests.sdk.integrations.openfeature_world import World, world_of

ANN = {"targetingKey": "ann", "country": "NL"}


def by_account() -> dict[str, Any]:
    document = flag("by-account", on=50_000)
    document["default_serve"]["split"]["bucket_by"] = "account"
    return document


def for_country() -> dict[str, Any]:
    document = flag("for-country", on=0)
    condition = {"attribute": "country", "op": "in", "values": ["NL"]}
    document["rules"] = [{"id": "nl", "condition": condition, "serve": {"variant": "on"}}]
    return document


def mixed() -> dict[str, Any]:
    """Return a flag that splits by account in one country, and by user elsewhere."""
    split = by_account()["default_serve"]
    rules = [{**for_country()["rules"][0], "serve": split}]
    return {**flag("mixed", on=50_000), "rules": rules}


@pytest.fixture
def world() -> Iterator[World]:
    flags = (flag("split", on=50_000), by_account(), for_country(), mixed())
    with world_of(*flags) as world:
        yield world


@pytest.fixture
def client(world: World) -> OpenFeatureClient:
    return world.use(FlagReleaseProvider(world.flags))


def asked(client: OpenFeatureClient, key: str, who: str | None = None, **attributes: Any) -> bool:
    return client.get_boolean_value(key, False, EvaluationContext(who, attributes))


def variant_of(world: World, key: str, **context: Any) -> str:
    variant = world.flags.flag_set.resolve(key, context).variant
    assert variant is not None
    return variant


def test_an_evaluation_in_a_scope_is_an_exposure_of_its_unit(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope(ANN):
        value = client.get_boolean_value("split", False)
    assert value is world.flags.flag_set.resolve("split", ANN).value
    assert world.cells() == [
        ("split", "default", variant_of(world, "split", targetingKey="ann"), 1, 0)
    ]


def test_a_failure_of_the_scope_is_counted_with_the_exposure(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope(ANN):
        client.get_boolean_value("split", False)
        world.flags.fail(RuntimeError("the new way is broken"))
    [(*_, exposures, errors)] = world.cells()
    assert (exposures, errors) == (1, 1)


async def _ask_async(client: OpenFeatureClient) -> None:
    await client.get_boolean_value_async("split", False)


def test_the_asynchronous_variants_count_the_same(world: World, client: OpenFeatureClient) -> None:
    with world.flags.scope(ANN):
        asyncio.run(_ask_async(client))
    assert len(world.cells()) == 1


def test_the_same_unit_given_again_is_the_same_unit(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope(ANN):
        asked(client, "split", "ann")
        asked(client, "split", "ann", cart=3)
        client.get_boolean_value("split", False)
        world.flags.is_enabled("split")
    assert [cell[3] for cell in world.cells()] == [1]


def test_what_the_context_lacks_is_taken_from_the_scope(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope(ANN):
        assert asked(client, "for-country", "ann") is True
        assert asked(client, "for-country") is True
    assert asked(client, "for-country", "ann") is False


def test_what_the_context_has_goes_before_the_scope(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope(ANN):
        assert asked(client, "for-country", country="BE") is False


def test_a_batch_over_other_users_stays_out_of_the_scope(
    world: World, client: OpenFeatureClient
) -> None:
    users = [f"user-{number}" for number in range(20)]
    with world.flags.scope(ANN):
        values = [asked(client, "split", user) for user in users]
    expected = [world.flags.flag_set.resolve("split", {"targetingKey": u}).value for u in users]
    assert values == expected
    counted = world.counted()
    assert counted["cells"] == []
    assert counted["unscoped"] == {"split": 20}


def test_nor_is_another_user_of_the_same_account_an_exposure(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope({**ANN, "account": "acme"}):
        asked(client, "by-account", "ben", account="acme")
        asked(client, "for-country", "ben")
    counted = world.counted()
    assert counted["cells"] == []
    assert counted["unscoped"] == {"by-account": 1, "for-country": 1}


def test_nothing_that_is_known_of_the_scopes_user_is_said_of_another(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope(ANN):
        assert asked(client, "for-country", "ben") is False


def test_an_inner_scope_for_each_user_of_a_batch_counts_them_all(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope(ANN):
        for number in range(20):
            with world.flags.scope({"targetingKey": f"user-{number}"}):
                asked(client, "split", f"user-{number}")
    assert sum(cell[3] for cell in world.cells()) == 20


def test_a_split_by_another_attribute_is_an_exposure_where_the_scope_has_that_unit(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope({**ANN, "account": "acme"}):
        asked(client, "by-account", "ann", account="acme")
    [(key, split, variant, exposures, _)] = world.cells()
    assert (key, split, exposures) == ("by-account", "default", 1)
    assert variant == variant_of(world, "by-account", account="acme")


@pytest.mark.parametrize("scope", [ANN, {**ANN, "account": "other"}])
def test_and_is_none_where_the_scope_would_be_reported_under_another_unit(
    world: World, client: OpenFeatureClient, scope: dict[str, str]
) -> None:
    with world.flags.scope(scope):
        asked(client, "by-account", "ann", account="acme")
    counted = world.counted()
    assert counted["cells"] == []
    assert counted["unscoped"] == {"by-account": 1}


def contexts() -> list[dict[str, str]]:
    names = ("targetingKey", "account", "country")
    values = product((None, "ann", "ben"), (None, "acme", "other"), (None, "NL", "BE"))
    return [{n: v for n, v in zip(names, each, strict=True) if v is not None} for each in values]


def test_no_unit_is_ever_counted_on_anothers_side(world: World, client: OpenFeatureClient) -> None:
    """Whatever the two contexts, a split's exposure is of the variant of the unit reported."""
    exposures = 0
    for own, brought in product(contexts(), contexts()):
        with world.flags.scope(own) as scope:
            for key in ("split", "by-account", "mixed"):
                asked(client, key, brought.get("targetingKey"), **brought)
            for resolution in scope.served.values():
                assert resolution.bucket_by is not None
                salt = "by-account" if resolution.bucket_by == "account" else resolution.flag
                place = bucket(salt, own[resolution.bucket_by])
                assert resolution.variant == ("on" if place < 50_000 else "off")
                exposures += 1
    assert exposures > 500


def test_a_scope_without_a_unit_takes_none_from_a_context(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope({"country": "NL"}):
        asked(client, "split", "ann")
    assert world.counted()["cells"] == []


def test_the_first_evaluation_is_the_exposure_whatever_comes_later(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope(ANN):
        assert asked(client, "for-country") is True
        assert asked(client, "for-country", country="BE") is False
        assert world.flags.is_enabled("for-country") is True
    counted = world.counted()
    assert [(c["variant"], c["exposures"]) for c in counted["cells"]] == [("on", 1)]
    assert counted["unscoped"] == {"for-country": 1}


def test_what_ends_in_the_callers_default_is_no_exposure(
    world: World, client: OpenFeatureClient
) -> None:
    with world.flags.scope({"country": "NL"}):
        assert client.get_boolean_details("split", True).error_code == "TARGETING_KEY_MISSING"
        assert client.get_string_details("split", "x").error_code == "TYPE_MISMATCH"
        assert client.get_boolean_details("missing", True).error_code == "FLAG_NOT_FOUND"
    counted = world.counted()
    assert (counted["cells"], counted["unscoped"]) == ([], {})


def test_outside_a_scope_it_counts_as_unscoped(world: World, client: OpenFeatureClient) -> None:
    asked(client, "split", "ann")
    counted = world.counted()
    assert (counted["cells"], counted["unscoped"]) == ([], {"split": 1})


def test_openfeatures_own_transaction_context_works_as_well(
    world: World, client: OpenFeatureClient
) -> None:
    api.set_transaction_context_propagator(ContextVarsTransactionContextPropagator())
    api.set_transaction_context(EvaluationContext("ann", {"country": "NL"}))
    api.set_evaluation_context(EvaluationContext(None, {"region": "eu"}))
    try:
        with world.flags.scope({"targetingKey": "ann"}):
            assert client.get_boolean_value("for-country", False) is True
    finally:
        api.set_transaction_context(EvaluationContext())
    assert [cell[3] for cell in world.cells()] == [1]


def test_a_scope_sees_one_flag_set_throughout(world: World, client: OpenFeatureClient) -> None:
    killed = {"sequence": 6, "key": "for-country", "flag": flag("for-country", killed=True)}
    with world.flags.scope(ANN):
        assert world.state.apply_flag(killed)
        assert asked(client, "for-country") is True
    assert asked(client, "for-country", country="NL") is False
