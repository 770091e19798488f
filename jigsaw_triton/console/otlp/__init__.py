"""Export of sampled requests as OpenTelemetry traces, by a process beside the controller."""
