"""Sliders over pictures, and pictures to point at.

Every panel is a pure function, values in and picture out, with a thin layer of sliders around it. Where nobody can move a
slider, there stands a still picture. Every picture has words, the moving ones too.
"""

from gen_affect_lib.widgets.attention import AttentionRecord, attention_panel, draw_attention, record_attention
from gen_affect_lib.widgets.faces import FACES, LABELS, TURNS, draw_expression, expression_panel
from gen_affect_lib.widgets.generated import (
    STILLS,
    between_identities,
    draw_between,
    guidance_panel,
    interpolation_panel,
    sample_between,
    sample_row,
    sample_set,
    sharing_panel,
)
from gen_affect_lib.widgets.panel import Panel, Pointing, someone_there
from gen_affect_lib.widgets.words import affect_pad, draw_plane, draw_wheel, word_wheel
