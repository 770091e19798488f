"""Rehearsals: a deployment with emulated models under a load that follows a trace."""
