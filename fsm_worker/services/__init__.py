"""How: the six managers and their parts."""
