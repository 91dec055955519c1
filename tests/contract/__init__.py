"""Django's own cache tests, run on fleetcache: what Django asks of a backend, in Django's words."""
