from fleetcache.client import HerdClient
from fleetcache.codec.herding import Marker
from fleetcache.failsafe import TROUBLE as _main_exceptions  # noqa: N811 - it is django-redis' name

__all__ = ["HerdClient", "Marker", "_main_exceptions"]
