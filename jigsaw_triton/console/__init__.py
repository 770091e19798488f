"""The status interface of a running system."""
