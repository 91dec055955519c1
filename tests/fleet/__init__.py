"""Processes of django-redis and of fleetcache at work on the same keys, at the same time.

The check has two halves.  A *keyspace* is a handful of keys with a model of their contents, which predicts every
reply.  One worker at a time works on a keyspace, and then hands it to a worker of the other package, so each
continues with the data that the other wrote.  The *shared keys* are used by all workers at once, and have
invariants instead: every increment counts, one caller wins an ADD, a lock excludes all others.
"""
