"""The wire: what may be said, byte by byte."""
