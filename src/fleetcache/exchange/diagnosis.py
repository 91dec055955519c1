"""Diagnosis: why a connection could not be made.  It runs only after a failure.

A server without TLS waits for the line end that a TLS greeting does not have; a server with TLS closes the connection
after a plain greeting.  Neither says why; one more question in the other protocol shows it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any

SHORTLY = 1.0
"""The time limit of such a question, in seconds."""

PLAIN = (b"+PONG", b"-NOAUTH", b"-NOPERM", b"-DENIED", b"-ERR", b"-LOADING", b"-MASTERDOWN", b"-MISCONF")

FILES = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")


def bracketed(host: str) -> str:
    """Return *host* in the form that stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def unusable_file(options: Mapping[str, Any]) -> str:
    """Return which of the files that *options* name cannot be used for TLS, and why; "" if all can."""
    named = {name: options[name] for name in FILES if options.get(name)}
    for name, path in named.items():
        try:
            with open(path, "rb"):  # noqa: PTH123 - the option may have any type that is a path
                pass
        except (OSError, TypeError, ValueError) as error:
            return f"{name} {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}"
    certificate, key, authorities = (named.get(name) for name in FILES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    wrong = (OSError, TypeError, ValueError)
    try:
        if certificate or key:
            # Without a password the library would ask for one at the terminal.
            context.load_cert_chain(certificate or "", key, password=options.get("ssl_password") or "")
    except wrong as error:
        place = f"ssl_certfile {str(certificate)!r}" + (
            f" and ssl_keyfile {str(key)!r}" if key else " (no ssl_keyfile)"
        )
        return f"{place}: no certificate with its key: {error}"
    try:
        context.load_verify_locations(authorities, options.get("ssl_ca_path"), options.get("ssl_ca_data"))
    except wrong as error:
        what = next((name for name in ("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data") if options.get(name)), "")
        shown = "" if what == "ssl_ca_data" else f" {str(options.get(what))!r}"
        return f"{what}{shown}: no certificates of authorities: {error}" if what else ""
    return ""


def speaks_plainly(place: tuple[str, int]) -> bool:
    """Whether the server at *place* answers without TLS."""
    try:
        with socket.create_connection(place, SHORTLY) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(64).startswith(PLAIN)
    except OSError:
        return False


def speaks_tls(place: tuple[str, int]) -> bool:
    """Whether the server at *place* answers a greeting under TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing secret is sent
    try:
        with socket.create_connection(place, SHORTLY) as sock, context.wrap_socket(sock, server_hostname=place[0]):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # an alert: the server speaks TLS, and refuses this greeting
    except (OSError, ValueError):
        return False
