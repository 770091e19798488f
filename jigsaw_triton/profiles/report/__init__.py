"""A report about profiles: which variant to choose, and how far to trust the figures.

1. `figures` computes what the report shows, and `document` makes JSON of it.
2. `markup` builds HTML and SVG, `chart` draws charts with it, and `style` is the style sheet.
3. `panels` draws the charts of a task and of a variant; `page` makes the whole HTML file.
"""
