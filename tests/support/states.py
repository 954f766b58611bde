"""A saved state of the relay with other content, so that its checksum is right."""

import struct


def checksum(body: bytes) -> int:
    """The same as relay_bytes.h's."""
    total = len(body)
    for (word,) in struct.iter_unpack("<Q", body + bytes(-len(body) % 8)):
        total = (total ^ word) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        total ^= total >> 32
    return total


def signed(state: bytes, body: bytes) -> bytes:
    """The state with another body behind its header."""
    return state[:16] + struct.pack("<QQ", len(body), checksum(body)) + body


def varint(number: int) -> bytes:
    """A number as the body has it."""
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
