"""What every storage keeps to. A storage's test inherits the class and gives it the fixtures."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from flagd_server.domain.audit_chain import GENESIS, Head
from flagd_server.domain.objectives import LatencyObjective, PrometheusSource
from flagd_server.storage.base import Storage
from flagd_server.storage.records import AuditEntry, Environment, EvidenceNote, Segment, Slo
from flagd_server.storage.release_records import (
    HealthyVersion,
)
from flagd_server.storage.telemetry_records import Instance
from tests.contract.storage_deployments import DeploymentContract
from tests.contract.storage_identity import IdentityContract
from tests.contract.storage_releases import ReleaseContract
from tests.contract.storage_replicas import ReplicasContract
from tests.contract.storage_samples import (
    AT,
    CONDITION,
    CONFIGURATION,
    COUNT,
    FIRST,
    FLAG,
    KIND,
    PRODUCTION,
    SPLIT,
    fill,
)
from tests.contract.storage_telemetry import TelemetryContract
from tests.contract.storage_transactions import TransactionContract


class StorageContract(
    TransactionContract,
    TelemetryContract,
    DeploymentContract,
    ReleaseContract,
    ReplicasContract,
    IdentityContract,
):
    """Inherit it, override nothing but the fixtures."""

    @pytest.fixture
    def reopen(self) -> Callable[[], Storage]:
        """Return what opens the same database anew, as another process would."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, reopen: Callable[[], Storage]) -> Iterator[Storage]:
        storage = reopen()
        yield storage
        storage.close()

    def test_environments(self, storage: Storage) -> None:
        other = Environment("a", "A", b"\0" * 16, 1, AT)
        with storage.transaction() as tx:
            tx.insert_environment(PRODUCTION)
            tx.insert_environment(other)
            tx.rename_environment("a", "Ä")
            tx.set_sequence("a", 1_763_925_277_123)
        with storage.read() as reader:
            changed = replace(other, name="Ä", sequence=1_763_925_277_123)
            assert reader.environments() == [changed, PRODUCTION]
            assert reader.environment("a") == changed
            assert reader.environment("b") is None

    def test_flags_are_found_by_tag_and_state(self, storage: Storage) -> None:
        archived = replace(FLAG, key="old", tags=("we",), archived=True, expires_at=None)
        with storage.transaction() as tx:
            tx.insert_flag(replace(FLAG, version=0, owner="nobody"))
            tx.insert_flag(archived)
            tx.update_flag(FLAG)
        with storage.read() as reader:
            assert reader.flags() == [FLAG, archived]
            assert reader.flags(archived=False) == [FLAG]
            assert reader.flags(archived=True) == [archived]
            assert reader.flags(tag="web") == [FLAG]
            assert reader.flags(tag="we", archived=False) == []
            assert reader.flag("old") == archived
            assert reader.flag("new") is None

    def test_values_come_back_as_they_were_down_to_type_and_order(self, storage: Storage) -> None:
        variants = {"z": 1, "a": 1.0, "m": {"deep": [None, True, "\u2028 \U0001f600", 2**53 - 1]}}
        flag = replace(FLAG, type="object", variants=variants)
        with storage.transaction() as tx:
            tx.insert_flag(flag)
        with storage.read() as reader:
            found = reader.flag("checkout")
        assert found is not None
        assert repr(found.variants) == repr(variants)

    def test_every_version_is_kept_and_the_newest_is_current(self, storage: Storage) -> None:
        second = replace(
            FIRST,
            version=2,
            configuration=replace(CONFIGURATION, kill=None, default_serve=SPLIT, rules=()),
            action="restore",
        )
        with storage.transaction() as tx:
            fill(tx)
            tx.write_configuration(second)
        with storage.read() as reader:
            assert reader.configuration("production", "checkout") == second
            assert reader.configurations_of("checkout") == [second]
            assert reader.configuration_version("production", "checkout", 1) == FIRST
            assert reader.configuration_version("production", "checkout", 3) is None
            assert reader.history("production", "checkout", 10) == [second, FIRST]
            assert reader.history("production", "checkout", 1) == [second]
            assert reader.history("production", "checkout", 10, before=2) == [FIRST]
            weights = {"on": 25_000, "off": 75_000}
            assert reader.split_weights("production", "checkout", 1) == {"swiss": weights}
            assert reader.split_weights("production", "checkout", 2) == {"default": weights}
            assert reader.split_weights("production", "checkout", 3) is None

    def test_kills_and_rollbacks_of_one_actor_are_counted(self, storage: Storage) -> None:
        made = [
            ("guard", "kill", 0),
            ("guard", "rollback", 1),
            ("ann", "kill", 1),
            ("guard", "update", 1),
        ]
        with storage.transaction() as tx:
            fill(tx)
            for number, (actor, action, minute) in enumerate(made, start=2):
                at = AT + timedelta(minutes=minute)
                tx.write_configuration(
                    replace(FIRST, version=number, at=at, actor=actor, action=action)
                )
        with storage.read() as reader:
            assert reader.interventions_since("production", "guard", AT) == 2
            soon = AT + timedelta(seconds=1)
            assert reader.interventions_since("production", "guard", soon) == 1
            assert reader.interventions_since("staging", "guard", AT) == 0

    def test_a_deleted_environment_takes_all_but_the_audit_with_it(self, storage: Storage) -> None:
        staging = replace(PRODUCTION, key="staging")
        in_staging = replace(FIRST, environment="staging")
        with storage.transaction() as tx:
            fill(tx)
            tx.insert_environment(staging)
            tx.write_configuration(in_staging)
            tx.mark_healthy(HealthyVersion("production", "checkout", 1, AT, ""))
            tx.put_segment(Segment("production", "beta", CONDITION, "", 1, AT))
            tx.put_slo(Slo("production", "shop", 0.999, 1, AT))
            tx.append_audit(AuditEntry(AT, "ann", "a", "b", environment="production"))
            tx.put_instances([Instance("production", "i-1", 1, "", "", 0, AT)])
            tx.add_counts([COUNT])
            tx.add_error_kinds([KIND])
            life = tx.insert_guard_life("production", "checkout", "{}")
            event = tx.append_guard_event(life, 1.0, "{}", has_units=True)
            tx.save_guard_state(life, event, "{}")
            tx.insert_evidence("ev-1", "production", "checkout", AT, "{}")
            tx.insert_evidence_note(EvidenceNote("ev-1", "told", 0, AT, "{}"))
        with storage.transaction() as tx:
            tx.delete_environment("production")
        with storage.read() as reader:
            assert reader.environments() == [staging]
            assert reader.configurations_of("checkout") == [in_staging]
            assert reader.history("production", "checkout", 10) == []
            assert reader.healthy_versions("production", "checkout") == []
            assert reader.segments("production") == []
            assert reader.slos("production") == []
            assert reader.instances("production") == []
            assert reader.counts("production", "checkout", 0) == []
            assert reader.error_kinds("production", "checkout") == []
            assert reader.running_lives() == []
            assert list(reader.guard_events_after(life, 0)) == []
            assert reader.load_guard_state(life) is None
            assert reader.evidence("ev-1") is None
            assert reader.evidence_notes("ev-1") == []
            assert len(reader.audit(10)) == 1

    def test_segments(self, storage: Storage) -> None:
        beta = Segment("production", "beta", CONDITION, "people", 1, AT)
        alpha = replace(beta, key="alpha")
        with storage.transaction() as tx:
            fill(tx)
            tx.put_segment(beta)
            tx.put_segment(alpha)
            tx.put_segment(replace(beta, version=2, description=""))
        with storage.read() as reader:
            beta = replace(beta, version=2, description="")
            assert reader.segments("production") == [alpha, beta]
            assert reader.segments("staging") == []
            assert reader.segment("production", "beta") == beta
        with storage.transaction() as tx:
            tx.delete_segment("production", "beta")
            assert tx.segment("production", "beta") is None

    def test_slos(self, storage: Storage) -> None:
        shop = Slo("production", "shop", 0.99, 1, AT)
        elsewhere = replace(shop, environment="staging")
        api = replace(shop, service="Zürich api", availability=0.9995)
        with storage.transaction() as tx:
            fill(tx)
            tx.insert_environment(replace(PRODUCTION, key="staging"))
            for slo in (shop, elsewhere, api):
                tx.put_slo(slo)
            tx.put_slo(replace(shop, version=2, availability=0.999))
        with storage.read() as reader:
            assert reader.slos("production") == [
                api,
                replace(shop, version=2, availability=0.999),
            ]
            assert reader.slos("staging") == [elsewhere]
            assert reader.slo("production", "Zürich api") == api
            assert reader.slo("production", "till") is None
        with storage.transaction() as tx:
            tx.delete_slo("production", "shop")
            assert tx.slo("production", "shop") is None
            assert tx.slo("staging", "shop") == elsewhere

    def test_an_objective_is_kept_whole(self, storage: Storage) -> None:
        slo = Slo(
            "production",
            "shop",
            0.99,
            1,
            AT,
            LatencyObjective(0.25, 0.95),
            7,
            PrometheusSource("http://p:9090", "failing[$window]", None),
        )
        with storage.transaction() as tx:
            fill(tx)
            tx.put_slo(slo)
        with storage.read() as reader:
            assert reader.slo("production", "shop") == slo
        with storage.transaction() as tx:
            tx.put_slo(replace(slo, latency=None, source=None))
            assert tx.slo("production", "shop") == replace(slo, latency=None, source=None)

    def test_the_audit_is_a_chain_that_grows_at_its_end(self, storage: Storage) -> None:
        with storage.read() as reader:
            assert reader.audit_head() == Head(0, GENESIS)
        detail = {"share": 0.25, "n": 10**15, "tags": ("a", "ä"), "none": None}
        with storage.transaction() as tx:
            tx.append_audit(AuditEntry(AT, "ann", "a", "b", environment="x", detail=detail))
            tx.append_audit(AuditEntry(AT, "bob", "c", "d", before_version=1, comment="%"))
            assert tx.audit_head().id == 2
        with suppress(RuntimeError), storage.transaction() as tx:
            tx.append_audit(AuditEntry(AT, "eve", "e", "f"))
            raise RuntimeError
        with storage.transaction() as tx:
            tx.append_audit(AuditEntry(AT, "ann", "a", "b"))
        with storage.read() as reader:
            links = list(reader.audit_chain())
            assert [each.id for each in links] == [1, 2, 3]
            assert links[0].content["detail"] == {**detail, "tags": ["a", "ä"]}
            assert [each.previous_hash for each in links] == [
                GENESIS,
                links[0].hash,
                links[1].hash,
            ]
            assert all(each.is_whole for each in links)
            assert reader.audit_head() == Head(3, links[2].hash)

    def test_the_audit_is_paged_and_filtered_newest_first(self, storage: Storage) -> None:
        entries = [
            AuditEntry(
                at=AT + timedelta(seconds=n),
                actor="ann",
                action="configuration.update",
                target=f"t/{n}",
                environment="production" if n % 2 else None,
                flag="checkout" if n % 3 == 0 else None,
                before_version=n,
                after_version=n + 1,
                comment="c",
                detail={"n": [n]},
            )
            for n in range(12)
        ]
        with storage.transaction() as tx:
            for entry in entries:
                tx.append_audit(entry)
        with storage.read() as reader:
            found = reader.audit(100)
            assert [replace(entry, id=0) for entry in found] == entries[::-1]
            assert [entry.id for entry in found] == sorted({entry.id for entry in found})[::-1]
            assert reader.audit(3) == found[:3]
            assert reader.audit(3, before=found[2].id) == found[3:6]
            assert reader.audit(9, flag="checkout") == [e for e in found if e.flag == "checkout"]
            assert reader.audit(9, action="configuration.update") == found[:9]
            assert reader.audit(9, action="configuration") == []
            assert reader.audit(9, flag="checkout", environment="production") == [
                e for e in found if e.flag == "checkout" and e.environment == "production"
            ]
