"""A writer that knows nothing of the cache: a plain client, and versions that the server draws."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from redis.exceptions import RedisError
from tests.coherence import keys
from tests.coherence.checker import DELETE, FAILED, TOUCH, TRUTH, WRITE, Recorder

SET = """
local floor = redis.call('GET', KEYS[2])
if not floor then return 0 end
local version = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), tonumber(floor)) + 1
local text = string.format('%.0f', version)
redis.call('SET', KEYS[2], text)
if ARGV[1] == '' then redis.call('SET', KEYS[1], text) else redis.call('SET', KEYS[1], text, 'PX', ARGV[1]) end
return version
"""

DEL = """
local floor = redis.call('GET', KEYS[2])
if not floor or redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local version = math.max(tonumber(redis.call('GET', KEYS[1])), tonumber(floor)) + 1
redis.call('SET', KEYS[2], string.format('%.0f', version))
redis.call('DEL', KEYS[1])
return version
"""

EXPIRE = """
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then return 0 end
return tonumber(redis.call('GET', KEYS[1]))
"""

FLUSH = """
local floors = {}
for place = 1, #ARGV, 2 do
    local found = tonumber(redis.call('GET', ARGV[place]) or 0)
    floors[place] = math.max(found, tonumber(redis.call('GET', ARGV[place + 1]) or 0)) + 1
end
redis.call('FLUSHALL')
for place = 1, #ARGV, 2 do redis.call('SET', ARGV[place + 1], string.format('%.0f', floors[place])) end
return 1
"""
"""Removes everything; goes on counting the versions of the keys and floors that are its arguments."""


class Foreign:
    """A thread that writes by *client* at *rate* operations a second."""

    def __init__(self, client: Any, seed: int, *, shared: int, expiring: int, rate: float) -> None:
        self.client = client
        """Where to write; another may take its place at any time."""
        self.recorder = Recorder("foreign")
        self.chance = random.Random(f"{seed} foreign")
        self.shared = [f"n{number}" for number in range(shared)]
        self.expiring = [f"x{number}" for number in range(expiring)]
        self.rate = rate
        self.turn = threading.Lock()
        """Held to keep the thread from writing."""
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name="foreign")

    def seed(self, floor: int = 1) -> None:
        """Let versions begin above *floor*, and every shared key have one."""
        for key in (*self.shared, *self.expiring):
            self.client.set(keys.floor(key), floor)
        for key in self.shared:
            self.set(key, None)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Write no more."""
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join(20)

    def run(self) -> None:
        """Write, at the rate that was asked for."""
        due = time.monotonic()
        while not self.stopping.is_set():
            try:
                with self.turn:
                    self.step()
            except (RedisError, OSError):
                time.sleep(0.01)
            due = max(due + self.chance.expovariate(self.rate), time.monotonic() - 0.05)
            self.stopping.wait(max(0.0, due - time.monotonic()))

    def step(self) -> None:
        chance = self.chance
        if self.expiring and chance.random() < 0.3:
            key, lifetime = chance.choice(self.expiring), chance.choice((0.02, 0.1, 0.3, 5.0))
            if chance.random() < 0.8:
                self.set(key, lifetime)
            else:
                self.expire(key, lifetime)
        elif chance.random() < 0.1:
            self.delete(chance.choice(self.shared))
        else:
            self.set(chance.choice(self.shared), None)

    def set(self, key: str, lifetime: float | None) -> None:
        with self.recorder.noting(WRITE, key, lifetime=lifetime) as write:
            write.version = int(self.ask(SET, key, "" if lifetime is None else int(lifetime * 1000)))
            if not write.version:
                write.outcome = FAILED

    def create(self, key: str) -> None:
        """Set *key*, which there is not, and nobody else sets, in single commands: its slot may be on its way."""
        with self.recorder.noting(WRITE, key) as write:
            write.version = int(self.client.get(keys.floor(key))) + 1
            self.client.set(keys.floor(key), write.version)
            self.client.set(keys.name(key), write.version)

    def delete(self, key: str) -> None:
        with self.recorder.noting(DELETE, key) as write:
            write.version = int(self.ask(DEL, key))
            if not write.version:
                write.outcome = FAILED

    def expire(self, key: str, lifetime: float) -> None:
        with self.recorder.noting(TOUCH, key, lifetime=lifetime) as touch:
            touch.version = int(self.ask(EXPIRE, key, int(lifetime * 1000)))
            if not touch.version:
                touch.outcome = FAILED

    def ask(self, script: str, key: str, *arguments: object) -> Any:
        return self.client.eval(script, 2, keys.name(key), keys.floor(key), *arguments)

    def truth(self, names: list[str], read: object) -> None:
        """Note what the server has, by *read* of its payloads."""
        for key in names:
            with self.recorder.noting(TRUTH, key) as truth:
                payload = self.client.get(keys.name(key))
                truth.version = keys.version(None if payload is None else read(payload))
