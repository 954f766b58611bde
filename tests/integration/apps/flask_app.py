"""A Flask application that knows nothing of tracing."""

import os

from flask import Flask

app = Flask(__name__)


@app.get("/hello/<name>")
def hello(name: str) -> str:
    return f"hello {name} from {os.getpid()}"


@app.get("/fail")
def fail() -> str:
    raise RuntimeError("on purpose")
