"""The application factory: the one place that picks implementations and puts them together."""

from contextlib import ExitStack
from datetime import timedelta
from threading import Semaphore

from flask import Flask
from werkzeug.routing import BaseConverter, Map

import flagd_server
from flagd_server.api import (
    alarms,
    audit,
    brakes,
    configurations,
    environments,
    evidence,
    flags,
    health,
    kills,
    problems,
    sdk,
    segments,
    slos,
    stream,
    tokens,
)
from flagd_server.api.json_body import MAX_BODY_BYTES
from flagd_server.api.metrics import Metrics
from flagd_server.api.not_modified import NotModified
from flagd_server.api.reporting import ShortWayIn
from flagd_server.api.wiring import EXTENSION, Build, Services
from flagd_server.clock import Clock, SystemClock
from flagd_server.config import Settings
from flagd_server.errors import ServerError
from flagd_server.hub.local import LocalHub
from flagd_server.services.aftermath import AftermathWatch
from flagd_server.services.alarms import Alarms
from flagd_server.services.announcements import Announcements
from flagd_server.services.audit import Audit
from flagd_server.services.brakes import Brakes
from flagd_server.services.claims import Claims
from flagd_server.services.configurations import Configurations
from flagd_server.services.environments import Environments
from flagd_server.services.evidence import EvidenceReports
from flagd_server.services.flags import Flags
from flagd_server.services.guarding import Guarding
from flagd_server.services.ingestion import Ingestion
from flagd_server.services.kills import Kills
from flagd_server.services.overview import Overview
from flagd_server.services.publishing import Publisher
from flagd_server.services.receipts import Receipts
from flagd_server.services.segments import Segments
from flagd_server.services.slos import Slos
from flagd_server.services.snapshots import Snapshots
from flagd_server.services.tokens import Tokens
from flagd_server.services.turns import Turns
from flagd_server.storage import open_storage

_BLUEPRINTS = (
    alarms,
    audit,
    brakes,
    configurations,
    environments,
    evidence,
    flags,
    health,
    kills,
    sdk,
    segments,
    slos,
    stream,
    tokens,
)
_WRITABLE_WITHIN_S = 1.0
# Of so many threads one may wait for a receipt.
_THREADS_PER_WAIT = 3


def create_app(settings: Settings, *, clock: Clock | None = None) -> Flask:
    """Open the storage, start what runs beside the requests, and return the application.

    What it holds ends with `app.extensions["flagd_server"].close()`. Call it in the process that
    serves: threads and database connections don't survive a fork.

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
    services = _build_services(settings, clock or SystemClock())
    app.extensions[EXTENSION] = services
    app.before_request(services.metrics.start_request)
    app.after_request(services.metrics.count_request)
    app.register_error_handler(Exception, problems.respond)
    short_way_in = ShortWayIn(app.wsgi_app, services)
    app.wsgi_app = NotModified(short_way_in, services)  # type: ignore[method-assign]
    return app


class _PositiveConverter(BaseConverter):
    """An integer from 1 that every storage holds; anything else is no such path."""

    regex = "[1-9][0-9]{0,15}"

    def to_python(self, value: str) -> int:
        return int(value)


def _set_up_urls(url_map: Map) -> None:
    # A path is what openapi.yaml says or it is nothing: no redirects to a cleaned one.
    url_map.merge_slashes = False
    url_map.converters["positive"] = _PositiveConverter


def _build_services(settings: Settings, clock: Clock) -> Services:
    with ExitStack() as undo:
        storage = open_storage(settings.database, as_server=True)
        undo.callback(storage.close)
        snapshots = Snapshots(storage)

        def newest_set(environment: str) -> tuple[int, bytes]:
            snapshot = snapshots.current(environment)
            return snapshot.sequence, snapshot.event

        hub = LocalHub(newest_set, heartbeat_s=settings.heartbeat_s)
        undo.callback(hub.close)
        receipts = Receipts(hub.connected)
        announcements = Announcements(hub, clock)
        publisher = Publisher(snapshots, announcements, clock)
        kills = Kills(storage, publisher)
        build = Build(flagd_server.__version__, settings.git_sha)
        metrics = Metrics(
            version=build.version,
            git_sha=build.git_sha,
            hub_statistics=hub.statistics,
            flag_counts=Overview(storage).flag_counts,
            watch_states=lambda: guarding.states(clock.now().timestamp()),
        )
        aftermath = AftermathWatch(storage, receipts, announcements, clock)

        def on_decision(environment: str, _flag: str, mode: str, evidence: str) -> None:
            metrics.count_decision(environment, mode)
            aftermath.notice(environment, evidence)

        alarms_raised = Alarms(storage, clock, metrics.count_alarm)
        guarding = Guarding(storage, kills, on_decision, alarms_raised.raise_by_name)
        aftermath.start()
        undo.callback(aftermath.close)
        tokens = Tokens(storage, clock, hub.disconnect_token)
        tokens.watch()
        undo.callback(tokens.close)
        retention = timedelta(days=settings.retention_days)
        turns = Turns(alarms_raised, metrics.count_capped)
        claims = Claims(alarms_raised, metrics.count_capped)
        ingestion = Ingestion(storage, guarding, receipts, turns, claims, clock, retention)
        ingestion.start()
        # Undone from the last to the first: what was sent in is stored, and a kill that it brings
        # goes out, before the streams end and the storage closes.
        undo.callback(ingestion.close)
        undo.callback(receipts.close)
        return Services(
            build=build,
            environments=Environments(storage, publisher),
            flags=Flags(storage, publisher),
            configurations=Configurations(storage, publisher),
            kills=kills,
            segments=Segments(storage, publisher),
            slos=Slos(storage, publisher, guarding.note_objectives),
            tokens=tokens,
            audit=Audit(storage),
            alarms=alarms_raised,
            evidence=EvidenceReports(storage, guarding, clock),
            snapshots=snapshots,
            hub=hub,
            receipts=receipts,
            receipt_turns=Semaphore(max(1, settings.threads // _THREADS_PER_WAIT)),
            ingestion=ingestion,
            guarding=guarding,
            brakes=Brakes(storage, guarding, publisher),
            metrics=metrics,
            checks={
                "database": lambda: storage.check_writable(_WRITABLE_WITHIN_S),
                "writer": lambda: _require_alive(ingestion),
                "hub": lambda: _require_alive(hub),
            },
            stopping=receipts.close,
            close=undo.pop_all().close,
        )


class _NotAliveError(ServerError):
    """Something that should run beside the requests has ended."""


def _require_alive(part: Ingestion | LocalHub) -> None:
    if not part.is_alive:
        raise _NotAliveError("its thread has ended")
