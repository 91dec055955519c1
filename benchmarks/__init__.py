"""How fast fleetcache is, next to its peers and to what is possible.

Each script answers one question and prints ratios against peers measured in the same run:

``python -m benchmarks.remote``    What does a blocking call cost?
``python -m benchmarks.awaiting``  How many calls does one event loop make?
``python -m benchmarks.growth``    How does the cost grow with values, batches, tasks and threads?
``python -m benchmarks.near``      What does a near cache cost, and what does it save?
``python -m benchmarks.staleness`` How long does a near cache answer with what was there before?
``python -m benchmarks.eviction``  Which copies does a near cache keep?
``python -m benchmarks.cluster``   What does a cluster cost, and what does it bring?
``python -m benchmarks.hotpath``   Where in fleetcache does the time go?
``python -m benchmarks``           All of them (``make bench``), and writes ``docs/performance.md``.

A peer that cannot run is named with the reason.  ``--quick`` takes fewer rounds, and writes nothing.
"""
