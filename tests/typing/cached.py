"""What type checkers know of a function with a cache; mypy and pyright read this file, nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, assert_type

from fleetcache import Cache, cached
from fleetcache.policy import Policy


class Profile: ...


@cached(300, key="profile:{user_id}", tags=["user:{user_id}"])
def profile(user_id: int) -> Profile:
    return Profile()


assert_type(profile(5), Profile)
assert_type(profile(user_id=5), Profile)
assert_type(profile.refresh(5), Profile)
assert_type(profile.invalidate(user_id=5), bool)
assert_type(profile.key(5), str)
assert_type(profile.lookup(5).state, Literal["near", "fresh", "stale", "missing"])
assert_type(profile.many([1, 2, 3]), dict[int, Profile])
profile("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
profile.invalidate()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@profile.loads_many
def profiles(user_ids: list[int]) -> Mapping[int, Profile]:
    return {}


assert_type(profiles([1]), Mapping[int, Profile])


@cached(Policy(timeout=60), stale_if_error=3600.0, cache="other")
async def rates(base: str, *, day: int = 0) -> dict[str, float]:
    return {}


async def use() -> None:
    assert_type(await rates("EUR", day=1), dict[str, float])
    assert_type(await rates.refresh("EUR"), dict[str, float])
    assert_type(await rates.invalidate("EUR"), bool)
    assert_type(await rates.ainvalidate("EUR"), bool)
    assert_type(rates.key("EUR", day=2), str)
    assert_type(await rates.many(["EUR"]), dict[str, dict[str, float]])
    await rates("EUR", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await profile.ainvalidate(5), bool)


class Cart:
    pk = 1

    @cached(60, key="cart:{self.pk}:{currency}", cache=Cache("memory://"))
    def total(self, currency: str) -> int:
        return 0

    @cached(key="cart:{self.pk}")
    async def items(self) -> list[str]:
        return []

    @classmethod
    @cached(key="carts:{day}")
    def count(cls, day: int) -> int:
        return 0

    @cached(key="carts:best:{limit}")
    @classmethod
    def best(cls, limit: int) -> float:
        return 0

    @cached(key="carts:worst:{limit}")
    @classmethod
    async def worst(cls, limit: int) -> float:
        return 0

    @staticmethod
    @cached()
    def rate(currency: str) -> float:
        return 0.0

    @staticmethod
    @cached()
    def kind(kind: type[int]) -> str:
        return ""

    @property
    @cached(key="cart:{self.pk}:weight")
    def weight(self) -> int:
        return 0


class Derived(Cart): ...


@cached()
def of_kind(kind: type[int], number: int) -> str:
    return ""


assert_type(Cart().total("EUR"), int)
assert_type(Cart().total.key("EUR"), str)
assert_type(Cart.total(Cart(), "EUR"), int)
assert_type(Cart.count(5), int)
assert_type(Derived.count(5), int)
assert_type(Cart().count(5), int)
Cart.count("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(Cart.best(5), float)
assert_type(Derived.best.refresh(5), float)
assert_type(Cart().best.key(5), str)
Cart.best.refresh("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(Cart.kind(int), str)
assert_type(of_kind(int, 5), str)
assert_type(of_kind.refresh(int, 5), str)
assert_type(Cart.rate("EUR"), float)
assert_type(Cart.rate.invalidate("EUR"), bool)
assert_type(Cart().weight, int)
Cart().total(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

cached(300, stale_while_revalidat=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def more() -> None:
    assert_type(await Cart().items(), list[str])
    assert_type(await Cart().items.refresh(), list[str])
    assert_type(await Cart.worst(5), float)
    assert_type(await Cart.worst.refresh(5), float)
