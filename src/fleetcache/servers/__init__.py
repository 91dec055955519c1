"""What can be asked: remote servers, one in memory, an embedded one, a client of the caller; each a `Server`."""
