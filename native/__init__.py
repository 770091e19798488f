"""Build of the compiled backend: needs the standard library alone, because pip runs it before anything is installed."""
