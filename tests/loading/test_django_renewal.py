"""What waits for the end of a response is done after it was sent, in the request's thread and language."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import asyncio
import http.client
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from queue import Queue
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from asgiref.sync import sync_to_async
from tests.caches import own_prefix
from tests.django_settings import configure

configure()

from django.core.asgi import get_asgi_application
from django.core.cache import caches
from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, connections
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client, override_settings
from django.urls import path
from django.utils import timezone, translation

from fleetcache.django.afterwards import _finish, after_response
from fleetcache.loading.renewing import submit

happened: list[Any] = []
"""What was done, in order."""

works: list[Callable[[], object]] = []
"""What the view leaves for after the response."""

colour: ContextVar[str] = ContextVar("colour", default="none")


def view(request: Any) -> HttpResponse:
    colour.set("red")
    taken = [after_response(work) for work in works]
    happened.append(("view", taken))
    if "fail" in request.GET:
        raise ValueError("the view failed")
    if "stream" in request.GET:
        return StreamingHttpResponse(parts())
    return HttpResponse("seen")


def parts() -> Iterator[bytes]:
    for part in (b"se", b"en"):
        happened.append(part)
        yield part


async def aview(request: Any) -> HttpResponse:
    happened.append(("view", [after_response(work) for work in works]))
    return HttpResponse("seen")


def stale_view(request: Any) -> HttpResponse:
    value = caches["default"].get_or_set("a", load, 0.02, stale_while_revalidate=60, renew="response")
    happened.append(value)
    return HttpResponse(value, status=503)


async def astale_view(request: Any) -> HttpResponse:
    value = await caches["default"].aget_or_set("a", aload, 0.02, stale_while_revalidate=60)
    happened.append(value)
    return HttpResponse(value)


def load() -> str:
    happened.append(f"load in {translation.get_language()}")
    return translation.get_language() or ""


async def aload() -> str:
    assert await asyncio.to_thread(gate.wait, 10)
    return await sync_to_async(load)()


gate = threading.Event()

urlpatterns = [path("", view), path("a", aview), path("stale", stale_view), path("astale", astale_view)]


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    """A site of these views."""
    happened.clear()
    works.clear()
    with override_settings(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=["django.middleware.common.CommonMiddleware"]
    ):
        yield


@contextmanager
def served() -> Iterator[int]:
    """Run the site under a real WSGI server; return its port."""

    class Silent(WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


def ask(port: int, url: str = "/") -> bytes:
    """Return the whole body of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", url)
        return connection.getresponse().read()
    finally:
        connection.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, happened
        time.sleep(0.005)


def test_a_client_has_its_response_before_the_work_begins_under_wsgi():
    """The client need not wait."""
    go_on = threading.Event()
    works.append(lambda: happened.append(("work", go_on.wait(10))))

    with served() as port:
        assert ask(port) == b"seen"
        assert happened == [("view", [True])]
        go_on.set()
        until(lambda: ("work", True) in happened)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_an_error_too():
    """The response with status 500 ends a request as any other does."""
    works.append(lambda: happened.append("work"))
    with served() as port:
        assert b"Server Error" in ask(port, "/?fail")
        until(lambda: "work" in happened)


def test_after_the_last_part_of_a_stream():
    """The response is sent when its last part is."""
    works.append(lambda: happened.append("work"))

    response = Client().get("/?stream")
    assert b"".join(response.streaming_content) == b"seen"

    assert happened == [("view", [True]), b"se", b"en", "work"]


def test_the_work_has_the_language_the_time_zone_and_the_context_of_the_view():
    """And the thread, with its database connections."""
    seen: list[Any] = []
    works.append(
        lambda: seen.extend(
            [translation.get_language(), timezone.get_current_timezone_name(), colour.get(), threading.get_ident()]
        )
    )

    def middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def answer(request: Any) -> Any:
            with translation.override("de"), timezone.override("Asia/Tokyo"):
                return get_response(request)

        return answer

    globals()["middleware"] = middleware
    with override_settings(MIDDLEWARE=[f"{__name__}.middleware"]):
        Client().get("/")

    assert seen == ["de", "Asia/Tokyo", "red", threading.get_ident()]
    assert translation.get_language() != "de"


def test_an_exception_of_the_work_is_logged(caplog):
    """It reaches neither the server nor the works after it."""

    def broken() -> None:
        raise ValueError("no database")

    works.extend([broken, lambda: happened.append("work")])
    with caplog.at_level(logging.ERROR, "fleetcache.loading"):
        Client().get("/")

    assert happened == [("view", [True, True]), "work"]
    assert "no database" in caplog.text


def test_a_work_may_leave_another():
    """It is done as well."""
    works.append(lambda: happened.append(after_response(lambda: happened.append("second"))))
    Client().get("/")

    assert happened == [("view", [True]), True, "second"]


def test_without_a_request_nothing_is_taken():
    """A command or a worker has no response to wait for."""
    assert not after_response(lambda: None)
    Client().get("/")
    assert not after_response(lambda: None)


def test_django_closes_its_connections_after_the_work():
    """Under a server, what receives the end of a request comes after the work, as Django's closing of old connections does."""
    ends: list[str] = []

    def closing(**kwargs: Any) -> None:
        ends.append("closed")

    works.append(lambda: ends.append("work"))
    receivers = [receiver for (_, _), receiver, *_ in request_finished.receivers]
    found = [receiver() if isinstance(receiver, weakref.ref) else receiver for receiver in receivers]
    request_finished.connect(closing)
    try:
        with served() as port:
            ask(port)
            until(lambda: "closed" in ends)
    finally:
        request_finished.disconnect(closing)

    assert ends == ["work", "closed"]
    assert found.index(_finish) < found.index(close_old_connections)


def test_work_of_a_request_that_never_ended():
    """It is done when the next one begins, if the server forgot the end."""
    works.append(lambda: happened.append("work"))
    environ = Client()._base_environ()
    get_wsgi_application()(environ, lambda *args: None)
    works.clear()
    assert happened == [("view", [True])]

    Client().get("/")

    assert happened == [("view", [True]), "work", ("view", [])]


class Exchange:
    """One request under ASGI, as a server does it."""

    def __init__(self, url: str) -> None:
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": url,
            "query_string": b"",
            "headers": [(b"host", b"testserver")],
        }
        self.asked = False
        self.ended = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if not self.asked:
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.ended.wait()
        await asyncio.Event().wait()
        return {}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            happened.append("sent")
            self.ended.set()


def test_under_asgi():
    """The response was sent before, and the loop goes on meanwhile."""
    go_on = threading.Event()
    threads: list[int] = []
    works.append(lambda: (threads.append(threading.get_ident()), happened.append(("work", go_on.wait(10)))))

    async def run() -> None:
        application = get_asgi_application()
        exchange = Exchange("/")
        request = asyncio.create_task(application(exchange.scope, exchange.receive, exchange.send))
        await asyncio.wait_for(exchange.ended.wait(), 10)
        assert happened == [("view", [True]), "sent"]
        second = Exchange("/a")
        await asyncio.wait_for(application(second.scope, second.receive, second.send), 10)
        assert ("work", True) not in happened
        go_on.set()
        await asyncio.wait_for(request, 10)

    asyncio.run(run())

    assert happened == [("view", [True]), "sent", ("view", [False]), "sent", ("work", True)]
    assert threads != [threading.get_ident()]


def test_under_asgi_when_the_server_gives_up():
    """Work that has begun goes on, although the request's task was cancelled."""
    begun, go_on = threading.Event(), threading.Event()
    works.append(lambda: (begun.set(), happened.append(("work", go_on.wait(10)))))

    async def run() -> None:
        exchange = Exchange("/")
        request = asyncio.create_task(get_asgi_application()(exchange.scope, exchange.receive, exchange.send))
        assert await asyncio.to_thread(begun.wait, 10)
        request.cancel()
        threading.Timer(0.05, go_on.set).start()
        await asyncio.wait([request], timeout=10)

    asyncio.run(run())
    until(lambda: ("work", True) in happened)


def test_another_thread_has_the_language_the_time_zone_and_the_context():
    """The first two belong to a thread, but the value that is renewed was asked for in them."""
    seen: Queue[Any] = Queue()
    colour.set("blue")
    with translation.override("de"), timezone.override("Asia/Tokyo"):
        taken = submit(
            lambda: seen.put([translation.get_language(), timezone.get_current_timezone_name(), colour.get()]), "thread"
        )

    assert taken
    assert seen.get(timeout=10) == ["de", "Asia/Tokyo", "blue"]


def test_without_a_response_a_thread_does_the_work():
    """In a command, and in the thread of an event loop."""
    seen: Queue[int] = Queue()

    assert submit(lambda: seen.put(threading.get_ident()), "response")
    assert seen.get(timeout=10) != threading.get_ident()


def test_a_thread_of_the_library_closes_its_connections():
    """Django closes those of its own threads only."""
    closed: Queue[Any] = Queue()

    class Noted:
        """Stands where a connection stands."""

        def close(self) -> None:
            closed.put(threading.current_thread().name)

    assert submit(lambda: connections.__setitem__("default", Noted()), "thread")

    assert closed.get(timeout=10).startswith("fleetcache")


def test_caches_are_there_after_the_response():
    """Django closes its caches at the end of a request too, and ours go on."""
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://renewal"}
    with override_settings(CACHES={"default": entry}):
        works.append(lambda: caches["default"].set("a", 1))
        Client().get("/")

        assert caches["default"].get("a") == 1


@pytest.fixture
def stale() -> Iterator[None]:
    """A cache with an old value."""
    gate.clear()
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://renewal", "KEY_PREFIX": own_prefix()}
    with override_settings(CACHES={"default": entry}):
        caches["default"].get_or_set("a", lambda: "old", 0.001, stale_while_revalidate=60)
        time.sleep(0.01)
        yield
        caches.close_all()


def test_a_stale_value_is_renewed_after_the_response(stale):
    """The view has the old value at once; also when its response is an error."""
    with translation.override("de"):
        assert Client().get("/stale").content == b"old"

    assert happened == ["old", "load in de"]
    assert caches["default"].get("a", stale=True) == "de"


def test_a_renewal_in_asyncio_goes_on_when_its_request_has_ended(stale):
    """It is a task of its own, whose blocking parts find a thread although the request's own has ended."""

    async def run() -> None:
        application = get_asgi_application()
        with translation.override("de"):
            exchange = Exchange("/astale")
            await asyncio.wait_for(application(exchange.scope, exchange.receive, exchange.send), 10)
        assert happened == ["old", "sent"]
        gate.set()
        deadline = time.monotonic() + 10
        while await caches["default"].aget("a", stale=True) == "old":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    asyncio.run(run())

    assert happened == ["old", "sent", "load in de"]
