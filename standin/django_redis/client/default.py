from fleetcache.client import DefaultClient
from fleetcache.failsafe import TROUBLE as _main_exceptions  # noqa: N811 - it is django-redis' name
from fleetcache.keys import escaped as glob_escape

__all__ = ["DefaultClient", "_main_exceptions", "glob_escape"]
