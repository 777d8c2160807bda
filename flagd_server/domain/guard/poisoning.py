"""Who reports out of all proportion: a process, or everything that came by one token.

Whoever holds an SDK token can report what he likes. What is forged cannot be told from what is
true by its content; but one reporter whose units fail many times as often as everybody else's,
per exposure, says something of that reporter and nothing of the flag. The rule counts both sides
together: which side the events are on must not decide whether they are believed.
"""

from collections.abc import Callable, Mapping
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
    return _find(believed, heard_from, "process", _FEWEST_PROCESSES, _own_name) or _find(
        believed, heard_from, "token", _FEWEST_TOKENS, lambda instance: instance.token
    )


def _own_name(instance: Instance) -> str:
    return instance.name


def _find(
    believed: list[Instance],
    heard_from: Mapping[int, int],
    who: str,
    fewest: int,
    name_of: Callable[[Instance], str],
) -> Suspect | None:
    groups: dict[str, list[Instance]] = {}
    for instance in believed:
        if instance.exposures:
            groups.setdefault(name_of(instance), []).append(instance)
    if len(groups) < fewest:
        return None
    units = {name: _sum(heard_from, members) for name, members in groups.items()}
    exposures = {name: sum(each.exposures for each in members) for name, members in groups.items()}
    loudest = max(units, key=lambda name: units[name])
    others_units = sum(units.values()) - units[loudest]
    others_exposures = sum(exposures.values()) - exposures[loudest]
    believable = min(max(1.0, exposures[loudest] / others_exposures), _EXPOSURES_BELIEVED)
    bound = DISPROPORTION * (others_units + _OTHERS_AT_LEAST) * believable
    if units[loudest] <= max(LEAST_EVENTS, bound):
        return None
    members = groups[loudest]
    return Suspect(who, loudest, units[loudest], exposures[loudest], members)


def _sum(heard_from: Mapping[int, int], members: list[Instance]) -> int:
    return sum(heard_from.get(instance.index, 0) for instance in members)
