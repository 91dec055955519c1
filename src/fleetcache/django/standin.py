"""The distribution that provides the package ``django_redis`` where django-redis is not installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

NAME = "fleetcache-django-redis"
BOTH = (
    f"django-redis and {NAME} are both installed. Both own the package django_redis, and the one installed last has "
    f"overwritten files of the other. Uninstall both, then install the one that you want"
)


def both_installed() -> bool:
    """Whether the stand-in and django-redis are both installed, so that files of one replaced files of the other."""
    try:
        return bool(version(NAME) and version("django-redis"))
    except PackageNotFoundError:
        return False
