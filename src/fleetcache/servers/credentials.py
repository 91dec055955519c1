"""User names and passwords that change while the process runs: redis-py's ``CredentialProvider``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.credentials import CredentialProvider

from fleetcache.errors import AccessDenied
from fleetcache.masking import secret
from fleetcache.servers.remote import SERVERS
from fleetcache.threads import living

log = logging.getLogger("fleetcache.server")


class Done:
    """A result that may be awaited or not: a provider awaits its listener if a coroutine started it."""

    def __await__(self) -> Iterator[None]:
        return iter(())


class Credentials(CredentialProvider):
    """The site's credential *provider*, which every new connection asks; its failures raise `AccessDenied`.

    A streaming provider announces new tokens.  After each, older connections are closed as soon as they have
    their replies, so no `AUTH` has to be sent on a connection that a caller, or a crowd of tasks, is using.
    """

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.name = type(provider).__name__

    def listen(self) -> None:
        """Subscribe to the tokens that the provider announces."""
        # The provider does not hear of raw clients: redis-entraid's has room for one listener, which they would take.
        if hasattr(self.provider, "on_next"):
            self.provider.on_next(self._announced)
            self.provider.on_error(self._failed)

    def get_credentials(self) -> Any:
        with self._blamed():
            if type(self.provider).get_credentials is CredentialProvider.get_credentials:
                # The provider has only a coroutine.  It runs in a loop of its own here; connections of an event
                # loop are made in another thread.
                return self._checked(asyncio.run(self.provider.get_credentials_async()))
            return self._checked(self.provider.get_credentials())

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Without the provider's text, which may hold a secret.
            raise AccessDenied(f"credential_provider {self.name} raised {type(error).__name__}") from error

    def _checked(self, found: Any) -> Any:
        if not isinstance(found, (tuple, list)) or len(found) not in {1, 2}:
            raise TypeError(f"(user, password) or (password,) is expected, not {type(found).__name__}")
        return (*found[:-1], secret(found[-1]))

    def _announced(self, token: Any) -> Done:
        del token  # the next connections ask the provider
        for server in living(SERVERS):
            if server.pool.connection_kwargs.get("credential_provider") is self:
                server.replace_connections()
                server.pool.disconnect(inuse_connections=False)  # the idle connections of raw clients
        return Done()

    def _failed(self, error: Exception) -> Done:
        log.error("credential_provider %s: no new token: %s", self.name, type(error).__name__)
        return Done()
