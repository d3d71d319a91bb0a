"""The client: what `submit`, `attach` and the others are made of."""
