"""A baseline with decoupled cross-attention in place of joint attention (IP-Adapter, Ye et al. 2023, arXiv 2308.06721).

Image tokens attend separately to image tokens, identity tokens and expression tokens, with the same queries; the three
outputs are added. Condition tokens have keys and values but no queries, and are not updated. Everything else is as in
the MM-DiT.

Letters: B images, L image tokens, I tokens of the identity, E tokens of the expression, C channels of a token.
"""

from torch import Tensor, nn

from gen_affect_lib.model.attention import KeyValueProjections, attend
from gen_affect_lib.model.mmdit import MMDiT, Stream


class DecoupledBlock(nn.Module):
    """An image stream, and key and value projections for identity and for expression."""

    def __init__(self, dim: int, num_heads: int, qk_norm: str | None, identity_tokens: int):
        super().__init__()
        self.identity_tokens = identity_tokens
        self.image = Stream(dim, num_heads, qk_norm)
        self.identity = KeyValueProjections(dim, num_heads, qk_norm)
        self.expression = KeyValueProjections(dim, num_heads, qk_norm)

    def forward(self, image: Tensor, condition: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens (B, L, C), condition tokens (B, I + E, C), conditioning vector c (B, C) -> both tokens.

        The condition tokens are returned unchanged.
        """
        own, mods = self.image.before(image, c)
        identity, expression = condition.tensor_split([self.identity_tokens], dim=1)  # (B, I, C), (B, E, C)
        assert own.query is not None
        attended = attend(own.query, own.key, own.value)
        for source in (self.identity.qkv(identity), self.expression.qkv(expression)):
            attended = attended + attend(own.query, source.key, source.value)
        return self.image.after(image, attended, mods), condition


class DecoupledDiT(MMDiT):
    """The MM-DiT with `DecoupledBlock`s. The first `identity_tokens` condition tokens must be the identity's, as with
    the fusion "concatenation"."""

    def __init__(self, identity_tokens: int = 6, **sizes):
        super().__init__(**sizes)
        dim = sizes["num_attention_heads"] * sizes["attention_head_dim"]
        qk_norm = sizes.get("qk_norm", "rms_norm")
        self.blocks = nn.ModuleList(
            DecoupledBlock(dim, sizes["num_attention_heads"], qk_norm, identity_tokens) for _ in self.blocks
        )
        self.init_weights()
