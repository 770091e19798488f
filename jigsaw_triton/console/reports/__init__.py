"""Reports about plans, running deployments and results of `simulate` and `evaluate`: one HTML file each."""
