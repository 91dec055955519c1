"""What the log and the metrics say while a server is silent, and when it is back."""

import logging.config
import time

from prometheus_client import REGISTRY

from fleetcache import Cache
from fleetcache.telemetry.prometheus import install
from fleetcache.testing import FaultProxy, valkey_server

FORMAT = "%(levelname)s %(name)s %(event)s"
logging.config.dictConfig(
    {
        "version": 1,
        "formatters": {"short": {"()": "logging.Formatter", "fmt": FORMAT, "defaults": {"event": "-"}}},
        "handlers": {
            "page": {"class": "logging.StreamHandler", "formatter": "short", "stream": "ext://sys.stdout"},
        },
        "loggers": {"fleetcache": {"handlers": ["page"], "level": "INFO"}},
    }
)
install()


def away() -> float:
    """Return the metric on which to alert: 1 while the server is taken as away."""
    labels = {"cache": "shop", "server": cache.info()["servers"][0]["address"]}
    return REGISTRY.get_sample_value("fleetcache_breaker_state", labels)


with valkey_server() as server, FaultProxy(server.socket) as proxy:
    options = {"IGNORE_EXCEPTIONS": True, "SOCKET_TIMEOUT": 0.2}
    cache = Cache(proxy.url(), {"OPTIONS": options}, alias="shop")
    cache.set("a", 1)
    print("before:", away())
    proxy.hold()
    cache.get("a")
    print("during:", away())
    proxy.heal()
    while away():
        time.sleep(0.1)
    print("after:", away(), cache.get("a"))
