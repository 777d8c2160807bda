"""Gates: what has to hold before a release goes on, in one environment.

Applications never see them, so a change is written and audited, and announced to those who judge.
"""

from datetime import timedelta

from flagd_server.domain.faults import Fault
from flagd_server.domain.gates import Approval, GateDefinition
from flagd_server.domain.targets import parse_target
from flagd_server.errors import ConflictError, InvalidError, NotFoundError
from flagd_server.services.lookups import require_environment
from flagd_server.services.notices import Topic
from flagd_server.services.publishing import Publisher
from flagd_server.services.url_checks import UrlChecks
from flagd_server.storage.base import Reader, Storage
from flagd_server.storage.release_records import Gate


class Gates:
    """Lists, changes and approves gates.

    Args:
        check_urls: called outside of any transaction.
    """

    def __init__(
        self,
        storage: Storage,
        publisher: Publisher,
        check_urls: UrlChecks = lambda urls: [],
    ) -> None:
        self._storage = storage
        self._publisher = publisher
        self._check_urls = check_urls

    def list(self, environment: str) -> list[Gate]:
        """Return all of the environment by key, or raise NotFoundError."""
        with self._storage.read() as reader:
            require_environment(reader, environment)
            return reader.gates(environment)

    def get(self, environment: str, key: str) -> Gate:
        """Return the gate, or raise NotFoundError."""
        with self._storage.read() as reader:
            return require_gate(reader, environment, key)

    def put(self, environment: str, key: str, definition: GateDefinition, *, actor: str) -> Gate:
        """Create the gate (its version is 1) or replace it; a change takes its approval away.

        The same again changes nothing.

        Raises:
            NotFoundError: there is no such environment.
            InvalidError: it asks for nothing, for what is not there, or where it may not ask.
        """
        faults = [*_check_questions(definition), *self._check_urls(definition.urls())]
        with self._storage.transaction() as tx:
            require_environment(tx, environment)
            faults += _check_references(tx, environment, definition)
            if faults:
                raise InvalidError(faults)
            before = tx.gate(environment, key)
            if before is not None and before.definition == definition:
                return before
            gate = Gate(
                environment=environment,
                key=key,
                definition=definition,
                version=1 if before is None else before.version + 1,
                updated_at=self._publisher.clock.now(),
            )
            tx.put_gate(gate)
            tx.announce(Topic.GATE, {"environment": environment, "gate": key})
            self._publisher.record(
                tx,
                actor=actor,
                action="gate.create" if before is None else "gate.update",
                target=_target(environment, key),
                environment=environment,
                before_version=None if before is None else before.version,
                after_version=gate.version,
                detail={
                    "before": None if before is None else before.definition.to_document(),
                    "after": definition.to_document(),
                },
            )
            return gate

    def delete(self, environment: str, key: str, *, actor: str) -> None:
        """Delete the gate, or raise NotFoundError. Whoever asks it hears that it is gone."""
        with self._storage.transaction() as tx:
            gate = require_gate(tx, environment, key)
            tx.delete_gate(environment, key)
            tx.announce(Topic.GATE, {"environment": environment, "gate": key})
            self._publisher.record(
                tx,
                actor=actor,
                action="gate.delete",
                target=_target(environment, key),
                environment=environment,
                before_version=gate.version,
                detail={"before": gate.definition.to_document(), "after": None},
            )

    def approve(
        self, environment: str, key: str, *, reason: str, valid_for: timedelta, actor: str
    ) -> Gate:
        """Approve for a while; it takes the place of an approval that stands.

        Raises:
            NotFoundError: there is no such gate.
            ConflictError: it asks for no approval.
        """
        now = self._publisher.clock.now()
        approval = Approval(actor, now, now + valid_for, reason)
        return self._set_approval(
            environment, key, approval, "gate.approve", actor, reason, approval.to_document()
        )

    def withdraw(self, environment: str, key: str, *, reason: str, actor: str) -> Gate:
        """Take an approval back. Where there is none, nothing is changed.

        Raises:
            NotFoundError: there is no such gate.
            ConflictError: it asks for no approval.
        """
        return self._set_approval(environment, key, None, "gate.withdraw", actor, reason, {})

    def _set_approval(
        self,
        environment: str,
        key: str,
        approval: Approval | None,
        action: str,
        actor: str,
        reason: str,
        detail: dict[str, object],
    ) -> Gate:
        with self._storage.transaction() as tx:
            gate = require_gate(tx, environment, key)
            if not gate.definition.approval:
                raise ConflictError(f"gate {key!r} asks for no approval")
            if approval is None and gate.approval is None:
                return gate
            tx.set_gate_approval(environment, key, approval)
            tx.announce(Topic.GATE, {"environment": environment, "gate": key})
            self._publisher.record(
                tx,
                actor=actor,
                action=action,
                target=_target(environment, key),
                environment=environment,
                comment=reason,
                detail=detail,
            )
            return require_gate(tx, environment, key)


def require_gate(reader: Reader, environment: str, key: str) -> Gate:
    """Return the gate, or raise NotFoundError."""
    gate = reader.gate(environment, key)
    if gate is None:
        require_environment(reader, environment)
        raise NotFoundError("gate", key)
    return gate


def _check_questions(definition: GateDefinition) -> list[Fault]:
    """Return a fault for each question that is too long to be asked, and for a gate of none."""
    faults = []
    if not definition.has_checks():
        faults.append(Fault("", "asks for nothing; expected at least one check, or approval"))
    for check, question in definition.questions().items():
        try:
            parse_target(question.url)
        except ValueError as error:
            faults.append(Fault(check, str(error)))
    return faults


def _check_references(reader: Reader, environment: str, definition: GateDefinition) -> list[Fault]:
    faults = []
    flags = {} if definition.guard is None else dict(enumerate(definition.guard.flags))
    named = {f"guard.flags[{number}]": flag for number, flag in flags.items()}
    if definition.min_exposures is not None:
        named["min_exposures.flag"] = definition.min_exposures.flag
    for field, key in named.items():
        flag = reader.flag(key)
        if flag is None or flag.archived:
            faults.append(Fault(field, f"there is no flag {key!r}"))
    slo = definition.slo
    if slo is not None and reader.slo(environment, slo.service) is None:
        message = f"service {slo.service!r} is held to nothing here; set its objective first"
        faults.append(Fault("slo.service", message))
    return faults


def _target(environment: str, key: str) -> str:
    return f"environments/{environment}/gates/{key}"
