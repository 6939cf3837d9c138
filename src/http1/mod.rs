//! The HTTP/1.1 codec, without I/O: bytes in; heads, body framing and bytes out. Strict by refusal, never by repair.
