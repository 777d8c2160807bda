"""Back to the last healthy configuration: what the guard does where a flag's policy says so."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flagd_sdk.core.bucketing import BUCKETS
from flagd_server.domain.guard.records import Decision
from flagd_server.domain.healthy import healthier
from flagd_server.domain.release import weight_of
from flagd_server.domain.times import format_time
from flagd_server.services.happenings import Happening, Happenings
from flagd_server.services.lookups import check_configuration, require_flag
from flagd_server.services.publishing import Publisher
from flagd_server.storage.base import Transaction
from flagd_server.storage.records import ConfigurationVersion

ACTOR = "guard"
ACTION = "rollback"


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        from_version: what was served, and hurt.
        to_version: the healthy one, whose content is served again.
        version: the new one that has it.
        split, variant: what the decision was about.
        from_percent, to_percent: the variant's share of the split.
    """

    at: datetime
    from_version: int
    to_version: int
    version: int
    split: str
    variant: str
    from_percent: float
    to_percent: float

    def to_document(self) -> dict[str, Any]:
        return {
            "at": format_time(self.at),
            "from_version": self.from_version,
            "to_version": self.to_version,
            "version": self.version,
            "split": self.split,
            "variant": self.variant,
            "from_percent": self.from_percent,
            "to_percent": self.to_percent,
        }


class Rollbacks:
    """Used by the guard, within its transactions."""

    def __init__(self, publisher: Publisher, happenings: Happenings) -> None:
        self._publisher = publisher
        self._happenings = happenings

    def withdraw_marks(
        self, tx: Transaction, present: ConfigurationVersion, decision: Decision
    ) -> None:
        """Withdraw the marks of versions that served as much as what has just proved harmful."""
        harmful = _weight(present, decision)
        for mark in tx.healthy_versions(present.environment, present.flag):
            old = tx.configuration_version(mark.environment, mark.flag, mark.version)
            if old is None or mark.version == present.version or _weight(old, decision) >= harmful:
                tx.withdraw_healthy(mark.environment, mark.flag, mark.version)

    def roll_back_in(
        self, tx: Transaction, present: ConfigurationVersion, decision: Decision, evidence: str
    ) -> RolledBack | str:
        """Serve the last healthy configuration again that has less of what hurts.

        Returns:
            What was done; or why nothing could be, in a clause: then the flag has to go off.
        """
        split, variant = decision.split, decision.treatment
        if split is None or variant is None:
            return "no variant is to blame by itself"
        if present.action == ACTION and present.actor == ACTOR:
            return "this is the configuration that the guard had gone back to"
        flag = require_flag(tx, present.flag)
        for mark in tx.healthy_versions(present.environment, present.flag):
            old = tx.configuration_version(mark.environment, mark.flag, mark.version)
            if old is None:
                continue
            back = healthier(present.configuration, old.configuration, split, variant)
            # Variants and segments may have gone since.
            if back is None or check_configuration(tx, present.environment, flag, back):
                continue
            published = self._publisher.apply_config_change(
                tx,
                flag,
                present,
                back,
                action=ACTION,
                actor=ACTOR,
                comment=decision.reason,
                detail={"to_version": old.version, "evidence": evidence},
            )
            done = RolledBack(
                at=published.version.at,
                from_version=present.version,
                to_version=old.version,
                version=published.version.version,
                split=split,
                variant=variant,
                from_percent=weight_of(present.configuration, split, variant) * 100 / BUCKETS,
                to_percent=weight_of(back, split, variant) * 100 / BUCKETS,
            )
            self._tell(tx, present, done, decision, evidence)
            return done
        return f"no healthy configuration serves less of “{variant}”"

    def _tell(
        self,
        tx: Transaction,
        present: ConfigurationVersion,
        done: RolledBack,
        decision: Decision,
        evidence: str,
    ) -> None:
        self._happenings.tell(
            tx,
            Happening(
                kind="rollback",
                environment=present.environment,
                flag=present.flag,
                at=done.at,
                by=ACTOR,
                text=(
                    f"{present.flag} was rolled back in {present.environment} from"
                    f" {done.from_percent:g} % to {done.to_percent:g} %: {decision.reason}"
                ),
                detail={**done.to_document(), "evidence": evidence},
            ),
        )


def _weight(version: ConfigurationVersion, decision: Decision) -> int:
    if decision.split is None or decision.treatment is None:
        return -1  # of the whole flag: no share of anything was healthy
    return weight_of(version.configuration, decision.split, decision.treatment)
