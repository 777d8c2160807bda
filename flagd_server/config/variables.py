"""Where the text of a setting comes from: an option, a variable, or a file that one names."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

_MAX_SECRET_FILE_BYTES = 4096
_AFTER_SCHEME = re.compile(r"://.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that a setting is read from.

    Attributes:
        parse: text → value; raises a ValueError that says what was expected, without the text.
        description: for the documentation; Markdown.
        name: where it is not the prefix and the setting's name.
        is_secret: is never repeated or shown, and may stand in a file.
    """

    parse: Callable[[str], object]
    description: str
    name: str = ""
    is_secret: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Given:
    """A text for a setting, and who gave it. Not printed: it may be a secret.

    Attributes:
        variable: as a person has to look for it, with `_FILE` where that one was set.
        origin: "option", "environment" or "file".
    """

    variable: str
    text: str
    origin: str
    of: Variable

    def parse(self) -> object:
        """Return the value.

        Raises:
            ValueError: it can't be used.
        """
        return self.of.parse(self.text)

    def complaint(self, expected: str) -> str:
        if self.of.is_secret:
            return f"{self.variable}: {expected}"
        # A URL may hold a password.
        return f"{self.variable}: {expected}, got {_AFTER_SCHEME.sub('://…', self.text)!r}"


def variables_of(
    settings: type[BaseSettings],
) -> Iterator[tuple[str, list[tuple[str, Variable]]]]:
    """Yield each setting's name with its variables, by their full names, in order."""
    prefix = settings.model_config["env_prefix"]
    for name, field in settings.model_fields.items():
        declared = [entry for entry in field.metadata if isinstance(entry, Variable)]
        yield name, [(entry.name or f"{prefix}{name}".upper(), entry) for entry in declared]


class Variables(PydanticBaseSettingsSource):
    """What options and environment say of each setting. An option wins over all variables.

    Attributes:
        faults: setting → why it could not be read; after a call.
    """

    def __init__(
        self, settings: type[BaseSettings], environ: Mapping[str, str], options: Mapping[str, str]
    ) -> None:
        super().__init__(settings)
        self._environ = environ
        self._options = options
        self._variables = dict(variables_of(settings))
        self.faults: dict[str, str] = {}

    def __call__(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            try:
                value, _, _ = self.get_field_value(field, name)
            except ValueError as error:
                self.faults[name] = str(error)
            else:
                if value is not None:
                    given[name] = value
        return given

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return what was given, or None; see the base.

        Raises:
            ValueError: it comes from two places, or from a file that can't be read.
        """
        variables = self._variables[field_name]
        given = [
            Given(variable, text, "option", declared)
            for variable, declared in variables
            if (text := self._options.get(variable, ""))
        ] or [
            found for variable, declared in variables for found in self._look_up(variable, declared)
        ]
        if len(given) > 1:
            first, second = (found.variable for found in given[:2])
            raise ValueError(f"{first}: set it or {second}, not both")
        if not given:
            return None, field_name, False
        return _opened(given[0]), field_name, False

    def _look_up(self, variable: str, declared: Variable) -> Iterator[Given]:
        if text := self._environ.get(variable, ""):
            yield Given(variable, text, "environment", declared)
        if declared.is_secret and (path := self._environ.get(f"{variable}_FILE", "")):
            yield Given(f"{variable}_FILE", path, "file", declared)


def _opened(given: Given) -> Given:
    """Put the content in the place of a file's name."""
    if given.origin != "file":
        return given
    try:
        with Path(given.text).open(encoding="utf-8") as file:
            content = file.read(_MAX_SECRET_FILE_BYTES).strip()
    except OSError as error:
        raise ValueError(f"{given.variable}: can't read {given.text}: {error.strerror}") from error
    except UnicodeDecodeError:
        # The error itself would repeat what is in the file.
        raise ValueError(f"{given.variable}: can't read {given.text}: no UTF-8") from None
    return Given(given.variable, content, given.origin, given.of)
