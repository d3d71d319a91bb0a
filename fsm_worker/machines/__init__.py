"""When: one table a machine, the engine that reads them, and what couples them."""
