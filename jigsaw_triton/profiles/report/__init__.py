"""A report about profiles: which variant to choose, and how far to trust the figures.

1. `figures` computes what the report shows, and `document` makes JSON of it.
2. `markup` builds HTML and SVG, `numbers` writes numbers, and `style` is the style sheet.
3. `axes` and `chart` draw charts, and `panels` those of a task and of a variant.
4. `sentences` and `tables` say in words and numbers what the figures are. `page` makes the whole HTML file.
"""
