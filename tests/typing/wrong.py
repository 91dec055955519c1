"""A user's mistakes, each of which mypy and pyright refuse: a comment that ignores nothing is an error of its own."""

from __future__ import annotations

from fleetcache import Cache, caches

cache = Cache("memory://shop")


def load() -> str:
    return ""


async def aload() -> str:
    return ""


cache.get(b"key")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
cache.set(b"key", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.set("key", 1, "60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.set("key", 1, timeout=object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.set("key", 1, tags=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.set("key")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cache.set(None, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.set(["key"], 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.touch("key", "60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.expire("key", [60])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.expire_at("key", "tomorrow")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.get_many([b"key"])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache.set_many({b"key": 1})  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
cache.delete("key", version=b"2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.get("key", fres=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache.getset("key", 1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
cache.incr("key", "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.get_or_set("key", load, "60")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache.get_or_set("key", load, stale_while_revalidat=60)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
cache.get_or_set("key")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
number: int = cache.get_or_set("key", load)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
text: str = cache.get("key", 5)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
length = len(cache.get("key"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
left: int = cache.ttl("key")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
cache.get_or_set_many(["key"], load)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.zadd("scores", ["ann"])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache.zrange("scores", "first", "last")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache.spop("tags", "2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
cache.lrange("queue", 0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cache.lock("report", timeout="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.lock("report", renw=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
cache.pipeline().set(b"key", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.pipeline().lock("report")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
cache.invalidate_tags(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
cache.head  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
cache.still  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
cache.ask_all([], None)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
caches[5]  # type: ignore[index]  # pyright: ignore[reportArgumentType]


async def awaiting() -> int:
    await cache.aset("key", 1, "60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await cache.aget(b"key")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    cache.aget("key").strip()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    await cache.ahget("cart", None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    return await cache.aget_or_set("key", aload)  # type: ignore[arg-type]  # pyright: ignore[reportReturnType]
