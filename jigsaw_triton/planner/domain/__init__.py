"""The domain of planning: problems and plans, and the rates, paths and throughput that follow from a task graph."""
