"""Puts a server together and starts it: what hears of what, and in which order all begins and ends.

What there is to be put together is in `parts`.
"""

from collections.abc import Callable
from contextlib import ExitStack
from threading import Semaphore

from flagd_server.api.limits import RateLimits
from flagd_server.api.wiring import Readiness, Services
from flagd_server.clock import Clock
from flagd_server.config import Settings
from flagd_server.domain.times import parse_time
from flagd_server.parts import Parts
from flagd_server.services.audit import Audit
from flagd_server.services.brakes import RELEASE
from flagd_server.services.called_kills import CalledKills
from flagd_server.services.configurations import Configurations
from flagd_server.services.deployments import Deployments
from flagd_server.services.environments import Environments
from flagd_server.services.evaluation import Evaluation
from flagd_server.services.evidence import EvidenceReports
from flagd_server.services.flags import Flags
from flagd_server.services.gate_answers import GateAnswers
from flagd_server.services.gates import Gates
from flagd_server.services.hook_secrets import HookSecrets
from flagd_server.services.notices import Notices, Topic
from flagd_server.services.people import People
from flagd_server.services.recently import Recently
from flagd_server.services.rollouts import Rollouts
from flagd_server.services.segments import Segments
from flagd_server.services.sessions import Sessions
from flagd_server.services.slos import Slos
from flagd_server.services.standing_kills import StandingKills
from flagd_server.services.tickets import Tickets
from flagd_server.services.url_checks import url_checks
from flagd_server.services.webhooks import Webhooks
from flagd_server.storage.base import OnNotice, Storage

_WRITABLE_WITHIN_S = 1.0
_CHECKED_FOR_S = 0.2


def compose(settings: Settings, clock: Clock, storage: Storage) -> Services:
    """Begin to listen, load, lead and run; return the services, which end with `close`.

    Args:
        storage: open; closed with the services, or where this fails.

    Raises:
        StorageError: the database can't be read.
    """
    parts = Parts(settings, clock, storage)
    with ExitStack() as undo:
        undo.callback(parts.tracing.close)
        undo.callback(parts.storage.close)
        parts.storage.listen(*_hearing(parts))
        undo.callback(parts.hub.close)
        parts.propagation.load()
        undo.callback(parts.asking.close)
        undo.callback(parts.gate_verdicts.close)
        for part in (parts.aftermath, parts.outbox, parts.conductor, parts.keeper):
            part.start()
            undo.callback(part.close)
        parts.last_uses.start()
        undo.callback(parts.last_uses.close)
        parts.tokens.watch()
        undo.callback(parts.tokens.close)
        parts.roll_call.start()
        undo.callback(parts.roll_call.close)
        parts.storage.lead(lambda leads: _look_at_once(parts))
        parts.ingestion.start()
        # Undone from the last to the first: what was sent in is stored, and a kill that it
        # brings goes out, before the streams end and the storage closes.
        undo.callback(parts.ingestion.close)
        undo.callback(parts.receipts.close)
        return _services(parts, undo.pop_all())


def _hearing(parts: Parts) -> tuple[OnNotice, Callable[[], None]]:
    def follow(environment: str, kill: str, sequence: int, at: str) -> None:
        ago_s = (parts.clock.now() - parse_time(at)).total_seconds()
        parts.receipts.follow(kill, environment, sequence, ago_s)

    notices = Notices()
    # First of all: what else hears of a kill takes it for sent.
    parts.propagation.subscribe(notices)
    parts.hints.subscribe(notices)
    parts.roll_call.subscribe(notices)
    notices.on(Topic.TOKENS, parts.tokens.refresh)
    notices.on(Topic.KILL, follow)
    notices.on(Topic.DECISION, parts.aftermath.notice)
    notices.on(Topic.OBJECTIVES, parts.guarding.note_objectives)
    notices.on(Topic.GATE, parts.gate_verdicts.note_change)
    notices.on(Topic.OUTBOX, parts.outbox.wake)
    notices.on(Topic.INBOX, parts.ingestion.look)
    notices.on(Topic.DONE, parts.requests.hear_done)
    parts.requests.on(RELEASE, parts.brakes.do_release)
    # Hints are asked for by whoever has missed some, as processes are.
    notices.on(Topic.ROLL_CALL, lambda server: parts.counting.tell_hints_again())
    notices.on_gap(lambda: _look_again(parts))
    return notices.hear, notices.gap


def _look_again(parts: Parts) -> None:
    """Look at what would have been announced; the flags are looked after elsewhere."""
    parts.tokens.refresh()
    parts.guarding.note_objectives()
    parts.gate_verdicts.note_change()
    _look_at_once(parts)


def _look_at_once(parts: Parts) -> None:
    """Have everything that acts look whether it has to, and on what."""
    parts.ingestion.look()
    parts.outbox.wake()
    parts.aftermath.wake()


def _services(parts: Parts, running: ExitStack) -> Services:
    storage, publisher = parts.storage, parts.publisher
    check_urls = url_checks(parts.outgoing)

    def stop_waiting() -> None:
        parts.receipts.close()
        parts.asking.stop_waiting()

    return Services(
        build=parts.build,
        clock=parts.clock,
        is_plain_http=parts.settings.plain_http_sessions,
        tracing=parts.tracing,
        limits=RateLimits(
            of_token=parts.settings.api_per_minute,
            of_address=parts.settings.open_per_minute,
            of_refused=parts.settings.refused_per_minute,
        ),
        environments=Environments(storage, publisher),
        flags=Flags(storage, publisher),
        configurations=Configurations(storage, publisher),
        kills=parts.kills,
        local_kills=parts.local_kills,
        rollouts=Rollouts(storage, parts.moves, parts.kills),
        standing_kills=StandingKills(storage, parts.receipts),
        deployments=Deployments(storage, publisher, parts.kills),
        deployment_states=parts.deployment_states,
        segments=Segments(storage, publisher),
        slos=Slos(storage, publisher, check_urls),
        slo_states=parts.slo_states,
        asking=parts.asking,
        gates=Gates(storage, publisher, check_urls),
        gate_verdicts=parts.gate_verdicts,
        gate_answers=GateAnswers(storage, publisher, parts.gate_verdicts),
        called_kills=CalledKills(storage, parts.kills),
        hook_secrets=HookSecrets(storage, publisher),
        tokens=parts.tokens,
        people=People(storage, publisher, parts.hashes, parts.throttle),
        sessions=Sessions(storage, publisher, parts.hashes, parts.throttle, parts.last_uses),
        webhooks=Webhooks(
            storage, publisher, parts.outbox, url_checks(parts.outgoing, may_be_unknown=True)
        ),
        audit=Audit(storage),
        alarms=parts.alarms,
        evidence=EvidenceReports(storage, parts.guarding, parts.clock),
        snapshots=parts.snapshots,
        evaluation=Evaluation(parts.snapshots),
        tickets=Tickets(parts.tokens, parts.clock),
        hub=parts.hub,
        receipts=parts.receipts,
        receipt_turns=Semaphore(parts.waits),
        ingestion=parts.ingestion,
        guarding=parts.guarding,
        brakes=parts.brakes,
        metrics=parts.metrics,
        readiness=Readiness(
            parts={
                "writer": lambda: parts.ingestion.is_alive,
                "hub": lambda: parts.hub.is_alive,
                "conductor": lambda: parts.conductor.is_alive,
                "outbox": lambda: parts.outbox.is_alive,
            },
            check_database=Recently(
                lambda: storage.check_writable(_WRITABLE_WITHIN_S), _CHECKED_FOR_S
            ),
            is_leading=lambda: storage.is_leading,
        ),
        stopping=stop_waiting,
        close=running.close,
    )
