"""What maintainers and instructors do with the notebooks. Reading order:

1. `run`: runs every notebook and measures time and memory;
2. `tables`: writes the measurements into the notebooks, README.md and INSTRUCTORS.md;
3. `student`: writes the notebooks without solutions and outputs;
4. `validate`: runs both editions: with solutions every exercise must be right, without them unfinished.
"""
