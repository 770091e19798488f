"""Build of the compiled backend. Uses only the standard library, because pip runs it before anything is installed."""
