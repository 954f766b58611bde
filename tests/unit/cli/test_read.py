"""k8s-tracing read."""

import json
from pathlib import Path

import pytest

from k8s_tracing import jaeger
from k8s_tracing.cli import main
from k8s_tracing.otlp import read_json_lines
from tests.support.ctf import write_trace
from tests.support.spans import announced, end, start

GOLDEN = Path(__file__).parents[2] / "golden"
RECORDED = str(GOLDEN / "relay" / "recorded")
HOTROD = str(GOLDEN / "report" / "hotrod.jsonl")


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_a_recording_of_lttng(capsys):
    assert main(["read", RECORDED]) == 0
    out, err = capsys.readouterr()
    assert [line.split("  ")[0] for line in out.splitlines()[3:]] == [
        "rôle GET /",
        "├─ SELECT",
        "├─ ✗ second name",
        "│",
        "└─ never ends (unfinished)",
    ]
    assert err == "spans: 4; traces: 1; unfinished: 1; lost events: 0\n"


def test_a_file_of_json_lines(capsys):
    assert main(["read", HOTROD]) == 0
    out, err = capsys.readouterr()
    assert out == (GOLDEN / "report" / "hotrod-80.txt").read_text(encoding="utf-8")
    assert err == "spans: 27; traces: 1; unfinished: 1\n"


def test_several_paths(capsys):
    assert main(["read", HOTROD, RECORDED]) == 0
    out, err = capsys.readouterr()
    assert out.count("Trace ") == 2
    assert "spans: 31; traces: 2" in err


def test_color(capsys):
    main(["read", HOTROD])
    assert "\x1b" not in capsys.readouterr().out
    main(["read", HOTROD, "--color", "always"])
    assert "\x1b" in capsys.readouterr().out


def test_events(capsys):
    main(["read", RECORDED, "--events"])
    assert "retry reason=lock" in capsys.readouterr().out


def test_json(capsys, tmp_path):
    """The output can be read again."""
    main(["read", RECORDED, HOTROD, "--to", "otlp-json"])
    out, _ = capsys.readouterr()
    path = tmp_path / "copy.jsonl"
    path.write_text(out, encoding="utf-8")
    assert len(out.splitlines()) == 2
    assert len(read_json_lines(path)) == 31
    assert set(json.loads(out.splitlines()[0])) == {"resourceSpans"}


def test_jaeger_json(capsys):
    main(["read", RECORDED, HOTROD, "--to", "jaeger-json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == jaeger.to_json([]).keys()
    spans = sorted(read_json_lines(HOTROD), key=lambda span: span.start_time_ns)
    (expected,) = jaeger.to_json(spans)["data"]
    assert expected in answer["data"]
    assert len(answer["data"]) == 2


def test_perfetto(capsys):
    main(["read", HOTROD, "--to", "perfetto"])
    trace = json.loads(capsys.readouterr().out)
    assert sum(event["ph"] == "X" for event in trace["traceEvents"]) == 27


@pytest.mark.parametrize("form", ["otlp-json", "jaeger-json", "perfetto"])
def test_nothing_is_something_that_can_be_read(capsys, form):
    assert main(["read", HOTROD, "--trace-id", "0", "--to", form]) == 0
    out = capsys.readouterr().out
    assert not out or json.loads(out)


def test_choice_of_traces(capsys):
    main(["read", RECORDED, HOTROD, "--trace-id", "4BF9"])
    assert "spans: 27; traces: 1" in capsys.readouterr().err
    main(["read", RECORDED, HOTROD, "--limit", "1"])
    out, err = capsys.readouterr()
    assert out.startswith("Trace 4bf92f")
    assert "spans: 27; traces: 1" in err


def test_nothing_of_that_trace(capsys):
    assert main(["read", HOTROD, "--trace-id", "0", "--to", "otlp-json"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "spans: 0; traces: 0; unfinished: 0\n"


def test_a_damaged_trace_is_read_as_far_as_it_goes(capsys, tmp_path):
    write_trace(tmp_path / "good", [[*announced(), start(1), end(1, attributes=b"\xff")]])
    write_trace(tmp_path / "bad", [[]])
    (tmp_path / "bad" / "metadata").write_text("no")
    assert main(["read", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "span 1" in out
    complaint, summary = err.splitlines()
    assert complaint.startswith("k8s-tracing: cannot read ")
    assert summary.endswith("spans: 1; traces: 1; unfinished: 0; lost events: 0; invalid fields: 1")


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "missing does not exist"), (".", "no LTTng trace in")],
)
def test_what_cannot_be_read(capsys, tmp_path, name, message):
    assert main(["read", str(tmp_path / name)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("k8s-tracing: ")
    assert message in err
