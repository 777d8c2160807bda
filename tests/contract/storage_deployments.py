"""What every storage keeps to: deployments, and what they served first."""

from dataclasses import replace
from datetime import timedelta

import pytest

from flagd_server.errors import StorageError
from flagd_server.storage.base import Storage
from flagd_server.storage.release_records import Deployment, FirstServed
from flagd_server.storage.telemetry_records import Instance
from tests.contract.storage_samples import AT, PRODUCTION, fill

SEEN = Deployment("dp-1", "production", "shop", "v1", first_seen_at=AT)
REGISTERED = Deployment(
    id="dp-2",
    environment="production",
    service="shop",
    version="v2",
    image="registry/shop@sha256:" + "a" * 64,
    commit="3f2c1ab",
    url="https://ci/1",
    registered_at=AT,
    registered_by="pipeline",
)
SERVED = FirstServed("production", "shop", "checkout", "v2", AT + timedelta(seconds=2), AT)


class DeploymentContract:
    @pytest.fixture
    def _two(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            fill(tx)
            tx.insert_environment(replace(PRODUCTION, key="staging"))
            tx.put_deployment(SEEN)
            tx.put_deployment(REGISTERED)

    @pytest.mark.usefixtures("_two")
    def test_deployments_are_numbered_and_paged_newest_first(self, storage: Storage) -> None:
        till = Deployment("dp-3", "production", "till", "v1")
        staging = replace(SEEN, id="dp-4", environment="staging")
        with storage.transaction() as tx:
            tx.put_deployment(till)
            tx.put_deployment(staging)
        with storage.read() as reader:
            found = reader.deployments(10)
            numbers = [each.number for each in found]
            assert numbers == sorted(set(numbers), reverse=True)
            expected = [staging, till, REGISTERED, SEEN]
            assert [replace(each, number=0) for each in found] == expected
            assert reader.deployments(2) == found[:2]
            assert reader.deployments(2, before=found[1].number) == found[2:]
            assert reader.deployments(9, environment="production") == found[1:]
            assert reader.deployments(9, environment="production", service="shop") == found[2:]
            assert reader.deployments(9, service="till") == [found[1]]
            assert reader.deployments_of_artefact("shop", "v1") == [found[3], found[0]]

    @pytest.mark.usefixtures("_two")
    def test_a_deployment_is_found_and_replaced_by_its_id(self, storage: Storage) -> None:
        completed = replace(REGISTERED, id="dp-1", version="v1", first_seen_at=AT)
        with storage.transaction() as tx:
            tx.put_deployment(completed)
        with storage.read() as reader:
            found = reader.deployment("dp-1")
            assert found is not None
            assert replace(found, number=0) == completed
            assert reader.deployment_of("production", "shop", "v1") == found
            assert reader.deployment_of("staging", "shop", "v1") is None
            assert reader.deployment("dp-9") is None
            assert reader.first_seen("production", "shop") == {"v1": AT}
            assert reader.first_seen("staging", "shop") == {}

    @pytest.mark.usefixtures("_two")
    def test_a_version_is_deployed_once_in_an_environment(self, storage: Storage) -> None:
        with pytest.raises(StorageError), storage.transaction() as tx:
            tx.put_deployment(replace(SEEN, id="dp-9"))

    @pytest.mark.usefixtures("_two")
    def test_what_a_version_served_first_keeps_the_time_of_the_flag(self, storage: Storage) -> None:
        till = replace(SERVED, service="till", flag="cart")
        older = replace(SERVED, version="v1", version_seen_at=AT, served_at=AT + timedelta(days=1))
        with storage.transaction() as tx:
            tx.put_first_served([SERVED, till])
            tx.put_first_served([older])
        with storage.read() as reader:
            assert reader.first_served("production") == [replace(older, served_at=AT), till]
            assert reader.first_served("production", "till") == [till]
            assert reader.first_served("staging") == []

    @pytest.mark.usefixtures("_two")
    def test_only_what_nobody_registered_and_nobody_runs_is_pruned(self, storage: Storage) -> None:
        running = replace(SEEN, id="dp-5", version="v0")
        gone = replace(SEEN, id="dp-6", service="till")
        lately = replace(SEEN, id="dp-7", version="v3", first_seen_at=AT + timedelta(days=2))
        with storage.transaction() as tx:
            for deployment in (running, gone, lately):
                tx.put_deployment(deployment)
            tx.put_instances([Instance("production", "i-1", 1, "shop", "v0", 0, AT)])
            tx.put_first_served([SERVED, replace(SERVED, service="till")])
            tx.prune_deployments(AT + timedelta(days=1))
        with storage.read() as reader:
            assert {each.id for each in reader.deployments(9)} == {"dp-2", "dp-5", "dp-7"}
            assert reader.first_served("production") == [SERVED]

    @pytest.mark.usefixtures("_two")
    def test_they_go_with_their_environment(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.put_first_served([SERVED])
            tx.delete_environment("production")
            assert tx.deployments(9) == []
            assert tx.first_served("production") == []
