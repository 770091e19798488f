"""The nouns of planning: problems, plans, rates, paths through a graph, throughput, and differences between plans."""
