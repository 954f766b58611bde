"""Asks a URL some times over one connection that is kept alive: a CLIENT span for each."""

import sys

import requests

import k8s_tracing
from k8s_tracing.instrument.requests import TracingAdapter

if __name__ == "__main__":
    url, count = sys.argv[1:]
    k8s_tracing.init("caller", backend="lttng")
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", TracingAdapter())
        for _ in range(int(count)):
            session.get(url, timeout=60).raise_for_status()
