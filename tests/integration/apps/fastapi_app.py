"""A FastAPI application that knows nothing of tracing."""

import asyncio

from fastapi import FastAPI

app = FastAPI()


@app.get("/hello/{name}")
async def hello(name: str) -> dict[str, str]:
    await asyncio.sleep(0.001)
    return {"hello": name}
