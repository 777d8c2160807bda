"""A person logs in as a browser does, and changes what their roles let them."""

import json
from collections.abc import Callable, Mapping
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flagd_server.app import create_app
from flagd_server.config import Settings
from flagd_server.services import password_hashes
from flagd_server.services.first_start import InitialTokens
from tests.server.api.client import Api
from tests.server.api.conftest import CHECKOUT, PRODUCTION

SESSION = "/api/v1/session"
PEOPLE = "/api/v1/people"
STAGING = f"{CHECKOUT}/environments/staging"
PASSWORD = "four words by chance"
Roles = Mapping[str | None, str]


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_hashes, "_MEMORY_KIB", 64)


def cookies_of(answer: TestResponse) -> dict[str, Morsel[str]]:
    found: dict[str, Morsel[str]] = {}
    for line in answer.headers.getlist("Set-Cookie"):
        found |= SimpleCookie(line)
    return found


class Browser(Api):
    """Keeps cookies and sends the session's token with every request, as the page will."""

    def __init__(self, app: Flask) -> None:
        super().__init__(app)
        self.jar: dict[str, str] = {}
        self.csrf = ""

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        headers = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.jar.items()),
            "X-Flagd-CSRF": self.csrf,
            **(options.pop("headers", None) or {}),
        }
        answer = super().request(method, path, body, headers=headers, **options)
        for name, morsel in cookies_of(answer).items():
            self.jar[name] = morsel.value
        if path.startswith(SESSION) and answer.status_code in (200, 201):
            self.csrf = answer.json["csrf_token"]
        return answer

    def log_in(self, name: str, password: str = PASSWORD) -> TestResponse:
        return self.post(SESSION, {"name": name, "password": password})


@pytest.fixture
def person(app: Flask, admin: Api) -> Callable[..., Browser]:
    """Return the browser of a new person with the roles, who has logged in."""

    def make(roles: Roles, name: str = "ann") -> Browser:
        rows = [{"environment": place, "role": role} for place, role in roles.items()]
        made = admin.post(PEOPLE, {"name": name, "roles": rows})
        assert made.status_code == 201, made.json
        browser = Browser(app)
        first = browser.log_in(name, made.json["one_time_password"])
        assert first.json["must_choose_password"]
        chosen = browser.post(
            f"{SESSION}/password",
            {"current_password": made.json["one_time_password"], "new_password": PASSWORD},
        )
        assert chosen.status_code == 200, chosen.json
        return browser

    return make


class TestSession:
    def test_from_login_to_logout(self, app: Flask, person: Callable[..., Browser]) -> None:
        person({None: "viewer", "staging": "releaser"})
        browser = Browser(app)
        assert browser.get(SESSION).status_code == 401
        begun = browser.log_in("Ann")
        assert begun.status_code == 201
        assert begun.json["person"] == "ann"
        assert begun.json["roles"] == [
            {"environment": None, "role": "viewer"},
            {"environment": "staging", "role": "releaser"},
        ]
        assert browser.get(SESSION).json == begun.json
        assert browser.get("/api/v1/flags").status_code == 200
        held = dict(browser.jar)
        ended = browser.delete(SESSION)
        assert ended.status_code == 204
        assert cookies_of(ended)["__Host-flagd_session"]["max-age"] == "0"
        browser.jar = held
        assert browser.get("/api/v1/flags").status_code == 401

    def test_its_cookies_are_for_this_server_alone_and_for_no_script(
        self, app: Flask, person: Callable[..., Browser]
    ) -> None:
        person({})
        cookies = cookies_of(Browser(app).log_in("ann"))
        assert cookies.keys() == {"__Host-flagd_session", "__Host-flagd_device"}
        for cookie in cookies.values():
            assert cookie["secure"]
            assert cookie["httponly"]
            assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("Strict", "/", "")
        assert cookies["__Host-flagd_session"]["max-age"] == "", "it goes with the browser"

    def test_a_login_ends_the_session_that_the_browser_had(
        self, app: Flask, person: Callable[..., Browser]
    ) -> None:
        person({None: "viewer"})
        browser = Browser(app)
        browser.log_in("ann")
        before = dict(browser.jar)
        browser.log_in("ann")
        assert browser.jar["__Host-flagd_session"] != before["__Host-flagd_session"]
        browser.jar = before
        assert browser.get("/api/v1/flags").status_code == 401

    @pytest.mark.parametrize("path", [SESSION, f"{SESSION}/password"])
    def test_a_field_that_can_not_be_is_named(
        self, app: Flask, person: Callable[..., Browser], path: str
    ) -> None:
        browser = person({})
        good = {"name": "ann", "password": PASSWORD}
        if path != SESSION:
            good = {"current_password": PASSWORD, "new_password": "four others by chance"}
        for field in good:
            for value in (None, 1, [], {}, "", "x" * 2_000):
                answer = browser.post(path, {**good, field: value})
                assert answer.status_code == 422, (field, value, answer.json)
                assert [fault["field"] for fault in answer.json["errors"]] == [field]
            missing = browser.post(path, {name: good[name] for name in good if name != field})
            assert [fault["field"] for fault in missing.json["errors"]] == [field]
        surprised = browser.post(path, {**good, "surprise": 1})
        assert [fault["field"] for fault in surprised.json["errors"]] == ["surprise"]
        assert browser.post(path, good).status_code in (200, 201)

    def test_what_is_wrong_is_not_said(self, app: Flask, person: Callable[..., Browser]) -> None:
        person({})
        browser = Browser(app)
        answers = [browser.log_in("ann", "wrong"), browser.log_in("nobody", "wrong")]
        assert [answer.status_code for answer in answers] == [401, 401]
        told = [{**answer.json, "request_id": ""} for answer in answers]
        assert told[0] == told[1]
        assert answers[0].json["type"] == "urn:problem-type:flagd:login-failed"
        assert cookies_of(answers[0]) == {}

    def test_who_fails_has_to_wait(
        self, app: Flask, person: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        person({})
        # The first wait is one of a second, and the machine may stand still for longer.
        throttle = app.extensions["flagd_server"].sessions._throttle
        monkeypatch.setattr(throttle, "_clock", lambda: 1_000.0)
        statuses = [Browser(app).log_in("ann", "wrong").status_code for _ in range(10)]
        assert statuses == [401] * 10
        refused = Browser(app).log_in("ann")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 3

    def test_another_site_logs_nobody_in(self, app: Flask, person: Callable[..., Browser]) -> None:
        person({})
        body = {"name": "ann", "password": PASSWORD}
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
            {"Sec-Fetch-Site": "none"},
        ):
            answer = Browser(app).post(SESSION, body, headers=headers)
            assert answer.status_code == 403
            assert answer.json["type"] == "urn:problem-type:flagd:cross-site"
        for headers in ({"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}):
            assert Browser(app).post(SESSION, body, headers=headers).status_code == 201

    def test_a_one_time_password_is_for_choosing_another_and_no_more(
        self, app: Flask, admin: Api, checkout: str
    ) -> None:
        roles = [{"environment": None, "role": "admin"}]
        made = admin.post(PEOPLE, {"name": "ann", "roles": roles}).json
        browser = Browser(app)
        browser.log_in("ann", made["one_time_password"])
        refused = browser.get("/api/v1/flags")
        assert refused.status_code == 403
        assert "choose a password" in refused.json["detail"]
        assert browser.get(SESSION).status_code == 200
        short = {"current_password": made["one_time_password"], "new_password": "short"}
        assert browser.post(f"{SESSION}/password", short).status_code == 422
        old = dict(browser.jar)
        browser.post(f"{SESSION}/password", short | {"new_password": PASSWORD})
        assert browser.get("/api/v1/flags").status_code == 200
        browser.jar = old
        assert browser.get("/api/v1/flags").status_code == 401

    def test_a_secret_is_never_repeated(
        self,
        app: Flask,
        admin: Api,
        person: Callable[..., Browser],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level("DEBUG")
        browser = person({None: "admin"})
        answers = [
            browser.get(SESSION),
            browser.get(PEOPLE),
            browser.get("/api/v1/audit"),
            browser.post(SESSION, {"name": "ann", "password": PASSWORD, "more": 1}),
            browser.post(SESSION, {"name": "ann", "password": [PASSWORD]}),
            browser.get("/metrics"),
        ]
        secrets = [PASSWORD, *browser.jar.values()]
        for secret in secrets:
            assert all(secret not in answer.text for answer in answers)
            assert secret not in caplog.text


@pytest.mark.parametrize("is_plain", [False, True])
def test_without_tls_only_where_that_was_set(
    database: Path, initial_tokens: InitialTokens, is_plain: bool
) -> None:
    app = create_app(Settings(database=str(database), plain_http_sessions=is_plain))
    try:
        made = Api(app, initial_tokens.admin).post(PEOPLE, {"name": "ann"})
        browser = Browser(app)
        cookies = cookies_of(browser.log_in("ann", made.json["one_time_password"]))
        assert ("flagd_session" in cookies) is is_plain
        assert all(bool(cookie["secure"]) is not is_plain for cookie in cookies.values())
        assert browser.get(SESSION).status_code == 200
    finally:
        app.extensions["flagd_server"].close()


class TestPeople:
    def test_are_changed_and_never_deleted(
        self, admin: Api, person: Callable[..., Browser]
    ) -> None:
        browser = person({None: "viewer"})
        assert browser.get(PEOPLE).status_code == 403
        roles = [{"environment": "staging", "role": "admin"}]
        changed = admin.patch(f"{PEOPLE}/ann", {"roles": roles})
        assert changed.json["roles"] == roles
        assert browser.get("/api/v1/environments/production").status_code == 403
        assert browser.get("/api/v1/environments/staging").status_code == 200
        disabled = admin.patch(f"{PEOPLE}/ann", {"disabled": True})
        assert disabled.json["disabled_at"] is not None
        assert browser.get(SESSION).status_code == 401
        assert browser.log_in("ann").status_code == 401
        assert admin.patch(f"{PEOPLE}/ann", {"disabled": False}).json["disabled_at"] is None
        assert browser.log_in("ann").status_code == 201
        assert admin.get(f"{PEOPLE}/ann").json == admin.get(PEOPLE).json["items"][0]
        assert admin.delete(f"{PEOPLE}/ann").status_code == 405

    def test_have_their_password_made_anew(
        self, admin: Api, person: Callable[..., Browser]
    ) -> None:
        browser = person({None: "viewer"})
        made = admin.post(f"{PEOPLE}/ann/password")
        assert made.headers["Cache-Control"] == "no-store"
        assert browser.get(SESSION).status_code == 401
        assert browser.log_in("ann").status_code == 401
        assert browser.log_in("ann", made.json["one_time_password"]).status_code == 201
        assert admin.post(f"{PEOPLE}/eve/password").status_code == 404

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"name": "Ann"}, "name"),
            ({"name": "ann", "password": "x"}, "password"),
            ({"name": "ann", "roles": [{"environment": None, "role": "king"}]}, "roles[0].role"),
            ({"name": "ann", "roles": [{"role": "admin"}]}, "roles[0].environment"),
            ({"name": "ann", "roles": [{"environment": "nowhere", "role": "admin"}]}, "roles"),
            ({"name": "ann", "roles": [{"environment": None, "role": "admin"}] * 2}, "roles"),
        ],
    )
    def test_that_make_no_sense_are_refused(
        self, admin: Api, body: dict[str, Any], field: str
    ) -> None:
        answer = admin.post(PEOPLE, body)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json["errors"]] == [field]
        assert admin.get(PEOPLE).json["items"] == []

    def test_are_named_in_the_audit_and_in_kills(
        self, admin: Api, checkout: str, person: Callable[..., Browser]
    ) -> None:
        browser = person({"production": "releaser"})
        killed = browser.post(f"{PRODUCTION}/kill", {"reason": "smoke"})
        assert killed.json["kill"]["by"] == "people/ann"
        newest = admin.get("/api/v1/audit?limit=1").json["items"][0]
        assert (newest["actor"], newest["action"]) == ("people/ann", "configuration.kill")


class TestEditor:
    """May change what reaches nobody: `checkout` is on in production and off in staging."""

    @pytest.fixture
    def editor(self, checkout: str, person: Callable[..., Browser]) -> Browser:
        return person({None: "editor"})

    def change(self, browser: Browser, path: str, body: dict[str, Any]) -> int:
        version = browser.get(path).json["version"]
        answer = browser.patch(path, body, if_match=version)
        if answer.status_code == 403:
            assert answer.json["required_role"] == "releaser"
            assert browser.get(path).json["version"] == version
        return answer.status_code

    def test_prepares_a_configuration_and_does_not_turn_it_on(self, editor: Browser) -> None:
        assert self.change(editor, STAGING, {"default_serve": {"variant": "on"}}) == 200
        assert self.change(editor, STAGING, {"enabled": True}) == 403
        assert self.change(editor, STAGING, {"off_variant": "on"}) == 403
        assert self.change(editor, PRODUCTION, {"default_serve": {"variant": "off"}}) == 403
        assert self.change(editor, PRODUCTION, {"enabled": False}) == 403

    def test_a_releaser_does_in_their_environment(
        self, checkout: str, person: Callable[..., Browser]
    ) -> None:
        browser = person({"staging": "releaser", "production": "editor"}, "bob")
        assert self.change(browser, STAGING, {"enabled": True}) == 200
        assert self.change(browser, STAGING, {"default_serve": {"variant": "on"}}) == 200
        assert self.change(browser, PRODUCTION, {"enabled": False}) == 403

    def test_describes_a_flag_and_leaves_what_users_are_served(self, editor: Browser) -> None:
        assert editor.patch(CHECKOUT, {"description": "New", "tags": ["web"]}).status_code == 200
        for body in ({"variants": {"on": True, "off": False, "also": True}}, {"archived": True}):
            refused = editor.patch(CHECKOUT, body)
            assert refused.status_code == 403, body
            assert refused.json["environment"] is not None
        created = {"key": "new-one", "type": "string", "variants": {"a": "A", "b": "B"}}
        assert editor.post("/api/v1/flags", created).status_code == 201
        path = "/api/v1/flags/new-one"
        more = {"variants": {"c": "C", "a": "A", "b": "B"}}
        assert editor.patch(path, more).status_code == 200, "it is off everywhere"
        other = {"variants": {"c": "C", "a": "A", "b": "other"}}
        assert editor.patch(path, other).status_code == 403, "off, it serves b"

    def test_a_change_that_changes_nothing_is_let_be(self, editor: Browser) -> None:
        body = editor.get(CHECKOUT).json
        assert editor.patch(CHECKOUT, {"variants": body["variants"]}).status_code == 200


class TestSeeing:
    """Where lists go over environments, a person sees those of theirs."""

    def test_lists_show_what_is_theirs(
        self, admin: Api, checkout: str, person: Callable[..., Browser]
    ) -> None:
        browser = person({"staging": "admin"})
        environments = browser.get("/api/v1/environments").json["items"]
        assert [each["key"] for each in environments] == ["staging"]
        assert browser.get(CHECKOUT).json["configurations"].keys() == {"staging"}
        assert {each["environment"] for each in browser.get("/api/v1/tokens").json["items"]} == {
            "staging"
        }
        assert len(admin.get("/api/v1/tokens").json["items"]) == 4

    def test_tokens_of_their_environment_are_theirs_to_make(
        self, person: Callable[..., Browser]
    ) -> None:
        browser = person({"staging": "admin"})
        body = {"scope": "sdk", "name": "shop", "environment": "staging"}
        made = browser.post("/api/v1/tokens", body)
        assert made.status_code == 201
        assert (
            browser.post("/api/v1/tokens", body | {"environment": "production"}).status_code == 403
        )
        assert browser.post("/api/v1/tokens", {"scope": "admin", "name": "x"}).status_code == 403
        assert browser.delete(f"/api/v1/tokens/{made.json['id']}").status_code == 204

    def test_the_audit_of_others_is_not(self, person: Callable[..., Browser]) -> None:
        browser = person({"staging": "viewer"})
        assert browser.get("/api/v1/audit?environment=staging").status_code == 200
        assert browser.get("/api/v1/audit?environment=production").status_code == 403
        assert browser.get("/api/v1/audit").status_code == 403

    def test_addresses_of_webhooks_are_shown_to_who_may_change_them(
        self, admin: Api, person: Callable[..., Browser]
    ) -> None:
        path = "/api/v1/environments/staging/webhooks/team"
        url = "https://hooks.slack.com/services/T0/B0/secret"
        admin.put(path, {"url": url})
        viewer, owner = person({"staging": "viewer"}), person({"staging": "admin"}, "bob")
        assert "secret" not in json.dumps(viewer.get(path).json)
        assert owner.get(path).json["url"] == url


class TestTokens:
    def test_one_that_expires_says_so(self, app: Flask, admin: Api) -> None:
        body = {"scope": "read", "name": "visitor"}
        made = admin.post("/api/v1/tokens", body | {"expires_in_s": 3_600}).json
        listed = admin.get("/api/v1/tokens").json["items"][-1]
        assert listed["expires_at"] == made["expires_at"] is not None
        assert listed["last_used_at"] is None
        assert admin.by(made["text"]).get("/api/v1/flags").status_code == 200
        both = body | {"expires_in_s": 1, "expires_at": "2100-01-01T00:00:00Z"}
        for wrong in (both, body | {"expires_at": "2001-01-01T00:00:00Z"}):
            assert admin.post("/api/v1/tokens", wrong).status_code == 422

    def test_one_that_has_expired_is_refused_in_so_many_words(
        self, admin: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body = {"scope": "read", "name": "visitor", "expires_at": "2100-01-01T00:00:00Z"}
        made = admin.post("/api/v1/tokens", body).json
        monkeypatch.setattr(
            "flagd_server.storage.records.Token.has_expired",
            lambda token, now: token.expires_at is not None,
        )
        refused = admin.by(made["text"]).get("/api/v1/flags")
        assert refused.status_code == 401
        assert refused.json["detail"] == "the token expired at 2100-01-01T00:00:00.000Z"
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
