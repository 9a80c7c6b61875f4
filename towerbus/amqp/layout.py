"""The layout of a frame, as the AMQP 0-9-1 specification has it in sections 2.3.5 and 4.2."""

from __future__ import annotations

import struct

METHOD, HEADER, BODY = 1, 2, 3
"""Kinds of frames."""
FRAME_END = 0xCE
"""The last byte of each."""
frame_head = struct.Struct(">BHL")
"""What a frame begins with: its kind, its channel's number, and its payload's size."""
content_head = struct.Struct(">HHQ")
"""What a header's payload begins with: its class, nothing, and the body's size."""
OVERHEAD = frame_head.size + 1
"""Bytes of a frame beside its payload."""
