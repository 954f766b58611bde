"""What container files have to agree on, without a container."""

import re
from pathlib import Path

from k8s_tracing.dataplane.ingress import haproxy

REPOSITORY = Path(__file__).parents[2]
AGENT = REPOSITORY / "deploy" / "agent" / "Dockerfile"
HOTROD = REPOSITORY / "examples" / "hotrod" / "Dockerfile"
COMPOSE = REPOSITORY / "examples" / "hotrod" / "compose.yaml"
INGRESS = REPOSITORY / "examples" / "hotrod" / "haproxy.cfg"


def wheel_stage(dockerfile: Path) -> str:
    [stage] = re.findall(r"^FROM \S+ AS wheel\n(.*?)^FROM", dockerfile.read_text(), re.M | re.S)
    return str(stage)


def test_the_first_stage_is_the_same_so_that_it_is_built_once() -> None:
    assert wheel_stage(AGENT) == wheel_stage(HOTROD)


def test_the_agents_temporary_folder_belongs_to_its_user() -> None:
    [uid, gid] = re.findall(r"^USER (\d+):(\d+)$", AGENT.read_text(), re.M)[0]
    assert f"/run/k8s-tracing:uid={uid},gid={gid},mode=0711" in COMPOSE.read_text()


def test_no_port_is_published_beyond_this_machine() -> None:
    published = re.findall(r"^    ports: \[(.*)\]$", COMPOSE.read_text(), re.M)
    assert len(published) == 2
    assert all(ports.startswith('"127.0.0.1:') for ports in published)


def test_the_ingress_has_the_lines_that_the_command_prints() -> None:
    assert haproxy.snippet("ingress", "agent:5514") in INGRESS.read_text()
    assert '--ingress-udp, "0.0.0.0:5514"' in COMPOSE.read_text()
