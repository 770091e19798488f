"""Pictures of the concept pages, drawn from real plans of the ready applications.

1. `plans` makes the plans and keeps them in `docs/concepts/plans`, and `canvas` is what all pictures are drawn on.
2. `boards`, `graphs`, `changes` and `charts` draw.
3. `python -m docs.pictures` draws all pictures from the plans that are kept, `python -m docs.pictures plan` plans again
   first.
"""
