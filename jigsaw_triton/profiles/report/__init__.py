"""A report about profiles: which variant to choose, and how far to trust the figures.

1. `figures` computes what the report shows, and `document` makes JSON of it.
2. `panels` draws the charts of a task and of a variant.
3. `sentences` and `tables` say in words and numbers what the figures are. `page` makes the whole HTML file.
"""
