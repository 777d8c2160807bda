"""Who reports out of all proportion: a process, or everything that came by one token.

Whoever holds an SDK token can report what he likes. What is forged cannot be told from what is
true by its content; but one reporter whose units fail many times as often as everybody else's,
per exposure, says something of that reporter and nothing of the flag. The rule counts both sides
together: which side the events are on must not decide whether they are believed.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from flagd_server.domain.guard.arms import Arms, Instance

# A reporter with fewer events can be loud by bad luck (one bad minute), and can do little harm:
# no process and no token may carry a kill alone.
LEAST_EVENTS = 200
# So many times as often as the others, per exposure. A sick host that fails a fifth of its
# requests, where the others fail one in a hundred, is not out of proportion yet.
DISPROPORTION = 20.0
# Added to what the others have reported: while they have hardly failed, there is no proportion.
_OTHERS_AT_LEAST = 10
# Exposures are claimed by the reporter too: beyond so many times the others', more of them do not
# excuse more events.
_EXPOSURES_BELIEVED = 100.0
_FEWEST_PROCESSES, _FEWEST_TOKENS = 3, 2
_HYDRA_FROM = 3


@dataclass(frozen=True, slots=True)
class Suspect:
    """A reporter out of proportion.

    Attributes:
        who: "process" or "token"; `name` is the instance's, or the token's id.
        units: its unit events of the metric.
        instances: those that are to be believed no longer.
    """

    who: str
    name: str
    units: int
    exposures: int
    instances: list[Instance]


def find_suspect(arms: Arms, heard_from: Mapping[int, int]) -> Suspect | None:
    """Return the loudest reporter out of proportion, a process before a token; None without one.

    Args:
        heard_from: instance index → its unit events of one metric, both sides together.
    """
    believed = [each for each in arms.instances.values() if not each.is_set_aside]
    suspect = _find(believed, heard_from, _FEWEST_PROCESSES, _process)
    if suspect is not None and not _is_hydra(arms, believed, suspect[0]):
        return Suspect("process", suspect[0].name, *_told(suspect, heard_from), suspect)
    if suspect is not None:
        suspect = [each for each in believed if each.token == suspect[0].token]
    else:
        suspect = _find(believed, heard_from, _FEWEST_TOKENS, _token)
    if suspect is None:
        return None
    return Suspect("token", suspect[0].token, *_told(suspect, heard_from), suspect)


def _is_hydra(arms: Arms, believed: list[Instance], suspect: Instance) -> bool:
    """Return whether most processes of one token of several turn out to be forged, this included.

    Whoever invents processes invents the next ones: setting each aside would never end.
    """
    if len({each.token for each in believed}) < _FEWEST_TOKENS:
        return False
    of_token = [each for each in arms.instances.values() if each.token == suspect.token]
    forged = sum(each.is_set_aside for each in of_token) + 1
    return forged >= _HYDRA_FROM and forged > len(of_token) / 2


def _process(instance: Instance) -> Hashable:
    """Who borrows the name of another with a token of his own does not speak for him."""
    return instance.name, instance.token


def _token(instance: Instance) -> Hashable:
    return instance.token


def _find(
    believed: list[Instance],
    heard_from: Mapping[int, int],
    fewest: int,
    of: Callable[[Instance], Hashable],
) -> list[Instance] | None:
    groups: dict[Hashable, list[Instance]] = {}
    for instance in believed:
        # Events without an exposure are odd enough; they must not escape the comparison.
        if instance.exposures or instance.index in heard_from:
            groups.setdefault(of(instance), []).append(instance)
    if len(groups) < fewest:
        return None
    told = {key: _told(members, heard_from) for key, members in groups.items()}
    loudest = max(told, key=lambda key: told[key][0])
    units, exposures = told[loudest]
    others_units = sum(each for each, _ in told.values()) - units
    others_exposures = sum(each for _, each in told.values()) - exposures
    believable = min(max(1.0, exposures / max(1, others_exposures)), _EXPOSURES_BELIEVED)
    bound = DISPROPORTION * (others_units + _OTHERS_AT_LEAST) * believable
    return groups[loudest] if units > max(LEAST_EVENTS, bound) else None


def _told(members: list[Instance], heard_from: Mapping[int, int]) -> tuple[int, int]:
    """Return (unit events, exposures) of these together."""
    units = sum(heard_from.get(instance.index, 0) for instance in members)
    return units, sum(instance.exposures for instance in members)
