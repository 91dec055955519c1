"""A FastAPI site whose product page a crowd cannot bring down: one query for all workers."""

import asyncio
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, FastAPI
from redis.exceptions import RedisError

from fleetcache import Cache, cached, caches


@asynccontextmanager
async def lifespan(app: FastAPI):
    """Load what the first visitors need; of several workers one loads.

    Connections need no care: they end with the loop.
    """
    await product(1)
    yield


app = FastAPI(lifespan=lifespan)
TheCache = Annotated[Cache, Depends(lambda: caches["default"])]


@cached(60, key="product:{number}", stale_while_revalidate=600, tags=["product:{number}"])
async def product(number: int) -> dict:
    """Read the product from the database; takes half a second.  ``query`` is different for each query."""
    await asyncio.sleep(0.5)
    return {"number": number, "query": uuid4().hex}


@app.get("/products/{number}")
async def show(number: int) -> dict:
    """Return the product."""
    return await product(number)


@app.post("/products/{number}/changed")
async def changed(number: int, cache: TheCache) -> int:
    """Give up all that was made of the product."""
    return await cache.ainvalidate_tags(f"product:{number}")


@app.get("/health")
async def health(cache: TheCache) -> dict:
    """Say whether the cache answers.  The status is always 200: a restart of this process mends no server."""
    try:
        await cache.strict.aset("health", "ok", 10)
    except RedisError as error:
        return {"cache": type(error).__name__}
    return {"cache": "ok"}
