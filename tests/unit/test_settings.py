import logging

import pytest

from k8s_tracing.settings import DEFAULT_VALUE_LENGTH, Limits, Settings, from_environment


def test_an_empty_environment_gives_the_defaults() -> None:
    assert from_environment({}) == Settings(resource={})


def test_resource_attributes_are_percent_decoded_and_spaces_around_them_left_out() -> None:
    settings = from_environment({"OTEL_RESOURCE_ATTRIBUTES": " a = b%2Cc ,service.name=shop,"})
    assert settings.resource == {"a": "b,c", "service.name": "shop"}
    assert settings.service_name == "shop"


def test_the_service_name_variable_wins_over_the_resource_attribute() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a", "OTEL_SERVICE_NAME": "b"}
    assert from_environment(environ).service_name == "b"


def test_what_is_not_key_and_value_is_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "k8s_tracing"):
        assert from_environment({"OTEL_RESOURCE_ATTRIBUTES": "oops,a=1"}).resource == {"a": "1"}
    assert "'oops' is not key=value" in caplog.text


@pytest.mark.parametrize(
    ("environ", "limits"),
    [
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "7"}, Limits(attributes=7)),
        (
            {"OTEL_ATTRIBUTE_COUNT_LIMIT": "7", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "9"},
            Limits(attributes=9, event_attributes=7, link_attributes=7),
        ),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "12"}, Limits(value_length=12)),
        ({"OTEL_SPAN_EVENT_COUNT_LIMIT": "99999999"}, Limits(events=0xFFFF)),
        ({"OTEL_SPAN_LINK_COUNT_LIMIT": "0"}, Limits(links=0)),
    ],
)
def test_limits(environ: dict[str, str], limits: Limits) -> None:
    assert from_environment(environ).limits == limits


def test_a_limit_that_is_no_number_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "k8s_tracing"):
        limits = from_environment({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-1"}).limits
    assert limits.value_length == DEFAULT_VALUE_LENGTH
    assert "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT='-1'" in caplog.text


@pytest.mark.parametrize(("text", "disabled"), [("true", True), ("TRUE", True), ("1", False)])
def test_only_true_disables(text: str, disabled: bool) -> None:
    assert from_environment({"OTEL_SDK_DISABLED": text}).disabled is disabled


@pytest.mark.parametrize(
    ("text", "shortest_ns"),
    [
        ("", None),
        ("0", None),
        ("off", None),
        ("1", 1_000_000),
        ("true", 1_000_000),
        ("1ms", 1_000_000),
        (" 0.5ms ", 500_000),
        ("20us", 20_000),
        ("2s", 2_000_000_000),
        ("0ns", 0),
    ],
)
def test_the_cpu_split_is_switched_on_or_given_its_shortest_span(
    text: str, shortest_ns: int | None
) -> None:
    assert from_environment({"K8S_TRACING_CPU_SPLIT": text}).cpu_split_ns == shortest_ns


def test_a_cpu_split_that_is_no_duration_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "k8s_tracing"):
        assert from_environment({"K8S_TRACING_CPU_SPLIT": "fast"}).cpu_split_ns is None
    assert "K8S_TRACING_CPU_SPLIT='fast'" in caplog.text
