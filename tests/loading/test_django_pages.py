"""`cache_page` gives each visitor the page that is for him, and lets one visitor of many wait for the view."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from tests.caches import own_prefix
from tests.django_settings import configure
from tests.faces import FACES
from tests.waiting import until

configure()

from django.contrib import messages
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpResponse, HttpResponseNotModified, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils import timezone, translation
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.views import View
from django.views.decorators.cache import cache_control
from django.views.decorators.clickjacking import xframe_options_exempt
from django.views.decorators.vary import vary_on_headers

from fleetcache import current_load
from fleetcache.django import cache_page
from fleetcache.django.responses import kept
from fleetcache.policy import Policy
from fleetcache.testing import FaultProxy

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    f"{__name__}.user_middleware",
]

Answer = Callable[[Any, int], Any]


def user_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give the request a user, as Django's middleware does, without a database."""

    def middleware(request: Any) -> Any:
        request.user = SimpleLazyObject(lambda: request.session.get("name", "nobody"))
        response = get_response(request)
        seen.append(request)
        return response

    return middleware


seen: list[Any] = []
"""The requests whose responses were sent."""


class Site:
    """A site of one view, which answers by *answer*, and gets how often it was called."""

    def __init__(self, face: str) -> None:
        self.face = face
        self.calls = 0
        self.lock = threading.Lock()
        self.urls: list[Any] = []

    def view(self, answer: Answer, **options: Any) -> None:
        """Serve *answer* under /page and /page/<pk>."""
        if self.face == "blocking":

            def view(request: Any, **kwargs: Any) -> Any:
                return answer(request, self.called())
        else:

            async def view(request: Any, **kwargs: Any) -> Any:
                made = answer(request, self.called())
                return await made if asyncio.iscoroutine(made) else made

        kept = cache_page(options.pop("timeout", 60), **options)(view)
        self.urls[:] = [path("page", kept), path("page/<int:pk>", kept)]

    def called(self) -> int:
        with self.lock:
            self.calls += 1
            return self.calls

    def get(self, url: str = "/page", method: str = "get", session: str = "", **headers: str) -> Any:
        """Return the response to a request."""
        if self.face == "blocking":
            return self.ask(Client(), url, method, session, headers)
        return asyncio.run(self.aget(url, method, session, **headers))

    async def aget(self, url: str = "/page", method: str = "get", session: str = "", **headers: str) -> Any:
        return await self.ask(AsyncClient(), url, method, session, headers)

    def ask(self, client: Any, url: str, method: str, session: str, headers: dict[str, str]) -> Any:
        if session:
            client.cookies["sessionid"] = session
        return getattr(client, method)(url, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def text(self, url: str = "/page", **headers: str) -> str:
        """Return the text of a page."""
        content: bytes = self.get(url, **headers).content
        return content.decode()


urlpatterns: list[Any] = []


@pytest.fixture(params=[*FACES, "blocking-near", "awaiting-near"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site, with blocking and with awaiting views, without and with a near cache."""
    face, _, near = request.param.partition("-")
    made = Site(face)
    made.urls = urlpatterns
    # A renewal of the test before may still run.
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://pages", "KEY_PREFIX": own_prefix()}
    if near:
        server = request.getfixturevalue("valkey").tcp_url(13)
        entry |= {"LOCATION": server, "OPTIONS": {"NEAR": {"DOORKEEPER": False}}}
    with override_settings(
        ROOT_URLCONF=type("Urls", (), {"urlpatterns": urlpatterns}),
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=MIDDLEWARE,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        CACHES={"default": entry, "other": {**entry, "KEY_PREFIX": own_prefix()}},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    ):
        seen.clear()
        yield made
        caches.close_all()


def number(request: Any, call: int) -> HttpResponse:
    return HttpResponse(str(call))


def test_a_page_is_made_once(site):
    """Per URL, with its query."""
    site.view(number)

    assert [site.text(url) for url in ("/page", "/page", "/page?a", "/page/5", "/page?a", "/page")] == list("112321")


def test_headers_are_djangos(site):
    """Clients may keep the page as long as we do; an age says how much of it is over."""
    site.view(number, timeout=600)

    first, second = site.get(), site.get()

    assert first.headers["Cache-Control"] == "max-age=600"
    assert first.headers["Expires"] == second.headers["Expires"]
    assert "Age" not in first.headers
    assert second.headers["Age"] == "0"
    assert second.headers["Content-Type"] == first.headers["Content-Type"]


def test_each_visitor_has_a_response_of_his_own(site):
    """What middleware does to one response is not seen in another, nor kept."""
    site.view(number)
    site.get()
    one, another = site.get(), site.get()
    one.headers["X-Mine"] = "1"
    one.cookies["mine"] = "1"
    one.write(b"more")

    assert "X-Mine" not in another.headers
    assert not another.cookies
    assert another.content == site.get().content == b"1"


@pytest.mark.parametrize("method", ["post", "put", "delete", "options"])
def test_other_methods_reach_the_view(site, method):
    """Only GET and HEAD are answered by the cache."""
    site.view(number)

    assert site.text() == "1"
    assert [site.get(method=method).content for _ in range(2)] == [b"2", b"3"]
    assert site.text() == "1"


def test_head(site):
    """HEAD is answered by the page of GET, if there is one; its own page is not one for GET."""
    site.view(number)
    for _ in range(2):
        assert site.get(method="head").status_code == 200
    assert site.calls == 1
    assert site.text() == "2"

    site.view(number)
    site.get("/page/1")
    assert site.get("/page/1", method="head").status_code == 200
    assert site.calls == 3


@pytest.mark.parametrize(
    "answer",
    [
        lambda request, call: HttpResponse(str(call), status=201),
        lambda request, call: HttpResponse(str(call), status=404),
        lambda request, call: HttpResponse(str(call), status=302, headers={"Location": "/"}),
        lambda request, call: HttpResponse(str(call), status=500),
        lambda request, call: HttpResponse(str(call), headers={"Cache-Control": "private"}),
        lambda request, call: HttpResponse(str(call), headers={"Cache-Control": "max-age=5, no-store"}),
        lambda request, call: HttpResponse(str(call), headers={"Cache-Control": 'No-Cache="Set-Cookie"'}),
        lambda request, call: HttpResponse(str(call), headers={"Vary": "Accept, *"}),
        lambda request, call: StreamingHttpResponse([str(call).encode()]),
        lambda request, call: with_cookie(HttpResponse(str(call), headers={"Vary": "Cookie"})),
        lambda request, call: HttpResponse(f"{call} {get_token(request)}"),
        lambda request, call: request.session.update({"seen": True}) or HttpResponse(str(call)),
        lambda request, call: messages.info(request, "hello") or HttpResponse(str(call)),
    ],
    ids=[
        "201",
        "404",
        "302",
        "500",
        "private",
        "no-store",
        "no-cache",
        "vary",
        "streaming",
        "cookie",
        "csrf token",
        "session",
        "message",
    ],
)
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
def test_what_is_for_one_visitor_is_not_kept(site, answer):
    """Each visitor gets his own, at once."""
    site.view(answer)

    responses = [site.get() for _ in range(3)]

    assert [response.streaming or response.content[:1] in b"123" for response in responses] == [True] * 3
    assert site.calls == 3
    assert all("Age" not in response.headers for response in responses)


def with_cookie(response: HttpResponse) -> HttpResponse:
    response.set_cookie("name", "value")
    return response


def test_a_page_may_become_one_to_keep(site):
    """What was not kept the first time does not decide for ever."""
    site.view(lambda request, call: HttpResponse(str(call), status=200 if call > 2 else 404))

    assert [site.text() for _ in range(5)] == ["1", "2", "3", "4", "4"]


def test_not_modified_is_for_one_client(site):
    """The answer to a conditional request is not given to others, and its headers are those of the page."""
    site.view(
        lambda request, call: (
            HttpResponseNotModified() if request.headers.get("If-None-Match") else HttpResponse(str(call))
        )
    )

    first = site.get(If_None_Match='"a"')

    assert first.status_code == 304
    assert first.headers["Cache-Control"] == "max-age=60"
    assert [site.text() for _ in range(2)] == ["2", "2"]


@pytest.mark.parametrize("error, status", [(Http404, 404), (PermissionDenied, 403)])
def test_an_exception_that_answers(site, error, status):
    """It is raised for the visitor it is meant for; the next one is asked anew."""

    def answer(request: Any, call: int) -> HttpResponse:
        if request.headers.get("X-Who") == "guest":
            raise error
        return HttpResponse(str(call))

    site.view(answer)

    assert [site.get(X_Who="guest").status_code for _ in range(2)] == [status] * 2
    assert [site.text() for _ in range(3)] == ["3", "4", "4"]
    assert site.get(X_Who="guest").content == b"4"


def test_a_failure_reaches_the_handler(site):
    """An exception of the view is raised, and nothing is kept."""

    def answer(request: Any, call: int) -> HttpResponse:
        if call == 1:
            raise ValueError("no database")
        return HttpResponse(str(call))

    site.view(answer)

    with pytest.raises(ValueError, match="no database"):
        site.get()
    assert [site.text(), site.text()] == ["2", "2"]


def test_vary(site):
    """A page for each value of the headers that the view names, and one view's call for each."""
    site.view(vary_on_headers("Accept", "X-Part")(number) if site.face == "blocking" else varied)

    asked = [("a", "b"), ("a", "b"), ("ab", ""), ("a", "c"), ("ab", ""), ("a", "b")]
    shown = [site.text(Accept=accept, X_Part=part) for accept, part in asked]

    assert shown == ["1", "1", "2", "3", "2", "1"]


def varied(request: Any, call: int) -> HttpResponse:
    return HttpResponse(str(call), headers={"Vary": "Accept, X-Part"})


def test_a_page_that_varies_on_more(site):
    """Once a page has varied on a header, all pages of its URL are kept by it."""

    def answer(request: Any, call: int) -> HttpResponse:
        vary = "Accept, X-Part" if request.headers.get("Accept") == "b" else "Accept"
        return HttpResponse(
            f"{request.headers.get('Accept')} {request.headers.get('X-Part')} {call}", headers={"Vary": vary}
        )

    site.view(answer)

    def ask(accept: str, part: str) -> str:
        return site.text(Accept=accept, X_Part=part)[:3]

    asked = [(accept, part) for _ in range(4) for accept in "ab" for part in "xy"]
    for accept, part in asked:
        said = ask(accept, part).split()
        assert said[0] == accept
        assert accept == "a" or said[1] == part
    before = site.calls
    for accept, part in asked:
        ask(accept, part)
    assert site.calls == before <= 8


def test_language_and_time_zone(site):
    """They are part of the page's name; and so Accept-Language, from which they come, need not be."""
    site.view(lambda request, call: HttpResponse(str(call), headers={"Vary": "Accept-Language"}))

    def ask(language: str, zone: str) -> str:
        with translation.override(language), timezone.override(zone):
            return site.text(Accept_Language=f"{language}-{zone}")

    asked = [("de", "UTC"), ("de", "Asia/Tokyo"), ("fr", "UTC"), ("de", "UTC"), ("fr", "UTC")]

    assert [ask(*each) for each in asked] == ["1", "2", "3", "1", "3"]


def test_a_page_that_shows_its_visitor_is_kept_for_him(site):
    """A view that reads the session or the user is not given to other visitors: Django's decorator would do that."""
    site.view(lambda request, call: HttpResponse(f"{request.user} {call}"))
    ada, bob = ({"session": session(name)} for name in ("ada", "bob"))

    shown = [site.text(**who) for who in (ada, bob, ada, {}, bob, {})]

    assert shown == ["ada 1", "bob 2", "ada 1", "nobody 3", "bob 2", "nobody 3"]
    assert "Cookie" in site.get(**ada).headers["Vary"]


@pytest.mark.parametrize(
    "read",
    [
        lambda session: session.session_key,
        lambda session: session.load(),
        lambda session: session.is_empty() or session.session_key,
        lambda session: session.get("name"),
        lambda session: dict(session.items()),
    ],
    ids=["key", "load", "is_empty", "get", "items"],
)
def test_whatever_is_read_of_a_session(read, site):
    """Its key tells of the visitor too, as a cart's does, though Django notes no access."""
    site.view(lambda request, call: HttpResponse(f"{read(request.session)} {call}"))
    ada, bob = ({"session": session(name)} for name in ("ada", "bob"))

    shown = [site.text(**who) for who in (ada, bob, ada)]

    assert shown[0] == shown[2] != shown[1]
    assert "Cookie" in site.get(**bob).headers["Vary"]


def session(name: str) -> str:
    """Return the cookie of a session."""
    from django.contrib.sessions.backends.signed_cookies import SessionStore

    store = SessionStore()
    store["name"] = name
    store.save()
    return str(store.session_key)


@pytest.fixture
def reads_first() -> Iterator[None]:
    """Middleware that reads the user before the view does."""
    with override_settings(MIDDLEWARE=[*MIDDLEWARE, f"{__name__}.reading_middleware"]):
        yield


def reading_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def middleware(request: Any) -> Any:
        assert str(request.user)
        return get_response(request)

    return middleware


def test_a_user_that_was_read_before_the_view(site, reads_first):
    """It is the view that counts: what middleware reads does not make a page personal, and does not hide that it is."""
    ada, bob = ({"session": session(name)} for name in ("ada", "bob"))
    site.view(lambda request, call: HttpResponse(f"{request.user} {call}"))
    assert [site.text(**who) for who in (ada, bob, ada)] == ["ada 1", "bob 2", "ada 1"]

    site.view(number)
    assert [site.text("/page/1", **who) for who in (ada, bob, {})] == ["3", "3", "3"]


def test_a_class_based_view(site, reads_first):
    """Whether the class or what it returns is decorated, it is the view's own request that is watched."""

    class Decorated(View):
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse(f"{self.request.user} {site.called()}")

        if site.face == "awaiting":

            async def get(self, request: Any) -> HttpResponse:
                return HttpResponse(f"{self.request.user} {site.called()}")

    class Bare(Decorated):
        pass

    ada, bob = ({"session": session(name)} for name in ("ada", "bob"))
    site.urls[:] = [path("bare", cache_page(60)(Bare.as_view()))]
    assert [site.text("/bare", **who) for who in (ada, bob, ada)] == ["ada 1", "bob 2", "ada 1"]

    method_decorator([cache_page(60), cache_control(max_age=5)], name="get")(Decorated)
    site.urls[:] = [path("decorated", Decorated.as_view())]
    if site.face == "blocking":
        assert [site.text("/decorated", **who) for who in (ada, bob, ada)] == ["ada 3", "bob 4", "ada 3"]


@pytest.mark.parametrize("site", ["awaiting"], indirect=True)
def test_an_asynchronous_class_is_decorated_where_it_becomes_a_view(site):
    """`dispatch` is a blocking method that returns a coroutine: the error says what to decorate."""

    @method_decorator(cache_page(60), name="dispatch")
    class Decorated(View):
        async def get(self, request: Any) -> HttpResponse:
            return HttpResponse("never")

    site.urls[:] = [path("decorated", Decorated.as_view())]
    with pytest.raises(TypeError, match="decorate what as_view"):
        site.get("/decorated")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("site", ["blocking"], indirect=True)
def test_rest_framework(site):
    """Its documents decorate methods, whose responses are completed after the decorator."""
    views = pytest.importorskip("rest_framework.views", exc_type=ImportError)
    from rest_framework.exceptions import NotFound
    from rest_framework.renderers import JSONRenderer
    from rest_framework.response import Response

    class Session:
        """Authenticates by the session."""

        def authenticate(self, request: Any) -> Any:
            return str(request._request.user), None

        def authenticate_header(self, request: Any) -> str:
            return ""

    class Shouting(JSONRenderer):
        """The other representation."""

        media_type = "text/shouting"

        def render(self, *args: Any, **kwargs: Any) -> bytes:
            return super().render(*args, **kwargs).upper()

    class Numbers(views.APIView):
        authentication_classes = [Session]
        renderer_classes = [JSONRenderer, Shouting]

        @method_decorator(cache_page(60))
        def get(self, request: Any) -> Any:
            if "nothing" in request.GET:
                raise NotFound
            return Response({"number": site.called()})

    class Names(Numbers):
        @method_decorator(cache_page(60))
        def get(self, request: Any) -> Any:
            return Response({"number": site.called(), "name": self.request.user})

    site.urls[:] = [path("numbers", Numbers.as_view()), path("names", Names.as_view())]
    ada, bob = ({"session": session(name)} for name in ("ada", "bob"))

    assert [site.text("/numbers", **who) for who in (ada, bob, {})] == ['{"number":1}'] * 3
    assert site.text("/numbers", Accept="text/shouting") == '{"NUMBER":2}'
    assert site.text("/numbers") == '{"number":1}'
    assert [site.get("/numbers?nothing").status_code for _ in range(2)] == [404, 404]
    site.calls = 0
    names = [site.text("/names", **who) for who in (ada, bob, ada)]
    assert names == ['{"number":1,"name":"ada"}', '{"number":2,"name":"bob"}', '{"number":1,"name":"ada"}']


def test_a_page_for_everybody_by_request(site):
    """`vary_on_user=False` says that the user makes no difference."""
    site.view(lambda request, call: HttpResponse(f"{bool(request.user)} {call}"), vary_on_user=False)

    assert [site.text(session=session(name)) for name in ("ada", "bob")] == ["True 1"] * 2


def test_authorization(site):
    """A page for an Authorization is for it alone, unless it is public."""
    site.view(number)
    assert [site.text(Authorization=key) for key in ("a", "b", "a")] == ["1", "2", "1"]

    public = cache_control(public=True)(number) if site.face == "blocking" else public_number
    site.view(public)
    assert [site.text("/page/1", Authorization=key) for key in ("a", "b", "a")] == ["3", "3", "3"]


def public_number(request: Any, call: int) -> HttpResponse:
    return HttpResponse(str(call), headers={"Cache-Control": "public"})


def test_middleware_sees_what_the_view_did(site):
    """What a view does to its request and session is there for the middleware around it."""

    def answer(request: Any, call: int) -> HttpResponse:
        request.mark = "marked"
        request.user = "replaced"
        request.session["name"] = "ada"
        return HttpResponse(str(call))

    site.view(answer)
    response = site.get()

    assert (seen[-1].mark, seen[-1].user) == ("marked", "replaced")
    assert "sessionid" in response.cookies


def test_attributes_of_a_response_are_kept(site):
    """Middleware reads them, as that against clickjacking does."""
    site.view(xframe_options_exempt(number) if site.face == "blocking" else exempt)

    assert all("X-Frame-Options" not in site.get().headers for _ in range(3))


def exempt(request: Any, call: int) -> HttpResponse:
    response = HttpResponse(str(call))
    response.xframe_options_exempt = True
    return response


def test_what_is_kept_shares_nothing_with_the_response():
    """Middleware may change the one while the other is being stored."""
    response = with_cookie(HttpResponse("text", headers={"A": "1"}))
    response.mark = "marked"
    copied = kept(response)
    response.headers["A"] = "2"
    response.cookies["name"]["path"] = "/other"
    response.cookies["more"] = "1"
    response.write("more")

    assert (copied.headers["A"], copied.content, copied.mark) == ("1", b"text", "marked")
    assert {name: cookie["path"] for name, cookie in copied.cookies.items()} == {"name": "/"}


def test_template_responses_are_rendered(site):
    """Lazily rendered responses are kept as what they show."""
    site.view(
        lambda request, call: SimpleTemplateResponse(engines["django"].from_string("{{ call }}!"), {"call": call})
    )

    assert [site.text() for _ in range(3)] == ["1!"] * 3


def test_tags(site):
    """Texts with the view's arguments, or a function of them."""
    site.view(number, tags=["pages", "page:{pk}", "by:{request.method}"])
    assert [site.text("/page/5"), site.text("/page/6"), site.text("/page/5")] == ["1", "2", "1"]

    caches["default"].invalidate_tags("page:5")
    assert [site.text("/page/5"), site.text("/page/6")] == ["3", "2"]
    caches["default"].invalidate_tags("by:GET")
    assert [site.text("/page/5"), site.text("/page/6")] == ["4", "5"]

    site.view(number, tags=lambda request, **kwargs: sorted(kwargs))
    assert [site.text("/page/7"), site.text("/page/7")] == ["6", "6"]
    caches["default"].invalidate_tags("pk")
    assert site.text("/page/7") == "7"


@pytest.mark.parametrize("site", ["awaiting"], indirect=True)
def test_tags_that_are_awaited(site):
    """The function of an asynchronous view may be a coroutine function."""

    async def tags(request: Any, **kwargs: Any) -> list[str]:
        return sorted(kwargs)

    site.view(number, tags=tags)
    assert [site.text("/page/7"), site.text("/page/7")] == ["1", "1"]
    caches["default"].invalidate_tags("pk")
    assert site.text("/page/7") == "2"


def test_tags_of_pages_that_vary(site):
    """Each page has the tags of its own visitor, the first one too."""
    site.view(varied, tags=lambda request, **kwargs: [f"accept:{request.headers['Accept']}"])
    assert [site.text(Accept=accept) for accept in "aba"] == ["1", "2", "1"]

    caches["default"].invalidate_tags("accept:a")
    assert [site.text(Accept=accept) for accept in "abab"] == ["3", "2", "3", "2"]
    caches["default"].invalidate_tags("accept:b")
    assert [site.text(Accept=accept) for accept in "abab"] == ["3", "4", "3", "4"]


@pytest.fixture(params=[{}, {"Vary": "Accept"}], ids=["plain", "varied"])
def headers(request: pytest.FixtureRequest) -> dict[str, str]:
    """The headers of a response: of a page that is the same for everybody, or of one that varies."""
    return dict(request.param)


def test_a_view_names_tags(site, headers):
    """As with every loader, its page is stored from the second time on that it has named them; others' pages stay."""

    def answer(request: Any, call: int) -> HttpResponse:
        current_load().tag(f"for:{request.path}")
        return HttpResponse(str(call), headers=headers)

    site.view(answer, tags=["pages"], headers=True)
    responses = [site.get("/page/1") for _ in range(3)]
    assert [response.content for response in responses] == [b"1", b"2", b"2"]
    assert [response.headers["Cache-Status"].rpartition("; ")[2] for response in responses] == [
        "detail=new-tags",
        "stored",
        "ttl=60",
    ]
    assert [site.text("/page/2") for _ in range(2)] == ["3", "4"]

    assert caches["default"].invalidate_tags("for:/page/1") == 1
    assert [site.text(url) for url in ("/page/1", "/page/1", "/page/2")] == list("554")
    caches["default"].invalidate_tags("pages")
    assert [site.text(url) for url in ("/page/1", "/page/2")] == list("67")


def test_a_view_says_that_its_page_is_not_stored(site, headers):
    """Clients do not store it either."""

    def answer(request: Any, call: int) -> HttpResponse:
        if call < 3:
            current_load().skip()
        return HttpResponse(str(call), headers=headers)

    site.view(answer, headers=True)
    first, *others = [site.get() for _ in range(4)]

    assert [response.content for response in (first, *others)] == [b"1", b"2", b"3", b"3"]
    assert first.headers["Cache-Status"] == "fleetcache; fwd=uri-miss; detail=skipped"
    assert "Cache-Control" not in first.headers


@pytest.mark.parametrize("timeout, expected", [(5, 5), (timedelta(minutes=2), 120), (None, None)])
def test_a_view_says_how_long_its_page_lives(site, headers, timeout, expected):
    """Clients are told so."""

    def answer(request: Any, call: int) -> HttpResponse:
        load = current_load()
        assert load.timeout == 60
        load.timeout = timeout
        return HttpResponse(str(call), headers=headers)

    site.view(answer)
    response = site.get()

    name = max(caches["default"].keys("fleetcache.page.*"), key=len)  # a pointer's name is shorter
    assert caches["default"].ttl(name) == (None if expected is None else pytest.approx(expected, abs=1))
    assert response.headers["Cache-Control"] == f"max-age={expected or 365 * 24 * 60 * 60}"
    assert [site.text(), site.text()] == ["1", "1"]


@pytest.mark.parametrize("returned", [True, False])
def test_a_view_keeps_the_old_page(site, headers, returned):
    """Its old response begins a new life, whatever the view returns."""

    def answer(request: Any, call: int) -> Any:
        load = current_load()
        if call == 1:
            assert (load.is_stale, load.stale) == (False, None)
            load.timeout = 0.05
            return HttpResponse(str(call), headers=headers)
        assert load.stale.content == b"1"
        old = load.unchanged()
        return old if returned else HttpResponse("another")

    site.view(answer, stale_if_error=60, headers=True)
    first = site.get()
    threading.Event().wait(0.1)

    renewed, hit = site.get(), site.get()

    assert [response.content for response in (first, renewed, hit)] == [b"1"] * 3
    assert renewed.headers["Cache-Status"] == "fleetcache; fwd=stale; stored"
    assert hit.headers["Cache-Status"] == "fleetcache; hit; ttl=60"
    assert site.calls == 2
    assert renewed.headers["Expires"] > first.headers["Expires"]


def test_a_view_has_a_load_where_nothing_is_stored_too(site):
    """Whether the method is another, nobody waits for the page, or there is no cache."""

    def answer(request: Any, call: int) -> HttpResponse:
        load = current_load()
        load.tag("pages")
        load.skip()
        assert not load.is_stale
        return HttpResponse(str(call), headers={"Cache-Control": "private"})

    site.view(answer)
    assert [site.get(method=method).content for method in ("post", "get", "get")] == [b"1", b"2", b"3"]
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}):
        assert site.text() == "4"


def test_what_is_invalidated_while_it_is_made_is_not_kept(site):
    """Nor is it if the page turns out to vary."""
    for answer, url in ((number, "/page"), (varied, "/page/2")):

        def invalidating(request: Any, call: int, answer: Answer = answer) -> HttpResponse:
            if call % 2:
                # Another thread, since this one runs a loader.
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(caches["default"].invalidate_tags, "pages").result(10)
            return answer(request, call)

        site.calls = 0
        site.view(invalidating, tags=["pages"])
        assert [site.text(url) for _ in range(3)] == ["1", "2", "2"]


@pytest.mark.parametrize(
    "options, headers, expected",
    [
        ({"timeout": 5}, {"Cache-Control": "max-age=50"}, 5),
        ({"timeout": None}, {"Cache-Control": "max-age=50"}, 50),
        ({"timeout": None}, {}, 600),
        ({"timeout": Policy(timeout=7)}, {}, 7),
        ({"timeout": Policy(timeout=None)}, {}, None),
        ({"timeout": None}, {"Cache-Control": "max-age=50", "Vary": "Accept"}, 50),
    ],
)
def test_timeouts(site, options, headers, expected):
    """As Django's: the argument, else the response's max-age, else the setting."""
    site.view(lambda request, call: HttpResponse(str(call), headers=headers), **options)

    site.get()

    name = max(caches["default"].keys("fleetcache.page.*"), key=len)  # a pointer's name is shorter
    assert caches["default"].ttl(name) == (None if expected is None else pytest.approx(expected, abs=1))


def test_no_timeout(site):
    """A timeout of 0, and a max-age of 0 that decides, keep nothing."""
    site.view(number, timeout=0)
    assert [site.text(), site.text()] == ["1", "2"]
    site.view(lambda request, call: HttpResponse(str(call), headers={"Cache-Control": "max-age=0"}), timeout=None)
    assert [site.text("/page/1"), site.text("/page/1")] == ["3", "4"]


def test_prefix_and_cache(site):
    """Pages under another prefix or in another cache are others."""
    for options in ({}, {"key_prefix": "a"}, {"cache": "other"}):
        before = site.calls
        site.view(number, **options)
        assert site.text() == site.text() == str(before + 1)
    with override_settings(CACHE_MIDDLEWARE_ALIAS="other", CACHE_MIDDLEWARE_KEY_PREFIX="b"):
        site.view(number)
        assert site.text() == "1"  # they are for Django's middleware, not for its decorator


def test_cache_status(site):
    """The response says how it was found, in the words of RFC 9211."""
    site.view(number, headers=True)
    assert [site.get().headers["Cache-Status"] for _ in range(2)] == [
        "fleetcache; fwd=uri-miss; stored",
        "fleetcache; hit; ttl=60",
    ]
    assert site.get(method="post").headers["Cache-Status"] == "fleetcache; fwd=method"

    site.view(varied, headers=True)
    assert [site.get("/page/1", Accept=accept).headers["Cache-Status"] for accept in "abb"] == [
        "fleetcache; fwd=uri-miss; stored",
        "fleetcache; fwd=vary-miss; stored",
        "fleetcache; hit; ttl=60",
    ]

    site.view(public_number)
    assert "Cache-Status" not in site.get("/page/2").headers
    with override_settings(FLEETCACHE_CACHE_STATUS=True):
        assert site.get("/page/2").headers["Cache-Status"] == "fleetcache; hit; ttl=60"

    site.view(lambda request, call: HttpResponse(headers={"Cache-Control": "private"}), headers=True)
    assert [site.get("/page/3").headers["Cache-Status"] for _ in range(2)] == [
        "fleetcache; fwd=uri-miss; detail=cache-control",
        "fleetcache; fwd=miss; detail=pass",
    ]


def test_a_cache_that_keeps_nothing(site):
    """With Django's DummyCache the view answers, with the same headers."""
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}):
        site.view(number)

        assert [site.text(), site.text()] == ["1", "2"]
        assert site.get().headers["Cache-Control"] == "max-age=60"


def test_a_cache_of_another_backend(site):
    """It is refused, since it could not keep what the decorator promises."""
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}):
        site.view(number)

        with pytest.raises(ImproperlyConfigured, match="LocMemCache, which has no tags"):
            site.get()


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ({"jitter": 2}, "jitter is a part"),
        ({"stale": 2}, r"cache_page: unknown option 'stale'\. Did you mean 'stale_while_revalidate'\?"),
        ({"tag": ["pages"]}, r"unknown option 'tag'\. Did you mean 'tags'\? There are absent_for, cache, early"),
        (
            {"key_prefx": "a"},
            r"Did you mean 'key_prefix'\? There are .* headers, .* tags, timeout, vary_on_user, wait$",
        ),
        ({"stale_if_eror": 2}, r"Did you mean 'stale_if_error'\?"),
        ({"tags": "pages"}, "tags is the text 'pages'"),
    ],
)
def test_wrong_arguments(arguments, complaint):
    """They are refused where the view is decorated."""
    with pytest.raises((TypeError, ValueError), match=complaint):
        cache_page(60, **arguments)


def test_parentheses_are_missing():
    """The error says so, instead of taking the view for a timeout."""
    with pytest.raises(TypeError, match=r"write @cache_page\(\) or @cache_page\(300\) above a view, with parentheses"):
        cache_page(number)


def test_a_tag_that_names_no_argument(site):
    """The error says what there is."""
    site.view(number, tags=["page:{id}"])

    with pytest.raises(ValueError, match=r"KeyError\('id'\).* called with request, pk"):
        site.get("/page/5")


def test_one_view_runs_for_many_visitors(site):
    """Those who come while a page is made wait for it, each with a response of his own."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(request: Any, call: int) -> Any:
        if site.face == "blocking":
            begun.set()
            assert go_on.wait(10)
            return number(request, call)
        return aslow(request, call)

    async def aslow(request: Any, call: int) -> HttpResponse:
        begun.set()
        assert await asyncio.to_thread(go_on.wait, 10)
        return number(request, call)

    site.view(slow)
    responses = together(site, begun, go_on, 8)

    assert {response.content for response in responses} == {b"1"}
    assert len({id(response) for response in responses}) == 8


def test_nobody_gets_what_was_made_for_another(site):
    """Those who waited for a response that is not kept make their own."""
    begun, go_on = threading.Event(), threading.Event()

    def private(request: Any, call: int) -> Any:
        if call > 1:
            return HttpResponse(str(call))
        if site.face == "blocking":
            begun.set()
            assert go_on.wait(10)
            return HttpResponse("secret", headers={"Cache-Control": "private"})
        return asecret()

    async def asecret() -> HttpResponse:
        begun.set()
        assert await asyncio.to_thread(go_on.wait, 10)
        return HttpResponse("secret", headers={"Cache-Control": "private"})

    site.view(private)
    contents = [response.content for response in together(site, begun, go_on, 4)]

    assert contents.count(b"secret") == 1


def together(site: Site, begun: threading.Event, go_on: threading.Event, count: int) -> list[Any]:
    """Return the responses to requests that come while the view runs for the first."""
    if site.face == "blocking":
        with ThreadPoolExecutor(count) as pool:
            first = pool.submit(site.get)
            assert begun.wait(10)
            others = [pool.submit(site.get) for _ in range(count - 1)]
            threading.Event().wait(0.05)
            go_on.set()
            return [asked.result(20) for asked in (first, *others)]

    async def ask() -> list[Any]:
        first = asyncio.create_task(site.aget())
        assert await asyncio.to_thread(begun.wait, 10)
        others = [asyncio.create_task(site.aget()) for _ in range(count - 1)]
        await asyncio.sleep(0.05)
        go_on.set()
        return await asyncio.gather(first, *others)

    return asyncio.run(ask())


def test_a_stale_page_serves_while_one_visitor_makes_it_anew(site):
    """And it says so."""
    site.view(number, timeout=0.05, stale_while_revalidate=60, headers=True, renew="thread")
    assert site.text() == "1"
    threading.Event().wait(0.1)

    stale = site.get()

    assert stale.content == b"1"
    assert re.fullmatch(r"fleetcache; hit; ttl=-\d+", stale.headers["Cache-Status"])


@pytest.mark.parametrize("site", ["blocking", "blocking-near"], indirect=True)
def test_the_visitor_who_renews_a_page_has_the_new_one(site):
    """In blocking code, unless `renew` says otherwise."""
    site.view(number, timeout=0.05, stale_while_revalidate=60, headers=True)
    assert site.text() == "1"
    threading.Event().wait(0.1)

    renewed = site.get()

    assert (renewed.content, renewed.headers["Cache-Status"]) == (b"2", "fleetcache; fwd=stale; stored")


def test_a_stale_page_serves_if_the_view_fails(site):
    """Whether it raises or answers with a status of 500 or more."""

    def failing(request: Any, call: int) -> HttpResponse:
        if call == 2:
            raise ValueError("no database")
        return HttpResponse(str(call), status=503 if call == 3 else 200)

    site.view(failing, timeout=0.05, stale_if_error=60, headers=True)
    assert site.text() == "1"
    threading.Event().wait(0.1)

    responses = [site.get() for _ in range(3)]

    assert [response.content for response in responses] == [b"1", b"1", b"4"]
    *spared, last = [response.headers["Cache-Status"] for response in responses]
    assert all(re.fullmatch(SPARED, each) for each in spared)
    assert last == "fleetcache; fwd=stale; stored"


SPARED = r"fleetcache; hit; ttl=-\d+; detail=renewal-failed"
"""The Cache-Status of an old page whose renewal failed."""


@pytest.mark.parametrize("site", ["blocking", "blocking-near"], indirect=True)
@pytest.mark.parametrize(
    "error, said", [(ValueError("no database"), "ValueError: no database"), (ValueError(), "ValueError")]
)
def test_a_failed_renewal_is_logged(site, caplog, error, said):
    """With the class of the exception: many a text alone, such as that of a KeyError, says nothing."""

    def failing(request: Any, call: int) -> HttpResponse:
        if call > 1:
            raise error
        return HttpResponse(str(call))

    site.view(failing, timeout=0.05, stale_while_revalidate=60, renew="thread")
    site.get()
    threading.Event().wait(0.1)
    site.get()

    until(lambda: "not renewed" in caplog.text)
    (line,) = [record.getMessage() for record in caplog.records if "not renewed" in record.getMessage()]
    assert line.endswith(f": not renewed: {said}")


@pytest.mark.parametrize("site", FACES, indirect=True)
def test_others_are_told_that_the_renewal_failed(site):
    """Those for whom the view was not called again, as soon as the page is a second too old for anything else."""

    def failing(request: Any, call: int) -> HttpResponse:
        if call > 1:
            raise ValueError("no database")
        return HttpResponse(str(call))

    site.view(failing, timeout=0.05, stale_if_error=60, retry_after=60, headers=True)
    site.get()
    threading.Event().wait(1.1)

    assert all(re.fullmatch(SPARED, site.get().headers["Cache-Status"]) for _ in range(2))
    assert site.calls == 2


def test_without_a_stale_page_a_failed_response_is_the_answer(site):
    """It goes to the visitor whose it is."""
    site.view(lambda request, call: HttpResponse(str(call), status=503))

    responses = [site.get() for _ in range(2)]

    assert [(response.status_code, response.content) for response in responses] == [(503, b"1"), (503, b"2")]


def test_nobody_tries_again_too_early(site):
    """After a failure with RETRY_AFTER visitors are told when to come back."""

    def failing(request: Any, call: int) -> HttpResponse:
        raise ValueError("no database")

    site.view(failing, retry_after=60)
    with pytest.raises(ValueError, match="no database"):
        site.get()

    later = site.get()

    assert later.status_code == 503
    assert 55 < int(later.headers["Retry-After"]) <= 60
    assert site.calls == 1


@pytest.mark.parametrize("site", FACES, indirect=True)
@pytest.mark.parametrize(
    "headers", [{}, {"Vary": "Accept"}, {"Cache-Control": "private"}], ids=["plain", "varied", "private"]
)
def test_a_page_that_was_made_is_returned_although_the_server_is_away(site, headers, valkey):
    """What became of the server meanwhile is not the visitor's concern."""
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:

        def answer(request: Any, call: int) -> HttpResponse:
            proxy.hold()
            return HttpResponse(str(call), headers=headers)

        site.view(answer, tags=["pages"])
        entry = {
            "BACKEND": "fleetcache.django.RedisCache",
            "LOCATION": proxy.url(13),
            "KEY_PREFIX": own_prefix(),
            "OPTIONS": {"SOCKET_TIMEOUT": 0.1},
        }
        with override_settings(CACHES={"default": entry}):
            assert site.text() == "1"
            proxy.heal()


def test_a_page_that_cannot_be_stored_is_returned(site):
    """Such as one whose response has an attribute that pickle does not know; each visitor's response is his own."""

    def answer(request: Any, call: int) -> HttpResponse:
        response = HttpResponse(str(call))
        response.unstorable = lambda: None
        return response

    site.view(answer)

    assert [site.text(), site.text()] == ["1", "2"]
