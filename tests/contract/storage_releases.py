"""What every storage keeps to: healthy versions, rollouts, gates, webhooks and secrets of hooks."""

from dataclasses import replace
from datetime import timedelta

import pytest

from flagd_server.domain.gates import (
    AlertmanagerCheck,
    Approval,
    Deployment,
    GateDefinition,
    GuardCheck,
    MinExposures,
    PrometheusCheck,
    SloCheck,
)
from flagd_server.errors import StorageError
from flagd_server.storage.base import Storage
from flagd_server.storage.release_records import (
    Delivery,
    Gate,
    HealthyVersion,
    HookSecret,
    PendingDeliveries,
    RolloutRecord,
    Webhook,
)
from flagd_server.storage.releases import DELIVERIES_KEPT
from tests.contract.storage_samples import AT, FIRST, PRODUCTION, fill


class ReleaseContract:
    def test_a_version_is_marked_as_healthy_beside_its_content(self, storage: Storage) -> None:
        second = replace(FIRST, version=2)
        mark = HealthyVersion("production", "checkout", 2, AT, "it stood")
        with storage.transaction() as tx:
            fill(tx)
            tx.write_configuration(second)
            tx.mark_healthy(replace(mark, version=1))
            tx.mark_healthy(mark)
            tx.mark_healthy(replace(mark, at=AT + timedelta(hours=1), why="again"))
        healthy = replace(second, healthy_at=AT)
        with storage.read() as reader:
            marks = [mark, replace(mark, version=1)]
            assert reader.healthy_versions("production", "checkout") == marks
            assert reader.healthy_versions("production", "other") == []
            assert reader.configuration("production", "checkout") == healthy
            assert reader.configurations("production") == [healthy]
            assert reader.configuration_version("production", "checkout", 2) == healthy
            assert reader.history("production", "checkout", 1) == [healthy]
        with storage.transaction() as tx:
            tx.withdraw_healthy("production", "checkout", 2)
            tx.withdraw_healthy("production", "checkout", 3)
        with storage.read() as reader:
            assert reader.healthy_versions("production", "checkout") == marks[1:]
            assert reader.configuration("production", "checkout") == second
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.mark_healthy(replace(mark, version=3))  # there is no such version

    def test_webhooks_and_their_deliveries(self, storage: Storage) -> None:
        hook = Webhook(
            "production", "chat", "https://x.example/", "json", ("kill",), True, "s", 1, AT
        )
        other = replace(hook, key="pager", events=())
        first = Delivery("production", "chat", "msg-1", "kill", b"{}", AT, AT)
        with storage.transaction() as tx:
            fill(tx)
            tx.put_webhook(hook)
            tx.put_webhook(replace(hook, version=2, enabled=False))
            tx.put_webhook(other)
            tx.insert_delivery(first)
            tx.insert_delivery(replace(first, message_id="msg-2"))
            tx.insert_delivery(replace(first, webhook="pager", next_at=AT + timedelta(seconds=1)))
        with storage.read() as reader:
            assert reader.webhooks("production") == [replace(hook, version=2, enabled=False), other]
            assert reader.webhook("production", "nobody") is None
            newest, oldest = reader.deliveries("production", "chat", 10)
            assert (newest.message_id, replace(oldest, id=0)) == ("msg-2", first)
            assert reader.due_deliveries(AT) == []
            (paged,) = reader.due_deliveries(AT + timedelta(seconds=1))
            assert paged.webhook == "pager"
            # Those that are enabled.
            assert reader.pending_deliveries() == [PendingDeliveries("production", "pager", 1, 0)]
        done = replace(oldest, state="delivered", attempts=1, outcome="answered 200")
        with storage.transaction() as tx:
            tx.put_webhook(replace(hook, version=3))
            assert tx.due_deliveries(AT) == [oldest]
            tx.update_delivery(done)
            assert tx.due_deliveries(AT) == [newest]
            tx.update_delivery(replace(newest, attempts=3))
            tx.insert_delivery(replace(first, message_id="msg-3"))
            assert tx.pending_deliveries()[0] == PendingDeliveries("production", "chat", 2, 3)
            tx.update_delivery(newest)
            tx.update_delivery(replace(tx.deliveries("production", "chat", 1)[0], state="failed"))
            assert tx.pending_deliveries()[0] == PendingDeliveries("production", "chat", 1, 0)
            assert tx.deliveries("production", "chat", 10)[1:] == [newest, done]
            tx.delete_webhook("production", "chat")
            assert tx.deliveries("production", "chat", 10) == []

    def test_secrets_of_hooks(self, storage: Storage) -> None:
        first = HookSecret("production", "whsec_1", AT, "ops")
        second = replace(first, secret="whsec_2", created_by="dev")
        with storage.transaction() as tx:
            fill(tx)
            assert tx.hook_secret("production") is None
            tx.put_hook_secret(first)
            tx.put_hook_secret(second)
        with storage.transaction() as tx:
            assert tx.hook_secret("production") == second
            assert "whsec" not in repr(second)
            tx.delete_hook_secret("production")
            assert tx.hook_secret("production") is None
            tx.put_hook_secret(first)
            tx.delete_environment("production")
            assert tx.hook_secret("production") is None

    def test_a_webhook_keeps_its_newest_messages(self, storage: Storage) -> None:
        hook = Webhook("production", "chat", "https://x.example/", "json", (), True, "s", 1, AT)
        with storage.transaction() as tx:
            fill(tx)
            tx.put_webhook(hook)
            for n in range(DELIVERIES_KEPT + 2):
                tx.insert_delivery(Delivery("production", "chat", f"m{n}", "kill", b"", AT, AT))
            kept = tx.deliveries("production", "chat", 2 * DELIVERIES_KEPT)
        assert (len(kept), kept[-1].message_id) == (DELIVERIES_KEPT, "m2")

    def test_rollouts(self, storage: Storage) -> None:
        first = RolloutRecord("ro-1", "production", "checkout", True, 1, '{"stage":0}')
        ended = replace(first, is_open=False, version=2, document='{"stage":1}')
        second = replace(first, id="ro-2")
        with storage.transaction() as tx:
            fill(tx)
            tx.insert_rollout(first)
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.insert_rollout(second)  # a flag has one at a time
        with storage.transaction() as tx:
            tx.update_rollout(ended)
            tx.insert_rollout(second)
        with storage.read() as reader:
            assert reader.rollout("ro-1") == ended
            assert reader.rollout("ro-3") is None
            assert reader.rollouts("production", "checkout") == [second, ended]
            assert reader.rollouts("production", "other") == []
            assert reader.open_rollouts() == [second]

    def test_gates_and_their_approvals(self, storage: Storage) -> None:
        approval = Approval("ann", AT, AT + timedelta(hours=1), "fine")
        plain = Gate("production", "canary", GateDefinition(approval=True), 1, AT)
        full = Gate(
            "production",
            "all",
            GateDefinition(
                "everything",
                ("https://shop.example/healthz",),
                SloCheck("shop", 0.5, None),
                (PrometheusCheck("http://p:9090", 'up{a="é"}', "lt", 0.5),),
                AlertmanagerCheck("http://a:9093", ('severity="page"',)),
                GuardCheck(deployment=Deployment("shop", "v2")),
                MinExposures("checkout", 100),
                approval=True,
            ),
            3,
            AT,
            approval,
        )
        elsewhere = replace(plain, environment="staging")
        with storage.transaction() as tx:
            fill(tx)
            tx.insert_environment(replace(PRODUCTION, key="staging"))
            for gate in (plain, full, elsewhere):
                tx.put_gate(gate)
        with storage.read() as reader:
            assert reader.gates("production") == [full, plain]
            assert reader.gate("production", "all") == full
            assert reader.gate("production", "none") is None
        later = replace(approval, by="bob", at=AT + timedelta(minutes=1))
        with storage.transaction() as tx:
            tx.set_gate_approval("production", "canary", approval)
            tx.set_gate_approval("production", "canary", later)
            tx.put_gate(replace(full, version=4, approval=None))
            assert tx.gate("production", "canary") == replace(plain, approval=later)
            assert tx.gate("production", "all") == replace(full, version=4, approval=None)
            tx.set_gate_approval("production", "canary", None)
            assert tx.gate("production", "canary") == plain
            tx.set_gate_approval("production", "canary", approval)
            tx.delete_gate("production", "canary")
            tx.put_gate(plain)
            assert tx.gate("production", "canary") == plain
        with storage.transaction() as tx:
            tx.delete_environment("production")
            assert tx.gates("production") == []
            assert tx.gates("staging") == [elsewhere]
