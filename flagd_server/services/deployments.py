"""Deployments: which version of a service runs where, and the switch for all that it brought."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from flagd_server.domain.configuration import KillSource
from flagd_server.domain.deployments import check_image, digest_of
from flagd_server.domain.faults import Fault
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services.kills import FlagKilled, Kills
from flagd_server.services.lookups import require_environment
from flagd_server.services.paging import Page, page
from flagd_server.services.publishing import Publisher
from flagd_server.services.releases import new_deployment_id
from flagd_server.storage.base import Reader, Storage, Transaction
from flagd_server.storage.release_records import Deployment, FirstServed


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """What tooling says of an artefact that it brings into an environment.

    Attributes:
        image: `name@sha256:…`.
    """

    environment: str
    service: str
    version: str
    image: str
    commit: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Registered:
    """Attributes:
    is_new: it was not known before, not even from telemetry.
    """

    deployment: Deployment
    is_new: bool


class Deployments:
    """Registers, lists and kills."""

    def __init__(self, storage: Storage, publisher: Publisher, kills: Kills) -> None:
        self._storage = storage
        self._publisher = publisher
        self._kills = kills

    def register(self, new: NewDeployment, *, actor: str) -> Registered:
        """Register it, or complete what telemetry told of it. The same again changes nothing.

        Raises:
            InvalidError: the image is not named by its digest, or there is no such environment.
            ConflictError: the version is registered with another digest or commit, wherever that
                was: what is promoted from one environment to the next is the same artefact.
        """
        with self._storage.transaction() as tx:
            self._check(tx, new)
            before = tx.deployment_of(new.environment, new.service, new.version)
            deployment = before or Deployment(
                new_deployment_id(), new.environment, new.service, new.version
            )
            if deployment.registered_at is None:
                deployment = replace(
                    deployment,
                    image=new.image,
                    registered_at=self._publisher.clock.now(),
                    registered_by=actor,
                )
            # Where it was promoted to by hand before, the source may be named only now.
            deployment = replace(
                deployment,
                commit=deployment.commit or new.commit,
                url=new.url or deployment.url,
            )
            if deployment != before:
                tx.put_deployment(deployment)
                self._record(tx, deployment, actor)
            stored = tx.deployment(deployment.id)
            assert stored is not None, "written above, or found"
            return Registered(stored, is_new=before is None)

    def environment_of(self, deployment_id: str) -> str | None:
        """Return where the deployment runs; None where there is no such deployment."""
        with self._storage.read() as reader:
            found = reader.deployment(deployment_id)
        return None if found is None else found.environment

    def list(
        self,
        *,
        environment: str | None = None,
        service: str | None = None,
        limit: int,
        before: int | None = None,
    ) -> Page[Deployment]:
        """Return one page, newest first.

        Raises:
            NotFoundError: there is no such environment.
        """
        with self._storage.read() as reader:
            if environment is not None:
                require_environment(reader, environment)
            return page(
                lambda count: reader.deployments(
                    count, before, environment=environment, service=service
                ),
                limit,
                lambda deployment: deployment.number,
            )

    def kill(
        self, deployment_id: str, *, reason: str, actor: str
    ) -> tuple[str, Sequence[FlagKilled]]:
        """Kill every flag that the deployment brought, in one transaction.

        Returns:
            its environment, and what became of each flag, by key.

        Raises:
            NotFoundError: there is no such deployment.
        """
        with self._storage.transaction() as tx:
            deployment = require_deployment(tx, deployment_id)
            killed = self._kill_in(tx, deployment, KillSource.DEPLOYMENT, reason, actor, False)
            return deployment.environment, killed

    def kill_version(
        self,
        environment: str,
        service: str,
        version: str,
        *,
        source: KillSource = KillSource.DEPLOYMENT,
        reason: str,
        actor: str,
        is_dry_run: bool = False,
    ) -> Sequence[FlagKilled]:
        """Do as `kill` for the deployment of a version, which is named as people name it.

        Args:
            is_dry_run: only say what would be killed.

        Raises:
            NotFoundError: there is no such environment or deployment.
        """
        with self._storage.transaction() as tx:
            deployment = require_deployment_of(tx, environment, service, version)
            return self._kill_in(tx, deployment, source, reason, actor, is_dry_run)

    def kill_tag(
        self,
        environment: str,
        tag: str,
        *,
        source: KillSource = KillSource.OPERATOR,
        reason: str,
        actor: str,
        is_dry_run: bool = False,
    ) -> Sequence[FlagKilled]:
        """Kill every flag that carries the tag, in one transaction; by flag.

        Raises:
            NotFoundError: there is no such environment.
        """
        with self._storage.transaction() as tx:
            require_environment(tx, environment)
            flags = [flag.key for flag in tx.flags(tag=tag, archived=False)]
            return self._kills.kill_each_in(
                tx,
                environment,
                flags,
                source=source,
                reason=reason,
                actor=actor,
                is_dry_run=is_dry_run,
            )

    def _kill_in(
        self,
        tx: Transaction,
        deployment: Deployment,
        source: KillSource,
        reason: str,
        actor: str,
        is_dry_run: bool,
    ) -> Sequence[FlagKilled]:
        return self._kills.kill_each_in(
            tx,
            deployment.environment,
            brought_by(tx.first_served(deployment.environment), deployment),
            source=source,
            reason=reason,
            actor=actor,
            is_dry_run=is_dry_run,
        )

    def _check(self, tx: Transaction, new: NewDeployment) -> None:
        faults = []
        if tx.environment(new.environment) is None:
            faults.append(Fault("environment", f"there is no environment {new.environment!r}"))
        fault = check_image(new.image)
        if fault is not None:
            faults.append(Fault("image", fault))
        if faults:
            raise InvalidError(faults)
        for known in tx.deployments_of_artefact(new.service, new.version):
            if known.image is not None and digest_of(known.image) != digest_of(new.image):
                _refuse(known, f"the image {digest_of(known.image)}")
            if known.commit is not None and new.commit not in (None, known.commit):
                _refuse(known, f"the commit {known.commit}")

    def _record(self, tx: Transaction, deployment: Deployment, actor: str) -> None:
        self._publisher.record(
            tx,
            actor=actor,
            action="deployment.register",
            target=f"deployments/{deployment.id}",
            environment=deployment.environment,
            detail={
                "service": deployment.service,
                "version": deployment.version,
                "image": deployment.image,
                "commit": deployment.commit,
                "url": deployment.url,
            },
        )


def brought_by(rows: Iterable[FirstServed], deployment: Deployment) -> list[str]:
    """Return the flags that the deployment brought into its environment, by key.

    It is the version of its service that served them first, and no other service had served them
    before it was there: what a flag does elsewhere is not this version's to end.

    Args:
        rows: all of the environment.
    """
    served = list(rows)
    own = {
        row.flag: row.version_seen_at
        for row in served
        if (row.service, row.version) == (deployment.service, deployment.version)
    }
    others = {
        row.flag
        for row in served
        if row.flag in own and row.service != deployment.service and row.served_at < own[row.flag]
    }
    return sorted(own.keys() - others)


def require_deployment(reader: Reader, deployment_id: str) -> Deployment:
    """Return the deployment, or raise NotFoundError."""
    deployment = reader.deployment(deployment_id)
    if deployment is None:
        raise NotFoundError("deployment", deployment_id)
    return deployment


def require_deployment_of(
    reader: Reader, environment: str, service: str, version: str
) -> Deployment:
    """Return the deployment of a version, or raise NotFoundError."""
    deployment = reader.deployment_of(environment, service, version)
    if deployment is None:
        require_environment(reader, environment)
        raise NotFoundError("deployment", f"{service} {version} in {environment}")
    return deployment


def _refuse(known: Deployment, registered: str) -> NoReturn:
    raise ConflictError(
        f"version {known.version!r} of {known.service!r} is registered in {known.environment!r}"
        f" with {registered}; an artefact never changes: give the other one a version of its own"
    )
