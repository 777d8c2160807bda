"""The part of a storage's contract that is about deployments, and what they served first."""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from flagd_server.storage.release_records import Deployment, FirstServed


class DeploymentsReader(Protocol):
    """See `base.Reader`."""

    def deployments(
        self,
        limit: int,
        before: int | None = None,
        *,
        environment: str | None = None,
        service: str | None = None,
    ) -> list[Deployment]:
        """Return deployments with a number below `before`, newest first."""
        ...

    def deployment(self, deployment_id: str) -> Deployment | None: ...
    def deployment_of(self, environment: str, service: str, version: str) -> Deployment | None: ...
    def deployments_of_artefact(self, service: str, version: str) -> list[Deployment]:
        """Return what is known of it in every environment, oldest first."""
        ...

    def first_seen(self, environment: str, service: str) -> dict[str, datetime]:
        """Return by version when each one of the service was first seen; of those that were."""
        ...

    def first_served(self, environment: str, service: str | None = None) -> list[FirstServed]:
        """Return a row for each flag and service, by service and flag."""
        ...


class DeploymentsWriter(Protocol):
    """See `base.Transaction`."""

    def put_deployment(self, deployment: Deployment) -> None:
        """Store it under a new number, or replace what is stored under its id.

        Raises:
            StorageError: this version of the service has another id in the environment.
        """
        ...

    def put_first_served(self, rows: Iterable[FirstServed]) -> None:
        """Store rows; one that is there keeps its `served_at`."""
        ...

    def prune_deployments(self, before: datetime) -> None:
        """Forget versions that nobody registered, seen before that, with no instance left.

        What a service served first is forgotten with its last deployment.
        """
        ...
