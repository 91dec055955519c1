"""Bytes on a connected socket: the only place where blocking and awaiting code differ."""
