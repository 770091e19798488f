"""HTML files that say what was found, without scripts and without other files.

1. `markup` builds HTML and SVG and escapes all text, `numbers` writes numbers, and `style` is the style sheet.
2. `axes` and `chart` draw charts.
3. `frame` makes a whole file of sections, tables, charts and pictures.
"""
