"""An application that knows nothing of tracing."""

import asyncio
import os

from fastapi import FastAPI

app = FastAPI()


@app.get("/hello/{name}")
async def hello(name: str) -> dict[str, object]:
    return {"hello": name, "pid": os.getpid(), "uid": os.getuid()}


@app.get("/slow")
async def slow() -> None:
    print("begun", flush=True)
    await asyncio.sleep(3600)
