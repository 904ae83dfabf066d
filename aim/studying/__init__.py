"""A study: how scores change with scale, and what can be said of it."""
