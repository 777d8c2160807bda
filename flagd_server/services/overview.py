"""Counts the flags of every environment, for those who watch the server."""

from dataclasses import dataclass

from flagd_server.storage.base import Storage


@dataclass(frozen=True, slots=True)
class FlagCounts:
    """How many flags an environment delivers, and how many of them are on and killed."""

    environment: str
    flags: int
    enabled: int
    killed: int
    is_braked: bool


class Overview:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def flag_counts(self) -> list[FlagCounts]:
        """Return the counts of every environment; archived flags are in none of them."""
        with self._storage.read() as reader:
            live = {flag.key for flag in reader.flags(archived=False)}
            counts = []
            for environment in reader.environments():
                configurations = [
                    version.configuration
                    for version in reader.configurations(environment.key)
                    if version.flag in live
                ]
                counts.append(
                    FlagCounts(
                        environment=environment.key,
                        flags=len(configurations),
                        enabled=sum(configuration.enabled for configuration in configurations),
                        killed=sum(
                            configuration.kill is not None for configuration in configurations
                        ),
                        is_braked=reader.brake(environment.key) is not None,
                    )
                )
        return counts
