# SPDX-License-Identifier: Apache-2.0
"""The first trace: `k8s-tracing record -- python examples/first_trace.py`."""

import time

import k8s_tracing


@k8s_tracing.traced
def find_driver(customer: str) -> str:
    time.sleep(0.02)
    k8s_tracing.current_span().set_attribute("customer", customer)
    return "T757183C"


def main() -> None:
    k8s_tracing.init("first-trace")
    with k8s_tracing.span("dispatch", {"customer.id": "123"}) as span:
        span.add_event("looking for a driver")
        driver = find_driver("123")
        span.set_attribute("driver", driver)


if __name__ == "__main__":
    main()
