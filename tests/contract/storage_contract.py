"""What every storage keeps to. A storage's test inherits the class and gives it the fixtures."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from flagd_server.errors import StorageError
from flagd_server.storage.base import Storage
from flagd_server.storage.records import AuditEntry, Environment, EvidenceNote, Segment, Slo
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
    TOKEN,
    fill,
)
from tests.contract.storage_telemetry import TelemetryContract
from tests.contract.storage_transactions import TransactionContract


class StorageContract(TransactionContract, TelemetryContract):
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

    def test_a_deleted_environment_takes_all_but_the_audit_with_it(self, storage: Storage) -> None:
        staging = replace(PRODUCTION, key="staging")
        in_staging = replace(FIRST, environment="staging")
        with storage.transaction() as tx:
            fill(tx)
            tx.insert_environment(staging)
            tx.write_configuration(in_staging)
            tx.put_segment(Segment("production", "beta", CONDITION, "", 1, AT))
            tx.put_slo(Slo("production", "shop", 0.999, 1, AT))
            tx.append_audit(AuditEntry(AT, "ann", "a", "b", environment="production"))
            tx.upsert_instance("production", "i-1", 1, "", "", 0, AT)
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

    def test_tokens_and_their_generation(
        self, storage: Storage, reopen: Callable[[], Storage]
    ) -> None:
        admin = replace(TOKEN, id="tok-0", environment=None, digest=b"\x02" * 32)
        generations = [storage.token_generation()]
        with storage.transaction() as tx:
            tx.insert_token(TOKEN)
            tx.insert_token(admin)
        generations.append(storage.token_generation())
        other_process = reopen()
        with other_process.transaction() as tx:
            tx.revoke_token("tok-1", AT)
        other_process.close()
        generations.append(storage.token_generation())
        assert generations == sorted(set(generations))
        with storage.read() as reader:
            assert reader.tokens() == [replace(TOKEN, revoked_at=AT), admin]
            assert reader.token("tok-0") == admin
            assert reader.token("tok-2") is None
        assert storage.token_generation() == generations[-1]

    def test_two_tokens_never_share_a_digest(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.insert_token(TOKEN)
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.insert_token(replace(TOKEN, id="tok-2"))
