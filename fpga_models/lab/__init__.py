"""The laboratory: rendered world, mini recipe, random networks, evaluations. The method never imports it."""
