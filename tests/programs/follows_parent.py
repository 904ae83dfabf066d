"""Stop where the parent is gone."""

from aim.ground.signals import follow_parent

follow_parent()
print("goes on")
