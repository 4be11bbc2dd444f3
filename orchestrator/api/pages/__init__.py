"""The pages: their routes, views, templates and scripts."""
