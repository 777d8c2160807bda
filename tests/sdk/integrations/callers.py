"""A WSGI and an ASGI server of the simplest kind, in whose hand the test has everything."""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from wsgiref.util import setup_testing_defaults


@dataclass
class Answer:
    """What the client has got; `escaped` is what the server had to deal with."""

    status: int = 0
    chunks: list[bytes] = field(default_factory=list)
    escaped: BaseException | None = None

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode()


def call_wsgi(app: Any, path: str, leave_after: int | None = None, **environ: Any) -> Answer:
    """Request a page.

    Args:
        leave_after: so many chunks; then the client goes.
    """
    answer = Answer()
    environ = {"PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", **environ}
    setup_testing_defaults(environ)

    def start_response(status: str, headers: object, exc_info: object = None) -> Any:
        answer.status = int(status[:3])
        return answer.chunks.append

    body: Any = None
    try:
        body = app(environ, start_response)
        for chunk in body:
            answer.chunks.append(chunk)
            if len(answer.chunks) == leave_after:
                break
    except Exception as error:
        answer.escaped = error
        answer.status = answer.status or 500
    finally:
        if hasattr(body, "close"):
            body.close()
    return answer


async def call_asgi(
    app: Any,
    path: str,
    leave_after: int | None = None,
    send_breaks: bool = False,
    spec_version: str = "2.3",
) -> Answer:
    """Request a page.

    Args:
        leave_after: so many chunks; then the client goes.
        send_breaks: what is sent to a client that has gone raises, instead of being swallowed.
        spec_version: of ASGI; from 2.4 on, Starlette listens for no disconnection.
    """
    answer = Answer()
    gone, complete = asyncio.Event(), asyncio.Event()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "client": ("127.0.0.1", 5),
        "server": ("testserver", 80),
        "state": {},
    }

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        waiting = [asyncio.create_task(event.wait()) for event in (gone, complete)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if gone.is_set():
            if send_breaks:
                raise ConnectionResetError("the client has gone")
            return
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            return
        if message.get("body"):
            answer.chunks.append(message["body"])
        if not message.get("more_body"):
            complete.set()
        if len(answer.chunks) == leave_after:
            gone.set()

    try:
        await asyncio.wait_for(app(scope, receive, send), 20)
    except Exception as error:
        answer.escaped = error
    return answer
