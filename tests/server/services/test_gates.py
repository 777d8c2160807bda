"""Gates as they are written, approved and deleted."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from flagd_server.domain.faults import Fault
from flagd_server.domain.gates import (
    AlertmanagerCheck,
    GateDefinition,
    GuardCheck,
    MinExposures,
    PrometheusCheck,
    SloCheck,
)
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services.gates import Gates
from flagd_server.services.notices import Topic
from flagd_server.storage.records import AuditEntry
from flagd_server.storage.release_records import Gate
from tests.server.services.admin_world import FLAG, PRODUCTION, AdminWorld

APPROVAL = GateDefinition(approval=True)
HOUR = timedelta(hours=1)


class GateWorld:
    def __init__(self, world: AdminWorld) -> None:
        self.world = world
        self.checked: list[dict[str, str]] = []
        self.faults: list[Fault] = []
        self.changed: list[tuple[str, str]] = []
        world.notices.on(
            Topic.GATE, lambda environment, gate: self.changed.append((environment, gate))
        )
        self.gates = Gates(world.storage, world.publisher, self.check)

    def check(self, urls: Mapping[str, str]) -> list[Fault]:
        self.checked.append(dict(urls))
        return self.faults

    def put(self, definition: GateDefinition = APPROVAL, key: str = "canary") -> Gate:
        return self.gates.put(PRODUCTION, key, definition, actor="ann")

    def approve(self, valid_for: timedelta = HOUR) -> Gate:
        return self.gates.approve(
            PRODUCTION, "canary", reason="fine", valid_for=valid_for, actor="bob"
        )

    def last_audit(self) -> AuditEntry:
        return self.world.audit.list(1).items[0]


@pytest.fixture
def gated(world: AdminWorld) -> GateWorld:
    return GateWorld(world)


def faults(gated: GateWorld, definition: GateDefinition) -> dict[str, str]:
    before = gated.world.state()
    with pytest.raises(InvalidError) as caught:
        gated.put(definition)
    assert gated.world.state() == before
    assert gated.gates.list(PRODUCTION) == []
    return {fault.field: fault.message for fault in caught.value.faults}


def test_a_gate_is_kept_audited_told_and_not_announced(gated: GateWorld) -> None:
    created = gated.put()
    assert (created.version, created.definition, created.approval) == (1, APPROVAL, None)
    assert gated.gates.get(PRODUCTION, "canary") == created
    assert gated.gates.list(PRODUCTION) == [created]
    assert gated.gates.list("staging") == []
    assert gated.world.events() == []
    assert gated.changed == [(PRODUCTION, "canary")]
    entry = gated.last_audit()
    assert (entry.action, entry.target, entry.actor, entry.after_version) == (
        "gate.create",
        "environments/production/gates/canary",
        "ann",
        1,
    )
    assert entry.detail == {"before": None, "after": APPROVAL.to_document()}


def test_the_same_again_changes_nothing_and_keeps_the_approval(gated: GateWorld) -> None:
    gated.put()
    approved = gated.approve()
    before = gated.world.state()
    assert gated.put() == approved
    assert gated.world.state() == before


def test_a_change_takes_the_approval_away(gated: GateWorld) -> None:
    gated.put()
    gated.approve()
    changed = gated.put(GateDefinition(description="another", approval=True))
    assert (changed.version, changed.approval) == (2, None)
    assert gated.gates.get(PRODUCTION, "canary") == changed
    assert gated.last_audit().action == "gate.update"
    assert gated.changed == [(PRODUCTION, "canary")] * 3


def test_a_gate_is_deleted_with_an_audit_entry(gated: GateWorld) -> None:
    gated.put()
    gated.gates.delete(PRODUCTION, "canary", actor="bob")
    assert gated.gates.list(PRODUCTION) == []
    entry = gated.last_audit()
    assert (entry.action, entry.actor, entry.before_version) == ("gate.delete", "bob", 1)
    assert gated.changed == [(PRODUCTION, "canary")] * 2


def test_an_approval_says_who_when_why_and_until(gated: GateWorld) -> None:
    gated.put()
    approval = gated.approve().approval
    now = gated.world.clock.now()
    assert approval is not None
    assert (approval.by, approval.at, approval.expires_at, approval.reason) == (
        "bob",
        now,
        now + HOUR,
        "fine",
    )
    entry = gated.last_audit()
    assert (entry.action, entry.actor, entry.comment) == ("gate.approve", "bob", "fine")
    assert entry.detail == approval.to_document()
    gated.world.clock.forward(60)
    again = gated.approve(valid_for=2 * HOUR).approval
    assert again is not None
    assert again.expires_at == now + timedelta(seconds=60) + 2 * HOUR


def test_an_approval_is_taken_back(gated: GateWorld) -> None:
    gated.put()
    gated.approve()
    taken = gated.gates.withdraw(PRODUCTION, "canary", reason="too early", actor="cat")
    assert taken.approval is None
    assert gated.gates.get(PRODUCTION, "canary").approval is None
    entry = gated.last_audit()
    assert (entry.action, entry.comment) == ("gate.withdraw", "too early")
    before = gated.world.state()
    gated.gates.withdraw(PRODUCTION, "canary", reason="again", actor="cat")
    assert gated.world.state() == before


def test_a_gate_that_asks_for_no_approval_takes_none(gated: GateWorld) -> None:
    gated.put(GateDefinition(health_checks=("https://shop.example/",)))
    with pytest.raises(ConflictError, match="asks for no approval"):
        gated.approve()
    with pytest.raises(ConflictError, match="asks for no approval"):
        gated.gates.withdraw(PRODUCTION, "canary", reason="x", actor="ann")


def test_every_fault_is_named(gated: GateWorld) -> None:
    gated.world.create("old")
    gated.world.flags.update("old", {"archived": True}, expected_version=1, actor="ann")
    gated.faults = [Fault("health_checks[0]", "is private")]
    found = faults(
        gated,
        GateDefinition(
            health_checks=("http://10.0.0.1/",),
            slo=SloCheck("shop", 0.5),
            prometheus=(PrometheusCheck("http://p", "x" * 20_000, "lt", 1),),
            guard=GuardCheck(flags=("none", "old")),
            min_exposures=MinExposures("nowhere", 10),
        ),
    )
    assert found == {
        "health_checks[0]": "is private",
        "prometheus[0]": "expected a URL of at most 16000 ASCII characters, others percent-encoded",
        "guard.flags[0]": "there is no flag 'none'",
        "guard.flags[1]": "there is no flag 'old'",
        "min_exposures.flag": "there is no flag 'nowhere'",
        "slo.service": "service 'shop' is held to nothing here; set its objective first",
    }


def test_a_gate_that_asks_for_nothing_is_refused(gated: GateWorld) -> None:
    assert "asks for nothing" in faults(gated, GateDefinition(description="x"))[""]


def test_every_url_is_checked_and_what_is_there_is_found(gated: GateWorld) -> None:
    gated.world.create()
    gated.world.slos.put(PRODUCTION, "shop", 0.99, actor="ann")
    gated.put(
        GateDefinition(
            health_checks=("https://a/", "https://b/"),
            slo=SloCheck("shop", 0.5),
            prometheus=(PrometheusCheck("http://p", "up", "lt", 1),),
            alertmanager=AlertmanagerCheck("http://am", ('a="b"',)),
            guard=GuardCheck(flags=(FLAG,)),
            min_exposures=MinExposures(FLAG, 10),
        )
    )
    assert gated.checked == [
        {
            "health_checks[0]": "https://a/",
            "health_checks[1]": "https://b/",
            "prometheus[0].url": "http://p",
            "alertmanager.url": "http://am",
        }
    ]


def test_what_is_not_there_is_named(gated: GateWorld) -> None:
    for act in (
        lambda: gated.gates.get(PRODUCTION, "none"),
        lambda: gated.gates.delete(PRODUCTION, "none", actor="ann"),
        lambda: gated.gates.withdraw(PRODUCTION, "none", reason="x", actor="ann"),
    ):
        with pytest.raises(NotFoundError, match="none"):
            act()
    for act in (
        lambda: gated.gates.list("nowhere"),
        lambda: gated.gates.get("nowhere", "none"),
        lambda: gated.gates.put("nowhere", "canary", APPROVAL, actor="ann"),
    ):
        with pytest.raises(NotFoundError, match="nowhere"):
            act()
