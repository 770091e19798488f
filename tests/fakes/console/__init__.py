"""A stand-in for the web console's server, and the browser that opens it."""
