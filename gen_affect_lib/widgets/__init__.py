"""Pictures with sliders, and pictures that respond to the pointer.

Every panel is a pure function from values to a picture, with sliders around it. Where a notebook is not used
interactively, a still picture is shown. Every picture has alt text.
"""

from gen_affect_lib.widgets.attention import AttentionRecord, attention_panel, draw_attention, record_attention
from gen_affect_lib.widgets.blind import BlindTest, blind_page, blind_pairs, blind_panel
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
from gen_affect_lib.widgets.photo import corrected, draw_photo, photo_panel, photo_upload, uploaded
from gen_affect_lib.widgets.words import affect_pad, draw_plane, draw_wheel, word_wheel
