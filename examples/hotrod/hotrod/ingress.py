# SPDX-License-Identifier: Apache-2.0
"""HAProxy and nginx in front of the frontend, with the lines that `k8s-tracing ingress config` prints."""

from __future__ import annotations

from pathlib import Path

from k8s_tracing.dataplane.ingress import haproxy, nginx

from .config import Address


def haproxy_command(directory: Path, listen: Address, upstream: Address, log_to: str) -> list[str]:
    """Write HAProxy's configuration; the command that runs it."""
    config = directory / "haproxy.cfg"
    config.write_text(
        f"""defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend ingress
    bind {listen}
{haproxy.snippet("haproxy", log_to)}
    default_backend frontend
backend frontend
    server frontend {upstream}
"""
    )
    return ["haproxy", "-db", "-f", str(config)]


def nginx_command(directory: Path, listen: Address, upstream: Address, log_to: str) -> list[str]:
    """Write nginx's configuration; the command that runs it."""
    config = directory / "nginx.conf"
    in_http, in_location = nginx.snippets("nginx", log_to)
    (directory / "nginx-http.conf").write_text(in_http)
    (directory / "nginx-location.conf").write_text(in_location)
    temporary = "\n".join(
        f"    {kind}_temp_path {directory}/nginx-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"""worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
events {{ worker_connections 512; }}
http {{
{temporary}
    include {directory}/nginx-http.conf;
    upstream frontend {{ server {upstream}; keepalive 8; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://frontend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            include {directory}/nginx-location.conf;
        }}
    }}
}}
"""
    )
    return ["nginx", "-c", str(config), "-e", str(directory / "nginx-errors.log")]


def cable_command(
    directory: Path, node: str, entrances: dict[Address, Address], receiver: Address
) -> list[str]:
    """What connects this machine's loopback with a node that is network namespaces, and else has no way out.

    Args:
        directory: For the configuration.
        node: The node's namespace.
        entrances: Addresses of this machine, and what is behind each on the node.
        receiver: What takes spans on this machine; the node finds it at the same address.

    Returns:
        The command of a HAProxy: it opens a socket in whichever namespace it is told.
    """
    lines = [
        "defaults",
        "    mode tcp",
        "    timeout client 1h",
        "    timeout server 1h",
        "    timeout connect 5s",
        "listen receiver",
        f"    bind {receiver} namespace {node}",
        f"    server receiver {receiver}",
    ]
    for number, (outside, inside) in enumerate(entrances.items()):
        lines.append(f"listen entrance-{number}")
        lines.append(f"    bind {outside}")
        lines.append(f"    server entrance {inside} namespace {node}")
    config = directory / "cable.cfg"
    config.write_text("\n".join(lines) + "\n")
    return ["haproxy", "-db", "-f", str(config)]
