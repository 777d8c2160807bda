"""One thing that is wrong with what someone asked for, named so that it can be put right."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`field` is the path in what was sent (`rules[0].serve.split.weights`); `message` says what
    is wrong there and what was expected."""

    field: str
    message: str
