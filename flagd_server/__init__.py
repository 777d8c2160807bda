"""The server of flagd-release. Importing the package does nothing and needs no extra."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flagd_server.app import create_app as create_app

    __version__: str

__all__ = ["__version__", "create_app"]

_DISTRIBUTION = "flagd-release"


def __getattr__(name: str) -> Any:
    if name == "create_app":
        return _create_app()
    if name == "__version__":
        from importlib.metadata import version

        return version(_DISTRIBUTION)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _create_app() -> Any:
    try:
        from flagd_server.app import create_app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("flagd_server", "flagd_sdk"):
            raise
        raise ImportError(
            f"the server needs {error.name!r}: install its extra,"
            f" pip install '{_DISTRIBUTION}[server]'"
        ) from error
    return create_app
