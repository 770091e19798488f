"""Parts of pages that are generated from the code when the site is built.

A page has them at its comments `<!-- generated: NAME ARGUMENTS -->`. `options` is the options of a command, `errors` has
the messages of all errors, and `python` the documentation of public names.
"""
