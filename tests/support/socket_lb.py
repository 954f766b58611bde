"""Socket-level load balancing, as networks have that replace kube-proxy: BPF programs on a cgroup rewrite connect().

A few instructions that know one Service with one endpoint. Needs root.
Sources: Linux, include/uapi/linux/bpf.h (union bpf_attr, struct bpf_sock_addr, enum bpf_attach_type) and
Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

Place = tuple[str, int]

_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _PROG_ATTACH = 5, 8
_CGROUP_SOCK_ADDR = 18
_INET4_CONNECT, _INET4_GETPEERNAME = 10, 29
_USER_IP4, _USER_PORT = 4, 24  # in struct bpf_sock_addr, in network byte order
_LOG_BYTES = 1 << 16


@contextmanager
def socket_lb(service: Place, endpoint: Place, *, hides: bool = False) -> Iterator[list[str]]:
    """Programs whose connections to a Service go to an endpoint, without a packet to the Service.

    Args:
        service: Its virtual IP and port.
        endpoint: Where it leads.
        hides: getpeername() shows them the Service as well.

    Yields:
        What to put in front of a command.
    """
    with ExitStack() as stack:
        mount = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="k8st-cgroup2-")))
        subprocess.run(["mount", "-t", "cgroup2", "none", mount], check=True)
        stack.callback(subprocess.run, ["umount", mount], check=True)
        folder = mount / f"k8st-{os.urandom(4).hex()}"
        folder.mkdir()
        stack.callback(folder.rmdir)
        descriptor = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        _attach(descriptor, _INET4_CONNECT, service, endpoint)
        if hides:
            _attach(descriptor, _INET4_GETPEERNAME, endpoint, service)
        enter = 'echo $$ > "$0" && exec "$@"'
        yield ["sh", "-c", enter, str(folder / "cgroup.procs")]


def _attach(cgroup: int, attach_type: int, old: Place, new: Place) -> None:
    """Let a hook put one address in the place of another; the program lives as long as the cgroup."""
    code = _rewrite(old, new)
    instructions = ctypes.create_string_buffer(code)
    license_ = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    addresses = [ctypes.addressof(each) for each in (instructions, license_, log)]
    load = struct.pack(
        "=IIQQIIQII16sII",
        *(_CGROUP_SOCK_ADDR, len(code) // 8, addresses[0], addresses[1]),
        *(1, _LOG_BYTES, addresses[2], 0, 0, b"k8st", 0, attach_type),
    )
    try:
        program = _bpf(_PROG_LOAD, load)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {log.value.decode()}") from None
    try:
        _bpf(_PROG_ATTACH, struct.pack("=IIII", cgroup, program, attach_type, 0))
    finally:
        os.close(program)


def _rewrite(old: Place, new: Place) -> bytes:
    r0, r1, r2 = range(3)
    load, store, move, unless, end = 0x61, 0x63, 0xB4, 0x56, 0x95  # all of 32 bits

    def instruction(code: int, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
        return struct.pack("=BBhI", code, to | of << 4, offset, value)

    def numbers(place: Place) -> tuple[int, int]:
        [address] = struct.unpack("=I", socket.inet_aton(place[0]))
        return address, socket.htons(place[1])

    (old_ip, old_port), (new_ip, new_port) = numbers(old), numbers(new)
    return b"".join(
        [
            instruction(load, r2, r1, _USER_IP4),
            instruction(unless, r2, offset=6, value=old_ip),
            instruction(load, r2, r1, _USER_PORT),
            instruction(unless, r2, offset=4, value=old_port),
            instruction(move, r2, value=new_ip),
            instruction(store, r1, r2, _USER_IP4),
            instruction(move, r2, value=new_port),
            instruction(store, r1, r2, _USER_PORT),
            instruction(move, r0, value=1),
            instruction(end),
        ]
    )


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    union = ctypes.create_string_buffer(attributes, 128)
    result: int = libc.syscall(_SYS_BPF[platform.machine()], command, union, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
