"""The dialects: ways of writing a session's messages. Messages in, bytes out, pure."""
