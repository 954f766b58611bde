"""SpanRecord."""

import dataclasses

import pytest

from k8s_tracing.record import SpanRecord

SPAN = SpanRecord(
    trace_id="0" * 31 + "1",
    span_id="0" * 15 + "1",
    name="work",
    start_time_ns=1_000,
    end_time_ns=3_500,
)


def test_duration_is_from_start_to_end():
    assert SPAN.duration_ns == 2_500


def test_the_service_is_named_by_the_resource():
    span = dataclasses.replace(SPAN, resource={"service.name": "shop"})
    assert span.service_name == "shop"
    assert SPAN.service_name == "unknown_service"


@pytest.mark.parametrize(("value", "unfinished"), [(True, True), (False, False), ("yes", False)])
def test_unfinished_is_an_attribute_of_the_relay(value, unfinished):
    span = dataclasses.replace(SPAN, attributes={"k8s_tracing.unfinished": value})
    assert span.unfinished is unfinished


def test_records_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPAN.name = "other"  # type: ignore[misc]
