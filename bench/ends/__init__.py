"""The programs at the ends of a measurement; each is a process of its own, asked over stdio."""
