"""A peer-to-peer GPU job worker whose lifecycles and protocol are tables."""

__version__ = "0.1.0"
