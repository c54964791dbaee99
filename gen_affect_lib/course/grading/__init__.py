"""Submitted notebooks to points and feedback. Reading order:

1. `grade`: a folder of submissions to grades.csv and a page of feedback each;
2. `submissions`: finds the notebooks, reads them, and tells which notebook of the course each one is;
3. `sandbox`: runs one submission in a process of its own, watches it, and ends it at its limits;
4. `runner`: what that process does: it runs the cells and judges the answers;
5. `cells`, `limits`: which cells define and check an answer; what the process may not do;
6. `grades`, `feedback`: the grade of a submission, the table of all, and the page that a student gets.
"""
