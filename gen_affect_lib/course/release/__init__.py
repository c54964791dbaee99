"""What maintainers and instructors do with the notebooks. Reading order:

1. `run`: runs every notebook and measures time and memory;
2. `light`: compresses the pictures in the outputs;
3. `tables`: writes the measurements into the notebooks, README.md and INSTRUCTORS.md;
4. `student`: writes the notebooks without solutions and outputs;
5. `validate`: runs both editions: with solutions every exercise must be right, without them unfinished.
"""
