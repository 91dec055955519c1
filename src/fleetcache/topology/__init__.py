"""Which server is asked: one, a primary with replicas, shards, a cluster; no code above knows how many there are."""
