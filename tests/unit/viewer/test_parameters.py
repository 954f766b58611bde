"""Parameters as Go reads them, and what Jaeger says when they are wrong."""

import pytest

from k8s_tracing.viewer import parameters
from k8s_tracing.viewer.ingest import MAX_TIME_NS
from k8s_tracing.viewer.parameters import ParameterError, Parameters, legacy_query, v3_query
from k8s_tracing.viewer.search import Query

NOW_NS = 1_800_000_000_000_000_000
S = 10**9


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("0", 0),
        ("1ns", 1),
        ("1.5ms", 1_500_000),
        (".5us", 500),
        ("2µs", 2000),
        ("2μs", 2000),
        ("1h30m", 5400 * S),
        ("1m1.000000001s", 61 * S + 1),
        ("+3s", 3 * S),
    ],
)
def test_durations(text: str, expected_ns: int) -> None:
    assert parameters.duration_ns(text) == expected_ns


@pytest.mark.parametrize(
    "text", ["", "5", "x", "1d", "1.s2", "-1s", "1s ", "ms", "1e3s", "9" * 20 + "h"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parameters.duration_ns(text)


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("2027-01-15T08:00:00Z", NOW_NS),
        ("2027-01-15T08:00:00.000000001Z", NOW_NS + 1),
        ("2027-01-15T09:30:00.5+01:30", NOW_NS + S // 2),
        ("1969-12-31T23:59:59Z", 0),
        ("9999-12-31T23:59:59Z", MAX_TIME_NS),
    ],
)
def test_times(text: str, expected_ns: int) -> None:
    assert parameters.time_ns(text) == expected_ns


@pytest.mark.parametrize(
    "text", ["", "now", "2027-01-15", "2027-01-15T08:00:00", "2027-13-15T08:00:00Z"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - some are datetime's own words
        parameters.time_ns(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("{}", {}),
        ('{"a": "b", "c d": "e"}', {"a": "b", "c d": "e"}),
        ("a=b", {"a": "b"}),
        (
            '  a.b=c  d="two words" e= f="\\"q\\""',
            {"a.b": "c", "d": "two words", "e": "", "f": '"q"'},
        ),
        ("error=true", {"error": "true"}),
    ],
)
def test_tags(text: str, expected: dict[str, str]) -> None:
    assert parameters.tags(text) == expected


@pytest.mark.parametrize(
    "text", ['{"a": 1}', "{", '{"a"', "a", "a b=c", '"x"=y', 'a="b', "=x", 'a=b"c']
)
def test_what_are_no_tags(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - some are json's own words
        parameters.tags(text)


def test_a_search_without_times_is_for_the_last_two_days() -> None:
    query = legacy_query(Parameters([("service", "s")]), NOW_NS)
    assert query == Query(
        service="s", start_ns=NOW_NS - 2 * 24 * 3600 * S, end_ns=NOW_NS, limit=100
    )


def test_all_parameters_of_a_search() -> None:
    given = [
        ("service", "s"),
        ("operation", "o"),
        ("tag", "a:b:c"),
        ("tag", "d:"),
        ("tags", '{"e": "f"}'),
        ("tags", "g=h"),
        ("minDuration", "1ms"),
        ("maxDuration", "1s"),
        ("start", "5"),
        ("end", "7"),
        ("limit", "3"),
        ("lookback", "1h"),
    ]
    tags = {"a": "b:c", "d": "", "e": "f", "g": "h"}
    expected = Query("s", "o", tags, 10**6, S, 5000, 7000, 3)
    assert legacy_query(Parameters(given), NOW_NS) == expected


@pytest.mark.parametrize("names", ["snake", "camel"])
def test_both_spellings_of_v3(names: str) -> None:
    snake = {
        "service_name": "s",
        "operation_name": "o",
        "start_time_min": "1970-01-01T00:00:01Z",
        "start_time_max": "1970-01-01T00:00:02Z",
        "duration_min": "1ms",
        "duration_max": "1s",
    }
    camel = dict(
        zip(
            [
                "serviceName",
                "operationName",
                "startTimeMin",
                "startTimeMax",
                "durationMin",
                "durationMax",
            ],
            snake.values(),
            strict=True,
        )
    )
    fields = {**snake, "num_traces": "3"} if names == "snake" else {**camel, "searchDepth": "3"}
    given = Parameters([(f"query.{name}", value) for name, value in fields.items()])
    assert v3_query(given) == Query("s", "o", {}, 10**6, S, S, 2 * S, 3)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("start=x", "unable to parse param 'start': 'x' is not a whole number"),
        ("end=1.5", "unable to parse param 'end'"),
        ("minDuration=5", "unable to parse param 'minDuration'"),
        ("limit=x", "unable to parse param 'limit'"),
        ("limit=0", "the limit has to be a number from 1 to"),
        ("limit=-1", "the limit has to be a number from 1 to"),
        ("limit=99999999", "the limit has to be a number from 1 to"),
        ("tag=x", "malformed 'tag' parameter, expecting key:value, received: x"),
        ("tags=x", "malformed 'tags' parameter"),
        ("tags=" + "[" * 99999, "malformed 'tags' parameter"),
        ("tags=" + '{"a":' * 99999, "malformed 'tags' parameter"),
    ],
)
def test_what_is_wrong_says_which_parameter(parameter: str, message: str) -> None:
    name, _, value = parameter.partition("=")
    with pytest.raises(ParameterError, match=message):
        legacy_query(Parameters([("service", "s"), (name, value)]), NOW_NS)


def test_a_maximum_below_the_minimum() -> None:
    given = Parameters([("service", "s"), ("minDuration", "5ms"), ("maxDuration", "1ms")])
    with pytest.raises(ParameterError, match="'maxDuration' should be greater than 'minDuration'"):
        legacy_query(given, NOW_NS)


def test_what_is_missing() -> None:
    with pytest.raises(ParameterError, match="parameter 'service' is required"):
        legacy_query(Parameters([]), NOW_NS)
    assert legacy_query(Parameters([]), NOW_NS, any_service=True).service == ""
    with pytest.raises(ParameterError, match=r"query\.start_time_max are required"):
        v3_query(Parameters([("query.start_time_min", "2027-01-15T08:00:00Z")]))


@pytest.mark.parametrize("text", ["", "x", "1" * 33, "0x1", " 1", "\u0661"])
def test_what_is_no_trace_id(text: str) -> None:
    with pytest.raises(ValueError, match="is not a trace id"):
        parameters.trace_id(text)


def test_zeros_in_front_of_a_trace_id_may_be_missing() -> None:
    assert parameters.trace_id("Ab") == bytes(15) + b"\xab"
