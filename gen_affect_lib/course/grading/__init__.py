"""Submitted notebooks to points and feedback. Reading order:

1. `grade`: a folder of submissions to grades.csv and a page of feedback each;
2. `submissions`: finds what was handed in, reads it, and tells which notebook of the course each file is;
3. `sandbox`: one submission, run and judged in processes of their own;
4. `judge`: the process that judges. It drives a player, and calls its answers with plain data;
5. `player`: the process in which the cells run; `stub`: the checks as it sees them;
6. `jail`, `namespaces`, `limits`: what the player may see and do, and how it is ended;
7. `wire`, `reference`, `cells`: messages of plain data; the kit's components for the cells below a wrong answer; which
   cells define and check an answer;
8. `grades`, `rules`, `feedback`: the grade of a submission, how verdicts become points, the page that a student gets;
9. `roster`, `alike`, `suspects`: whose submissions they are, which answers are alike, and what only cheats write.
"""
