"""A small atlas of Unicode: the site that the demo puts under load."""
