"""Which server is asked; no code above knows how many there are.

Its modules:

    contract     the base class `Topology`, and where a new one goes
    opening      from a LOCATION to its servers
    standalone   one server, or a primary with replicas
    replicas     which server answers a read
    shards       independent servers, by consistent hashing
    cluster      a Redis or Valkey Cluster: slots, redirections
"""
