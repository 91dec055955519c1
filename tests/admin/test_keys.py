"""The pages of keys: what they show, what they do, and to whom; tried from outside."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

import pytest
from redis import Redis
from tests.admin.site import client, site
from tests.caches import own_prefix

from fleetcache import commands as c
from fleetcache.django.admin import erasing
from fleetcache.errors import ServerGone
from fleetcache.inspection import keys
from fleetcache.keys import CacheKey
from fleetcache.testing import cluster

HOME = "/admin/fleetcache/keys/"
ENTRY, ERASE = f"{HOME}entry/", f"{HOME}erase/"
ALL = ("view_cache", "view_keys", "change_key", "delete_key", "clear_cache", "unpickle_value")
SESSION = "django.contrib.sessions.cache0123456789abcdef"


@pytest.fixture(params=["memory", "valkey"])
def cache(request):
    """The site's cache, in memory and on a server."""
    url = "memory://admin-keys" if request.param == "memory" else request.getfixturevalue("valkey").tcp_url(11)
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": url, "KEY_PREFIX": "shop"}
    with site({"default": entry}):
        from django.core.cache import caches

        caches["default"].clear()
        yield caches["default"]
        caches["default"].clear()


@pytest.fixture
def near_memory(request):
    """The same in memory only."""
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": "memory://admin-keys", "KEY_PREFIX": "shop"}
    with site({"default": entry}):
        from django.core.cache import caches

        caches["default"].clear()
        yield caches["default"]


def name_of(cache, key):
    return str(cache.make_key(key))


def text(answer):
    assert answer.status_code == 200, answer.status_code
    return answer.content.decode()


def entry_url(cache, key):
    return f"{ENTRY}?{urlencode({'cache': 'default', 'name': name_of(cache, key)})}"


def digest(page):
    return re.search(r'name="digest" value="([^"]*)"', page)[1]


def keys_in(page):
    return set(re.findall(r'<th scope="row"[^>]*><a [^>]*><code>([^<]*)</code>', page))


def log():
    from django.contrib.admin.models import LogEntry

    found = [entry.change_message for entry in LogEntry.objects.order_by("pk")]
    LogEntry.objects.all().delete()
    return found


def told(answer):
    messages = re.search(r'<ul class="messagelist">(.*?)</ul>', text(answer), re.DOTALL)
    return re.findall(r"<li[^>]*>(.*?)</li>", messages[1], re.DOTALL) if messages else []


# --- the list -------------------------------------------------------------------------------------


def test_keys_are_listed_page_by_page(cache):
    """Every key is on one of the pages, which are connected by links."""
    cache.set_many({f"users:{number}": number for number in range(350)})
    cache.set("other", 1)
    user, url, found, pages = client(*ALL), f"{HOME}?pattern=users:*", set(), 0

    while url:
        page = text(user.get(url))
        found |= keys_in(page)
        onward = re.search(r'<a href="([^"]*)" rel="next"', page)
        url, pages = onward and onward[1].replace("&amp;", "&"), pages + 1

    assert found == {f"users:{number}" for number in range(350)}
    assert pages > 2
    assert "350" in page or "351" in page


def test_keys_are_chosen(cache):
    """By type and version; tags and leases only when they are asked for."""
    cache.set("a", 1, tags=["blue"])
    cache.hset("h", "f", 1)
    cache.set("old", 1, version=7)
    user = client(*ALL)

    assert keys_in(text(user.get(HOME))) == {"a", "h"}
    assert keys_in(text(user.get(f"{HOME}?kind=hash"))) == {"h"}
    assert keys_in(text(user.get(f"{HOME}?show=all"))) == {"a", "h", "old"}
    assert keys_in(text(user.get(f"{HOME}?show=tags&pattern=b*"))) == {"~tag:blue"}
    assert keys_in(text(user.get(f"{HOME}?show=library"))) == set()
    assert "There is no such key" in text(user.get(f"{HOME}?pattern=nothing"))


@pytest.mark.parametrize("query", ["cursor=0", "cursor=../../etc", f"pattern={'*a' * 30}", f"pattern={'a' * 600}"])
def test_nonsense_is_explained(cache, query):
    """Not with an error of the site."""
    assert 'role="alert"' in text(client(*ALL).get(f"{HOME}?{query}"))


def test_keys_of_sessions_are_hidden(cache):
    """Whoever reads the key of a session can take it over, so only superusers see them."""
    cache.set(SESSION, {})
    page, all_of_it = text(client(*ALL).get(HOME)), text(client(superuser=True).get(HOME))

    assert SESSION not in page and "Keys of sessions are not shown" in page
    assert SESSION in all_of_it
    assert client(*ALL).get(entry_url(cache, SESSION)).status_code == 404
    assert client(superuser=True).get(entry_url(cache, SESSION)).status_code == 200


def test_names_of_others_are_not_shown(cache):
    """The database may be shared; an address cannot name what is not this cache's."""
    user = client(*ALL)
    cache.set(CacheKey("bank:1:account"), 1)

    assert keys_in(text(user.get(f"{HOME}?show=all"))) == set()
    for name in ("bank:1:account", "shop", "shop:1", "fleetcache:epoch:bank"):
        assert user.get(f"{ENTRY}?name={name}").status_code == 404
        assert user.post(ENTRY, {"name": name, "act": "delete", "digest": ""}).status_code == 404
    assert cache.get(CacheKey("bank:1:account")) == 1
    cache.delete(CacheKey("bank:1:account"))


# --- an entry -------------------------------------------------------------------------------------


def test_an_entry_is_shown(cache):
    """What it is, what it says of itself, and its value; a pickle only as far as it can be trusted."""
    cache.set("a", {"<b>": "secret"}, tags=["blue"], timeout=600)
    page = text(client(*ALL).get(entry_url(cache, "a")))

    assert "A pickle of protocol 4, of type dict." in page and "secret" not in page
    assert "<code>blue</code>" in page and "fresh" in page
    assert 'action="/admin/fleetcache/keys/entry/"' in page
    assert "Unpickle it" not in page


def test_an_entry_that_the_site_cannot_read_is_called_so(valkey):
    """The page shows the value, and says that the cache does not; also of the members of a hash."""
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": valkey.tcp_url(11), "KEY_PREFIX": "shop"}
    with site({"default": entry}), Redis.from_url(valkey.tcp_url(11)) as raw:
        from django.core.cache import caches

        cache = caches["default"]
        raw.set(name_of(cache, "a"), b'{"b": "c"}', ex=60)
        raw.hset(name_of(cache, "h"), "f", b'{"b": "c"}')
        user = client("view_cache", "view_keys")

        page, members = text(user.get(entry_url(cache, "a"))), text(user.get(entry_url(cache, "h")))
        raw.delete(name_of(cache, "a"), name_of(cache, "h"))

    for shown in page, members:
        assert "The configured serializer (PickleSerializer) cannot read this: the cache treats it as a miss" in shown
        assert "Found: JSON." in shown
        assert "&quot;c&quot;" in shown


def test_long_names_are_cut(valkey):
    """A page shows the beginning of long keys, and of long names of fields, and stays small."""
    url = valkey.tcp_url(11)
    with site({"default": {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": url, "KEY_PREFIX": own_prefix()}}):
        from django.core.cache import caches

        cache, long = caches["default"], "n" * 1_000_000
        raw = cache.get_client()
        raw.set(name_of(cache, "") + long, "1")
        raw.hset(name_of(cache, "hash"), mapping={f"{number}{long}": "v" for number in range(30)})
        raw.xadd(name_of(cache, "stream"), {long[:100_000]: "v"})
        user = client(*ALL)
        pages = [text(user.get(HOME)), *(text(user.get(entry_url(cache, key))) for key in ("hash", "stream"))]
        cache.clear()

    assert max(map(len, pages)) < 50_000
    assert "too long for a link" in pages[0]
    assert pages[1].count(f"{'n' * 450}") == 20
    assert "of 100,001 bytes, 501 were read" in pages[2]


def test_values_are_escaped(cache):
    """A value cannot write into the page, nor can a key."""
    cache.set("<script>", 1)
    raw = "shop:1:text"
    cache.topology.home(raw).exchange([(c.SET, raw, b"<script>alert(1)</script>")])
    user = client(*ALL)

    assert "<script>alert" not in text(user.get(entry_url(cache, "text")))
    assert "&lt;script&gt;alert" in text(user.get(entry_url(cache, "text")))
    assert "<code><script>" not in text(user.get(HOME))


def test_a_lifetime_is_changed(cache):
    """Noted in the admin's log, with the key masked."""
    cache.set("users:1", 1, timeout=50)
    user = client(*ALL)
    form = {"name": name_of(cache, "users:1"), "digest": digest(text(user.get(entry_url(cache, "users:1"))))}
    log()

    answer = user.post(ENTRY, {**form, "act": "ttl", "seconds": "5000"}, follow=True)
    assert told(answer) == ["From now on it is fresh for: 1 h 23 min."]
    assert 4900 < cache.ttl("users:1") <= 5000
    user.post(ENTRY, {**form, "act": "ttl", "ever": "1"})
    assert cache.ttl("users:1") is None

    (first, second) = log()
    assert re.fullmatch(r"Set the lifetime of users:…[0-9a-f]{8}: 1 h 23 min\.", first) and "no end" in second


def test_set_without_a_change_prolongs_nothing(cache):
    """The field holds the fresh life, which is what it sets, and not the whole life with the stale one."""
    cache.get_or_set("a", lambda: 1, 27, stale_while_revalidate=600)
    user = client(*ALL)
    page = text(user.get(entry_url(cache, "a")))
    (shown,) = re.findall(r'name="seconds"[^>]* value="(\d+)"', page)
    form = {"name": name_of(cache, "a"), "digest": digest(page), "act": "ttl"}

    user.post(ENTRY, {**form, "seconds": shown})

    assert 0 < int(shown) <= 27
    assert "it is kept, stale, for another 10 min" in page
    found = keys.describe(cache, "a")
    assert 0 < found.fresh <= 27 < found.ttl <= 627


def test_a_fresh_life_that_has_ended_has_no_form(cache):
    """Nothing can be set there, and the page says so."""
    cache.get_or_set("a", lambda: 1, 60, tags=["red"], stale_while_revalidate=600)
    cache.invalidate_tags("red")

    page = text(client(*ALL).get(entry_url(cache, "a")))

    assert "cannot be changed: the entry is given up" in page
    assert 'name="seconds"' not in page and "Delete this entry" in page


@pytest.mark.parametrize("seconds", ["", "0", "-5", "1.5", "x", "9" * 30, "0" * 12 + "5", "3153600001", "٣"])
def test_a_lifetime_that_is_none_is_refused(cache, seconds):
    """And the entry lives on."""
    cache.set("a", 1, timeout=50)
    user = client(*ALL)
    form = {"name": name_of(cache, "a"), "digest": digest(text(user.get(entry_url(cache, "a"))))}

    answer = user.post(ENTRY, {**form, "act": "ttl", "seconds": seconds}, follow=True)

    assert "whole number of seconds" in told(answer)[0]
    assert 0 < cache.ttl("a") <= 50


def test_an_entry_that_has_changed_is_left_alone(cache):
    """Whoever edits what they saw is told; so is who does not say what they saw."""
    cache.set("a", "one", timeout=50)
    user = client(*ALL)
    form = {"name": name_of(cache, "a"), "digest": digest(text(user.get(entry_url(cache, "a"))))}
    cache.set("a", "two", timeout=50)
    log()

    for act in ({"act": "ttl", "seconds": "9"}, {"act": "delete"}):
        assert "has changed" in told(user.post(ENTRY, {**form, **act}, follow=True))[0]
    assert "has changed" in told(user.post(ENTRY, {"name": form["name"], "act": "delete"}, follow=True))[0]

    assert cache.get("a") == "two" and cache.ttl("a") > 9 and log() == []


def test_an_entry_is_deleted(cache):
    """And its page says that it is gone."""
    cache.set("a", 1)
    user = client(*ALL)
    form = {"name": name_of(cache, "a"), "digest": digest(text(user.get(entry_url(cache, "a"))))}
    log()

    answer = user.post(ENTRY, {**form, "act": "delete"}, follow=True)

    assert told(answer) == ["Deleted a."] and cache.get("a") is None
    gone = text(user.get(entry_url(cache, "a")))
    assert "There is no such entry" in gone
    assert f"<code>python manage.py fleetcache get {name_of(cache, 'a')} --name --alias default</code>" in gone
    assert len(log()) == 1


def test_names_that_are_no_text(valkey):
    """They are listed, shown and deleted like any other."""
    entry = {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": valkey.tcp_url(11), "KEY_PREFIX": "bytes"}
    with site({"default": entry}):
        from django.core.cache import caches

        raw, user = caches["default"].get_client(), client(*ALL)
        raw.set(b"bytes:1:\xff\x00", b"x")
        (link,) = re.findall(r'href="(/admin/fleetcache/keys/entry/[^"]*)"', text(user.get(HOME)))
        page = text(user.get(link.replace("&amp;", "&")))
        form = {"name": "bytes:1:\\xff\\x00", "digest": digest(page), "act": "delete"}

        assert "<code>\\xff\\x00</code>" in page
        user.post(ENTRY, form)
        assert raw.get(b"bytes:1:\xff\x00") is None


def test_the_library_s_names_are_only_shown(cache):
    """A tag's version is invalidated on the page of tags, not deleted here."""
    cache.set("a", 1, tags=["blue"])
    user, name = client(*ALL), "shop:1:~tag:blue"

    page = text(user.get(f"{ENTRY}?name={quote(name)}"))

    assert "Delete this entry" not in page
    assert user.post(ENTRY, {"name": name, "act": "delete", "digest": ""}).status_code == 403
    assert cache.get("a") == 1


# --- unpickling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [None, {}, {"UNPICKLE": False}, {"UNPICKLE": True}])
@pytest.mark.parametrize("permitted", [True, False])
def test_a_value_is_unpickled_only_where_setting_and_permission_say_so(near_memory, settings_of, setting, permitted):
    """And only after a form was sent; a link does not."""
    cache = near_memory
    cache.set("a", {"b": "secret"})
    may = setting == {"UNPICKLE": True} and permitted
    user = client("view_cache", "view_keys", *(["unpickle_value"] if permitted else []))
    with settings_of(FLEETCACHE_ADMIN=setting):
        page = text(user.get(f"{entry_url(cache, 'a')}&unpickle=1&act=unpickle"))
        log()
        answer = user.post(ENTRY, {"name": name_of(cache, "a"), "act": "unpickle"})

    assert "secret" not in page and ("Unpickle it" in page) == may
    assert answer.status_code == (200 if may else 403)
    assert ("secret" in answer.content.decode()) == may
    assert len(log()) == may


@pytest.fixture
def settings_of():
    from django.test import override_settings

    return override_settings


# --- by pattern -----------------------------------------------------------------------------------


def step(user, page, act):
    state = re.search(r'name="state" value="([^"]*)"', page)[1]
    return user.post(ERASE, {"state": state, "act": act}, follow=True)


def test_a_pattern_is_counted_confirmed_and_deleted(cache, monkeypatch):
    """Step by step; each step is one request, and where it stands is in the address."""
    monkeypatch.setattr(erasing, "BUDGET", 0.0)
    cache.set_many({f"users:{number}": number for number in range(2500)})
    cache.set_many({"other": 1, SESSION: 2})
    user = client(*ALL)
    log()

    answer = user.post(ERASE, {"pattern": "users:*", "act": "count"}, follow=True)
    counts = 1
    while "Go on" in text(answer):
        answer, counts = step(user, text(answer), "step"), counts + 1
    assert "2,500 keys match" in text(answer) and cache.get("users:1") == 1 and log() == []

    counted = answer.redirect_chain[-1][0]
    answer = step(user, text(answer), "begin")
    steps = 1
    while "Go on" in text(answer):
        assert "deleted so far" in text(user.get(answer.redirect_chain[-1][0]))  # it survives a reload
        answer, steps = step(user, text(answer), "step"), steps + 1

    assert "2,500 keys were deleted" in text(answer)
    assert counts > 1 and steps > 1
    assert cache.get_many([f"users:{number}" for number in range(2500)]) == {}
    assert cache.get("other") == 1
    began, ended = log()
    assert began == "Began to delete keys that match users:* in this version, about 2,500 keys."
    assert ended == "Deleted keys that match users:* in this version: 2,500 keys."
    assert "2,500 keys match" in text(user.get(counted))


def test_a_deletion_is_stopped(cache, monkeypatch):
    """What was not reached stays, and the log says how far it came."""
    monkeypatch.setattr(erasing, "BUDGET", 0.0)
    cache.set_many({f"users:{number}": number for number in range(5000)})
    user = client(*ALL)
    answer = user.post(ERASE, {"pattern": "*", "act": "count"}, follow=True)
    while "Go on" in text(answer):
        answer = step(user, text(answer), "step")
    answer = step(user, text(answer), "begin")
    log()

    answer = step(user, text(answer), "stop")

    left = len(cache.get_many([f"users:{number}" for number in range(5000)]))
    assert 0 < left < 5000
    assert told(answer) == [f"Stopped. {5000 - left:,} keys were deleted."]
    assert log() == [f"Stopped deleting keys that match * in this version, after {5000 - left:,} keys."]


def test_samples_do_not_show_sessions(near_memory):
    """To superusers the count says how many, and the names of sessions are masked."""
    near_memory.set(SESSION, 1)

    page = text(client(superuser=True).post(ERASE, {"pattern": "*", "act": "count"}, follow=True))

    assert "1 keys match" in page and SESSION not in page and "…" in page


@pytest.mark.parametrize("show", ["", "all"])
def test_no_count_tells_the_key_of_a_session(near_memory, show):
    """Pages and counts of other users are the same, whether a key of a session matches or not; none is deleted."""
    near_memory.set_many({SESSION: 1, "a": 2})
    user = client(*ALL)

    def answers(pattern):
        listed = text(user.get(HOME, {"pattern": pattern, "show": show}))
        counted = text(user.post(ERASE, {"pattern": pattern, "show": show, "act": "count"}, follow=True))
        return [
            re.sub(r'name="(csrf.*?|state)" value="[^"]*"', "", page).replace(pattern, "") for page in (listed, counted)
        ]

    right, wrong = (answers(f"{SESSION[:-15]}{letter}*") for letter in "0x")

    assert [unstamped(page) for page in right] == [unstamped(page) for page in wrong]
    page = text(user.post(ERASE, {"pattern": "*", "show": show, "act": "count"}, follow=True))
    step(user, page, "begin")
    assert near_memory.get_many([SESSION, "a"]) == {SESSION: 1}


def unstamped(page):
    """Return *page* without the pattern in its links, and without what is new in each answer."""
    return re.sub(r"pattern=[^&\"]*|state=[^&\"]*", "", page)


def test_the_entry_of_a_worker_is_hidden(cache):
    """It holds the keys that the worker uses most, those of sessions too: only superusers see it."""
    name = "fleetcache:worker:{0}:shop:host:1:abc"
    cache.set(CacheKey(name), 1)
    address = f"{ENTRY}?{urlencode({'name': name})}"

    assert client(*ALL).get(address).status_code == 404
    assert client(superuser=True).get(address).status_code == 200
    assert name not in text(client(*ALL).get(HOME, {"show": "library"}))
    assert name in text(client(superuser=True).get(HOME, {"show": "library"}))
    cache.delete(CacheKey(name))


@pytest.mark.parametrize("name", ["fleetcache:worker:{0}:shop2:h:1:a", "fleetcache:lease:{bookshop:1:a}"])
def test_the_library_s_names_of_other_caches_are_not_shown(cache, name):
    """Part of a prefix is not the prefix."""
    cache.set(CacheKey(name), 1)
    boss = client(superuser=True)

    assert boss.get(ENTRY, {"name": name}).status_code == 404
    assert name not in text(boss.get(HOME, {"show": "library"}))
    cache.delete(CacheKey(name))


def test_a_deletion_belongs_to_its_user(near_memory):
    """Nobody can be led to delete by an address that another has made, or changed."""
    near_memory.set("a", 1)
    first, other = client(*ALL), client(*ALL)
    page = text(first.post(ERASE, {"pattern": "*", "act": "count"}, follow=True))
    state = re.search(r'name="state" value="([^"]*)"', page)[1]

    assert other.post(ERASE, {"state": state, "act": "begin"}).status_code == 404
    assert other.get(f"{ERASE}?state={state}").status_code == 404
    assert first.post(ERASE, {"state": f"x{state}", "act": "begin"}).status_code == 404
    assert first.post(ERASE, {"act": "begin", "pattern": "*"}).status_code == 404
    assert near_memory.get("a") == 1
    first.post(ERASE, {"state": state, "act": "begin"})
    assert near_memory.get("a") is None


def test_a_deletion_is_counted_first(near_memory, monkeypatch):
    """It cannot begin before the count has ended."""
    monkeypatch.setattr(erasing, "BUDGET", 0.0)
    near_memory.set_many({f"users:{number}": number for number in range(2500)})
    user = client(*ALL)
    page = text(user.post(ERASE, {"pattern": "*", "act": "count"}, follow=True))

    state = re.search(r'name="state" value="([^"]*)"', page)[1]
    assert user.post(ERASE, {"state": state, "act": "begin"}).status_code == 404
    assert len(near_memory.keys("*")) == 2500


def test_a_deletion_whose_count_failed_does_not_begin(near_memory, monkeypatch):
    """An outage before the first step is no count."""

    def away(*args, **kwargs):
        raise ServerGone("away")

    near_memory.set("a", 1)
    user = client(*ALL)
    with monkeypatch.context() as patch:
        patch.setattr(erasing.keys, "delete_pattern", away)
        page = text(user.post(ERASE, {"pattern": "*", "act": "count"}, follow=True))

    state = re.search(r'name="state" value="([^"]*)"', page)[1]
    assert user.post(ERASE, {"state": state, "act": "begin"}).status_code == 404
    assert near_memory.get("a") == 1


# --- who may what ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lacking", ALL[:2])
def test_pages_need_permissions(near_memory, lacking):
    """Without either there is no page, and nobody who is no member of the staff gets one."""
    near_memory.set("a", 1)
    rest = [permission for permission in ALL if permission != lacking]

    for user, status in ((client(*rest), 403), (client(*ALL, staff=False), 302)):
        for url in (HOME, entry_url(near_memory, "a"), ERASE):
            assert user.get(url).status_code == status, url
        assert user.post(ENTRY, {"name": "shop:1:a", "act": "delete", "digest": ""}).status_code == status
    assert near_memory.get("a") == 1


@pytest.mark.parametrize(
    ("url", "form", "needs"),
    [
        (ENTRY, {"act": "ttl", "seconds": "1"}, "change_key"),
        (ENTRY, {"act": "delete"}, "delete_key"),
        (ENTRY, {"act": "unpickle"}, "unpickle_value"),
        (ERASE, {"act": "count", "pattern": "*"}, "clear_cache"),
        (ERASE, {"act": "begin", "state": "x"}, "clear_cache"),
        (ERASE, {"act": "step", "state": "x"}, "clear_cache"),
    ],
)
def test_acts_need_permissions(near_memory, url, form, needs):
    """Posted directly, without the page that has the button, each is refused; so is a GET, and a form of another site."""
    near_memory.set("a", 1, timeout=100)
    found = text(client(*ALL).get(entry_url(near_memory, "a")))
    form = {"name": "shop:1:a", "digest": digest(found), **form}
    log()

    without = client(*[permission for permission in ALL if permission != needs])
    assert without.post(url, form).status_code == 403
    assert client(*ALL, csrf=True).post(url, form).status_code == 403
    client(*ALL).get(f"{url}?{urlencode(form)}")
    assert client(*ALL).put(url).status_code == 405

    assert near_memory.get("a") == 1 and near_memory.ttl("a") > 1
    assert log() == []


def test_buttons_are_shown_to_those_who_may_use_them(near_memory):
    """Nobody is offered what would be refused."""
    near_memory.set("a", 1)

    page = text(client("view_cache", "view_keys").get(entry_url(near_memory, "a")))
    everything = text(client(*ALL).get(entry_url(near_memory, "a")))

    assert "Delete this entry" not in page and 'name="seconds"' not in page
    assert "Delete this entry" in everything and 'name="seconds"' in everything
    assert "Delete by pattern" not in text(client("view_cache", "view_keys").get(HOME))
    assert "Delete by pattern" in text(client(*ALL).get(HOME))


def test_a_server_that_is_away(monkeypatch):
    """The pages say so."""
    entry = {
        "BACKEND": "fleetcache.django.RedisCache",
        "LOCATION": "redis://127.0.0.1:1/0",
        "OPTIONS": {"IGNORE_EXCEPTIONS": True},
    }
    with site({"default": entry}):
        user = client(*ALL)

        assert "No server answers" in text(user.get(HOME))
        assert "does not answer" in text(user.get(f"{ENTRY}?name=:1:a"))
        answer = user.post(ENTRY, {"name": ":1:a", "act": "delete", "digest": ""}, follow=True)
        assert "does not answer" in told(answer)[0]
        answer = user.post(ERASE, {"pattern": "*", "act": "count"}, follow=True)
        assert "Try again" in text(answer) and 'role="alert"' in text(answer)


@pytest.mark.newest
def test_a_cluster_with_a_node_away():
    """The node is named, what the others hold is shown, and an entry of the lost node says why it is not."""
    with cluster(replicas=0) as servers:
        entry = {
            "BACKEND": "fleetcache.django.RedisCache",
            "LOCATION": servers.url(),
            "OPTIONS": {"SOCKET_TIMEOUT": 1},
        }
        with site({"default": entry}):
            from django.core.cache import caches

            caches["default"].set_many({f"k{number}": number for number in range(90)})
            for node in servers.primaries:
                with Redis(port=node.port) as raw:
                    raw.config_set("cluster-require-full-coverage", "no")
            gone, user = servers.primaries[0], client(*ALL)
            before = keys_in(text(user.get(HOME)))
            gone.kill()

            page = text(user.get(HOME))
            lost = sorted(before - keys_in(page))
            entry = text(user.get(f"{ENTRY}?name=:1:{lost[0]}"))
            counted = text(user.post(ERASE, {"pattern": "*", "act": "count"}, follow=True))

    assert len(before) == 90 and 0 < len(lost) < 90
    assert f"<code>127.0.0.1:{gone.port}/0</code> does not answer: its keys are missing here." in page
    assert "does not answer" in entry
    assert f"{90 - len(lost)} keys match" in counted and "its keys are not among these" in counted
