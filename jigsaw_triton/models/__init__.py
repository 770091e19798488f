"""The models that a graph names: their inputs and outputs, compared with the graph, and a run of each."""
