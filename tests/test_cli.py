"""``fleetcache probe`` says what a server gives the near cache, harms nothing, and tells no secret."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import redis

from fleetcache import cli
from fleetcache.probe import FENCES, LAGS, Report, examine, probe
from fleetcache.settings import Settings
from fleetcache.testing import FaultProxy, cluster, valkey_server

SECRET = "s3cr3t"

announcement = re.compile(rb">2\r\n\$10\r\ninvalidate\r\n\*1\r\n\$\d+\r\n[^\r]*\r\n")


@pytest.fixture(params=["valkey", "redis_debian"])
def server(request):
    """A Valkey, then a Redis."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def told(capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a command; return its exit code and what it wrote to each stream, which is never a password."""

    def told(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        written = capsys.readouterr()
        assert SECRET not in written.out + written.err
        return code, written.out, written.err

    return told


def failed(report: Report) -> str:
    """Return the name of what is missing, of which there is one."""
    assert not report.works
    (missing,) = report.missing
    assert missing.found in report.conclusion
    assert missing.remedy
    assert missing.remedy in report.conclusion
    return missing.name


@contextmanager
def relayed(port: int, change: Callable[[bytes], bytes]) -> Iterator[str]:
    """The URL of a proxy that changes what the server at *port* says."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                upstream = socket.create_connection(("127.0.0.1", port))
                threads.extend(
                    threading.Thread(target=forward, args=pair, daemon=True)
                    for pair in ((client, upstream, bytes), (upstream, client, change))
                )
                for thread in threads[-2:]:
                    thread.start()

    def forward(source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes]) -> None:
        with source, suppress(OSError):
            while portion := source.recv(65_536):
                sink.sendall(change(portion))
            sink.shutdown(socket.SHUT_RDWR)

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=serve, daemon=True)
        accepting.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0?socket_timeout=1"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(5)
    for thread in threads:
        thread.join(5)


# --- where it works -------------------------------------------------------------------------------


def test_a_server_that_will_do(server, told):
    """Real servers pass; the table ends with the verdict."""
    code, out, err = told("probe", server.tcp_url(13))

    assert (code, err) == (0, "")
    assert out.startswith(f"127.0.0.1:{server.port}/13\n")
    assert out.endswith("\nThe near cache works here.\n")
    assert f"{FENCES} of {FENCES} announcements came before the answer to a later PING" in out


def test_a_cluster(valkey_cluster, told):
    """Each primary is asked, and has its report."""
    code, out, _ = told("probe", valkey_cluster.url())
    found = json.loads(told("probe", valkey_cluster.url(), "--json")[1])

    assert code == 0
    assert out.endswith("\nThe near cache works here, with each of 3 primaries.\n")
    addresses = {f"127.0.0.1:{node.port}/0" for node in valkey_cluster.nodes}
    assert {node["address"] for node in found["nodes"]} == addresses == set(found["address"].split(", "))
    assert all(node["works"] and 0 < node["lag_seconds"] < 1 for node in found["nodes"])
    assert all(address in out for address in addresses)


def test_a_cluster_with_a_node_away(told):
    """The node is named, and the others are asked, also if the URL names the one that is away."""
    with cluster(replicas=0) as servers:
        away, *others = servers.nodes
        for node in others:  # else they refuse everything a second after one is away
            with redis.Redis(port=node.port) as client:
                client.config_set("cluster-require-full-coverage", "no")
        urls = [servers.url(), servers.url().replace(f"127.0.0.1:{others[0].port},", "")]
        probe(servers.url())
        away.kill()
        for url in urls:
            code, out, err = told("probe", url)
            found = json.loads(told("probe", "--json", url)[1])

            assert (code, err) == (2, "")
            assert out.endswith(
                f"\nThe near cache works with 2 of 3 primaries. No answer from 127.0.0.1:{away.port}/0.\n"
            )
            assert (found["works"], found["away"]) == (False, True)
            assert {node["address"]: node["works"] for node in found["nodes"]} == {
                **{f"127.0.0.1:{node.port}/0": node is not away for node in servers.nodes}
            }


def test_a_service_under_sentinels(watched_servers, told):
    """The primary is asked, and each Sentinel, whether it names that primary."""
    code, out, _ = told("probe", watched_servers.url())

    assert code == 0
    assert f"3 of 3 name 127.0.0.1:{watched_servers.primary.port}" in out
    assert out.endswith("\nThe near cache works here.\n")


@pytest.mark.parametrize("client", ["ShardClient", "SentinelClient", "ClusterClient"])
def test_the_client_class_of_the_settings(request, client, valkey, redis_debian):
    """The servers that a cache of these settings would ask are asked, whatever LOCATION looks like."""
    if client == "ShardClient":
        location, options = [valkey.tcp_url(), redis_debian.tcp_url()], {}
    elif client == "SentinelClient":
        watched = request.getfixturevalue("watched_servers")
        location, options = f"redis://{watched.service}/0", {"SENTINELS": watched.addresses}
    else:
        nodes = request.getfixturevalue("valkey_cluster").nodes
        location, options = f"redis://127.0.0.1:{nodes[0].port}", {}
    settings = Settings.read(location, {"OPTIONS": {"CLIENT_CLASS": client, **options}})

    report = examine(settings)

    assert report.works
    assert len(report.nodes) == {"ShardClient": 2, "SentinelClient": 0, "ClusterClient": 3}[client]
    assert ("Sentinels" in {check.name for check in report.checks}) == (client == "SentinelClient")


def test_a_sentinel_that_is_away(watched_servers, told):
    """It is named; the near cache works without it."""
    port = unused_port()
    code, out, _ = told("probe", watched_servers.url().replace("://", f"://127.0.0.1:{port},"))

    assert code == 0
    assert f"3 of 4 name 127.0.0.1:{watched_servers.primary.port}; no answer from 127.0.0.1:{port}/0: " in out


def test_a_single_server_as_a_cluster(server, told):
    """A cache would not find the other nodes: the probe says which URL to write, not that all is well."""
    code, out, _ = told("probe", server.tcp_url().replace("redis://", "redis+cluster://"))

    assert code == 1
    assert "the server is no node of a cluster. Write redis:// in the URL" in out


def test_a_cluster_as_a_single_server(valkey_cluster, told):
    """Of a node that has a part of the names a cache on one server could not live."""
    code, out, _ = told("probe", valkey_cluster.url().replace("redis+cluster://", "redis://").partition(",")[0])

    assert code == 1
    assert "a node of a cluster with 3 primaries. Write redis+cluster:// in the URL" in out


def test_a_sentinel_as_a_server(watched_servers, told):
    """A Sentinel is told by what it says of itself."""
    code, out, _ = told("probe", f"redis://127.0.0.1:{watched_servers.sentinels[0].port}")

    assert code == 1
    assert "the server is a Sentinel. Write redis+sentinel://" in out


def test_as_json(server, told):
    """``--json`` says the same to programs."""
    code, out, _ = told("probe", "--json", server.url(13))
    found = json.loads(out)

    assert code == 0
    assert found["works"] is True
    assert found["server"].split()[0] in {"Valkey", "Redis"}
    assert 0 < found["lag_seconds"] < 1
    passed = {check["name"]: check["passed"] for check in found["checks"]}
    assert {name for name, value in passed.items() if value} == {
        *("RESP3", "version", "run id", "role", "same server", "tracking"),
        *("reading and writing", "announcements", "fence"),
    }
    assert False not in passed.values()


@pytest.mark.parametrize(
    "query, arguments, prefix",
    [("", [], "fleetcache:"), ("?key_prefix=shop", [], "shop:"), ("", ["--prefix", "a:"], "a:")],
    ids=["default", "KEY_PREFIX", "--prefix"],
)
def test_what_is_written(server, told, query, arguments, prefix):
    """One key under the prefix, which expires; whatever else is there stays."""
    with redis.Redis.from_url(server.tcp_url(13), decode_responses=True) as raw:
        raw.flushdb()
        raw.set("mine", "1")

        assert told("probe", server.tcp_url(13) + query, *arguments)[0] == 0

        (name,) = set(raw.keys()) - {"mine"}
        assert name.startswith(f"{prefix}~probe:")
        assert 0 < raw.ttl(name) <= 60
        assert raw.get("mine") == "1"
        raw.flushdb()


def test_by_code(server):
    """`probe` returns a report; options may stand beside the URL."""
    report = probe(server.tcp_url(), options={"SOCKET_TIMEOUT": 2})

    assert report.works
    assert len(report.lags) == LAGS
    assert report.conclusion == "The near cache works here."


def test_over_tls(tls):
    """It connects by the means of the library, whatever the URL asks for."""
    assert probe(tls.tls_url()).works


def test_as_a_module(valkey, monkeypatch):
    """``python -m fleetcache`` is the command, and FLEETCACHE_URL stands in for the URL."""
    monkeypatch.setenv("FLEETCACHE_URL", valkey.tcp_url())
    command = [sys.executable, "-m", "fleetcache", "probe"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("The near cache works here.\n")


# --- where there is nobody to ask -----------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded():
    """A server with a password, and with users that may not do everything."""
    with valkey_server(arguments=["--requirepass", "right"]) as server:
        with redis.Redis.from_url(server.tcp_url(), password="right") as raw:
            for user, rules in USERS.items():
                raw.execute_command("ACL", "SETUSER", user, "on", ">right", "~*", "&*", "+@all", *rules.split())
        yield server


USERS = {
    "plain": "",
    "no-client": "-client +client|setinfo",
    "no-info": "-info",
    "no-writes": "-set",
    "no-ttl": "-pttl",
    "elsewhere": "resetkeys ~other:*",
}


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return unused.getsockname()[1]


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_nobody_there(told, guarded, as_json):
    """Each has the exit code 2 and one line that names the place: no traceback, no password."""
    port = unused_port()
    for url, fault in (
        (f"redis://:{SECRET}@127.0.0.1:{port}/0", f"127.0.0.1:{port}/0: "),
        (f"redis://:{SECRET}@127.0.0.1:{guarded.port}/0", "refused the password of user 'default'"),
        (f"redis://bob:{SECRET}@127.0.0.1:{guarded.port}/0", "refused the password of user 'bob'"),
        (guarded.tcp_url(), "wants a password"),
        (f"redis://:right@127.0.0.1:{guarded.port}/99", "no such database"),
        (f"unix://:{SECRET}@/nowhere/at/all.sock", "/nowhere/at/all.sock/0: "),
        (f"redsi://:{SECRET}@host", "Did you mean 'redis'?"),
        (f"redis://:{SECRET}@host/0?nonsense=1", "unknown parameter 'nonsense'"),
        ("memory://", "there is no server to ask"),
    ):
        code, out, err = told("probe", url, *(["--json"] if as_json else []))
        assert code == 2, url
        if as_json:
            assert err == ""
            assert fault in json.loads(out)["error"]
        else:
            assert out == ""
            assert err.startswith("fleetcache: ")
            assert err.count("\n") == 1
            assert fault in err


def test_no_url(told, monkeypatch):
    """Without a URL it says how to give one."""
    monkeypatch.delenv("FLEETCACHE_URL", raising=False)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)

    assert told("probe") == (
        2,
        "",
        "fleetcache: give the URL of a server or --settings MODULE, or set FLEETCACHE_URL or DJANGO_SETTINGS_MODULE\n",
    )


def test_a_server_that_keeps_silent(told, valkey):
    """No answer is waited for longer than SOCKET_TIMEOUT."""
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
        proxy.hold()
        code, _, err = told("probe", f"{proxy.url()}?socket_timeout=0.2")

    assert code == 2
    assert "no answer" in err


# --- where something is missing -------------------------------------------------------------------


@pytest.mark.parametrize(
    "user, missing, remedy",
    [
        ("no-client", "tracking", "ACL SETUSER no-client +client|tracking"),
        ("no-info", "INFO", "ACL SETUSER no-info +info"),
        ("no-writes", "SET under 'fleetcache:'", "ACL SETUSER no-writes +set"),
        ("no-ttl", "PTTL under 'fleetcache:'", "ACL SETUSER no-ttl +pttl"),
        ("elsewhere", "SET under 'fleetcache:'", "ACL SETUSER elsewhere ~fleetcache:*"),
    ],
)
def test_a_user_who_may_not(guarded, told, user, missing, remedy):
    """It says what the user lacks and how to grant it; once granted, it works."""
    url = f"redis://{user}:right@127.0.0.1:{guarded.port}/0"

    code, out, _ = told("probe", url)
    assert code == 1
    assert failed(probe(url)) == missing
    assert out.splitlines()[-1].startswith(f"The near cache is off here: {missing}: the server says: ")
    assert out.splitlines()[-1].endswith(f"Allow it: {remedy}.")

    with redis.Redis.from_url(guarded.tcp_url(), password="right") as raw:
        raw.execute_command(*remedy.split())
        assert probe(url).works
        raw.execute_command("ACL", "SETUSER", user, "reset", "on", ">right", "~*", "&*", "+@all", *USERS[user].split())


def test_a_user_who_may_enough(guarded):
    """A user that may do everything is shown no missing permission."""
    assert probe(f"redis://plain:right@127.0.0.1:{guarded.port}/0").works


def test_whoever_may_not_call_info_is_still_told_the_server(guarded):
    """HELLO tells the name and the version to everybody."""
    assert probe(f"redis://no-info:right@127.0.0.1:{guarded.port}/0").server.startswith("Valkey 9.")


def test_protocol_2(server):
    """A URL that asks for RESP2 is named as the reason, and not the server."""
    report = probe(f"{server.tcp_url()}?protocol=2")

    assert failed(report) == "RESP3"
    assert report.conclusion == (
        "The near cache is off here: RESP3: the connection speaks RESP2. Leave out the option `protocol`."
    )


@pytest.mark.parametrize(
    "command, instead, missing",
    [("HELLO", "HOLLA", "RESP3"), ("CLIENT TRACKING", "CLIENT NOTHING", "tracking"), ("INFO", "INFA", "INFO")],
)
def test_a_command_that_is_not_there(server, command, instead, missing):
    """A proxy or service that knows less is told apart by what it refuses."""
    with FaultProxy(("127.0.0.1", server.port)) as proxy:
        proxy.rewrite(command, instead)
        report = probe(proxy.url())

    assert failed(report) == missing
    if missing == "RESP3":
        assert report.server.split()[0] in {"Valkey", "Redis"}


def test_what_is_no_server_at_all():
    """Something that answers everything with an error speaks no RESP3, nor anything else."""
    with relayed_answer(b"-ERR unknown command 'HELLO'\r\n") as url:
        report = probe(url)

    assert failed(report) == "RESP3"
    assert report.server == "unknown"


@contextmanager
def relayed_answer(answer: bytes) -> Iterator[str]:
    """The URL of a port that says *answer* to everything."""
    with valkey_server() as server, relayed(server.port, lambda portion: answer) as url:
        yield url


def test_lost_announcements(server):
    """That the server agreed to announce proves nothing: they have to arrive."""
    with FaultProxy(("127.0.0.1", server.port)) as proxy:
        proxy.drop_pushes()
        report = probe(f"{proxy.url()}?socket_timeout=0.3")

    assert failed(report) == "announcements"


def test_announcements_out_of_order(server):
    """A proxy that lets answers overtake earlier announcements breaks the fence; the probe finds it."""
    waiting: list[bytes] = []
    seen = 0

    def late(portion: bytes) -> bytes:
        nonlocal seen
        pushes = announcement.findall(portion)
        rest = announcement.sub(b"", portion)
        seen += len(pushes)
        if seen <= LAGS + 1:  # until the fence is asked about, nobody sends a PING
            return portion
        waiting.extend(pushes)
        if b"PONG" in rest:  # the other connection has replies as well
            rest += b"".join(waiting)
            waiting.clear()
        return rest

    with relayed(server.port, late) as url:
        report = probe(url)

    assert failed(report) == "fence"
    assert f"{FENCES} of {FENCES} announcements did not come before" in report.conclusion


def test_an_old_server(redis_debian):
    """Redis 6 is refused, although it would agree to everything."""
    with relayed(redis_debian.port, lambda portion: portion.replace(b"version:7.", b"version:6.")) as url:
        report = probe(url)

    assert failed(report) == "version"
    assert "Redis 7.0 or later" in report.conclusion


def test_a_replica(valkey):
    """A replica announces late, and takes no writes."""
    with valkey_server(arguments=["--replicaof", "127.0.0.1", str(valkey.port)]) as replica:
        report = probe(replica.tcp_url())

    assert failed(report) == "role"
    assert "URL of the primary" in report.conclusion


def test_several_servers_behind_one_address(valkey, redis_debian):
    """Connections of one URL that end at different servers would announce what nobody asked about."""
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:

        def balance(portion: bytes) -> bytes:
            proxy.upstream = ("127.0.0.1", redis_debian.port)  # of the next connection
            return portion

        with relayed(proxy.port, balance) as url:
            report = probe(url)

    assert failed(report) == "same server"


def test_help(capsys):
    """The command explains itself."""
    for arguments in (["--help"], ["probe", "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 0
        assert "probe" in capsys.readouterr().out
