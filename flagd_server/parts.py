"""The parts of one server: which implementations there are, and what each is given.

Each is made when the first that needs it is, so that their order here is that of reading.
"""

import os
from datetime import timedelta
from functools import cached_property, partial

from flagd_server.api.metrics import Metrics
from flagd_server.build import this_build
from flagd_server.clock import Clock
from flagd_server.config import Settings
from flagd_server.http_headers import security_headers
from flagd_server.hub.local import LocalHub
from flagd_server.otel import tracing_of
from flagd_server.outgoing import OutgoingHttp
from flagd_server.services.aftermath import AftermathWatch
from flagd_server.services.alarms import Alarms
from flagd_server.services.announcements import Announcements
from flagd_server.services.asking import Asking
from flagd_server.services.blind_watch import BlindWatch
from flagd_server.services.brakes import Brakes
from flagd_server.services.claims import Claims
from flagd_server.services.conductor import Conductor
from flagd_server.services.counting import Counting
from flagd_server.services.deployment_states import DeploymentStates
from flagd_server.services.exposure_tally import ExposureTally
from flagd_server.services.gate_facts import GateFacts
from flagd_server.services.gate_verdicts import GateVerdicts
from flagd_server.services.guarding import Guarding
from flagd_server.services.healthy import HealthWatch
from flagd_server.services.hints import Hints
from flagd_server.services.inbox import Inbox
from flagd_server.services.ingestion import Ingestion
from flagd_server.services.kills import Kills
from flagd_server.services.last_uses import LastUses
from flagd_server.services.leader_requests import LeaderRequests
from flagd_server.services.leadership import LeadersStorage
from flagd_server.services.local_kills import LocalKills
from flagd_server.services.login_throttle import LoginThrottle
from flagd_server.services.outbox import Outbox
from flagd_server.services.overview import Overview
from flagd_server.services.own_changes import OwnChanges
from flagd_server.services.password_hashes import PasswordHashes
from flagd_server.services.propagation import Propagation
from flagd_server.services.publishing import Publisher
from flagd_server.services.receipts import Receipts
from flagd_server.services.refetching import BothAudiences, newest_of
from flagd_server.services.roll_call import RollCall
from flagd_server.services.rollbacks import Rollbacks
from flagd_server.services.rollout_moves import RolloutMoves
from flagd_server.services.rollout_watch import RolloutWatch
from flagd_server.services.slo_states import SloStates
from flagd_server.services.snapshots import Snapshots
from flagd_server.services.tokens import Tokens
from flagd_server.services.turns import Turns
from flagd_server.storage import is_postgres
from flagd_server.storage.base import Storage
from flagd_server.storage.observed import ObservedStorage

# Of so many threads one may wait for a receipt.
_THREADS_PER_WAIT = 3


class Parts:
    """Each is made when it is first asked for, by one thread: before anything runs."""

    def __init__(self, settings: Settings, clock: Clock, storage: Storage) -> None:
        self.settings = settings
        self.clock = clock
        self.build = this_build(settings.git_sha)
        self.tracing = tracing_of(os.environ, self.build)
        self.storage = ObservedStorage(
            storage,
            "postgresql" if is_postgres(settings.database) else "sqlite",
            self.tracing,
            lambda *done: self.metrics.time_storage(*done),
        )
        self.waits = max(1, settings.threads // _THREADS_PER_WAIT)

    # Changes, from the transaction to the streams

    @cached_property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.storage)

    @cached_property
    def hub(self) -> LocalHub:
        return LocalHub(
            partial(newest_of, self.snapshots),
            heartbeat_s=self.settings.heartbeat_s,
            max_streams=self.settings.max_streams,
            max_streams_per_token=self.settings.max_streams_per_token,
            headers=security_headers(is_behind_tls=self.settings.behind_tls),
        )

    @cached_property
    def announcements(self) -> Announcements:
        return Announcements(BothAudiences(self.hub), self.clock)

    @cached_property
    def own_changes(self) -> OwnChanges:
        return OwnChanges()

    @cached_property
    def publisher(self) -> Publisher:
        return Publisher(self.clock, self.own_changes)

    @cached_property
    def propagation(self) -> Propagation:
        return Propagation(self.storage, self.snapshots, self.announcements, self.own_changes)

    # Who asks

    @cached_property
    def last_uses(self) -> LastUses:
        return LastUses(self.storage, self.clock)

    @cached_property
    def tokens(self) -> Tokens:
        return Tokens(
            self.storage, self.clock, self.hub.disconnect_token, self.last_uses.note_token
        )

    @cached_property
    def hashes(self) -> PasswordHashes:
        return PasswordHashes()

    @cached_property
    def throttle(self) -> LoginThrottle:
        return LoginThrottle()

    # Kills, and whom they reach

    @cached_property
    def kills(self) -> Kills:
        def count(environment: str, source: str) -> None:
            self.metrics.count_kill(environment, source)

        return Kills(self.storage, self.publisher, self.outbox, count)

    @cached_property
    def receipts(self) -> Receipts:
        def reached(environment: str, percent: int, seconds: float) -> None:
            # Every server follows each kill; it counts once.
            if self.storage.is_leading:
                self.metrics.time_kill(environment, percent, seconds)

        return Receipts(
            self.hub.connected,
            on_reached=reached,
            on_news=lambda *news: self.roll_call.note(*news),
        )

    @cached_property
    def roll_call(self) -> RollCall:
        return RollCall(self.storage, self.receipts, self.snapshots.loaded)

    # The guard, and what it is fed with

    @cached_property
    def alarms(self) -> Alarms:
        return Alarms(self.storage, self.clock, self.metrics.count_alarm)

    @cached_property
    def local_kills(self) -> LocalKills:
        return LocalKills(
            self.storage,
            self.publisher,
            self.alarms,
            self.receipts.known,
            self.metrics.count_local_kill,
        )

    @cached_property
    def guarding(self) -> Guarding:
        def decided(environment: str, _flag: str, mode: str, _evidence: str) -> None:
            self.metrics.count_decision(environment, mode)

        rollbacks = Rollbacks(self.publisher, self.outbox)
        return Guarding(self.storage, self.kills, rollbacks, decided, self.alarms.raise_by_name)

    @cached_property
    def tally(self) -> ExposureTally:
        return ExposureTally()

    @cached_property
    def counting(self) -> Counting:
        claims = Claims(self.alarms, self.metrics.count_capped)
        return Counting(self.guarding, self.receipts, claims, self.local_kills, tally=self.tally)

    @cached_property
    def hints(self) -> Hints:
        return Hints()

    @cached_property
    def requests(self) -> LeaderRequests:
        return LeaderRequests(self.storage, self.clock)

    @cached_property
    def brakes(self) -> Brakes:
        return Brakes(self.storage, self.guarding, self.publisher, self.requests)

    @cached_property
    def ingestion(self) -> Ingestion:
        leaders = LeadersStorage(self.storage, self.counting.forget)
        return Ingestion(
            leaders,
            self.counting,
            Inbox(self.storage, self.receipts, self.hints, self.clock),
            self.requests,
            self.receipts,
            Turns(self.alarms, self.metrics.count_capped),
            self.clock,
            leaders.take_up,
            timedelta(days=self.settings.retention_days),
        )

    # Releasing, and looking back

    @cached_property
    def outgoing(self) -> OutgoingHttp:
        return OutgoingHttp(self.settings.outgoing_allow, tracing=self.tracing)

    @cached_property
    def outbox(self) -> Outbox:
        leaders = LeadersStorage(self.storage, lambda: None)
        return Outbox(leaders, self.outgoing, self.clock, leads=leaders.take_up)

    @cached_property
    def aftermath(self) -> AftermathWatch:
        leaders = LeadersStorage(self.storage, lambda: self.aftermath.forget())
        return AftermathWatch(
            leaders, self.receipts, self.announcements, self.clock, leaders.take_up
        )

    @cached_property
    def asking(self) -> Asking:
        return Asking(self.outgoing, max_waiting=self.waits)

    @cached_property
    def slo_states(self) -> SloStates:
        return SloStates(self.storage, self.asking, self.clock)

    @cached_property
    def deployment_states(self) -> DeploymentStates:
        return DeploymentStates(self.storage, self.guarding, self.receipts, self.clock)

    @cached_property
    def gate_verdicts(self) -> GateVerdicts:
        facts = GateFacts(
            self.asking, self.slo_states, self.guarding, self.deployment_states, self.clock
        )
        return GateVerdicts(self.storage, facts, self.asking, self.clock)

    @cached_property
    def moves(self) -> RolloutMoves:
        return RolloutMoves(
            self.publisher, self.guarding, self.gate_verdicts, self.local_kills, self.outbox
        )

    @cached_property
    def conductor(self) -> Conductor:
        def forget() -> None:
            for watch in watches:
                watch.forget()

        leaders = LeadersStorage(self.storage, forget)
        watches = (
            RolloutWatch(leaders, self.moves),
            HealthWatch(leaders, self.guarding, self.clock, self.settings.healthy_after_s),
            BlindWatch(leaders, self.publisher, self.guarding.states, self.outbox),
        )
        return Conductor([watch.tick for watch in watches], leads=leaders.take_up)

    @cached_property
    def keeper(self) -> Conductor:
        """What every server looks after about once a second, whether it leads or not."""
        return Conductor([lambda now_s: self.propagation.retry()])

    # What is shown

    @cached_property
    def metrics(self) -> Metrics:
        overview = Overview(self.storage)
        return Metrics(
            version=self.build.version,
            git_sha=self.build.git_sha,
            hub_statistics=self.hub.statistics,
            flag_counts=overview.flag_counts,
            releasing=overview.releasing,
            exposures=lambda: self.tally.snapshot(),
            watch_states=lambda: self.guarding.states(self.clock.now().timestamp()),
            local_kills=lambda: self.local_kills.standing_by_environment(),
            unconfirmed=lambda: self.receipts.missing(),
            slo_states=lambda: self.slo_states.all(),
            threads=self.settings.threads,
            telemetry_waiting=lambda: self.ingestion.waiting,
            is_leading=lambda: self.storage.is_leading,
            pools=self.storage.pools,
        )
