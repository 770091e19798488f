"""Code that runs inside tritonserver: BLS pipelines, python steps and the runners of variants."""
