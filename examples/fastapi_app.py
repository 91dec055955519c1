"""A FastAPI route that a crowd cannot bring down: fifty requests at once for a page that nobody has made yet.

FLEETCACHE_URL=redis://127.0.0.1:6379/0 uvicorn examples.fastapi_app:app
"""

import asyncio

import httpx
from fastapi import FastAPI

from fleetcache import cached

app = FastAPI()
queries = []


@cached(60, key="product:{number}", stale_while_revalidate=600, tags=["product:{number}"])
async def product(number: int) -> dict[str, int]:
    """Read the product from the database; takes a fifth of a second."""
    queries.append(number)
    await asyncio.sleep(0.2)
    return {"number": number, "price": 3}


@app.get("/products/{number}")
async def show(number: int) -> dict[str, int]:
    """Return the product."""
    return await product(number)


async def main() -> None:
    """Send fifty requests at once."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://site") as visitors:
        answers = await asyncio.gather(*(visitors.get("/products/7") for _ in range(50)))
    print(f"{len(answers)} answers {answers[0].json()}, {len(queries)} query")


if __name__ == "__main__":
    asyncio.run(main())
