"""Messages over a stream of bytes: each with its length before it.  Pure."""

LENGTH_BYTES = 4


def frame(body: bytes) -> bytes:
    """A message's bytes as they go over the stream."""
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def take_frames(buffer: bytearray) -> list[bytes]:
    """The bodies of all whole messages at the buffer's beginning, which are taken out of it."""
    bodies: list[bytes] = []
    at = 0
    while len(buffer) - at >= LENGTH_BYTES:
        end = at + LENGTH_BYTES + int.from_bytes(buffer[at : at + LENGTH_BYTES], "big")
        if len(buffer) < end:
            break
        bodies.append(bytes(buffer[at + LENGTH_BYTES : end]))
        at = end
    if at:
        del buffer[:at]
    return bodies
