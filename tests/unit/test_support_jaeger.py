"""The query client's view of an answer of Jaeger's `/api/v3/traces`, on a small answer."""

from tests.support.jaeger import _rfc3339, flat_attributes, flat_spans

ANSWER = {
    "result": {
        "resourceSpans": [
            {
                "resource": {
                    "attributes": [{"key": "service.name", "value": {"stringValue": "route"}}]
                },
                "scopeSpans": [
                    {
                        "spans": [
                            {"name": "late", "startTimeUnixNano": "200", "attributes": []},
                            {"name": "early", "startTimeUnixNano": "30"},
                        ]
                    }
                ],
            }
        ]
    }
}


def test_spans_come_in_the_order_of_their_start_with_their_service() -> None:
    spans = flat_spans(ANSWER)
    assert [span["name"] for span in spans] == ["early", "late"]
    assert {span["service"] for span in spans} == {"route"}
    assert spans[0]["attributes"] == {}


def test_no_answer_has_no_spans() -> None:
    assert flat_spans(None) == []
    assert flat_spans({"result": {}}) == []


def test_typed_values_become_python_values() -> None:
    attributes = [
        {"key": "text", "value": {"stringValue": "x"}},
        {"key": "number", "value": {"intValue": "-7"}},
        {"key": "ratio", "value": {"doubleValue": 0.5}},
        {"key": "flag", "value": {"boolValue": True}},
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "a"}]}}},
    ]
    assert flat_attributes(attributes) == {
        "text": "x", "number": -7, "ratio": 0.5, "flag": True, "list": [1, None], "map": {"a": None}
    }  # fmt: skip


def test_times_keep_their_nanoseconds() -> None:
    assert _rfc3339(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"
