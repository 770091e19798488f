"""The controller's core: decisions as pure functions of its state and of what happens."""
