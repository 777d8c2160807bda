"""How many more requests have failed than at the control's rate: what a flag has cost so far.

Requests of one user repeat one another and exposures may shift, so this is no evidence. It is an
amount: a flag may carry a limit of it, and goes off when that is spent, significant or not.
"""

from collections import defaultdict
from collections.abc import Callable

from flagd_server.domain.guard.arms import Arms, Counts, Instance
from flagd_server.domain.guard.judgement import LONE_INSTANCE_FROM, LONE_TOKEN_FROM

# Without its loudest process (or token) a flag must still have spent this part of its budget.
_WITHOUT_LOUDEST = 0.5


def excess_failures(treatment: Counts, control: Counts) -> float:
    """Return the treatment's failing requests beyond the control's rate; at least 0.

    0 while the control has not been exposed: without its rate nothing is known to be too much.
    """
    if not control.exposures:
        return 0.0
    return max(0.0, treatment.errors - treatment.exposures * control.errors / control.exposures)


def has_spent(arms: Arms, budget: int, t: float) -> bool:
    """Return whether the excess has reached the budget, and not by the word of one alone."""
    if excess_failures(arms.in_treatment, arms.in_control) < budget:
        return False
    serving = list(arms.serving(t))
    return _holds(arms, budget, serving, LONE_INSTANCE_FROM, lambda each: each.name) and _holds(
        arms, budget, serving, LONE_TOKEN_FROM, lambda each: each.token
    )


def _holds(
    arms: Arms,
    budget: int,
    serving: list[Instance],
    least: int,
    name_of: Callable[[Instance], str],
) -> bool:
    failed: defaultdict[str, int] = defaultdict(int)
    for instance in arms.instances.values():
        if instance.in_treatment.errors and not instance.is_set_aside:
            failed[name_of(instance)] += instance.in_treatment.errors
    # Who has spoken and gone still counts: by falling silent nobody becomes more believable.
    if len(failed.keys() | {name_of(instance) for instance in serving}) < least:
        return True
    loudest = max(failed, key=lambda name: failed[name])
    treatment, control = Counts(), Counts()
    for instance in arms.instances.values():
        if not instance.is_set_aside and name_of(instance) != loudest:
            treatment.add(instance.in_treatment.exposures, instance.in_treatment.errors)
            control.add(instance.in_control.exposures, instance.in_control.errors)
    return excess_failures(treatment, control) >= _WITHOUT_LOUDEST * budget
