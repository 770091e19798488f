"""Parts of pages that are generated from the code when the site is built.

A page has them at its comments `<!-- generated: NAME ARGUMENTS -->`, which `expand` replaces:

1. `options` has the options of a command.
2. `sources` and `messages` find the messages of all errors, and `errors` has tables of them.
3. `keys` has the keys of a file, and `columns` the columns of profiles.csv.
4. `python` has the documentation of public names.

`metrics` writes rows of tables that are kept in their page.
"""
