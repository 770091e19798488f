"""HAProxy, which the edge and the transport run: the program, its processes, and their supervision."""
