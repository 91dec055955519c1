"""``{% cached %}`` renders a fragment once, and says in clear words what is wrong with it."""

# ruff: noqa: E402 - Django is configured before it is imported

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.django_settings import configure

configure()

from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.template import Context, Engine, TemplateSyntaxError
from django.template.backends.django import DjangoTemplates
from django.test import RequestFactory, modify_settings, override_settings

from fleetcache.django import fragment_key
from fleetcache.policy import Policy


def entry(name: str, **settings: Any) -> dict[str, Any]:
    """Return a cache's entry of ``CACHES``."""
    return {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": f"memory://{name}", **settings}


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    """A site with two caches, which begin empty."""
    kept = {
        "default": entry("fragments", KEY_PREFIX="default"),
        "other": entry("fragments", KEY_PREFIX="other"),
        "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "dummy": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    }
    with override_settings(CACHES=kept):
        for alias in kept:
            caches[alias].clear()
        yield
        caches.close_all()


@pytest.fixture
def render() -> Callable[..., str]:
    """Render a template in which ``{{ rendered }}`` counts how often it was rendered."""
    engine = Engine(libraries={"fleetcache": "fleetcache.django.templatetags.fleetcache"})
    counts = iter(range(1, 1000))

    def render(text: str, **variables: Any) -> str:
        template = engine.from_string("{% load fleetcache %}" + text)
        return template.render(Context({"rendered": lambda: next(counts), **variables}))

    return render


def test_a_fragment_is_rendered_once_per_name_and_values(render):
    """As with Django's tag, but the name may be a variable."""
    text = "{% cached 60 name user %}{{ rendered }}{% endcached %}"

    shown = [render(text, name=name, user=user) for name, user in [("a", 1), ("a", 1), ("a", 2), ("b", 1), ("a", 2)]]

    assert shown == ["1", "1", "2", "3", "2"]
    assert render('{% cached 60 "a" 2 %}{{ rendered }}{% endcached %}') == "2"


def test_django_knows_the_key(render):
    """Code that deletes fragments of Django's tag deletes ours."""
    render('{% cached 60 "side" user "x" %}text{% endcached %}', user=5)

    assert caches["default"].get(make_template_fragment_key("side", [5, "x"])) == "text"
    assert fragment_key("side", 5, "x") == make_template_fragment_key("side", [5, "x"])


@pytest.mark.parametrize(
    "one, another", [(("a:b", "c"), ("a", "b:c")), (("a%3Ab", "c:"), ("a:b", "c:")), (("a:", ""), ("a", ":"))]
)
def test_values_with_colons_are_kept_apart(one, another):
    """Django 5.2 gives them one key."""
    assert fragment_key("name", *one) != fragment_key("name", *another)


def test_what_is_kept_is_plain_text(render):
    """A serializer need not know Django's class for safe text; and the page escapes nothing of it."""
    text = '{% cached 60 "a" %}<b>{{ user }}</b>{% endcached %}'
    shown = [render(text, user="<i>") for _ in range(2)]

    assert shown == ["<b>&lt;i&gt;</b>"] * 2
    assert type(caches["default"].get(fragment_key("a"))) is str


def test_a_cache_by_alias(render):
    """``using`` is a text or a variable."""
    text = '{% cached 60 "a" using=alias %}{{ rendered }}{% endcached %}'

    assert [render(text, alias=alias) for alias in ("default", "other", "other", "default")] == ["1", "2", "2", "1"]
    assert render('{% cached 60 "a" using="other" %}{% endcached %}') == "2"


def test_the_cache_for_fragments(render):
    """The alias template_fragments is used if there is one, as by Django's tag."""
    caches_now = {"default": entry("fragments"), "template_fragments": entry("fragments", KEY_PREFIX="own")}
    with override_settings(CACHES=caches_now):
        render('{% cached 60 "a" %}text{% endcached %}')

        assert caches["template_fragments"].get(fragment_key("a")) == "text"
        assert caches["default"].get(fragment_key("a")) is None


def test_a_cache_that_keeps_nothing(render):
    """Django's DummyCache in the settings of tests or of development changes nothing but that."""
    text = '{% cached 60 "a" tags="b" stale=5 using="dummy" %}{{ rendered }}{% endcached %}'

    assert [render(text), render(text)] == ["1", "2"]


@pytest.mark.parametrize(
    "timeout, kept", [("60", True), ('"60"', True), ("None", True), ("hourly", True), ("0", False)]
)
def test_timeouts(render, timeout, kept):
    """Seconds, None for ever, or a policy."""
    text = f'{{% cached {timeout} "a" %}}{{{{ rendered }}}}{{% endcached %}}'
    render(text, hourly=Policy(timeout=3600))

    assert caches["default"].has_key(fragment_key("a")) is kept
    if timeout == "hourly":
        assert 3590 < caches["default"].ttl(fragment_key("a")) <= 3600


def test_a_timeout_ends(render):
    """The timeout is given in seconds, and fractions of them."""
    render('{% cached 0.02 "a" %}text{% endcached %}')
    assert caches["default"].pttl(fragment_key("a")) <= 20


@pytest.mark.parametrize(
    "tags, invalidated",
    [
        ('"b,user:{user.pk}"', "user:5"),
        ('"b, {name}"', "{"),
        ("listed", "c"),
        ("written", "{user.pk}"),
        ("written", "other"),
    ],
)
def test_tags(render, tags, invalidated):
    """A text with commas, whose braces are filled only where it is the template's own; or a list."""
    text = f'{{% cached 60 "a" tags={tags} %}}{{{{ rendered }}}}{{% endcached %}}'
    variables = {"user": {"pk": 5}, "name": "{", "listed": ["b", "c"], "written": "other, {user.pk}"}
    assert [render(text, **variables), render(text, **variables)] == ["1", "1"]

    caches["default"].invalidate_tags("nobody's")
    assert render(text, **variables) == "1"
    caches["default"].invalidate_tags(invalidated)
    assert render(text, **variables) == "2"


def test_a_loader_within_a_fragment_can_name_tags(render):
    """What is shown decides on what the fragment depends."""
    from fleetcache.loading.load import current_load

    text = '{% cached 60 "a" %}{{ rendered }}{{ article }}{% endcached %}'

    def article() -> str:
        current_load().tag("article:7")
        return "!"

    assert render(text, article=article) == "1!"
    caches["default"].invalidate_tags("article:7")
    assert render(text, article=article) == "2!"


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("{% cached %}{% endcached %}", "a timeout and a name are missing"),
        ("{% cached 60 %}{% endcached %}", "a timeout and a name are missing"),
        ("{% cached 60 sidebar %}{% endcached %}", "name is the variable sidebar, which is unknown or None"),
        ("{% cached 60 5 %}{% endcached %}", "the name 5 is 5; a text is expected"),
        ("{% cached unknown 'a' %}{% endcached %}", "the timeout unknown is ''; seconds, None for ever, or a Policy"),
        ("{% cached 'soon' 'a' %}{% endcached %}", "the timeout 'soon' is 'soon'"),
        (
            "{% cached 60 'a' stal=5 %}{% endcached %}",
            "cached: unknown option 'stal'. Did you mean 'stale'? There are absent_for, early",
        ),
        ("{% cached 60 'a' tag='b' %}{% endcached %}", "unknown option 'tag'. Did you mean 'tags'?"),
        ("{% cached 60 'a' xyzzy=5 %}{% endcached %}", "stale_while_revalidate, tags, using, wait"),
        ("{% cached 60 'a' stale=5 stale=6 %}{% endcached %}", "the option 'stale' is given twice"),
        ("{% cached 60 'a' stale=5 stale_while_revalidate=6 %}{% endcached %}", "the same option"),
        ("{% cached 60 'a' stale=5 6 %}{% endcached %}", "6 stands after an option"),
        ("{% cached 60 'a' stale='x' %}{% endcached %}", "stale_while_revalidate has to be a number of seconds"),
        ("{% cached 60 'a' jitter=7 %}{% endcached %}", "jitter is a part of the timeout"),
        ("{% cached 60 'a' tags=unknown %}{% endcached %}", "tags is the variable unknown, which is unknown or None"),
        ("{% cached 60 'a' tags=5 %}{% endcached %}", "tags is 5; a list, or a text with commas is expected"),
        ("{% cached 60 'a' tags='b:{user.pk}' %}{% endcached %}", "the tag 'b:{user.pk}' names an unknown variable"),
        ("{% cached 60 'a' using='nowhere' %}{% endcached %}", "The connection 'nowhere' doesn't exist"),
        ("{% cached 60 'a' using='locmem' %}{% endcached %}", "LocMemCache, which has no tags"),
        ("{% cached 60 'a' %}", "Looking for one of: endcached"),
    ],
)
def test_errors_say_what_is_wrong(render, text, complaint):
    """Each mistake in a template is a TemplateSyntaxError that names it."""
    with pytest.raises(TemplateSyntaxError) as caught:
        render(text)

    assert complaint in str(caught.value)


def test_an_error_of_the_fragment_is_its_own(render):
    """What rendering raises is not taken for a mistake in the tag, and nothing is kept."""

    def broken() -> str:
        raise ValueError("no database")

    with pytest.raises(ValueError, match="no database"):
        render('{% cached 60 "a" stale=5 %}{{ broken }}{% endcached %}', broken=broken)
    assert render('{% cached 60 "a" %}fine{% endcached %}') == "fine"


def test_many_threads_render_once(render):
    """Whoever asks while the fragment is rendered waits for it."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert go_on.wait(10)
        return "!"

    text = '{% cached 60 "a" %}{{ rendered }}{{ slow }}{% endcached %}'
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(render, text, slow=slow)
        assert begun.wait(10)
        others = [pool.submit(render, text, slow=slow) for _ in range(7)]
        go_on.set()

        assert {asked.result(10) for asked in (first, *others)} == {"1!"}


def test_in_an_event_loop(render):
    """A template that a coroutine renders uses the cache as well; Django renders it in the loop's thread."""

    async def show() -> list[str]:
        return [render('{% cached 60 "a" %}{{ rendered }}{% endcached %}') for _ in range(2)]

    assert asyncio.run(show()) == ["1", "1"]


def test_the_page_goes_on_as_if_the_fragment_were_cached(render):
    """A variable that a fragment sets is not seen after it: it would not be if the fragment came from the cache."""
    text = '{% cached 60 "a" %}{% now "Y" as year %}{{ rendered }}{% endcached %}[{{ year }}]'

    assert [render(text), render(text)] == ["1[]", "1[]"]


def test_a_stale_fragment_is_rendered_with_the_variables_of_its_page(render):
    """A renewal in another thread is not disturbed by what the page does meanwhile."""
    waiting: list[Callable[[], Any]] = []
    life = Policy(timeout=0.001, stale_while_revalidate=60, renew=waiting.append)
    text = '{% for item in items %}{% cached life "a" item %}{{ item }}{{ mark }}{% endcached %}{% endfor %}'
    render(text, items="xy", mark=1, life=life)
    threading.Event().wait(0.01)

    assert render(text, items="xy", mark=2, life=life) == "x1y1"
    for work in waiting:
        work()
    assert len(waiting) == 2
    assert caches["default"].get(fragment_key("a", "x"), stale=True) == "x2"
    assert caches["default"].get(fragment_key("a", "y"), stale=True) == "y2"


def test_blocks_includes_and_the_request():
    """What a template may hold, a fragment may."""
    sources = {
        "base": '{% load fleetcache %}{% cached 60 "a" %}{% block one %}base{% endblock %}{% include "part" %}{% endcached %}',
        "part": "[{{ request.path }} {{ seen }}]",
        "child": '{% extends "base" %}{% block one %}{{ block.super }}+{% cycle "x" "y" as c %}{% cycle c %}{% endblock %}',
    }
    backend = DjangoTemplates(
        {
            "NAME": "django",
            "DIRS": [],
            "APP_DIRS": False,
            "OPTIONS": {
                "debug": True,
                "libraries": {"fleetcache": "fleetcache.django.templatetags.fleetcache"},
                "loaders": [("django.template.loaders.locmem.Loader", sources)],
                "context_processors": ["django.template.context_processors.request"],
            },
        }
    )
    request = RequestFactory().get("/path")

    shown = [backend.get_template("child").render({"seen": seen}, request) for seen in (1, 2)]

    assert shown == ["base+xy[/path 1]"] * 2


def test_the_app_brings_the_tag():
    """`{% load fleetcache %}` works with the app in INSTALLED_APPS."""
    with modify_settings(INSTALLED_APPS={"append": "fleetcache.django"}):
        backend = DjangoTemplates({"NAME": "django", "DIRS": [], "APP_DIRS": False, "OPTIONS": {}})
        template = backend.from_string('{% load fleetcache %}{% cached 60 "a" %}found{% endcached %}')

        assert template.render() == "found"
