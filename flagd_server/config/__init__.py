"""Settings, from environment variables. One line in `Settings` is one setting: it is read, shown by
`flagd-server config` and in docs/settings.md from there.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from flagd_server.config import parsing
from flagd_server.config.variables import Given, Variable, Variables
from flagd_server.domain.targets import Allowed
from flagd_server.errors import SettingsError

PREFIX = "FLAGD_"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_A_LIMIT = parsing.whole(0, 1_000_000)


class Settings(BaseSettings):
    """What a server is started with. Made in code it reads nothing; `from_environ` reads.

    A setting's variable is FLAGD_ and its name, unless it says otherwise. A secret may also stand
    in a file, which the variable with `_FILE` behind names.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", arbitrary_types_allowed=True
    )

    host: Annotated[str, Variable(parsing.text, "address to listen on")] = "127.0.0.1"
    port: Annotated[
        int, Variable(parsing.whole(0, 65_535), "port to listen on; 0 takes any that is free")
    ] = 8013
    database: Annotated[
        str,
        Variable(parsing.path, "path of the SQLite file"),
        Variable(
            parsing.postgres_url,
            "a Postgres instead: `postgresql://user:password@host/database`",
            name="FLAGD_DATABASE_URL",
            is_secret=True,
        ),
    ] = "flagd.db"
    threads: Annotated[
        int, Variable(parsing.whole(1, 256), "requests answered at once; streams take none")
    ] = 16
    # SDKs take a stream for dead after two heartbeats of 15 s without a byte.
    heartbeat_s: Annotated[
        float,
        Variable(parsing.number(0.1, 15.0), "silence on a stream after which a comment is sent"),
    ] = 15.0
    retention_days: Annotated[
        int,
        Variable(parsing.whole(8, 3_650), "how long counts and ended lives of the guard are kept"),
    ] = 30
    healthy_after_s: Annotated[
        float,
        Variable(
            parsing.number(60.0, 604_800.0),
            "how long a configuration stands, quietly, to count as healthy without a rollout",
        ),
    ] = 3_600.0
    log_level: Annotated[
        str,
        Variable(
            parsing.one_of("debug", "info", "warning", "error"), "what is logged, and all above"
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Variable(
            parsing.one_of("auto", "json", "text"),
            "how: `json`, a document a line, or `text`; `auto` is text on a terminal",
        ),
    ] = "auto"
    access_log: Annotated[bool, Variable(parsing.boolean, "log a line for each request")] = False
    admin_token: Annotated[
        str | None,
        Variable(
            parsing.admin_token, "the first admin token; a random one unless set", is_secret=True
        ),
    ] = None
    initial_tokens_file: Annotated[
        str | None,
        Variable(parsing.text, "where the first start writes its tokens; printed unless set"),
    ] = None
    ofrep_origins: Annotated[
        frozenset[str],
        Variable(
            parsing.origins,
            "web pages that may evaluate by OFREP: `https://shop.example`, with commas between;"
            " `*` for any",
        ),
    ] = frozenset()
    git_sha: Annotated[
        str, Variable(parsing.text, "the commit that runs, if the build does not say")
    ] = ""
    outgoing_allow: Annotated[
        Allowed,
        Variable(
            parsing.networks,
            "hosts and CIDRs that gates and webhooks may reach although they are not public",
        ),
    ] = Allowed()
    behind_tls: Annotated[
        bool,
        Variable(
            parsing.boolean, "TLS ends in front, and browsers are told to use nothing else (HSTS)"
        ),
    ] = False
    plain_http_sessions: Annotated[
        bool,
        Variable(
            parsing.boolean,
            "let people log in without TLS: for development, where `FLAGD_HOST` is of this machine",
        ),
    ] = False
    proxies: Annotated[
        int,
        Variable(
            parsing.whole(0, 10),
            "how many proxies in front add the address that they see to `X-Forwarded-For`",
        ),
    ] = 0
    max_streams: Annotated[
        int,
        Variable(_A_LIMIT, "streams open at once; 0 for seven tenths of the descriptors"),
    ] = 0
    max_streams_per_token: Annotated[
        int,
        Variable(_A_LIMIT, "of those, with one token; 0 for three quarters"),
    ] = 0
    api_per_minute: Annotated[
        int,
        Variable(_A_LIMIT, "requests of a token to the admin API, kills aside; 0 for no limit"),
    ] = 6_000
    open_per_minute: Annotated[
        int,
        Variable(_A_LIMIT, "requests of an address to `/metrics`, and its logins; 0 for no limit"),
    ] = 600
    refused_per_minute: Annotated[
        int,
        Variable(
            _A_LIMIT,
            "refused tokens (401) from an address, which then hears 429 for those; 0 for no limit",
        ),
    ] = 300

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], options: Mapping[str, str] | None = None
    ) -> "Settings":
        """Read the variables FLAGD_…; one that is empty counts as not set.

        Args:
            options: variables that were given on the command line, and win.

        Raises:
            SettingsError: with every fault.
        """
        return read_settings(environ, options or {})[0]

    @field_validator("*", mode="before")
    @classmethod
    def _parse(cls, value: Any, _: ValidationInfo) -> Any:
        """Parse what a variable gave; what code gave is taken as it is."""
        return value.parse() if isinstance(value, Given) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @field_validator("plain_http_sessions")
    @classmethod
    def _stay_on_this_machine(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("host") not in _LOOPBACK:
            raise ValueError(f"expected FLAGD_HOST to be one of {', '.join(_LOOPBACK)}")
        return value

    def __repr__(self) -> str:
        return "Settings(…)"  # they hold secrets

    __str__ = __repr__


def read_settings(
    environ: Mapping[str, str], options: Mapping[str, str]
) -> tuple[Settings, Mapping[str, Given]]:
    """Return the settings, and by name what was given for those that are not at their default.

    Raises:
        SettingsError: with every fault.
    """
    source = Variables(Settings, environ, options)
    given = source()
    faults = dict(source.faults)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        for fault in error.errors():
            name = str(fault["loc"][0])
            faults[name] = given[name].complaint(str(fault["ctx"]["error"]))
    if faults:
        raise SettingsError([faults[name] for name in Settings.model_fields if name in faults])
    return settings, given
