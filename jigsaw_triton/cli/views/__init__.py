"""Values of the domain as tables, lines and drawings for a terminal."""
