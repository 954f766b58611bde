"""Asks a URL some times over one connection that is kept alive: a CLIENT span for each.

service_client.py URL COUNT [older]

`older`: it opens the connection first, says so, and records only once its environment has come as a line of JSON.
"""

import json
import os
import sys

import requests

import k8s_tracing
from k8s_tracing.instrument.requests import TracingAdapter

if __name__ == "__main__":
    url, count, *older = sys.argv[1:]
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", TracingAdapter())
        if older:
            session.get(url, timeout=60).raise_for_status()
            print("open", flush=True)
            os.environ.update(json.loads(sys.stdin.readline()))
        k8s_tracing.init("caller", backend="lttng")
        for _ in range(int(count)):
            session.get(url, timeout=60).raise_for_status()
