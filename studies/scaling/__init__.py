"""What does a near cache in each of 1,000 workers ask of the servers?

``python -m studies.scaling.constants``  Measures what a connection, an announcement and a request cost (some ten minutes).
``python -m studies.scaling``            Computes a fleet from these figures; writes ``docs/scaling.md``.  Needs no server.
"""
