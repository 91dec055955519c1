"""Packages that import ``django_redis`` go on working where only its stand-in is installed."""

from __future__ import annotations

import fcntl
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent

import pytest
from tests.django_settings import configure

HOME = Path(__file__).resolve().parent.parent
PLACE = HOME / ".venvs" / f"standin-py{sys.version_info[0]}.{sys.version_info[1]}-django{version('django')}"
NOT_THERE = {
    "django_redis.hash_ring": {"HashRing"},  # `cache.client.get_server_name` tells where a key is
    "django_redis.pool": {"ConnectionFactoryProtocol"},
    "django_redis.client.default": {"CompressorError", "ConnectionInterrupted", "CacheKey", "SortedSetMixin"},
    "django_redis.client.herd": {"_is_expired"},
    "django_redis.client.sentinel": {"replace_query"},
    "django_redis.client.sharded": {"UnsetType"},
    "django_redis.client.mixins.protocols": {"ClientProtocol"},
}

SITE = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="not secret",
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["fleetcache.django", *APPS],
    CACHES={
        "default": {"BACKEND": BACKEND, "LOCATION": URL, "KEY_PREFIX": "standin"},
        "away": {"BACKEND": BACKEND, "LOCATION": "redis://127.0.0.1:1/0", "OPTIONS": {"IGNORE_EXCEPTIONS": True}},
    },
    RQ_QUEUES={"default": {"USE_REDIS_CACHE": "default"}},
    Q_CLUSTER={"name": "standin", "django_redis": "default", "timeout": 30, "retry": 60},
)
django.setup()
from django.core.cache import cache, caches
"""


def run(python: Path | str, code: str, url: str, apps: list[str], path: str = "", backend: str = "") -> str:
    """Run *code* in a site of its own; return what it prints."""
    names = {"URL": url, "APPS": apps, "BACKEND": backend or "django_redis.cache.RedisCache"}
    told = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONWARNINGS"}}
    ran = subprocess.run(
        [python, "-c", told + SITE + dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "PYTHONPATH": path} if path else environment,
        cwd="/",
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def defined(package: str) -> dict[str, list[str]]:
    """Return the classes and functions that each module of the real *package* defines."""
    configure()
    found = importlib.import_module(package)
    modules = [package, *(info.name for info in pkgutil.walk_packages(found.__path__, f"{package}."))]
    names = {}
    for module in modules:
        contents = vars(importlib.import_module(module))
        names[module] = [
            name
            for name, value in contents.items()
            if (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__.startswith(package)
            and value.__module__ == module
        ]
    return names


def on_the_path(code: str, url: str) -> str:
    """Run *code* where the stand-in hides the real django-redis."""
    return run(sys.executable, code, url, [], os.pathsep.join((str(HOME / "standin"), str(HOME / "src"))))


def test_every_class_has_its_name(valkey):
    """Whatever django-redis 7 defines is there under its name, but for what docs/migration.md leaves out."""
    wanted = {
        module: sorted({*names} - NOT_THERE.get(module, set())) for module, names in defined("django_redis").items()
    }
    code = f"""
    import importlib, json
    missing = []
    for module, names in {wanted!r}.items():
        if not names:
            continue
        found = importlib.import_module(module)
        missing += [f"{{module}}.{{name}}" for name in names if not hasattr(found, name)]
    print(json.dumps(missing))
    """

    assert json.loads(on_the_path(code, valkey.tcp_url(5))) == []


def test_the_classes_are_fleetcaches(valkey):
    """A class by the one name is the class by the other, so ``isinstance`` holds both ways; the version is its own."""
    code = """
    import django_redis, fleetcache.django, fleetcache.client, fleetcache.errors
    from fleetcache.kinds import PATHS, imported
    from importlib import import_module

    for theirs, ours in PATHS.items():
        module, _, name = theirs.rpartition(".")
        assert getattr(import_module(module), name) is imported(ours), theirs
    assert isinstance(caches["default"], django_redis.cache.RedisCache)
    assert isinstance(caches["default"], fleetcache.django.RedisCache)
    assert isinstance(cache.client, django_redis.client.DefaultClient)
    class Typed(django_redis.cache.RedisCache[django_redis.client.DefaultClient]): pass
    raw = django_redis.get_redis_connection("default")
    cache.set("a", 1)
    assert raw.get(cache.make_key("a")) == b"1"
    try:
        caches["away"].client.get("a")
    except django_redis.exceptions.ConnectionInterrupted:
        print(django_redis.__version__, django_redis.__file__)
    """

    said, file = on_the_path(code, valkey.tcp_url(5)).split()

    assert said != version("django-redis")
    assert Path(file) == HOME / "standin/django_redis/__init__.py"


def test_its_page_is_true(valkey):
    """The code in the stand-in's README runs."""
    page = (HOME / "standin/README.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)

    on_the_path(code, valkey.tcp_url(5))


def test_with_the_real_one_nothing_changes(valkey):
    """Where django-redis is installed its names are its own."""
    code = """
    import django_redis.cache, fleetcache.django
    assert not issubclass(django_redis.cache.RedisCache, fleetcache.django.RedisCache)
    assert type(caches["default"]) is fleetcache.django.RedisCache
    from django.core.checks import run_checks
    assert run_checks() == []
    """

    run(sys.executable, code, valkey.tcp_url(5), [], str(HOME / "src"), backend="fleetcache.django.RedisCache")


def test_both_at_once_are_reported(valkey, tmp_path):
    """A site that has installed both is told by the system check, and by whatever imports the stand-in."""
    for name in ("django_redis", "fleetcache_django_redis"):
        (tmp_path / f"{name}-1.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1\n"
        (tmp_path / f"{name}-1.dist-info/METADATA").write_text(metadata)
    code = """
    import warnings
    from django.core.checks import run_checks
    print([error.id for error in run_checks()])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import django_redis, importlib
        importlib.reload(django_redis)
    assert "Uninstall both" in str(caught[-1].message)
    """
    path = os.pathsep.join(map(str, (tmp_path, HOME / "standin", HOME / "src")))

    assert "fleetcache.E002" in run(sys.executable, code, valkey.tcp_url(5), [], path)


def test_its_metadata_says_what_it_is():
    """The distribution has a name and a description of its own, depends on fleetcache, and takes its version from the code."""
    project = tomllib.loads((HOME / "standin/pyproject.toml").read_text())["project"]

    assert project["name"] == "fleetcache-django-redis"
    assert "Not to be installed next to django-redis" in project["description"]
    assert project["dependencies"] == ["fleetcache[django]>=0.1"]
    assert project["dynamic"] == ["version"]
    code = "import django_redis; assert '.'.join(map(str, django_redis.VERSION)) == django_redis.__version__"
    on_the_path(code, "memory://standin")


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with fleetcache, the stand-in and packages that import ``django_redis``."""
    files = [HOME / "pyproject.toml", HOME / "requirements/standin.txt", *sorted((HOME / "standin").rglob("*.*"))]
    wanted = "".join(file.read_text() for file in files if file.suffix in {".py", ".toml", ".txt"})
    inside, stamp = PLACE / "bin/python", PLACE / "installed"
    PLACE.parent.mkdir(exist_ok=True)
    with open(f"{PLACE}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == wanted):
            try:
                install(inside)
            except subprocess.CalledProcessError as error:
                reason = f"an environment for the stand-in cannot be made: {error.stderr or error.stdout}"
                (pytest.fail if os.environ.get("FLEETCACHE_REQUIRE_ALL") == "1" else pytest.skip)(reason[-500:])
            stamp.write_text(wanted)
    return inside


def install(inside: Path) -> None:
    """Make the environment.  Django, redis-py and hiredis are of the releases that the tests run with."""
    same = [f"{name}=={version(name)}" for name in ("django", "redis", "hiredis")]
    arguments = ["--editable", HOME, HOME / "standin", "-r", HOME / "requirements/standin.txt", *same]
    for command in (
        [sys.executable, "-m", "venv", "--clear", PLACE],
        [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments],
    ):
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)


USES = {
    "what is installed": (
        [],
        """
        from importlib.metadata import distribution, packages_distributions
        from django.core.checks import run_checks
        import django_redis
        assert packages_distributions()["django_redis"] == ["fleetcache-django-redis"]
        assert distribution("fleetcache-django-redis").version == django_redis.__version__
        assert run_checks() == []
        """,
    ),
    "django-rq": (
        ["django_rq"],
        """
        import operator
        import django_rq
        from rq import SimpleWorker
        queue = django_rq.get_queue("default")
        queue.empty()
        assert django_rq.get_connection("default").connection_pool is cache.get_client().connection_pool
        job = queue.enqueue(operator.add, 2, 3)
        django_rq.get_worker("default", worker_class=SimpleWorker).work(burst=True)
        assert job.return_value() == 5, job.get_status()
        queue.delete(delete_jobs=True)
        """,
    ),
    "django-q2": (
        ["django_q"],
        """
        from django_q.brokers import get_broker
        from django_q.tasks import async_task
        broker = get_broker()
        assert type(broker).__module__ == "django_q.brokers.redis_broker"
        broker.delete_queue()
        assert broker.ping() and broker.info().startswith("Redis")
        async_task("operator.add", 2, 3)
        assert broker.queue_size() == 1
        from django_q.signing import SignedPackage
        ((_, payload),) = broker.dequeue()
        assert SignedPackage.loads(payload)["args"] == (2, 3)
        broker.set_stat("standin", "1", 5)
        assert broker.get_stat("standin") == b"1"
        broker.delete_queue()
        """,
    ),
    "django-prometheus": (
        ["django_prometheus"],
        """
        from django_prometheus.cache.metrics import django_cache_get_fail_total, django_cache_get_total
        from django_prometheus.cache.backends.redis import RedisCache
        cache.set("p", 1)
        assert type(caches["default"]) is RedisCache
        assert (cache.get("p"), cache.get("none", 5), caches["away"].get("p", 7)) == (1, 5, 7)
        assert django_cache_get_total.labels(backend="redis")._value.get() == 3
        assert django_cache_get_fail_total.labels(backend="redis")._value.get() == 1
        cache.delete("p")
        """,
    ),
}


@pytest.mark.few(0)  # `make test` makes no environment
@pytest.mark.newest
@pytest.mark.timeout(700)
@pytest.mark.parametrize("package", USES)
def test_packages_go_on_working(package, python, valkey):
    """A package that imports ``django_redis`` does its work in an environment that has never seen the real one."""
    apps, code = USES[package]
    backend = "django_prometheus.cache.backends.redis.RedisCache" if package == "django-prometheus" else ""

    run(python, code, valkey.tcp_url(5), apps, backend=backend)
