"""From a plan to model repositories."""
