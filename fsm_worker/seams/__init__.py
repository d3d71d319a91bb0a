"""Where the world comes in: raw frames, sockets and readiness strings become events."""
