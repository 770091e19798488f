"""Compiler: turns a plan into model repositories and routes."""
