"""A discrete-event simulator of a plan's servers: pure, seeded, without any clock but its own."""
