"""Which flags of an environment lean on another flag, or on a segment."""

from collections.abc import Iterator

from flagd_server.domain.faults import Fault
from flagd_server.domain.references import References, references
from flagd_server.services.lookups import check_configuration, segment_conditions
from flagd_server.storage.base import Reader
from flagd_server.storage.records import ConfigurationVersion, Flag


def leaning(
    reader: Reader, environment: str
) -> Iterator[tuple[Flag, ConfigurationVersion, References]]:
    """Yield every flag, archived ones too, with all that its rules lean on. Reads them all."""
    segments = segment_conditions(reader, environment)
    flags = {flag.key: flag for flag in reader.flags()}
    for version in reader.configurations(environment):
        yield flags[version.flag], version, references(version.configuration, segments)


def flags_needing(reader: Reader, environment: str, key: str) -> list[Flag]:
    """Return the delivered flags of which a rule asks what this one serves."""
    return [
        flag
        for flag, _, needed in leaning(reader, environment)
        if key in needed.flags and not flag.archived
    ]


def flags_using_segment(reader: Reader, environment: str, key: str) -> list[Flag]:
    """Return the flags that use the segment; archived ones too, which may come back."""
    return [flag for flag, _, needed in leaning(reader, environment) if key in needed.segments]


def faults_of_dependants(
    reader: Reader, environment: str, *, flag: str | None = None, segment: str | None = None
) -> list[Fault]:
    """Return what is wrong with the delivered flags that lean on the flag or on the segment.

    A fault's field is a path into the flag at fault, which its message names too.
    """
    return [
        Fault(fault.field, f"flag {dependant.key!r} in {environment!r}: {fault.message}")
        for dependant, version, needed in leaning(reader, environment)
        if not dependant.archived and (flag in needed.flags or segment in needed.segments)
        for fault in check_configuration(reader, environment, dependant, version.configuration)
    ]
