"""Flags whose failing users are the same, since their splits share a salt: which is the suspect."""

from collections.abc import Sequence

from flagd_server.domain.configuration import Configuration
from flagd_server.domain.guard.judgement import WITNESS_BAR
from flagd_server.domain.guard.lifecycle import acts_on_breach
from flagd_server.services.lives import Life, Lives
from flagd_server.storage.base import Reader
from flagd_server.storage.records import ConfigurationVersion


def flags_sharing(
    reader: Reader, lives: Lives, life: Life, configuration: Configuration
) -> list[ConfigurationVersion]:
    """Return the flags whose failing users can't be told from this one's, and who have some.

    Splits that share a salt place every unit alike: a fault of either shows in both.
    """
    own = {(split["salt"], split["bucket_by"]) for _, split in configuration.splits()}
    found = []
    for other in lives.values():
        if other.environment != life.environment or other.flag == life.flag:
            continue
        newest = reader.configuration(other.environment, other.flag)
        if newest is None:
            continue
        salts = {(s["salt"], s["bucket_by"]) for _, s in newest.configuration.splits()}
        if own & salts and other.guard.highest_e_value >= WITNESS_BAR:
            found.append(newest)
    return found


def goes_first(newest: ConfigurationVersion, sharing: Sequence[ConfigurationVersion]) -> str | None:
    """Return which flag was changed last, where it is not this one: it is the first suspect.

    One that is not to be killed can't go first, or the one at fault would stay on.
    """
    killable = (row for row in sharing if acts_on_breach(row.configuration))
    last = max(killable, key=lambda row: row.at, default=newest)
    return last.flag if last.at > newest.at else None
