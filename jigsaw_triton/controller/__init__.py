"""The controller: deploys a plan, keeps its servers running, and plans again when the load changes."""
