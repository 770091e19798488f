"""Profiles of variants: their latency and throughput on each kind of slice."""
