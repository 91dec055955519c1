"""What can be asked: each is a `Server`.

Its modules:

    remote       a Redis or Valkey server, over its connections
    memory       ``memory://``: a server in a dict
    database     its commands
    scripts      its scripts
    arguments    their arguments
    embedded     ``embedded://``: a server that this process starts
    borrowed     a client of the caller (``client=``)
    observed     stands for a server, and reports each exchange
    credentials  passwords that change
"""
