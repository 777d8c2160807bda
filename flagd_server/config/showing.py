"""What is in force, and what can be set, for people and programs. No secret leaves here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flagd_server.config import PREFIX, Settings
from flagd_server.config.variables import Given, Variable, variables_of

# Of applications and of flagctl, which may run in the same environment.
_OF_OTHERS = frozenset(
    f"{PREFIX}{name}" for name in ("URL", "TOKEN", "TOKEN_FILE", "ENVIRONMENT", "CLIENT", "CONTEXT")
)


@dataclass(frozen=True, slots=True)
class InForce:
    """A setting that a server would run with.

    Attributes:
        value: None where there is none; a secret is said to be there, not shown.
        origin: "default", "environment", "file" or "option".
    """

    variable: str
    value: str | int | float | None
    origin: str


def in_force(settings: Settings, given: Mapping[str, Given]) -> Iterator[InForce]:
    """Yield every setting, in the order in which they are declared."""
    for name, variables in variables_of(Settings):
        value = getattr(settings, name)
        if (source := given.get(name)) is None:
            variable, _ = variables[0]
            yield InForce(variable, _plain(value), "default")
        elif source.of.is_secret:
            yield InForce(source.variable, _masked(source.text), source.origin)
        else:
            shown = value if isinstance(value, (str, int, float)) else source.text
            yield InForce(source.variable, shown, source.origin)


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings and are none, such as misspelt ones."""
    known = {
        name
        for _, variables in variables_of(Settings)
        for variable, declared in variables
        for name in _names(variable, declared)
    }
    return sorted(
        name for name in environ if name.startswith(PREFIX) and name not in known | _OF_OTHERS
    )


def markdown_table() -> str:
    """Return the table of all that can be set."""
    rows = ["| variable | default | |", "| --- | --- | --- |"]
    for setting, variables in variables_of(Settings):
        default = _plain(Settings.model_fields[setting].default)
        for variable, declared in variables:
            names = ", ".join(f"`{name}`" for name in _names(variable, declared))
            is_first = variable == variables[0][0]
            shown = f"`{_text(default)}`" if is_first and default not in (None, "") else ""
            rows.append(f"| {names} | {shown} | {declared.description} |")
    return "\n".join(rows) + "\n"


def _names(variable: str, declared: Variable) -> tuple[str, ...]:
    return (variable, f"{variable}_FILE") if declared.is_secret else (variable,)


def _plain(default: object) -> str | int | float | None:
    """Return a default as one would write it; lists and networks have none that are not empty."""
    return default if isinstance(default, (str, int, float)) else None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _masked(secret: str) -> str:
    """Return what may be shown: of a URL where it leads, of anything else that it is there."""
    scheme, is_url, rest = secret.partition("://")
    if not is_url:
        return "…"
    # The password may hold any character, unescaped: what is left of the last @ is not shown but
    # for the name. Parameters may hold another password.
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    place, question_mark, _ = place.partition("?")
    password, parameters = "…" if colon else "", "…" if question_mark else ""
    return f"{scheme}://{user}{colon}{password}{at}{place}{question_mark}{parameters}"
