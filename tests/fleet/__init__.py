"""A fleet of processes, some of django-redis and some of fleetcache, on the same keys.

Its check has two halves.  An *estate* is a handful of keys with a model of what is in them, which
foretells every reply; it goes from process to process, and from one package to the other each
time, so each goes on with what the other left.  What all processes share at once has invariants
instead: every increment counts, every election has one winner, locks exclude.
"""
