"""The application factory: the HTTP side of a server, around the services that are put together."""

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter, Map, PathConverter

from flagd_server.api import (
    access,
    alarms,
    audit,
    brakes,
    configurations,
    deployments,
    environments,
    evidence,
    flags,
    gates,
    health,
    hook_secrets,
    hooks,
    kills,
    local_kills,
    observed,
    ofrep,
    people,
    problems,
    requests,
    rollouts,
    sdk,
    segments,
    session,
    slos,
    stream,
    tokens,
    webhooks,
)
from flagd_server.api.cross_origin import CrossOrigin
from flagd_server.api.headers import SecurityHeaders
from flagd_server.api.json_body import MAX_BODY_BYTES
from flagd_server.api.polls import Polls
from flagd_server.api.reporting import ShortWayIn
from flagd_server.api.wiring import EXTENSION
from flagd_server.clock import Clock, SystemClock
from flagd_server.composition import compose
from flagd_server.config import Settings
from flagd_server.storage import open_storage
from flagd_server.storage.base import Storage

_BLUEPRINTS = (
    alarms,
    audit,
    brakes,
    configurations,
    deployments,
    environments,
    evidence,
    flags,
    gates,
    health,
    hook_secrets,
    hooks,
    kills,
    local_kills,
    ofrep,
    people,
    rollouts,
    sdk,
    segments,
    session,
    slos,
    stream,
    tokens,
    webhooks,
)


def create_app(
    settings: Settings, *, clock: Clock | None = None, storage: Storage | None = None
) -> Flask:
    """Open the storage, start what runs beside the requests, and return the application.

    What it holds ends with `app.extensions["flagd_server"].close()`. Call it in the process that
    serves: threads and database connections don't survive a fork.

    Args:
        storage: open, and closed with the application; None opens what the settings say.

    Raises:
        StorageError: the database can't be opened.
    """
    app = Flask(__name__, static_folder=None)
    # One byte more than a body may have: see `read_body`.
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # Variants and weights are shown in the order their author wrote them.
    app.json.sort_keys = False  # type: ignore[attr-defined]
    _set_up_urls(app.url_map)
    for module in _BLUEPRINTS:
        app.register_blueprint(module.blueprint)
    storage = storage or open_storage(settings.database, as_server=True)
    services = compose(settings, clock or SystemClock(), storage)
    app.extensions[EXTENSION] = services
    app.before_request(access.decide)
    app.before_request(requests.refuse_unread_query)
    app.after_request(observed.note_route)
    app.after_request(services.limits.count_refused)
    app.register_error_handler(Exception, problems.respond)
    short_way_in = ShortWayIn(app.wsgi_app, services)
    app.wsgi_app = Polls(short_way_in, services)  # type: ignore[method-assign]
    if settings.ofrep_origins:
        cross_origin = CrossOrigin(app.wsgi_app, settings.ofrep_origins)
        app.wsgi_app = cross_origin  # type: ignore[method-assign]
    if settings.proxies:
        proxied = ProxyFix(app.wsgi_app, x_for=settings.proxies, x_proto=0, x_host=0)
        app.wsgi_app = proxied  # type: ignore[method-assign]
    secured = SecurityHeaders(app.wsgi_app, is_behind_tls=settings.behind_tls)
    app.wsgi_app = secured  # type: ignore[method-assign]
    app.wsgi_app = observed.Observed(  # type: ignore[method-assign]
        app.wsgi_app, services.metrics, services.tracing, logs_requests=settings.access_log
    )
    return app


class _PositiveConverter(BaseConverter):
    """An integer from 1 that every storage holds; anything else is no such path."""

    regex = "[1-9][0-9]{0,15}"

    def to_python(self, value: str) -> int:
        return int(value)


class _TextConverter(PathConverter):
    """Whatever stands there, slashes and line breaks too: what is wrong with it, the view says."""

    regex = "(?s:[^/].*?)"


def _set_up_urls(url_map: Map) -> None:
    # A path is what openapi.yaml says or it is nothing: no redirects to a cleaned one.
    url_map.merge_slashes = False
    url_map.converters["positive"] = _PositiveConverter
    url_map.converters["text"] = _TextConverter
