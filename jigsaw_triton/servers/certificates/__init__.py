"""Certificates of the nodes of a deployment: a small authority, and checks of what it or others have issued."""
