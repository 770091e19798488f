"""Code that runs inside tritonserver: BLS pipelines, Python steps and the runners of variants."""
