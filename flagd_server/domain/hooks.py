"""What Flagger makes of an answer, and so what each of its webhooks is answered. Pure.

Flagger reads a status: up to 202 it takes for yes, anything else for no (fluxcd/flagger,
`pkg/controller/webhook.go`). What yes and no do depends on the type of the webhook, and that type
is not in what it sends: `phase` is where the canary stands. So the type is told in the webhook's
metadata, as `hook`.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from flagd_server.domain.health import Health


class Question(StrEnum):
    """What a webhook asks."""

    MAY_GO_ON = "may it go on?"
    ROLL_BACK = "shall it roll back?"
    NOTHING = "nothing: it tells"


HOOKS: Final[Mapping[str, Question]] = {
    "confirm-rollout": Question.MAY_GO_ON,
    "pre-rollout": Question.MAY_GO_ON,
    "rollout": Question.MAY_GO_ON,
    "confirm-traffic-increase": Question.MAY_GO_ON,
    "confirm-promotion": Question.MAY_GO_ON,
    "rollback": Question.ROLL_BACK,
    "post-rollout": Question.NOTHING,
    "event": Question.NOTHING,
}
"""The types of webhooks, as Flagger spells them."""

# Where a canary stands while its webhooks are asked whether it may go on.
_UNDER_WAY: Final = frozenset(
    {"Initializing", "Initialized", "Waiting", "Progressing", "WaitingPromotion", "Promoting"}
)


def question_of(hook: str | None, phase: str) -> Question:
    """Return what is asked.

    Args:
        hook: the type that the webhook's metadata names, one of `HOOKS`; None where it names none.
        phase: as sent. Without a hook it decides: whoever imitates Flagger names the type there,
            and a canary that is under way is taken to ask whether it may go on. One that has
            ended, or a phase that is not known, asks nothing.
    """
    if hook is not None:
        return HOOKS[hook]
    if phase in HOOKS:
        return HOOKS[phase]
    return Question.MAY_GO_ON if phase in _UNDER_WAY else Question.NOTHING


def is_yes(question: Question, word: Health) -> bool:
    """Tell whether the answer is yes, by what the gate says.

    What is not known lets nothing go on, and rolls nothing back.
    """
    if question is Question.MAY_GO_ON:
        return word is Health.HEALTHY
    return question is Question.NOTHING or word is Health.UNHEALTHY
