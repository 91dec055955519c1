"""Fifty requests at once for one page: ``python crowd.py http://127.0.0.1:8000/products/7``."""

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
from urllib.request import urlopen

URL = sys.argv[1]
SITE = urlsplit(URL)

for _ in range(600):  # until the site has started
    with socket.socket() as tried:
        if tried.connect_ex((SITE.hostname, SITE.port)) == 0:
            break
    time.sleep(0.1)

with ThreadPoolExecutor(50) as crowd:
    answers = list(crowd.map(lambda _: urlopen(URL).read().decode(), range(50)))  # noqa: S310 - our own

print(f"{len(answers)} answers, {len(set(answers))} different")
