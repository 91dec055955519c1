"""What is wrong with a cache, its servers and its settings: `examine` asks, and returns findings.

    findings   every kind of finding: its id, how bad it is, why it matters
    asking     what the servers say, each asked once
    sampling   some entries of the server: lifetimes, first bytes
    formats    which format the first bytes of a payload show
    servers    version, memory, connections
    access     rights, TLS
    options    options that contradict each other or do nothing
    entries    what the sample shows
    places     clocks, replicas, Sentinels, clusters
    aliases    caches of one site that share a database
    workers    the processes of the fleet

Nothing is written, except by the probe for the near cache (`fleetcache.probe`): one small entry that expires.
"""

from fleetcache.inspection.doctor.examining import answers, examine, refused
from fleetcache.inspection.doctor.findings import KINDS, Finding, Kind, told_once

__all__ = ["KINDS", "Finding", "Kind", "answers", "examine", "refused", "told_once"]
