"""The projects: what a student builds alone, and the report that scores it against a baseline.

`report` is the frame. Each project is a module with `score(answer, profile) -> Report`; its starting notebook, of the
same name, is in `notebooks/projects`. `collect` runs the notebooks that were handed in.
"""

PROJECTS = ("fusion", "sharing", "action_unit", "own_folder")
